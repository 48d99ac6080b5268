//! Normalisations.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, Scalar, UnaryOp};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V, Val};

/// LayerNorm over the last dim with parameters of that dim's size; a missing bias is zero.
pub fn layer_norm(b: &mut Builder, x: &V, gamma: &V, beta: Option<&V>, eps: f32) -> R<V> {
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(format!("epsilon is {eps}, expected a finite value of at least 0").into());
    }
    let n = x.shape.last().ok_or("the operand needs rank 1 or more")?.clone();
    let shape = [n];
    let mut params = Vec::new();
    for p in [Some(gamma), beta] {
        params.push(match p {
            // One number for all elements is allowed by broadcasting.
            Some(p) if b.product(&p.shape)?.as_const() == Some(1) => {
                let p = b.reshape(p, &[Dim::constant(1)])?;
                b.expand(&p, &shape)?
            }
            Some(p) => b.reshape(p, &shape)?,
            None => Val::splat(x.dtype, shape.to_vec(), Scalar::Float(0.0)),
        });
    }
    b.op(Op::LayerNorm { eps }, &[x, &params[0], &params[1]])
}

/// 1 / sqrt(mean of squares + eps) over `axes`; the dims stay as 1.
fn inverse_rms(b: &mut Builder, x: &V, axes: &[usize], eps: f32) -> R<V> {
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(format!("epsilon is {eps}, expected a finite value of at least 0").into());
    }
    let s = b.binary(BinaryOp::Mul, x, x)?;
    let v = b.op(Op::Reduce { op: ReduceOp::Mean, axes: axes.to_vec(), keep: true }, &[&s])?;
    let e = b.scalar(x.dtype, eps.into());
    let v = b.binary(BinaryOp::Add, &v, &e)?;
    let v = b.unary(UnaryOp::Sqrt, &v)?;
    b.unary(UnaryOp::Recip, &v)
}

/// In f32, or in f64 where it is of that.
fn wide(b: &mut Builder, x: &V) -> R<V> {
    if x.dtype == DType::F64 { Ok(x.clone()) } else { b.cast(DType::F32, x) }
}

/// Mean and 1/deviation over the dims from `axis` on, dims kept as 1.
pub fn statistics(b: &mut Builder, x: &V, axis: usize, eps: f32) -> R<(V, V)> {
    let x = wide(b, x)?;
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let mean = b.op(Op::Reduce { op: ReduceOp::Mean, axes: axes.clone(), keep: true }, &[&x])?;
    let d = b.binary(BinaryOp::Sub, &x, &mean)?;
    let inv = inverse_rms(b, &d, &axes, eps)?;
    Ok((mean, inv))
}

/// The type of statistics that `stash_type` names.
fn stash(c: &Cx<'_>) -> R<DType> {
    match c.int("stash_type", 1)? {
        1 => Ok(DType::F32),
        10 => Ok(DType::F16),
        11 => Ok(DType::F64),
        16 => Ok(DType::BF16),
        n => Err(format!("stash_type={n} is not supported").into()),
    }
}

/// Whether `p` has nothing but dims of 1 in front of the last `n`.
fn fits(p: &V, n: usize) -> bool {
    let outer = p.rank().saturating_sub(n);
    p.shape[..outer].iter().all(|d| d.as_const() == Some(1))
}

/// A parameter of the dims from `axis` on, as one vector.
fn flat(b: &mut Builder, p: &V, inner: &[Dim]) -> R<V> {
    let outer = p.rank().saturating_sub(inner.len());
    let p = b.reshape(p, &p.shape[outer..])?;
    if b.broadcast(&[&p.shape, inner])? != inner {
        let (p, inner) = (b.show_shape(&p.shape), b.show_shape(inner));
        return Err(Stop::Fail(format!("a parameter of shape {p} doesn't broadcast to {inner}")));
    }
    let p = b.expand(&p, inner)?;
    let n = b.product(inner)?;
    b.reshape(&p, &[n])
}

/// LayerNorm over the dims from `axis` on, with parameters that broadcast to `x`.
fn over_dims(b: &mut Builder, x: &V, axis: usize, gamma: &V, beta: Option<&V>, eps: f32) -> R<V> {
    let inner = &x.shape[axis..];
    let mut rows = x.shape[..axis].to_vec();
    let n = b.product(inner)?;
    rows.push(n.clone());
    let vectors = fits(gamma, inner.len()) && beta.is_none_or(|p| fits(p, inner.len()));
    let of_ones = Val::splat(x.dtype, vec![n], Scalar::Float(1.0));
    let (g, p) = match beta {
        _ if !vectors => (of_ones, None),
        Some(p) => (flat(b, gamma, inner)?, Some(flat(b, p, inner)?)),
        None => (flat(b, gamma, inner)?, None),
    };
    let y = b.reshape(x, &rows)?;
    let y = layer_norm(b, &y, &g, p.as_ref(), eps)?;
    let mut y = b.reshape(&y, &x.shape)?;
    if !vectors {
        // Parameters that differ between rows.
        y = b.binary(BinaryOp::Mul, &y, gamma)?;
        if let Some(p) = beta {
            y = b.binary(BinaryOp::Add, &y, p)?;
        }
    }
    if y.shape != x.shape {
        return Err("scale or bias doesn't broadcast to the operand's shape".into());
    }
    Ok(y)
}

/// `LayerNormalization` over the dims from `axis` on.
pub fn layer(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, gamma, beta) = (c.input(0)?, c.input(1)?, c.opt(2));
    let axis = c.axis(-1, x.rank())?;
    let eps = c.float("epsilon", 1e-5)?;
    // The IR computes in f32 or better in any case.
    let stash = stash(c)?;
    let mut out = vec![over_dims(c.b, &x, axis, &gamma, beta.as_ref(), eps)?];
    if c.wants(1) || c.wants(2) {
        let (mean, inv) = statistics(c.b, &x, axis, eps)?;
        out.extend([c.b.cast(stash, &mean)?, c.b.cast(stash, &inv)?]);
    }
    Ok(out)
}

/// `LpNormalization`: x / (Σ |x|^p)^(1/p) along an axis, 0 where that sum is.
pub fn lp(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axes = vec![c.axis(-1, x.rank())?];
    let p = c.int("p", 2)?;
    let powers = match p {
        1 => c.b.unary(UnaryOp::Abs, &x)?,
        2 => c.b.binary(BinaryOp::Mul, &x, &x)?,
        _ => return Err(format!("p = {p} is neither 1 nor 2").into()),
    };
    let mut norm = c.b.op(Op::Reduce { op: ReduceOp::Sum, axes, keep: true }, &[&powers])?;
    if p == 2 {
        norm = c.b.unary(UnaryOp::Sqrt, &norm)?;
    }
    let zero = c.b.scalar(x.dtype, 0.0);
    let none = c.b.compare(CmpOp::Eq, &norm, &zero)?;
    let y = c.b.binary(BinaryOp::Div, &x, &norm)?;
    Ok(vec![c.b.select(&none, &zero, &y)?])
}

/// x / sqrt(mean(x²) + eps) · scale over the dims from `axis` on, of the scale's type; and 1 / sqrt(…).
pub fn root_mean_square(b: &mut Builder, x: &V, scale: &V, axis: usize, eps: f32) -> R<(V, V)> {
    let w = wide(b, x)?;
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let inv = inverse_rms(b, &w, &axes, eps)?;
    let y = b.binary(BinaryOp::Mul, &w, &inv)?;
    let y = b.cast(scale.dtype, &y)?;
    let y = b.binary(BinaryOp::Mul, &y, scale)?;
    if y.shape != x.shape {
        return Err("the scale doesn't broadcast to the operand's shape".into());
    }
    Ok((y, inv))
}

/// `RMSNormalization`, and `SimplifiedLayerNormalization` of ONNX Runtime, which gives 1 / sqrt(…) too.
pub fn rms(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, scale) = (c.input(0)?, c.input(1)?);
    let axis = c.axis(-1, x.rank())?;
    let eps = c.float("epsilon", 1e-5)?;
    let stash = stash(c)?;
    let (y, inv) = root_mean_square(c.b, &x, &scale, axis, eps)?;
    let inv = c.b.cast(stash, &inv)?;
    Ok(if c.node.op_type() == "RMSNormalization" { vec![y] } else { vec![y, inv] })
}
