//! Elementwise ops and what their operands are: broadcasts and transposes pass through, casts of casts merge.

use bertc_ir::{DType, Graph, Op, ValueId};

use crate::build::{add, broadcast, cast, is_one};
use crate::info::Infos;

pub fn rewrite(g: &mut Graph, _: &mut Infos, v: ValueId) -> Option<ValueId> {
    match g.op(v) {
        Op::Cast(d) => {
            let d = *d;
            cast_of_cast(g, v, d).or_else(|| sink_broadcasts(g, v)).or_else(|| sink_transpose(g, v))
        }
        Op::Unary(_) | Op::Binary(_) => sink_broadcasts(g, v).or_else(|| sink_transpose(g, v)),
        Op::Compare(_) | Op::Select => sink_broadcasts(g, v),
        _ => None,
    }
}

/// Whether every value of `a` survives in `b`.
fn lossless(a: DType, b: DType) -> bool {
    use DType::{BF16, Bool, F16, F32, F64};
    let bits = |d: DType| 8 * d.size();
    if a == b || a == Bool {
        return true;
    }
    match (a.is_float(), b.is_float()) {
        (true, true) => matches!((a, b), (F16 | BF16, F32 | F64) | (F32, F64)),
        (true, false) => false,
        (false, true) => {
            let mantissa = match b {
                BF16 => 8,
                F16 => 11,
                F32 => 24,
                _ => 53,
            };
            bits(a) - usize::from(a.is_signed_int()) <= mantissa
        }
        (false, false) => match (a.is_signed_int(), b.is_signed_int()) {
            _ if !b.is_int() => false,
            (true, false) => false,
            (false, true) => bits(a) < bits(b),
            _ => bits(a) <= bits(b),
        },
    }
}

/// `cast<c>(cast<b>(x: a))` where the inner cast loses nothing.
fn cast_of_cast(g: &mut Graph, v: ValueId, c: DType) -> Option<ValueId> {
    let x = g.operands(v)[0];
    let b = g.ty(x).dtype;
    if b == c {
        return Some(x);
    }
    let Op::Cast(_) = g.op(x) else { return None };
    let inner = g.operands(x)[0];
    let a = g.ty(inner).dtype;
    // A float saturates when it becomes an integer; an integer wraps.
    let same_overflow = !(a.is_int() && b.is_float() && c.is_int()) || lossless(a, c);
    let loc = g.node(v).loc.clone();
    (lossless(a, b) && same_overflow).then(|| cast(g, inner, c, &loc)).flatten()
}

/// `f(broadcast(x), y) => broadcast(f(x, y))`, the outer one only where the result is smaller.
fn sink_broadcasts(g: &mut Graph, v: ValueId) -> Option<ValueId> {
    let node = g.node(v).clone();
    let mut any = false;
    let operands: Vec<_> = node
        .operands
        .iter()
        .map(|&o| {
            let Op::Broadcast { .. } = g.op(o) else { return o };
            any = true;
            g.operands(o)[0]
        })
        .collect();
    if !any {
        return None;
    }
    let small = add(g, node.op, &operands, &node.loc)?;
    broadcast(g, small, node.ty.shape, &node.loc)
}

/// `f(transpose(x), scalar) => transpose(f(x, scalar))` for a transpose that a matmul can absorb.
fn sink_transpose(g: &mut Graph, v: ValueId) -> Option<ValueId> {
    let node = g.node(v).clone();
    let uniform = |g: &Graph, o: ValueId| g.ty(o).shape.iter().all(is_one) && g.ty(o).rank() <= node.ty.rank();
    let at = node.operands.iter().position(|&o| !uniform(g, o))?;
    let x = node.operands[at];
    let Op::Transpose { perm } = g.op(x).clone() else { return None };
    let absorbable = perm.len() >= 2 && perm[perm.len() - 2] == perm.len() - 1;
    let others_uniform = node.operands.iter().enumerate().all(|(i, &o)| i == at || uniform(g, o));
    if !absorbable || !others_uniform || g.users(x) != [v] || g.is_output(x) {
        return None;
    }
    let mut operands = node.operands.to_vec();
    operands[at] = g.operands(x)[0];
    let y = add(g, node.op, &operands, &node.loc)?;
    add(g, Op::Transpose { perm }, &[y], &node.loc)
}
