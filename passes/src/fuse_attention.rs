//! `fuse-attention`: scores, mask, softmax and the weighted sum become one op on values with the heads side by side.
//!
//! ```text
//! %q = transpose (reshape %x {[B, S, H, D]}) {perm = [0, 2, 1, 3]}    likewise %k, %v
//! %0 = matmul %q, %k {trans_b = true}
//! %1 = mul %0, 0.125
//! %2 = add %1, %mask
//! %3 = softmax %2 {axis = 3}
//! %4 = matmul %3, %v
//! %5 = reshape (transpose %4 {perm = [0, 2, 1, 3]}) {[B, S, H·D]}
//!   => attention %x, …, %mask {heads = H, scale = 0.125, mask = true}
//! ```
//!
//! The scale may stand at q, at k, at the scores, or be divided between them; [`scores`](mod@scores) says which masks
//! are known. A select that puts 0 for NaN, or for rows whose largest score is -∞, behind the softmax becomes
//! `nan_to_zero`. Operands that don't come from split heads get transposes, so the heads' layout never stops fusion.
//! Operands of rank 3 are one head, unless scores or probabilities take another shape there, in which batch and heads are one
//! dim, as in DeBERTa. Results differ by rounding: scores are scaled once.

mod scores;

use bertc_ir::{Attention, CmpOp, DType, Diag, Dim, Graph, Loc, Op, ReduceOp, UnaryOp, ValueId};

use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, reshape, rewrite, scalar, scaled, transpose, used_only_by};

/// The pass.
pub struct FuseAttention;

impl Pass for FuseAttention {
    fn name(&self) -> &'static str {
        "fuse-attention"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        rewrite(g, ctx, self.name(), |g, v| match g.op(v) {
            Op::MatMul { trans_b } => rule(g, v, *trans_b),
            Op::Softmax { .. } => loose(g, v),
            _ => Ok(None),
        })
    }
}

/// The softmax behind the probabilities `p`, whether NaN becomes 0, and the values in between.
fn probabilities(g: &Graph, p: ValueId) -> Option<(ValueId, bool, Vec<ValueId>)> {
    let is_softmax = |v: ValueId| matches!(g.op(v), Op::Softmax { .. });
    if is_softmax(p) {
        return Some((p, false, vec![p]));
    }
    let [c, zero, softmax] = g.operands(p)[..] else { return None };
    if *g.op(p) != Op::Select || scalar(g, zero) != Some(0.0) || !is_softmax(softmax) {
        return None;
    }
    match g.op(c) {
        Op::Unary(UnaryOp::IsNan) if g.operands(c)[0] == softmax => Some((softmax, true, vec![p, c, softmax])),
        // The row's maximum is -∞.
        Op::Compare(CmpOp::Eq) => {
            let (a, b) = (g.operands(c)[0], g.operands(c)[1]);
            let max = if scalar(g, b).is_some() { a } else { b };
            let other = if max == a { b } else { a };
            let Op::Reduce { op: ReduceOp::Max, axes, keep: true } = g.op(max) else { return None };
            let all = axes[..] == [g.ty(max).rank() - 1]
                && g.operands(max)[0] == g.operands(softmax)[0]
                && scalar(g, other) == Some(f64::NEG_INFINITY);
            all.then(|| (softmax, true, vec![p, c, max, softmax]))
        }
        _ => None,
    }
}

/// `x` without products with numbers on its way through transposes and reshapes, and the product of the numbers.
fn unscaled(g: &mut Graph, x: ValueId) -> (ValueId, f64) {
    if let Some((y, c)) = scaled(g, x) {
        let (z, d) = unscaled(g, y);
        return (z, c * d);
    }
    let node = g.node(x).clone();
    let moved = match &node.op {
        Op::Reshape { shape } => {
            let (y, c) = unscaled(g, node.operands[0]);
            (c != 1.0).then(|| reshape(g, y, shape.clone(), &node.loc)).flatten().map(|z| (z, c))
        }
        Op::Transpose { perm } => {
            let (y, c) = unscaled(g, node.operands[0]);
            (c != 1.0).then(|| transpose(g, y, perm, &node.loc)).flatten().map(|z| (z, c))
        }
        _ => None,
    };
    moved.unwrap_or((x, 1.0))
}

/// A softmax over scores that goes elsewhere than into a product.
fn loose(g: &Graph, v: ValueId) -> Rewrite {
    let known = |u: &ValueId| matches!(g.op(*u), Op::MatMul { .. } | Op::Select | Op::Unary(UnaryOp::IsNan));
    match g.users(v).into_iter().find(|u| !known(u)) {
        Some(u) if g.ty(v).rank() >= 3 => {
            Err(format!("its result goes into '{}', not into a product with values", g.op(u).name()))
        }
        _ => Ok(None),
    }
}

fn swapped(rank: usize) -> Vec<usize> {
    let mut perm: Vec<usize> = (0..rank).collect();
    perm.swap(rank - 2, rank - 1);
    perm
}

/// `[B, H, S, D]` as `[B, S, H·D]`.
fn merge_heads(g: &mut Graph, x: ValueId, loc: &Loc) -> Option<ValueId> {
    let [b, h, s, d] = &g.ty(x).shape.clone()[..] else { return Some(x) };
    let shape = vec![b.clone(), s.clone(), h.mul(d)?];
    let x = transpose(g, x, &[0, 2, 1, 3], loc)?;
    reshape(g, x, shape, loc)
}

fn rule(g: &mut Graph, v: ValueId, trans_v: bool) -> Rewrite {
    let (mut p, mut value) = (g.operands(v)[0], g.operands(v)[1]);
    let mut inside = vec![v];
    let joined = joined(g, p);
    if let Some(whole) = joined {
        inside.push(p);
        p = whole;
    }
    let Some((softmax, nan_to_zero, between)) = probabilities(g, p) else { return Ok(None) };
    inside.extend(between);
    let Op::Softmax { axis } = *g.op(softmax) else { return Ok(None) };
    let rank = g.ty(softmax).rank();
    if g.ty(v).dtype != DType::F32 {
        return Err(format!("the operands are {}, not f32", g.ty(v).dtype));
    }
    if axis + 1 != rank || !(3..=4).contains(&rank) {
        return Err("the softmax is not over the last axis of scores of rank 3 or 4".to_string());
    }
    let scores = scores::find(g, g.operands(softmax)[0])?;
    inside.extend(&scores.inside);
    if inside.iter().any(|&x| x != v && !used_only_by(g, x, &inside)) {
        return Err("the scores or probabilities have other uses".to_string());
    }
    let loc = g.node(v).loc.clone();
    let moved = |x: Option<ValueId>| x.ok_or("an operand can't be transposed");
    let Op::MatMul { trans_b } = *g.op(scores.product) else { return Ok(None) };
    let (q, mut k) = (g.operands(scores.product)[0], g.operands(scores.product)[1]);
    if !trans_b {
        k = moved(transpose(g, k, &swapped(g.ty(k).rank()), &loc))?;
    }
    if trans_v {
        value = moved(transpose(g, value, &swapped(g.ty(value).rank()), &loc))?;
    }
    let (mut q, q_scale) = unscaled(g, q);
    let (mut k, k_scale) = unscaled(g, k);
    if let Some(lead) = &scores.merged {
        q = moved(with_heads(g, q, lead, &loc))?;
        k = moved(with_heads(g, k, lead, &loc))?;
    }
    if joined.is_some() {
        let [b, h, ..] = &g.ty(softmax).shape.clone()[..] else { return Ok(None) };
        value = moved(with_heads(g, value, &[b.clone(), h.clone()], &loc))?;
    }
    let shape = |x: ValueId| g.ty(x).shape.clone();
    let (sq, sk, sv) = (shape(q), shape(k), shape(value));
    if [&sq, &sk, &sv].iter().any(|s| s.len() != rank || s[..rank - 2] != sq[..rank - 2]) {
        return Err("the batch dims of queries, keys and values differ".to_string());
    }
    let heads = if rank == 4 { sq[1].as_const() } else { Some(1) };
    let heads = heads.and_then(|h| usize::try_from(h).ok()).ok_or("the number of heads is not a constant")?;
    let mask = scores::mask(g, &scores, rank, &loc)?;
    let mut operands = Vec::new();
    for x in [q, k, value] {
        operands.push(moved(merge_heads(g, x, &loc))?);
    }
    operands.extend(mask);
    let scale = (scores.scale * q_scale * k_scale) as f32;
    let op = Attention { heads, scale, mask: mask.is_some(), nan_to_zero, lengths: false, bf16: false };
    let y = g.add(Op::Attention(op), &operands, &loc).map_err(|d| d.message)?;
    let result = split_heads(g, y, &sq, &sv, &loc).and_then(|y| match joined {
        Some(_) => reshape(g, y, g.ty(v).shape.clone(), &loc),
        None => Some(y),
    });
    result.map(Some).ok_or_else(|| "the result can't be transposed".to_string())
}

/// The probabilities of rank 4 that `p` is, with batch and heads as one dim.
fn joined(g: &Graph, p: ValueId) -> Option<ValueId> {
    let (Op::Reshape { .. }, [x]) = (g.op(p), g.operands(p)) else { return None };
    scores::joins(g, *x, p).then_some(*x)
}

/// `[B·H, S, D]` as `[B, H, S, D]`.
fn with_heads(g: &mut Graph, x: ValueId, lead: &[Dim; 2], loc: &Loc) -> Option<ValueId> {
    let shape = lead.iter().chain(&g.ty(x).shape[1..]).cloned().collect();
    reshape(g, x, shape, loc)
}

/// `[B, S, H·E]` as the product with the values was.
fn split_heads(g: &mut Graph, y: ValueId, q: &[Dim], v: &[Dim], loc: &Loc) -> Option<ValueId> {
    let ([b, h, s, _], [.., e]) = (q, v) else { return Some(y) };
    let y = reshape(g, y, vec![b.clone(), s.clone(), h.clone(), e.clone()], loc)?;
    transpose(g, y, &[0, 2, 1, 3], loc)
}
