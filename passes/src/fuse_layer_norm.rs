//! `fuse-layer-norm`: layer norms that exporters spelled out become one op.
//!
//! ```text
//! %m = reduce_mean %x {axes = [last], keep = true}
//! %d = sub %x, %m
//! %q = mul %d, %d                                  (or pow %d, 2)
//! %v = reduce_mean %q {axes = [last], keep = true}
//! %e = add %v, eps
//! %s = sqrt %e                                     (or pow %e, 0.5)
//! %n = div %d, %s                                  (or a product with the reciprocal, gamma multiplied first or not)
//! %g = mul %n, gamma
//! %y = add %g, beta
//!   => %y = layer_norm %x, gamma, beta {eps}
//! ```
//!
//! The same of x instead of its deviations, without beta, is an `rms_norm`.
//!
//! TensorFlow's order, `x·f + (beta - mean·f)` with `f = gamma / √(var + eps)`, is known too. A missing gamma is ones, a
//! missing beta zeros. The results differ by rounding: the fused op rounds once.

use bertc_ir::{BinaryOp, DType, Diag, Graph, Loc, Op, ReduceOp, UnaryOp, ValueId};

use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, binary, either, rewrite, scalar, single_user, splat, vector};

/// The pass.
pub struct FuseLayerNorm;

impl Pass for FuseLayerNorm {
    fn name(&self) -> &'static str {
        "fuse-layer-norm"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        rewrite(g, ctx, self.name(), |g, v| match g.op(v) {
            Op::Binary(BinaryOp::Div) => quotient(g, v),
            Op::Binary(BinaryOp::Mul) => match product(g, v)? {
                None => Ok(absorb(g, v, BinaryOp::Mul)),
                some => Ok(some),
            },
            Op::Binary(BinaryOp::Add) => match shifted(g, v)? {
                None => Ok(absorb(g, v, BinaryOp::Add)),
                some => Ok(some),
            },
            _ => Ok(None),
        })
    }
}

/// What is divided by the deviation: the deviations of x's elements from their mean, and the eps.
struct Deviation {
    centred: ValueId,
    eps: f32,
}

/// x, if `v` is its mean over an axis that stays as 1; then also whether it is the last.
fn mean(g: &Graph, v: ValueId) -> Option<(ValueId, bool)> {
    let kept = |r: ValueId| {
        // With the axis dropped, a reshape put it back.
        let (r, back) = if let Op::Reshape { .. } = g.op(r) { (g.operands(r)[0], true) } else { (r, false) };
        let Op::Reduce { op, axes, keep } = g.op(r) else { return None };
        let x = g.operands(r)[0];
        let last = axes[..] == [g.ty(x).rank().wrapping_sub(1)];
        let mut shape = g.ty(x).shape.clone();
        axes.iter().for_each(|&a| shape[a] = 1.into());
        (*keep != back && g.ty(v).shape == shape).then_some((*op, x, last))
    };
    if let Some((ReduceOp::Mean, x, last)) = kept(v) {
        return Some((x, last));
    }
    // A sum divided by the count.
    let (sum, factor) = crate::pattern::scaled(g, v)?;
    let (op, x, last) = kept(sum)?;
    let n = g.ty(x).shape.last()?.as_const()? as f64;
    let rounding = if g.ty(x).dtype == DType::F64 { 1e-15 } else { 1e-6 };
    (op == ReduceOp::Sum && last && (factor * n - 1.0).abs() < rounding).then_some((x, last))
}

/// The deviation whose square `v` is, with eps.
fn variance(g: &Graph, v: ValueId) -> Result<Option<Deviation>, String> {
    let found = either(g, v, BinaryOp::Add).find_map(|(var, eps)| {
        let (square, last) = mean(g, var)?;
        let centred = match g.op(square) {
            Op::Binary(BinaryOp::Mul) if g.operands(square)[0] == g.operands(square)[1] => g.operands(square)[0],
            Op::Binary(BinaryOp::Pow) if scalar(g, g.operands(square)[1]) == Some(2.0) => g.operands(square)[0],
            _ => return None,
        };
        Some((centred, eps, last))
    });
    let Some((centred, eps, last)) = found else { return Ok(None) };
    if !last {
        return Err("variance axis is not last".to_string());
    }
    let eps = scalar(g, eps).ok_or("eps is not a constant")?;
    if !(eps.is_finite() && eps >= 0.0) {
        return Err(format!("eps is {eps}"));
    }
    // Of f64 it may be finer than the op can say.
    if f64::from(eps as f32) != eps {
        return Err(format!("eps is {eps}, which is no f32"));
    }
    let eps = eps as f32;
    Ok(Some(Deviation { centred, eps }))
}

/// The deviation that `v` is.
fn root(g: &Graph, v: ValueId) -> Result<Option<Deviation>, String> {
    match g.op(v) {
        Op::Unary(UnaryOp::Sqrt) => variance(g, g.operands(v)[0]),
        Op::Binary(BinaryOp::Pow) if scalar(g, g.operands(v)[1]) == Some(0.5) => variance(g, g.operands(v)[0]),
        _ => Ok(None),
    }
}

/// The deviation whose reciprocal `v` is.
fn inverse(g: &Graph, v: ValueId) -> Result<Option<Deviation>, String> {
    match g.op(v) {
        Op::Unary(UnaryOp::Recip) => root(g, g.operands(v)[0]),
        Op::Binary(BinaryOp::Div) if scalar(g, g.operands(v)[0]) == Some(1.0) => root(g, g.operands(v)[1]),
        Op::Binary(BinaryOp::Pow) if scalar(g, g.operands(v)[1]) == Some(-0.5) => variance(g, g.operands(v)[0]),
        _ => Ok(None),
    }
}

/// The reciprocal deviation and gamma, if `v` is their product or the reciprocal alone.
fn factor(g: &Graph, v: ValueId) -> Result<Option<(Deviation, Option<ValueId>)>, String> {
    if let Some(d) = inverse(g, v)? {
        return Ok(Some((d, None)));
    }
    for (r, gamma) in either(g, v, BinaryOp::Mul) {
        if let Some(d) = inverse(g, r)? {
            return Ok(Some((d, Some(gamma))));
        }
    }
    Ok(None)
}

/// x, if `centred` is x minus its mean.
fn centred_of(g: &Graph, centred: ValueId) -> Option<ValueId> {
    let (x, m) = binary(g, centred, BinaryOp::Sub)?;
    (mean(g, m) == Some((x, true)) && g.ty(centred) == g.ty(x)).then_some(x)
}

/// A vector of gamma's that `v` is, or ones.
fn gamma_of(g: &mut Graph, gamma: Option<ValueId>, x: ValueId, loc: &Loc) -> Result<ValueId, &'static str> {
    let ty = g.ty(x).clone();
    let n = ty.shape.last().ok_or("the operand is a scalar")?;
    match gamma {
        Some(v) => vector(g, v, n).ok_or("gamma varies along other dims than the last"),
        None => splat(g, ty.dtype, n, 1.0, loc).ok_or("the last dim is not a small constant"),
    }
}

/// The op without a mean, at the place of `v`.
fn rms_norm(g: &mut Graph, v: ValueId, x: ValueId, eps: f32, gamma: Option<ValueId>) -> Rewrite {
    if g.ty(v) != g.ty(x) {
        return Err("the result has another shape than the operand".to_string());
    }
    let loc = g.node(v).loc.clone();
    let gamma = gamma_of(g, gamma, x, &loc)?;
    g.add(Op::RmsNorm { eps }, &[x, gamma], &loc).map(Some).map_err(|d| d.message)
}

/// The op itself, at the place of `v`.
fn layer_norm(g: &mut Graph, v: ValueId, x: ValueId, eps: f32, gamma: Option<ValueId>) -> Rewrite {
    let (ty, loc) = (g.ty(x).clone(), g.node(v).loc.clone());
    if *g.ty(v) != ty {
        return Err("the result has another shape than the operand".to_string());
    }
    let n = ty.shape.last().ok_or("the operand is a scalar")?.clone();
    let gamma = gamma_of(g, gamma, x, &loc)?;
    let beta = splat(g, ty.dtype, &n, 0.0, &loc).ok_or("the last dim is not a small constant")?;
    g.add(Op::LayerNorm { eps }, &[x, gamma, beta], &loc).map(Some).map_err(|d| d.message)
}

/// `(x - mean) / √(var + eps)`, or x itself over its root mean square.
fn quotient(g: &mut Graph, v: ValueId) -> Rewrite {
    let (a, b) = (g.operands(v)[0], g.operands(v)[1]);
    let Some(d) = root(g, b)? else { return Ok(None) };
    if d.centred != a {
        return Err("what is divided is not what the variance is of".to_string());
    }
    match centred_of(g, a) {
        Some(x) => layer_norm(g, v, x, d.eps, None),
        None => rms_norm(g, v, a, d.eps, None),
    }
}

/// `(x - mean) · (1 / √(var + eps))`, perhaps with gamma in the second factor; or x itself by the reciprocal of its root mean
/// square.
fn product(g: &mut Graph, v: ValueId) -> Rewrite {
    for (a, b) in either(g, v, BinaryOp::Mul) {
        if let Some((d, gamma)) = factor(g, b)?
            && d.centred == a
        {
            return match centred_of(g, a) {
                Some(x) => layer_norm(g, v, x, d.eps, gamma),
                None => rms_norm(g, v, a, d.eps, gamma),
            };
        }
    }
    Ok(None)
}

/// `x·f + (beta - mean·f)`.
fn shifted(g: &mut Graph, v: ValueId) -> Rewrite {
    for (scaled, rest) in either(g, v, BinaryOp::Add) {
        let Some((beta, moved)) = binary(g, rest, BinaryOp::Sub) else { continue };
        for (x, f) in either(g, scaled, BinaryOp::Mul) {
            let Some((d, gamma)) = factor(g, f)? else { continue };
            let same = either(g, moved, BinaryOp::Mul).any(|(m, h)| h == f && mean(g, m) == Some((x, true)));
            if !same || centred_of(g, d.centred) != Some(x) {
                return Err("the mean, the variance and the result are not those of one value".to_string());
            }
            let n = g.ty(x).shape.last().ok_or("the operand is a scalar")?.clone();
            let beta = vector(g, beta, &n).ok_or("beta varies along other dims than the last")?;
            let Some(y) = layer_norm(g, v, x, d.eps, gamma)? else { return Ok(None) };
            let operands = [x, g.operands(y)[1], beta];
            let loc = g.node(v).loc.clone();
            return g.add(Op::LayerNorm { eps: d.eps }, &operands, &loc).map(Some).map_err(|d| d.message);
        }
    }
    Ok(None)
}

/// Gamma or beta into a norm that has none.
fn absorb(g: &mut Graph, v: ValueId, op: BinaryOp) -> Option<ValueId> {
    for (y, p) in either(g, v, op) {
        let norm = g.op(y).clone();
        if !matches!(norm, Op::LayerNorm { .. } | Op::RmsNorm { .. }) {
            continue;
        }
        let mut operands = g.operands(y).to_vec();
        let zero_beta = operands.get(2).map(|&beta| scalar(g, beta) == Some(0.0));
        let free = match op {
            BinaryOp::Mul => zero_beta != Some(false) && scalar(g, operands[1]) == Some(1.0),
            _ => zero_beta == Some(true),
        };
        if !free || g.ty(v) != g.ty(y) || single_user(g, y) != Some(v) {
            continue;
        }
        let n = g.ty(y).shape.last()?.clone();
        let Some(p) = vector(g, p, &n) else { continue };
        operands[if op == BinaryOp::Mul { 1 } else { 2 }] = p;
        let loc = g.node(v).loc.clone();
        return g.add(norm, &operands, &loc).ok();
    }
    None
}
