//! The fused ops, by the ops that they stand for: bf16 operands count as f32, each part rounds to f32, and the result to
//! its dtype.

use super::data::{f32s, f64s, put_f32, put_f64};
use super::{elementwise, matmul, movement, reduce};
use crate::op::{Attention, BinaryOp, Linear, SumNorm};
use crate::tensor::{Scalar, Tensor};
use crate::types::DType;

fn f32_tensor(shape: &[usize], data: Vec<u8>) -> Tensor {
    Tensor::new(DType::F32, shape.to_vec(), data.into()).expect("a part keeps the shape that inference gave it")
}

/// The same elements as f32.
fn widened(x: &Tensor) -> Tensor {
    if x.dtype() == DType::F32 { x.clone() } else { f32_tensor(x.shape(), put_f32(DType::F32, f32s(x).into_iter())) }
}

/// The bytes of a result.
fn rounded(y: &Tensor, bf16: bool) -> Vec<u8> {
    if bf16 { put_f32(DType::BF16, f32s(y).into_iter()) } else { y.bytes().to_vec() }
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
    let mut y = match l.scales_at() {
        Some(at) => scaled_sums(l, x, at, shape),
        None => f32_tensor(shape, matmul::matmul(l.trans_b, &widened(x[0]), &widened(x[1]), shape)),
    };
    if let Some(at) = l.bias_at() {
        y = add(&y, x[at], shape);
    }
    if let Some(act) = l.act {
        y = f32_tensor(shape, elementwise::unary(act, &y));
    }
    if let Some(at) = l.residual_at() {
        y = add(&y, &widened(x[at]), shape);
    }
    let y = norm(l.norm, y, &x[l.gamma_at().unwrap_or(x.len())..]);
    rounded(&cut(y, l.lengths_at().map(|at| x[at])), l.bf16)
}

/// A product of integers, times the scales of columns and of rows.
fn scaled_sums(l: &Linear, x: &[&Tensor], at: usize, shape: &[usize]) -> Tensor {
    let wide = |t: &Tensor, less: i128| {
        let elements = t.iter().map(|v| Scalar::Int(v.to_int() - less));
        Tensor::from_scalars(DType::I32, t.shape().to_vec(), elements)
    };
    let zero = l.zero_at().and_then(|at| x[at].single()).map_or(0, Scalar::to_int);
    let sums = matmul::matmul(l.trans_b, &wide(x[0], zero), &wide(x[1], 0), shape);
    let sums = Tensor::new(DType::I32, shape.to_vec(), sums.into()).expect("a product has the shape of the result");
    let mut y = f32_tensor(shape, elementwise::cast(&sums, DType::F32));
    let times = |y: &Tensor, factor: &Tensor| {
        f32_tensor(shape, elementwise::binary(BinaryOp::Mul, y, &movement::broadcast(factor, shape)))
    };
    y = times(&times(&y, x[at + 1]), x[at]);
    let Some(offset) = l.offset_at().map(|at| x[at]) else { return y };
    let n = shape[shape.len() - 1];
    let b = x[1];
    let mut columns = vec![0i128; n];
    for (i, v) in b.iter().enumerate() {
        columns[if l.trans_b { i / (b.len() / n) } else { i % n }] += v.to_int();
    }
    let columns = Tensor::from_scalars(DType::F32, vec![n], columns.into_iter().map(Scalar::Int));
    let columns = f32_tensor(&[n], elementwise::binary(BinaryOp::Mul, &columns, x[at + 1]));
    add(&y, &times(&movement::broadcast(&columns, shape), offset), shape)
}

/// Rows that are not below their matrix's length become 0.
fn cut(y: Tensor, lengths: Option<&Tensor>) -> Tensor {
    let (Some(lengths), &[.., m, n]) = (lengths, y.shape()) else { return y };
    let row = n * DType::F32.size();
    let mut bytes = y.bytes().to_vec();
    for (matrix, length) in bytes.chunks_exact_mut((m * row).max(1)).zip(lengths.iter()) {
        let length = length.to_int().clamp(0, m as i128) as usize;
        matrix[length * row..].fill(0);
    }
    f32_tensor(y.shape(), bytes)
}

/// `[B, S, H·D]` to `[B, H, S, D]`.
fn split_heads(x: &Tensor, heads: usize) -> Tensor {
    let [b, s, w] = *x.shape() else { unreachable!("inference gave rank 3") };
    let x = x.reshaped(vec![b, s, heads, w / heads]).expect("the heads divide the width");
    f32_tensor(&[b, heads, s, w / heads], movement::transpose(&[0, 2, 1, 3], &x))
}

pub(super) fn attention(a: &Attention, x: &[&Tensor]) -> Vec<u8> {
    let [q, k, v] = [0, 1, 2].map(|i| split_heads(&widened(x[i]), a.heads));
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
    let y = f32_tensor(&[b, q, h * e], y);
    rounded(&cut(y, a.lengths_at().map(|at| x[at])), a.bf16)
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
    for pair in pairs.chunks_exact(n.per_table()) {
        let (table, ids) = (pair[0], pair[1]);
        let of = [ids.shape(), &table.shape()[1..]].concat();
        let rows = Tensor::new(table.dtype(), of.clone(), movement::gather(0, table, ids)?.into());
        let rows = rows.expect("inference gave the shape");
        let Some(scales) = pair.get(2) else {
            term(&widened(&rows));
            continue;
        };
        let rows = f32_tensor(&of, elementwise::cast(&rows, DType::F32));
        let scales = f32_tensor(&[ids.shape(), &[1]].concat(), movement::gather(0, scales, ids)?);
        term(&f32_tensor(&of, elementwise::binary(BinaryOp::Mul, &rows, &movement::broadcast(&scales, &of))));
    }
    rest[..n.addends].iter().for_each(|t| term(t));
    let sum = sum.ok_or("a sum needs a term")?;
    Ok(rounded(&norm(n.norm, sum, &x[n.gamma_at().unwrap_or(x.len())..]), n.bf16))
}
