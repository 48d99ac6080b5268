//! `fuse-quantise`: recognises quantisation with one scale, and takes out what quantises again what was dequantised.
//!
//! ```text
//! %0 = div %x, %scale                         (one number, constant or not)
//! %1 = round %0
//! %2 = add %1, %zero                          (of 8 bits; may be missing)
//! %3 = max %2, 0.0
//! %4 = min %3, 255.0
//! %5 = cast %4 {to = u8}
//!   => quantise %x, %scale, %zero {to = u8}
//! ```
//!
//! Exact. The clamp may be missing, as the cast saturates; i8 has its own bounds. With q = `quantise x, s, z {to}` of
//! x = (p - z)·s, where p is of the same type and s a constant of usual size, q is p, also behind transpositions, reshapes
//! and slices. Rows, slices and reshapes of dequantised constants become dequantised rows, slices and reshapes, so that no
//! table of floats is made.

use bertc_ir::{BinaryOp, DType, Diag, Graph, Op, UnaryOp, ValueId};

use crate::build;
use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, either, rewrite, scalar};
use crate::quantised::{constant, dequantised, is_byte, number, same, single, zero_point};

/// The pass.
pub struct FuseQuantise;

/// Scales for which dividing a multiple of up to 255 by them gives the factor, up to rounding.
const USUAL: std::ops::RangeInclusive<f64> = 1e-30..=1e30;

impl Pass for FuseQuantise {
    fn name(&self) -> &'static str {
        "fuse-quantise"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        rewrite(g, ctx, self.name(), |g, v| match *g.op(v) {
            Op::Cast(to) if is_byte(to) => quantise(g, v, to),
            Op::Gather { axis: 0 } | Op::Slice { .. } | Op::Reshape { .. } => moved(g, v),
            Op::Quantise { .. } => Ok(again(g, v)),
            _ => Ok(None),
        })
    }
}

/// The operand of the clamp to a type's bounds that `v` is, or `v`.
fn clamped(g: &Graph, v: ValueId, to: DType) -> ValueId {
    let (low, high) = if to == DType::U8 { (0.0, 255.0) } else { (-128.0, 127.0) };
    let bound = |v: ValueId, op: BinaryOp, at: f64| {
        either(g, v, op).find(|&(x, c)| scalar(g, c) == Some(at) && g.ty(x) == g.ty(v)).map(|(x, _)| x)
    };
    for ends in [[(BinaryOp::Min, high), (BinaryOp::Max, low)], [(BinaryOp::Max, low), (BinaryOp::Min, high)]] {
        let [outer, inner] = ends;
        if let Some(x) = bound(v, outer.0, outer.1).and_then(|x| bound(x, inner.0, inner.1)) {
            return x;
        }
    }
    v
}

fn quantise(g: &mut Graph, v: ValueId, to: DType) -> Rewrite {
    let node = g.node(v).clone();
    let x = clamped(g, node.operands[0], to);
    if g.ty(x).dtype != DType::F32 {
        return Ok(None);
    }
    let rounded = |g: &Graph, x: ValueId| (*g.op(x) == Op::Unary(UnaryOp::Round)).then(|| g.operands(x)[0]);
    let (quotient, zero) = match rounded(g, x) {
        Some(q) => (q, None),
        None => {
            let found = either(g, x, BinaryOp::Add).find_map(|(r, z)| rounded(g, r).map(|q| (q, Some(z))));
            let Some(found) = found else { return Ok(None) };
            found
        }
    };
    if *g.op(quotient) != Op::Binary(BinaryOp::Div) || g.ty(quotient).shape != node.ty.shape {
        return Ok(None);
    }
    let (x, scale) = (g.operands(quotient)[0], g.operands(quotient)[1]);
    if g.ty(x).shape != node.ty.shape {
        return Err("the dividend broadcasts".to_string());
    }
    let scale = single(g, scale).ok_or("there is more than one scale")?;
    let zero = match zero {
        Some(z) => zero_point(g, z).ok_or("the zero point is not one number of 8 bits")?,
        None => number(g, 0, &node.loc).ok_or("the zero point can't be made")?,
    };
    let new = g.add(Op::Quantise { to }, &[x, scale, zero], &node.loc).map_err(|d| d.message)?;
    Ok(Some(again(g, new).unwrap_or(new)))
}

/// The integers that `v` makes again of what was made of them, with the same scale and zero point: moved as that was.
fn again(g: &mut Graph, v: ValueId) -> Option<ValueId> {
    let &[x, scale, zero] = g.operands(v) else { return None };
    let (mut moved, mut source) = (Vec::new(), x);
    while let Op::Transpose { .. } | Op::Reshape { .. } | Op::Slice { .. } = g.op(source) {
        moved.push(source);
        source = g.operands(source)[0];
    }
    let d = dequantised(g, source)?;
    let own = single(g, d.scale)?;
    let loc = g.node(v).loc.clone();
    let own_zero = match d.zero {
        Some(z) => zero_point(g, z)?,
        None => number(g, 0, &loc)?,
    };
    let usual = scalar(g, scale).is_some_and(|s| USUAL.contains(&s.abs()));
    let same_type = g.ty(d.integers).dtype == g.ty(v).dtype;
    if !usual || !same_type || !same(g, own, scale) || !same(g, own_zero, zero) {
        return None;
    }
    let mut y = d.integers;
    for v in moved.into_iter().rev() {
        let op = g.op(v).clone();
        y = build::add(g, op, &[y], &loc)?;
    }
    Some(y)
}

/// Rows, a slice or another shape of a dequantised constant.
fn moved(g: &mut Graph, v: ValueId) -> Rewrite {
    let node = g.node(v).clone();
    let Some(d) = dequantised(g, node.operands[0]) else { return Ok(None) };
    let mut source = d.integers;
    while let Op::Slice { .. } | Op::Reshape { .. } | Op::Gather { .. } = g.op(source) {
        source = g.operands(source)[0];
    }
    if constant(g, source).is_none() {
        return Ok(None);
    }
    let (scale, zero) = match (single(g, d.scale), d.zero.map(|z| zero_point(g, z))) {
        (Some(scale), None) => (scale, None),
        (Some(scale), Some(Some(zero))) => (scale, Some(zero)),
        _ => return Err("a table has more than one scale or zero point".to_string()),
    };
    let mut operands = node.operands.clone();
    operands[0] = d.integers;
    let fail = || "it can't be moved before the dequantisation".to_string();
    let mut y = g.add(node.op.clone(), &operands, &node.loc).map_err(|d| d.message)?;
    y = build::cast(g, y, DType::I32, &node.loc).ok_or_else(fail)?;
    if let Some(zero) = zero {
        y = build::add(g, Op::Binary(BinaryOp::Sub), &[y, zero], &node.loc).ok_or_else(fail)?;
    }
    y = build::cast(g, y, DType::F32, &node.loc).ok_or_else(fail)?;
    build::add(g, Op::Binary(BinaryOp::Mul), &[y, scale], &node.loc).map(Some).ok_or_else(fail)
}
