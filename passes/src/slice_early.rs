//! `slice-early`: rows that nothing reads are not computed.
//!
//! A classifier reads the first token of the last layer only. Its slice moves up through the ops that treat rows alike,
//! as far as they have no other use; of the last layer, only keys and values remain for all tokens:
//!
//! ```text
//! %1 = linear %0, %w, %c, %r {bias = true, residual = true}
//! %2 = slice %1 {axis = 1, start = 0, len = 1, step = 1}
//!   => %3 = slice %0 {axis = 1, start = 0, len = 1, step = 1}
//!      %4 = slice %r {axis = 1, start = 0, len = 1, step = 1}
//!      %2 = linear %3, %w, %c, %4 {bias = true, residual = true}
//! ```
//!
//! An attention's slice goes to its queries, and to a mask that has a row a query. Exact. Runs before `merge-qkv`, which
//! would give queries, keys and values the same rows.

use bertc_ir::{Attention, Diag, Graph, Loc, Op, ValueId};

use crate::build::is_one;
use crate::linear::Parts;
use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, rewrite_as, single_user};

/// The pass.
pub struct SliceEarly;

/// A bound on the ops that a slice passes; a layer has four.
const MAX_ROUNDS: usize = 256;

impl Pass for SliceEarly {
    fn name(&self) -> &'static str {
        "slice-early"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut changed = false;
        for _ in 0..MAX_ROUNDS {
            let again = rewrite_as(g, ctx, self.name(), "moved before", |g, v| match g.op(v) {
                Op::Slice { axis, .. } => rule(g, v, *axis),
                _ => Ok(None),
            })?;
            changed |= again;
            if !again {
                break;
            }
        }
        Ok(changed)
    }
}

fn rule(g: &mut Graph, v: ValueId, axis: usize) -> Rewrite {
    let x = g.operands(v)[0];
    let node = g.node(x).clone();
    let moves = match node.op {
        Op::Linear(l) => !l.lengths && axis + 1 < node.ty.rank(),
        Op::Attention(a) => !a.lengths && axis == 1,
        _ => false,
    };
    if !moves || g.ty(v).shape[axis] == node.ty.shape[axis] {
        return Ok(None);
    }
    if single_user(g, x) != Some(v) {
        return Err(format!("the other rows of '{}' are read elsewhere", node.op.name()));
    }
    let loc = g.node(v).loc.clone();
    let new = match (Parts::of_any(g, x), &node.op) {
        (Some(p), _) => {
            let a = sliced(g, p.a, v, axis, &loc)?;
            let residual = match p.residual {
                Some(r) => Some(sliced(g, r, v, axis, &loc)?),
                None => None,
            };
            Parts { a, residual, ..p }.build(g, &node.loc)
        }
        (None, Op::Attention(Attention { mask, .. })) => {
            let mut operands = node.operands.clone();
            operands[0] = sliced(g, operands[0], v, 1, &loc)?;
            if *mask && !is_one(&g.ty(operands[3]).shape[2]) {
                operands[3] = sliced(g, operands[3], v, 2, &loc)?;
            }
            g.add(node.op.clone(), &operands, &node.loc)
        }
        _ => return Ok(None),
    };
    new.map(Some).map_err(|d| d.message)
}

/// The rows of `x` along an axis that the slice `like` takes. A slice that is there already is used again, so that the
/// operand has one user.
fn sliced(g: &mut Graph, x: ValueId, like: ValueId, axis: usize, loc: &Loc) -> Result<ValueId, String> {
    let mut op = g.op(like).clone();
    if let Op::Slice { axis: a, .. } = &mut op {
        *a = axis;
    }
    match g.users(x).into_iter().find(|&u| *g.op(u) == op) {
        Some(u) => Ok(u),
        None => g.add(op, &[x], loc).map_err(|d| d.message),
    }
}
