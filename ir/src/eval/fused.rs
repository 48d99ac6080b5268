//! The fused ops, by the ops that they stand for: each part rounds to f32.

use super::data::{f64s, put_f64};
use super::{elementwise, matmul, movement, reduce};
use crate::op::{Attention, BinaryOp, Linear, SumNorm};
use crate::tensor::Tensor;
use crate::types::DType;

fn f32_tensor(shape: &[usize], data: Vec<u8>) -> Tensor {
    Tensor::new(DType::F32, shape.to_vec(), data.into()).expect("a part keeps the shape that inference gave it")
}

fn add(x: &Tensor, y: &Tensor, shape: &[usize]) -> Tensor {
    let (x, y) = (movement::broadcast(x, shape), movement::broadcast(y, shape));
    f32_tensor(shape, elementwise::binary(BinaryOp::Add, &x, &y))
}

fn norm(eps: Option<f32>, y: Tensor, params: &[&Tensor]) -> Tensor {
    let Some(eps) = eps else { return y };
    f32_tensor(y.shape(), reduce::layer_norm(eps, &y, params[0], params[1]))
}

pub(super) fn linear(l: &Linear, x: &[&Tensor], shape: &[usize]) -> Vec<u8> {
    let mut y = f32_tensor(shape, matmul::matmul(l.trans_b, x[0], x[1], shape));
    if let Some(at) = l.bias_at() {
        y = add(&y, x[at], shape);
    }
    if let Some(act) = l.act {
        y = f32_tensor(shape, elementwise::unary(act, &y));
    }
    if let Some(at) = l.residual_at() {
        y = add(&y, x[at], shape);
    }
    let y = norm(l.norm, y, &x[l.gamma_at().unwrap_or(x.len())..]).bytes().to_vec();
    cut(y, shape, l.lengths_at().map(|at| x[at]))
}

/// Rows that are not below their matrix's length become 0.
fn cut(mut y: Vec<u8>, shape: &[usize], lengths: Option<&Tensor>) -> Vec<u8> {
    let (Some(lengths), [.., m, n]) = (lengths, shape) else { return y };
    let row = n * DType::F32.size();
    for (matrix, length) in y.chunks_exact_mut((m * row).max(1)).zip(lengths.iter()) {
        let length = length.to_int().clamp(0, *m as i128) as usize;
        matrix[length * row..].fill(0);
    }
    y
}

/// `[B, S, H·D]` to `[B, H, S, D]`.
fn split_heads(x: &Tensor, heads: usize) -> Tensor {
    let [b, s, w] = *x.shape() else { unreachable!("inference gave rank 3") };
    let x = x.reshaped(vec![b, s, heads, w / heads]).expect("the heads divide the width");
    f32_tensor(&[b, heads, s, w / heads], movement::transpose(&[0, 2, 1, 3], &x))
}

pub(super) fn attention(a: &Attention, x: &[&Tensor]) -> Vec<u8> {
    let [q, k, v] = [0, 1, 2].map(|i| split_heads(x[i], a.heads));
    let (rows, t) = (&q.shape()[..3], k.shape()[2]);
    let shape = [rows, &[t]].concat();
    let scale = Tensor::from_f32(vec![], &[a.scale]);
    let mut s = f32_tensor(&shape, matmul::matmul(true, &q, &k, &shape));
    s = f32_tensor(&shape, elementwise::binary(BinaryOp::Mul, &s, &movement::broadcast(&scale, &shape)));
    if let Some(at) = a.mask_at() {
        s = add(&s, x[at], &shape);
    }
    let mut p = f32_tensor(&shape, reduce::softmax(3, &s));
    if a.nan_to_zero {
        let zeroed = f64s(&p).into_iter().map(|v| if v.is_nan() { 0.0 } else { v });
        p = f32_tensor(&shape, put_f64(DType::F32, zeroed));
    }
    let [b, h, q, e] = [rows[0], rows[1], rows[2], v.shape()[3]];
    let shape = [b, h, q, e];
    let y = movement::transpose(&[0, 2, 1, 3], &f32_tensor(&shape, matmul::matmul(false, &p, &v, &shape)));
    cut(y, &[b, q, h * e], a.lengths_at().map(|at| x[at]))
}

pub(super) fn sum_norm(n: &SumNorm, x: &[&Tensor], shape: &[usize]) -> Result<Vec<u8>, String> {
    let (pairs, rest) = x.split_at(n.addends_at());
    let mut sum: Option<Tensor> = None;
    let mut term = |t: &Tensor| {
        sum = Some(match sum.take() {
            Some(s) => add(&s, t, shape),
            None => movement::broadcast(t, shape),
        });
    };
    for pair in pairs.chunks_exact(2) {
        let (table, ids) = (pair[0], pair[1]);
        let of = [ids.shape(), &table.shape()[1..]].concat();
        term(&f32_tensor(&of, movement::gather(0, table, ids)?));
    }
    rest[..n.addends].iter().for_each(|t| term(t));
    let sum = sum.ok_or("a sum needs a term")?;
    Ok(norm(n.norm, sum, &x[n.gamma_at().unwrap_or(x.len())..]).bytes().to_vec())
}
