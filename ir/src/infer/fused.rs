//! Result types of the fused ops.

use super::{MAX_RANK, Result, broadcast_shapes, ensure, ensure_index, matmul};
use crate::dims::{Dim, Symbols};
use crate::op::{ACTIVATIONS, Attention, Linear, MAX_INT8_K, SumNorm};
use crate::types::{DType, TensorType};

fn ensure_f32(name: &str, t: &TensorType) -> Result<()> {
    ensure(t.dtype == DType::F32, || format!("{name} must be f32, got {}", t.dtype))
}

fn ensure_f32_or_bf16(name: &str, t: &TensorType) -> Result<()> {
    ensure(matches!(t.dtype, DType::F32 | DType::BF16), || format!("{name} must be f32 or bf16, got {}", t.dtype))
}

/// The dtype of a result.
fn result(bf16: bool) -> DType {
    if bf16 { DType::BF16 } else { DType::F32 }
}

/// A vector over the last axis.
pub(super) fn ensure_vector(name: &str, t: &TensorType, n: &Dim, s: &Symbols) -> Result<()> {
    ensure(t.dtype == DType::F32 && t.shape.len() == 1 && t.shape[0] == *n, || {
        format!("{name} must be tensor<{} x f32>, got {}", n.display(s), t.display(s))
    })
}

/// One length a matrix of rows: the dims before the last two of `y`.
fn ensure_lengths(t: &TensorType, y: &TensorType, s: &Symbols) -> Result<()> {
    let want = TensorType::new(DType::I64, y.shape[..y.rank() - 2].to_vec());
    ensure(*t == want, || format!("the lengths must be {}, got {}", want.display(s), t.display(s)))
}

fn ensure_eps(eps: Option<f32>) -> Result<()> {
    match eps {
        Some(e) if !(e.is_finite() && e >= 0.0) => {
            Err(format!("norm is {e}, expected a finite value of at least 0, its eps"))
        }
        _ => Ok(()),
    }
}

/// What a product of integers takes.
fn ensure_int8(l: &Linear, t: &[&TensorType], y: &[Dim], s: &Symbols) -> Result<()> {
    let (a, b) = (t[0], t[1]);
    ensure(matches!(a.dtype, DType::I8 | DType::U8), || format!("a must be i8 or u8, got {}", a.dtype))?;
    ensure(b.dtype == DType::I8, || format!("b must be i8, got {}", b.dtype))?;
    let k = a.shape[a.rank() - 1].as_const();
    ensure(k.is_some_and(|k| k <= MAX_INT8_K), || {
        format!("the inner dim must be a constant of at most {MAX_INT8_K}, or sums may overflow")
    })?;
    let Some(at) = l.scales_at() else { return Ok(()) };
    let rows = [&a.shape[..a.rank() - 1], &[1.into()]].concat();
    let scale = t[at];
    let rows = TensorType::new(DType::F32, rows);
    ensure(scale.dtype == DType::F32 && scale.shape.is_empty() || *scale == rows, || {
        format!("a's scale must be {} or tensor<f32>, got {}", rows.display(s), scale.display(s))
    })?;
    if let Some(at) = l.offset_at() {
        ensure(*t[at] == rows, || format!("a's offset must be {}, got {}", rows.display(s), t[at].display(s)))?;
    }
    ensure_vector("b's scale", t[at + 1], &y[y.len() - 1], s)?;
    l.zero_at().map_or(Ok(()), |at| super::quant::ensure_zero(t[at], s))
}

pub(super) fn linear(l: &Linear, t: &[&TensorType], s: &Symbols) -> Result<TensorType> {
    ensure(t[1].rank() == 2, || format!("b must have rank 2, got {}", t[1].display(s)))?;
    let shape = if l.int8 {
        let [a, b] = [t[0], t[1]].map(|t| TensorType::new(DType::I32, t.shape.clone()));
        let shape = matmul(l.trans_b, &a, &b, s)?.shape;
        ensure_int8(l, t, &shape, s)?;
        shape
    } else {
        ensure(!l.zero && !l.offset, || "zero points and offsets need int8".to_string())?;
        ensure_f32_or_bf16("a", t[0])?;
        ensure_f32_or_bf16("b", t[1])?;
        matmul(l.trans_b, t[0], t[1], s)?.shape
    };
    let y = TensorType::new(result(l.bf16), shape);
    let n = &y.shape[y.rank() - 1];
    if let Some(at) = l.bias_at() {
        ensure_vector("bias", t[at], n, s)?;
    }
    if let Some(act) = l.act {
        let known = || ACTIVATIONS.map(|a| a.name()).join(", ");
        ensure(ACTIVATIONS.contains(&act), || format!("'{}' is no activation: expected {}", act.name(), known()))?;
    }
    if let Some(at) = l.residual_at() {
        ensure_f32_or_bf16("the residual", t[at])?;
        ensure(t[at].shape == y.shape, || {
            format!("the residual must have the result's shape {}, got {}", y.display(s), t[at].display(s))
        })?;
    }
    if let Some(at) = l.gamma_at() {
        ensure_vector("gamma", t[at], n, s)?;
        ensure_vector("beta", t[at + 1], n, s)?;
    }
    ensure_eps(l.norm)?;
    if let Some(at) = l.lengths_at() {
        ensure_lengths(t[at], &y, s)?;
    }
    Ok(y)
}

pub(super) fn attention(a: &Attention, t: &[&TensorType], s: &Symbols) -> Result<TensorType> {
    for (name, x) in ["q", "k", "v"].into_iter().zip(t) {
        ensure_f32_or_bf16(name, x)?;
        ensure(x.dtype == t[0].dtype, || format!("q is {}, but {name} is {}", t[0].dtype, x.dtype))?;
        ensure(x.rank() == 3, || format!("{name} must have rank 3, got {}", x.display(s)))?;
        let width = x.shape[2].as_const().and_then(|w| usize::try_from(w).ok());
        ensure(width.is_some_and(|w| a.heads > 0 && w % a.heads == 0), || {
            format!(
                "the last dim of {name} ({}) is not a constant multiple of {} heads",
                x.shape[2].display(s),
                a.heads
            )
        })?;
    }
    let (q, k, v) = (t[0], t[1], t[2]);
    ensure(q.shape[0] == k.shape[0] && k.shape[0] == v.shape[0], || "the batch dims differ".to_string())?;
    ensure(q.shape[2] == k.shape[2], || {
        format!("q and k differ in the last dim: {} and {}", q.shape[2].display(s), k.shape[2].display(s))
    })?;
    ensure(k.shape[1] == v.shape[1], || {
        format!("k and v differ in length: {} and {}", k.shape[1].display(s), v.shape[1].display(s))
    })?;
    ensure(a.scale.is_finite(), || format!("scale is {}, expected a finite value", a.scale))?;
    if let Some(at) = a.mask_at() {
        let m = t[at];
        ensure_f32("the mask", m)?;
        let heads = Dim::constant(i64::try_from(a.heads).map_err(|_| "too many heads")?);
        let scores = [q.shape[0].clone(), heads, q.shape[1].clone(), k.shape[1].clone()];
        let fits = m.rank() == 4 && broadcast_shapes(&m.shape, &scores, s).is_ok_and(|b| b == scores);
        ensure(fits, || {
            let scores = TensorType::new(DType::F32, scores.to_vec());
            format!("the mask must have rank 4 and broadcast to {}, got {}", scores.display(s), m.display(s))
        })?;
    }
    let y = TensorType::new(result(a.bf16), vec![q.shape[0].clone(), q.shape[1].clone(), v.shape[2].clone()]);
    if let Some(at) = a.lengths_at() {
        ensure_lengths(t[at], &y, s)?;
    }
    Ok(y)
}

pub(super) fn sum_norm(n: &SumNorm, t: &[&TensorType], s: &Symbols) -> Result<TensorType> {
    let (pairs, rest) = t.split_at(n.addends_at());
    let mut terms = Vec::new();
    for pair in pairs.chunks_exact(n.per_table()) {
        let (table, ids) = (pair[0], pair[1]);
        ensure(table.rank() == 2, || format!("a table must have rank 2, got {}", table.display(s)))?;
        if let Some(scales) = pair.get(2) {
            ensure(table.dtype == DType::I8, || format!("a table must be i8, got {}", table.dtype))?;
            ensure_vector("a table's scales", scales, &table.shape[0], s)?;
        } else {
            ensure_f32_or_bf16("a table", table)?;
        }
        ensure_index(ids)?;
        terms.push([&ids.shape[..], &table.shape[1..]].concat());
    }
    for x in &rest[..n.addends] {
        ensure_f32("an addend", x)?;
        terms.push(x.shape.clone());
    }
    let mut all = terms.into_iter();
    let first = all.next().ok_or("a sum needs a term")?;
    let shape = all.try_fold(first, |a, b| broadcast_shapes(&a, &b, s))?;
    ensure(shape.len() <= MAX_RANK, || format!("rank {} is above the limit of {MAX_RANK}", shape.len()))?;
    let last = shape.last().ok_or("a sum needs rank 1 or more")?;
    if let Some(at) = n.gamma_at() {
        ensure_vector("gamma", t[at], last, s)?;
        ensure_vector("beta", t[at + 1], last, s)?;
    }
    ensure_eps(n.norm)?;
    Ok(TensorType::new(result(n.bf16), shape))
}
