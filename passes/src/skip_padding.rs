//! `skip-padding`: rows of padding that no output depends on are not computed.
//!
//! ```text
//! %0 = linear %x, %w                                  %mask: 0 or very negative, from %attention_mask
//! %1 = attention %0, %0, %0, %mask {mask = true}      [batch, seq, 64]
//! %2 = slice %1 {axis = 1, start = 0, len = 1}
//!   => %n = one more than the last position where %attention_mask isn't 0, per batch
//!      %0 = linear %x, %w, %n {lengths = true}
//!      %1 = attention %0, %0, %0, %mask, %n {mask = true, lengths = true}
//!      %2 = slice %1 {axis = 1, start = 0, len = 1}
//! ```
//!
//! Position (b, s) is *padding* if s is not below the length n of batch b. Where the mask leaves no key, or
//! `attention_mask` has no element but 0, n is the whole sequence. What may differ at padding follows from the outputs
//! back to the inputs (`demand`): a row is needed as far as its users need it; keys and values of an attention are
//! needed up to the length, because the mask takes the others' probabilities to exactly 0; so is the operand of a product
//! with a mask that is 0 there (mean pooling), the branch that a select doesn't take there (max pooling), and a first row.
//! Rows of `linear` and `attention` that are needed up to the length only become 0 behind it.
//!
//! Exact for finite values, unless the option `outputs` is 1. Then outputs with a row for each token are needed up to the length
//! only, and are 0 behind it; and a mask of -10000 counts as one that takes probabilities to 0, which it does for
//! scores up to 4000.
//!
//! A mask is followed back to the input through elementwise ops, reshapes and broadcasts. Runs after the other fusion
//! passes, which would have to carry the lengths along.

mod demand;
mod padding;

use bertc_ir::{BinaryOp, CmpOp, DType, Diag, Dim, Graph, Loc, Op, ReduceOp, Scalar, Tensor, TensorType, ValueId};

use self::demand::{Rows, demands, is_tokenwise};
use self::padding::Padding;
use crate::build;
use crate::pass::{Pass, PassContext, PassOption};
use crate::pattern::{applied, remark};

/// The pass.
pub struct SkipPadding;

/// Whether padding of outputs may be 0.
const OUTPUTS: PassOption =
    PassOption { name: "outputs", doc: "1: outputs are 0 at padding, whatever the model makes of it", default: 0 };

impl Pass for SkipPadding {
    fn name(&self) -> &'static str {
        "skip-padding"
    }

    fn options(&self) -> &'static [PassOption] {
        &[OUTPUTS]
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        // Dead users would look like real ones.
        g.remove_dead();
        let zero_outputs = ctx.option(&OUTPUTS) != 0;
        let limit = if zero_outputs { padding::ABOUT_ZERO } else { padding::EXACTLY_ZERO };
        let mut found = None;
        for v in g.topo() {
            let Op::Attention(a) = g.op(v) else { continue };
            match Padding::of(g, v, *a, limit) {
                Ok(p) => found = found.or(Some((v, p))),
                Err(reason) => remark(g, ctx, self.name(), v, &reason),
            }
        }
        let Some((first, padding)) = found else { return Ok(false) };
        let needed = demands(g, &padding, zero_outputs);
        let live = |v: &ValueId| needed.get(v) == Some(&Rows::Live);
        let cut: Vec<ValueId> = g.topo().into_iter().filter(|v| can_cut(g, &padding, *v) && live(v)).collect();
        let mut outputs: Vec<(usize, ValueId)> = g.outputs().iter().map(|o| o.value).enumerate().collect();
        // What is cut is 0 at padding by itself.
        outputs.retain(|(_, v)| zero_outputs && !cut.contains(v) && is_tokenwise(g, &padding, *v));
        if cut.is_empty() && outputs.is_empty() {
            remark(g, ctx, self.name(), first, "every row is read, also those of padding");
            return Ok(false);
        }
        let loc = g.node(first).loc.clone();
        let Some(lengths) = lengths(g, &padding, &loc) else { return Ok(false) };
        for v in cut {
            applied(g, ctx, self.name(), v, "rows of padding are not computed");
            let mut node = g.node(v).clone();
            node.operands.push(lengths);
            match &mut node.op {
                Op::Linear(l) => l.lengths = true,
                Op::Attention(a) => a.lengths = true,
                _ => continue,
            }
            let new = g.add(node.op, &node.operands, &node.loc)?;
            g.replace(v, new)?;
        }
        for (i, v) in outputs {
            if let Some(new) = cleared(g, &padding, v, lengths) {
                g.set_output(i, new)?;
            }
        }
        g.remove_dead();
        Ok(true)
    }
}

/// Whether `v` is an op with a row for each token that can leave rows out.
fn can_cut(g: &Graph, p: &Padding, v: ValueId) -> bool {
    let has_lengths = match g.op(v) {
        Op::Linear(l) => l.lengths,
        Op::Attention(a) => a.lengths,
        _ => return false,
    };
    !has_lengths && g.ty(v).rank() == 3 && p.is_rows(g, v)
}

fn constant(g: &mut Graph, dtype: DType, value: Scalar, loc: &Loc) -> Option<ValueId> {
    g.add_const(Tensor::scalar(dtype, value), loc).ok()
}

/// The lengths, i64 `[batch]`.
fn lengths(g: &mut Graph, p: &Padding, loc: &Loc) -> Option<ValueId> {
    let dtype = g.ty(p.input).dtype;
    let zero = constant(g, dtype, if dtype.is_float() { Scalar::Float(0.0) } else { Scalar::Int(0) }, loc)?;
    let token = build::add(g, Op::Compare(CmpOp::Ne), &[p.input, zero], loc)?;
    let positions = Op::Iota { len: p.seq.clone(), start: 1.into(), step: 1.into() };
    let positions = build::add(g, positions, &[], loc)?;
    let none = constant(g, DType::I64, Scalar::Int(0), loc)?;
    let last = build::add(g, Op::Select, &[token, positions, none], loc)?;
    let max = |axes| Op::Reduce { op: ReduceOp::Max, axes, keep: false };
    let last = build::add(g, max(vec![1]), &[last], loc)?;
    // Masks are the same for all heads and queries.
    let mut mask = p.mask;
    for axis in [1, 2] {
        mask = build::slice(g, mask, axis, 0.into(), 1.into(), 1, loc)?;
    }
    let shape = vec![g.ty(mask).shape[0].clone(), p.seq.clone()];
    let mask = build::reshape(g, mask, shape, loc)?;
    let best = build::add(g, max(vec![1]), &[mask], loc)?;
    let limit = constant(g, DType::F32, Scalar::Float(p.limit), loc)?;
    let usable = build::add(g, Op::Compare(CmpOp::Gt), &[best, limit], loc)?;
    let some = build::add(g, Op::Compare(CmpOp::Gt), &[last, none], loc)?;
    let both = build::add(g, Op::Binary(BinaryOp::And), &[some, usable], loc)?;
    let whole = build::add(g, Op::Dim(p.seq.clone()), &[], loc)?;
    build::add(g, Op::Select, &[both, last, whole], loc)
}

/// `v` with zeros at padding.
fn cleared(g: &mut Graph, p: &Padding, v: ValueId, lengths: ValueId) -> Option<ValueId> {
    let (node, loc) = (g.node(v).clone(), g.node(v).loc.clone());
    let positions = Op::Iota { len: p.seq.clone(), start: 0.into(), step: 1.into() };
    let positions = build::add(g, positions, &[], &loc)?;
    let lengths = build::reshape(g, lengths, vec![p.batch.clone(), 1.into()], &loc)?;
    let token = build::add(g, Op::Compare(CmpOp::Lt), &[positions, lengths], &loc)?;
    let mut shape = vec![p.batch.clone(), p.seq.clone()];
    shape.resize(node.ty.rank(), Dim::constant(1));
    let token = build::reshape(g, token, shape, &loc)?;
    let TensorType { dtype, .. } = node.ty;
    let zero = constant(g, dtype, if dtype.is_float() { Scalar::Float(0.0) } else { Scalar::Int(0) }, &loc)?;
    build::add(g, Op::Select, &[token, v, zero], &loc)
}

#[cfg(test)]
mod tests;
