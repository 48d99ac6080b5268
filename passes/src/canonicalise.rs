//! `canonicalise`: local rewrites to simpler or fewer operations, to a fixpoint.
//!
//! - [`arith`]: identities, exact for every float including NaN and -0 (`x + 0.0` stays: it turns -0 into 0);
//! - [`elementwise`]: broadcasts move behind elementwise ops, casts of casts;
//! - [`movement`]: compositions and no-ops of reshape, transpose, broadcast, slice and concat; `trans_b` of matmul;
//! - [`index`]: decided comparisons, index arithmetic, gathers that are slices.
//!
//! Where the forms pull in different directions, broadcasts move towards users, reshapes towards producers, and a
//! transpose that makes columns of rows moves towards the matmul that absorbs it. No other pass relies on any of this.

mod arith;
mod elementwise;
mod index;
mod movement;

use bertc_ir::{Diag, Graph, ValueId};

use crate::info::Infos;
use crate::pass::{Pass, PassContext, PassOption};

/// The pass.
pub struct Canonicalise;

/// Each rewrite shrinks the graph or moves an op in its one direction, so the fixpoint comes within the graph's depth;
/// this bounds the work on a graph made to be slow.
const MAX_ITERATIONS: PassOption =
    PassOption { name: "max-iterations", doc: "walks over the graph, at most", default: 64 };

type Rule = fn(&mut Graph, &mut Infos, ValueId) -> Option<ValueId>;

const RULES: &[Rule] = &[arith::rewrite, elementwise::rewrite, movement::rewrite, index::rewrite];

impl Pass for Canonicalise {
    fn name(&self) -> &'static str {
        "canonicalise"
    }

    fn options(&self) -> &'static [PassOption] {
        &[MAX_ITERATIONS]
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut infos = Infos::default();
        let mut changed = false;
        for _ in 0..ctx.option(&MAX_ITERATIONS) {
            let mut again = false;
            for v in g.topo() {
                // Not worth a look once nothing uses it; its users were rewritten this round.
                if g.users(v).is_empty() && !g.is_output(v) {
                    continue;
                }
                if let Some(new) = RULES.iter().find_map(|rule| rule(g, &mut infos, v)) {
                    let loc = g.node(v).loc.clone();
                    g.replace(v, new).map_err(|d| d.at(loc))?;
                    ctx.counters.applied += 1;
                    again = true;
                }
            }
            // Also drops what abandoned rewrites left.
            g.remove_dead();
            changed |= again;
            if !again {
                break;
            }
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests;
