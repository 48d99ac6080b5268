//! Which rows of a value its users need.

use std::collections::HashMap;

use bertc_ir::{BinaryOp, Graph, Op, ValueId};

use super::padding::{Padding, is_bool};

/// What is needed of a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Rows {
    /// Rows (b, s) that are no padding; what the others hold doesn't matter, as long as it is finite.
    Live,
    /// Everything.
    All,
}

/// What the graph needs of each value. `outputs`: of outputs with a row for each token, only the rows of tokens.
pub fn demands(g: &Graph, p: &Padding, outputs: bool) -> HashMap<ValueId, Rows> {
    let mut needed: HashMap<ValueId, Rows> = HashMap::new();
    let mut need = |v: ValueId, rows: Rows| {
        let r = needed.entry(v).or_insert(rows);
        *r = rows.max(*r);
        *r
    };
    for o in g.outputs() {
        let live = outputs && is_tokenwise(g, p, o.value);
        need(o.value, if live { Rows::Live } else { Rows::All });
    }
    for v in g.topo().into_iter().rev() {
        // Whoever needs it has come before; nothing else is in the graph.
        let rows = need(v, Rows::Live);
        for (i, &o) in g.operands(v).iter().enumerate() {
            let of_operand = match rowwise(g, p, v, i) {
                true if ignores(g, p, v, i) => Rows::Live,
                true => rows,
                false if reads_tokens_only(g, p, v, i) => Rows::Live,
                false => Rows::All,
            };
            need(o, of_operand);
        }
    }
    needed
}

/// Whether `v` has a row for each token, made of what the inputs hold for that token (and of other tokens, in an
/// attention). Shapes alone could agree by chance.
pub fn is_tokenwise(g: &Graph, p: &Padding, v: ValueId) -> bool {
    let mut tokenwise: HashMap<ValueId, bool> = HashMap::new();
    for x in g.topo() {
        let yes = p.is_rows(g, x)
            && (matches!(g.op(x), Op::Input { .. })
                || g.operands(x).iter().enumerate().any(|(i, o)| tokenwise[o] && rowwise(g, p, x, i)));
        tokenwise.insert(x, yes);
    }
    tokenwise[&v]
}

/// Whether row (b, s) of `v` depends on row (b, s) of operand `i` and no other row of it.
fn rowwise(g: &Graph, p: &Padding, v: ValueId, i: usize) -> bool {
    let o = g.operands(v)[i];
    if !p.is_rows(g, v) || !p.is_rows(g, o) {
        return false;
    }
    let same_rank = g.ty(v).rank() == g.ty(o).rank();
    let rank = g.ty(o).rank();
    match g.op(v) {
        Op::Unary(_) | Op::Cast(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Broadcast { .. } => same_rank,
        Op::LayerNorm { .. } | Op::RmsNorm { .. } => i == 0 && rank > 2,
        Op::MatMul { .. } => i == 0 && same_rank && rank > 2,
        Op::Linear(l) => rank > 2 && (i == 0 || Some(i) == l.residual_at()),
        Op::Attention(_) => i == 0,
        Op::SumNorm(s) => match i.checked_sub(s.addends_at()) {
            None => i % s.per_table() == 1,
            Some(term) => term < s.addends && same_rank && rank > 2,
        },
        Op::Gather { axis } => i == 1 && *axis == 0,
        Op::Softmax { axis } | Op::CumSum { axis, .. } | Op::Slice { axis, .. } | Op::Concat { axis } => *axis >= 2,
        Op::ArgMax { axis, .. } => *axis >= 2,
        Op::Reduce { axes, .. } => axes.iter().all(|&a| a >= 2),
        Op::Transpose { perm } => perm.starts_with(&[0, 1]),
        Op::Reshape { .. } => true,
        _ => false,
    }
}

/// Whether padding of operand `i` doesn't show in the result, although other rows of it do.
fn ignores(g: &Graph, p: &Padding, v: ValueId, i: usize) -> bool {
    let other = |j: usize| g.operands(v)[j];
    match g.op(v) {
        Op::Binary(BinaryOp::Mul) => {
            stays_finite(g, other(i)) && p.at_padding(g, other(1 - i)).is_some_and(|z| z.to_f64() == 0.0)
        }
        Op::Select => i > 0 && is_bool(p, g, other(0), i == 2),
        _ => false,
    }
}

/// Whether rows of 0 that the pass makes leave `v` finite.
fn stays_finite(g: &Graph, mut v: ValueId) -> bool {
    use bertc_ir::UnaryOp::{Abs, Erf, Gelu, GeluTanh, Neg, Relu, Sigmoid, Tanh};
    while let Op::Reshape { .. }
    | Op::Transpose { .. }
    | Op::Broadcast { .. }
    | Op::Slice { .. }
    | Op::Unary(Abs | Erf | Gelu | GeluTanh | Neg | Relu | Sigmoid | Tanh) = g.op(v)
    {
        v = g.operands(v)[0];
    }
    // A layer norm of zeros divides by the root of its epsilon; the one inside a linear is not computed.
    matches!(g.op(v), Op::Linear(_) | Op::Attention(_) | Op::SumNorm(bertc_ir::SumNorm { norm: None, .. }))
}

/// Whether `v`, which mixes rows of operand `i`, reads those of tokens only.
fn reads_tokens_only(g: &Graph, p: &Padding, v: ValueId, i: usize) -> bool {
    if !p.is_rows(g, g.operands(v)[i]) {
        return false;
    }
    match g.op(v) {
        // Keys and values, and then the scores of padding are masked.
        Op::Attention(a) if i == 1 || i == 2 => {
            let own = Padding::of(g, v, *a, p.limit);
            own.is_ok_and(|own| own.input == p.input && own.mask == p.mask) && stays_finite(g, g.operands(v)[i])
        }
        // Lengths are at least 1.
        Op::Slice { axis: 1, start, len, .. } => start.as_const() == Some(0) && len.as_const() == Some(1),
        _ => false,
    }
}
