//! `fuse-embeddings`: sums of rows of tables, and every layer norm that no `linear` took up, become `sum_norm`.
//!
//! ```text
//! %0 = gather %words, %ids {axis = 0}
//! %1 = gather %types, %type_ids {axis = 0}
//! %2 = add %0, %1
//! %3 = add %2, %positions
//! %4 = layer_norm %3, %gamma, %beta
//!   => sum_norm %words, %ids, %types, %type_ids, %positions, %gamma, %beta {tables = 2, addends = 1, norm}
//! ```
//!
//! The tables' rows are added first, then the other terms, so the sum's rounding may differ. Runs after `fuse-linear`.

use bertc_ir::{BinaryOp, DType, Diag, Graph, Op, SumNorm, ValueId};

use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, binary, rewrite, single_user};

/// The pass.
pub struct FuseEmbeddings;

/// A longer sum is left as it is.
const MAX_TERMS: usize = 8;

impl Pass for FuseEmbeddings {
    fn name(&self) -> &'static str {
        "fuse-embeddings"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        rewrite(g, ctx, self.name(), |g, v| match g.op(v) {
            Op::LayerNorm { eps } => rule(g, v, *eps),
            _ => Ok(None),
        })
    }
}

fn rule(g: &mut Graph, v: ValueId, eps: f32) -> Rewrite {
    let node = g.node(v).clone();
    if node.ty.dtype != DType::F32 {
        return Err(format!("the operands are {}, not f32", node.ty.dtype));
    }
    let (x, gamma, beta) = (node.operands[0], node.operands[1], node.operands[2]);
    let mut terms = Vec::new();
    sum(g, x, v, &mut terms);
    if terms.len() > MAX_TERMS {
        return Err(format!("the sum has {} terms", terms.len()));
    }
    let (mut operands, mut addends) = (Vec::new(), Vec::new());
    for t in terms {
        let table = g.operands(t).first().filter(|&&t| g.ty(t).rank() == 2);
        match (g.op(t), table) {
            // A row that something else reads too is there anyway.
            (Op::Gather { axis: 0 }, Some(&table)) if single_user(g, t).is_some() => {
                operands.extend([table, g.operands(t)[1]]);
            }
            _ => addends.push(t),
        }
    }
    let op = SumNorm { tables: operands.len() / 2, addends: addends.len(), norm: Some(eps), ..SumNorm::default() };
    operands.extend(addends);
    operands.extend([gamma, beta]);
    g.add(Op::SumNorm(op), &operands, &node.loc).map(Some).map_err(|d| d.message)
}

/// The terms that make up `x`, whose only user is to be `user`.
fn sum(g: &Graph, x: ValueId, user: ValueId, terms: &mut Vec<ValueId>) {
    let operands = binary(g, x, BinaryOp::Add).filter(|_| single_user(g, x) == Some(user));
    match operands {
        Some((a, b)) if terms.len() <= MAX_TERMS => {
            sum(g, a, x, terms);
            sum(g, b, x, terms);
        }
        _ => terms.push(x),
    }
}
