//! Attention operators, taken apart.

pub mod microsoft;
pub mod multi_head;
pub mod standard;

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, UnaryOp};

use crate::import::onnx::build::{Builder, overflow};
use crate::import::onnx::value::{Affine, R, Stop, V, Val};

/// What happens to scores between the product that makes them and the one with the values.
struct Between<'a> {
    /// Factor of the product.
    scale: f64,
    /// c·tanh(scores / c), unless it is 0.
    softcap: f64,
    /// What is added, in this order.
    bias: &'a [V],
    /// A query that no key is left for gives zeros instead of NaN.
    empty_is_zero: bool,
    /// The softmax's type, if it isn't that of the operands.
    precision: Option<DType>,
}

/// An attention with everything on its way, `[batch, heads, queries, keys]` but for the result.
struct Attended {
    /// Scaled products.
    scores: V,
    /// Behind the cap.
    capped: V,
    /// With what is added.
    biased: V,
    /// Behind the softmax.
    probabilities: V,
    /// `[batch, heads, queries, size]`.
    y: V,
}

/// softmax(cap(scale · q·kᵀ) + bias…) · v on `[batch, heads, length, size]` operands.
fn attend(b: &mut Builder, [q, k, v]: [&V; 3], how: &Between<'_>) -> R<Attended> {
    for (x, y) in [(q, k), (k, v)] {
        b.require_equal(&x.shape[0], &y.shape[0])?;
        b.require_equal(&x.shape[1], &y.shape[1])?;
    }
    b.require_equal(&q.shape[3], &k.shape[3])?;
    b.require_equal(&k.shape[2], &v.shape[2])?;
    let s = b.op(Op::MatMul { trans_b: true }, &[q, k])?;
    let scale = b.scalar(s.dtype, how.scale);
    let scores = b.binary(BinaryOp::Mul, &s, &scale)?;
    let mut capped = scores.clone();
    if how.softcap != 0.0 {
        let cap = b.scalar(s.dtype, how.softcap);
        let x = b.binary(BinaryOp::Div, &scores, &cap)?;
        let x = b.unary(UnaryOp::Tanh, &x)?;
        capped = b.binary(BinaryOp::Mul, &x, &cap)?;
    }
    let mut biased = capped.clone();
    for x in how.bias {
        biased = b.binary(BinaryOp::Add, &biased, x)?;
        if biased.shape != scores.shape {
            return Err("the mask doesn't broadcast to the scores' shape".into());
        }
    }
    let last = biased.rank() - 1;
    let logits = b.cast(how.precision.unwrap_or(biased.dtype), &biased)?;
    let mut p = b.op(Op::Softmax { axis: last }, &[&logits])?;
    if how.empty_is_zero {
        // A row without a key: -inf everywhere, of which the softmax is NaN.
        let max = b.op(Op::Reduce { op: ReduceOp::Max, axes: vec![last], keep: true }, &[&logits])?;
        let (inf, zero) = (b.scalar(logits.dtype, f64::NEG_INFINITY), b.scalar(logits.dtype, 0.0));
        let none = b.compare(CmpOp::Eq, &max, &inf)?;
        p = b.select(&none, &zero, &p)?;
    }
    let probabilities = b.cast(v.dtype, &p)?;
    let y = b.op(Op::MatMul { trans_b: false }, &[&probabilities, v])?;
    Ok(Attended { scores, capped, biased, probabilities, y })
}

/// The scale that is given, or 1/√size where it is 0.
fn scale_or(b: &Builder, given: f32, size: &Dim) -> R<f64> {
    if given != 0.0 {
        return Ok(given.into());
    }
    match size.as_const() {
        Some(n) if n > 0 => Ok(1.0 / (n as f64).sqrt()),
        _ => Err(Stop::Fail(format!("a head size of {} is no constant to scale by", b.show(size)))),
    }
}

/// `[batch, length, heads·size]` → `[batch, heads, length, size]`.
fn split_heads(b: &mut Builder, x: &V, heads: i64) -> R<V> {
    let [batch, length, hidden] = &x.shape[..] else {
        return Err(Stop::Fail(format!("an operand of shape {} has no heads to split", b.show_shape(&x.shape))));
    };
    let size = if heads < 1 { None } else { hidden.div_exact(&Dim::constant(heads)) };
    let size = size.ok_or_else(|| Stop::Fail(format!("a hidden size of {} for {heads} heads", b.show(hidden))))?;
    let x = b.reshape(x, &[batch.clone(), length.clone(), Dim::constant(heads), size])?;
    b.transpose(&x, &[0, 2, 1, 3])
}

/// `[batch, heads, length, size]` → `[batch, length, heads·size]`.
fn join_heads(b: &mut Builder, x: &V) -> R<V> {
    let x = b.transpose(x, &[0, 2, 1, 3])?;
    let hidden = b.product(&x.shape[2..])?;
    b.reshape(&x, &[x.shape[0].clone(), x.shape[1].clone(), hidden])
}

/// `filter` where `keep` (bool) is false, 0 elsewhere.
fn additive(b: &mut Builder, keep: &V, dtype: DType, filter: f64) -> R<V> {
    let (zero, f) = (b.scalar(dtype, 0.0), b.scalar(dtype, filter));
    b.select(keep, &zero, &f)
}

/// `start`, `start` + 1, … as i64: a row `[n]`, or a column `[n, 1]`.
fn positions(start: &Dim, n: &Dim, column: bool) -> V {
    let (one, zero) = (Dim::constant(1), Dim::constant(0));
    let (shape, coef) =
        if column { (vec![n.clone(), one.clone()], vec![one, zero]) } else { (vec![n.clone()], vec![one]) };
    Val::affine_of(DType::I64, shape, Affine { base: start.clone(), coef })
}

/// Keys and values behind those of the past, along the length, and the past's length.
fn behind(b: &mut Builder, past: Option<[V; 2]>, k: V, v: V) -> R<(V, V, Dim)> {
    let Some([pk, pv]) = past else { return Ok((k, v, Dim::constant(0))) };
    for p in [&pk, &pv] {
        if p.rank() != 4 {
            return Err(Stop::Fail(format!(
                "past keys and values of shape {}, expected [batch, heads, length, size]",
                b.show_shape(&p.shape)
            )));
        }
    }
    let before = pk.shape[2].clone();
    Ok((b.concat(&[pk, k], 2)?, b.concat(&[pv, v], 2)?, before))
}

/// The sum of two dims.
fn sum(a: &Dim, b: &Dim) -> R<Dim> {
    a.add(b).ok_or_else(overflow)
}
