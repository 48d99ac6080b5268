//! Builders for the ops that rewrites produce. Each gives `None` where inference refuses the op (a slice that isn't
//! proven in bounds, say), and the operand itself where the op would do nothing. Nodes of an abandoned rewrite stay
//! behind unused; the pass removes them.

use bertc_ir::{DType, Dim, Graph, Loc, Op, Scalar, Tensor, TensorType, ValueId};

/// Whether a dim is the constant 1.
pub fn is_one(d: &Dim) -> bool {
    d.as_const() == Some(1)
}

/// `op` on `operands`, if inference accepts it.
pub fn add(g: &mut Graph, op: Op, operands: &[ValueId], loc: &Loc) -> Option<ValueId> {
    g.add(op, operands, loc).ok()
}

/// `x` under another shape.
pub fn reshape(g: &mut Graph, x: ValueId, shape: Vec<Dim>, loc: &Loc) -> Option<ValueId> {
    if g.ty(x).shape == shape { Some(x) } else { add(g, Op::Reshape { shape }, &[x], loc) }
}

/// `x` broadcast to a shape.
pub fn broadcast(g: &mut Graph, x: ValueId, shape: Vec<Dim>, loc: &Loc) -> Option<ValueId> {
    if g.ty(x).shape == shape { Some(x) } else { add(g, Op::Broadcast { shape }, &[x], loc) }
}

/// `x` with its dims permuted.
pub fn transpose(g: &mut Graph, x: ValueId, perm: Vec<usize>, loc: &Loc) -> Option<ValueId> {
    if perm.iter().enumerate().all(|(i, &p)| i == p) { Some(x) } else { add(g, Op::Transpose { perm }, &[x], loc) }
}

/// `len` elements of `x` along an axis.
pub fn slice(g: &mut Graph, x: ValueId, axis: usize, start: Dim, len: Dim, step: i64, loc: &Loc) -> Option<ValueId> {
    if start.as_const() == Some(0) && step == 1 && g.ty(x).shape[axis] == len {
        return Some(x);
    }
    // One element has no step; the neutral one lets equal slices merge.
    let step = if is_one(&len) { 1 } else { step };
    add(g, Op::Slice { axis, start, len, step }, &[x], loc)
}

/// `x` in another element type.
pub fn cast(g: &mut Graph, x: ValueId, dtype: DType, loc: &Loc) -> Option<ValueId> {
    if g.ty(x).dtype == dtype { Some(x) } else { add(g, Op::Cast(dtype), &[x], loc) }
}

/// A tensor of one repeated value: a broadcast scalar constant.
pub fn splat(g: &mut Graph, value: Scalar, ty: &TensorType, loc: &Loc) -> Option<ValueId> {
    let c = g.add_const(Tensor::scalar(ty.dtype, value), loc).ok()?;
    broadcast(g, c, ty.shape.clone(), loc)
}

/// A shape with leading 1s up to `rank`.
pub fn padded(shape: &[Dim], rank: usize) -> Vec<Dim> {
    let mut s = vec![Dim::constant(1); rank.saturating_sub(shape.len())];
    s.extend_from_slice(shape);
    s
}
