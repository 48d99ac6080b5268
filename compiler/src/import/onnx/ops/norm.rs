//! Normalisations.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, Scalar, UnaryOp};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, V, Val};

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

/// 1 / sqrt(mean of squares + eps) over `axes`, in f32; the dims stay as 1.
fn inverse_rms(b: &mut Builder, x: &V, axes: &[usize], eps: f32) -> R<V> {
    let s = b.binary(BinaryOp::Mul, x, x)?;
    let v = b.op(Op::Reduce { op: ReduceOp::Mean, axes: axes.to_vec(), keep: true }, &[&s])?;
    let e = b.scalar(x.dtype, eps.into());
    let v = b.binary(BinaryOp::Add, &v, &e)?;
    let v = b.unary(UnaryOp::Sqrt, &v)?;
    b.unary(UnaryOp::Recip, &v)
}

/// Mean and 1/deviation over the dims from `axis` on, in f32, dims kept as 1.
pub fn statistics(b: &mut Builder, x: &V, axis: usize, eps: f32) -> R<(V, V)> {
    let x = if x.dtype == DType::F64 { x.clone() } else { b.cast(DType::F32, x)? };
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let mean = b.op(Op::Reduce { op: ReduceOp::Mean, axes: axes.clone(), keep: true }, &[&x])?;
    let d = b.binary(BinaryOp::Sub, &x, &mean)?;
    let inv = inverse_rms(b, &d, &axes, eps)?;
    Ok((mean, inv))
}

/// `LayerNormalization` over the dims from `axis` on.
pub fn layer(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, gamma, beta) = (c.input(0)?, c.input(1)?, c.opt(2));
    let axis = c.axis(-1, x.rank())?;
    let eps = c.float("epsilon", 1e-5)?;
    // The IR computes statistics in f32 or better in any case.
    c.ignore("stash_type");
    let y = if axis + 1 == x.rank() {
        layer_norm(c.b, &x, &gamma, beta.as_ref(), eps)?
    } else {
        let mut flat = x.shape[..axis].to_vec();
        flat.push(c.b.product(&x.shape[axis..])?);
        let inner = x.shape[axis..].to_vec();
        let whole = |b: &mut Builder, p: &V| if p.shape == inner { Ok(p.clone()) } else { b.expand(p, &inner) };
        let gamma = whole(c.b, &gamma)?;
        let beta = beta.map(|p| whole(c.b, &p)).transpose()?;
        let f = c.b.reshape(&x, &flat)?;
        let y = layer_norm(c.b, &f, &gamma, beta.as_ref(), eps)?;
        c.b.reshape(&y, &x.shape)?
    };
    let mut out = vec![y];
    if c.wants(1) || c.wants(2) {
        let (mean, inv) = statistics(c.b, &x, axis, eps)?;
        out.extend([mean, inv]);
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

/// `RMSNormalization`: x / sqrt(mean(x²) + eps) · scale over the dims from `axis` on.
pub fn rms(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, scale) = (c.input(0)?, c.input(1)?);
    let axis = c.axis(-1, x.rank())?;
    let eps = c.float("epsilon", 1e-5)?;
    c.ignore("stash_type");
    let wide = if x.dtype == DType::F64 { x.clone() } else { c.b.cast(DType::F32, &x)? };
    let axes: Vec<usize> = (axis..x.rank()).collect();
    let inv = inverse_rms(c.b, &wide, &axes, eps)?;
    let y = c.b.binary(BinaryOp::Mul, &wide, &inv)?;
    let y = c.b.cast(x.dtype, &y)?;
    Ok(vec![c.b.binary(BinaryOp::Mul, &y, &scale)?])
}
