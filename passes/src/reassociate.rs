//! `reassociate`: commutes, associates, distributes and factors arithmetic where that removes work.
//!
//! ```text
//! (x + c) + (y + d)        => (x + y) + (c + d)              constants meet and become one; so for · and /
//! (x[b,s,n] + y[n]) + z[n] => x + (y + z)                    small terms first
//! a·b + a·c                => a·(b + c)                      elementwise and matrix products, from either side
//! (x·c + d)·e              => x·(c·e) + d·e                  where every term has a constant to take e
//! (x·U + c)·V + d          => x·(U·V) + (c·V + d)            linear of linear
//! x·U + x·V, x·U + y·U     => x·(U + V), (x + y)·U           linear with a linear residual
//! ```
//!
//! A sum (or product) is taken apart as far as its parts have no other use, and put together again. The result is taken
//! only if it is cheaper ([`accept`]): never more multiply-adds and written elements, proven for all dims in range, and
//! fewer of them or fewer ops. Constants may grow by an eighth of the model's, or 4 KiB, in a run. So the factorised
//! embeddings of ALBERT and ELECTRA stay two thin products, but a first layer's queries read the thin side.
//!
//! Integers wrap, so their results stay the same. Floats differ by rounding, of which there is less: fewer ops, and
//! products of constant matrices are summed in f64. f16 and bf16 stay as they are: they round at each step, and a model
//! may rely on it. So do sums and products that are rounded to whole numbers next, as in quantisation, where
//! the last bit decides about a whole step. `x + 0` is `x`, also for -0.
//!
//! No plausible value becomes infinite or NaN:
//! - In sums, a constant of 2^20 or more, infinite or NaN stays where it is: such numbers mask, or round by their size.
//! - A sum with a term computed elementwise from a constant of 1e30 or more stays: `-3.4e38` twice is `-inf`.
//! - In products, a constant outside of 1e-18..=1e18, but for 0, stays where it is; so do constants whose product is.
//!
//! Runs where norms, gelu and attention are recognised, so that it can't hide them, before `fuse-linear` (for what
//! products take up) and after it (for linear of linear). Not a goal: equal subexpressions, which `cse` merges.
//!
//! Cost: a sum of n terms costs n³ steps, for at most 16 terms; a product of matrices at most 2^28 multiply-adds.

mod accept;
mod chain;
pub(crate) mod constants;
mod factor;
mod linears;

use bertc_ir::{BinaryOp, Diag, Graph, Op, ValueId};

use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, rewrite};
use accept::Budget;

/// The pass.
pub struct Reassociate;

/// A bound on the rounds: each makes the graph cheaper, and one may give the next a chance.
const MAX_ROUNDS: usize = 16;

impl Pass for Reassociate {
    fn name(&self) -> &'static str {
        "reassociate"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut changed = g.remove_dead() > 0;
        let mut budget = Budget::of(g);
        for _ in 0..MAX_ROUNDS {
            let again = rewrite(g, ctx, self.name(), |g, v| rule(g, &mut budget, v))?;
            changed |= again;
            if !again {
                break;
            }
        }
        Ok(changed)
    }
}

fn rule(g: &mut Graph, budget: &mut Budget, v: ValueId) -> Rewrite {
    match g.op(v) {
        Op::Binary(BinaryOp::Add | BinaryOp::Sub) => chain::rewrite(g, budget, v, chain::Kind::Sum),
        Op::Binary(BinaryOp::Mul | BinaryOp::Div) => chain::rewrite(g, budget, v, chain::Kind::Product),
        Op::Linear(_) => linears::rewrite(g, budget, v),
        _ => Ok(None),
    }
}

#[cfg(test)]
mod tests;
