//! `prune`: blocks of weights that matter least become 0.
//!
//! ```text
//! %w = constant dense<[[3.0, 1.0], [1.0, -2.0]]> : tensor<2 x 2 x f32>
//! %1 = linear %0, %w
//!   => %w = constant dense<[[3.0, 0.0], [0.0, -2.0]]> : tensor<2 x 2 x f32>
//!      %1 = linear %0, %w
//! ```
//!
//! Not exact: it runs where `--prune` asks for it. A block is so many outputs by so many inputs of a constant matrix of a
//! product; those at the edges may be smaller, and count as what they are. All matrices share one budget: where the blocks
//! that matter least lie in few matrices, those lose most. Constants stay dense; the backend finds the zeros. Matrices with
//! few outputs, as in classifiers, and those that something else reads too, as tied embeddings, stay as they are. Runs on
//! fused ops, before `use-int8` and `use-bf16`. Costs a sort of all blocks.
//!
//! What matters: a block's sum of squares (magnitude). With samples, what removing it costs the product's results there, and
//! the weights that are left take up what they can (`solve`, with the formulas; `calibrate` goes through the graph). Matrices
//! then lose the same part each, which measured better than one budget. Costs a Cholesky factorisation of the size of each
//! product's inputs, and some dozens of products of the matrix with that.

mod blocks;
mod calibrate;
mod linalg;
mod matrices;
mod moments;
mod report;
mod solve;

use bertc_ir::{Diag, Graph, Op, Tensor, ValueId};

pub use moments::Moments;
pub use report::{Fate, Matrix, PruneReport, PruneSettings};

pub use solve::Hessian;

use crate::measure::constants::{constant, floats};
use crate::measure::names;
use crate::pass::{Pass, PassContext, PassOption};
use crate::pattern::{applied, remark};
use blocks::Grid;
use calibrate::{Fit, Fitted};
use matrices::Found;

/// The pass.
pub struct Prune;

/// The shapes of blocks that there are kernels for: outputs × inputs.
pub const BLOCKS: [[usize; 2]; 7] = [[1, 4], [4, 1], [4, 4], [16, 1], [16, 4], [32, 1], [64, 1]];

const SPARSITY: PassOption = PassOption { name: "sparsity", doc: "percent of the weights that become 0", default: 50 };
const ROWS: PassOption = PassOption { name: "rows", doc: "outputs of a block", default: 16 };
const COLS: PassOption = PassOption { name: "cols", doc: "inputs of a block", default: 1 };

impl Pass for Prune {
    fn name(&self) -> &'static str {
        "prune"
    }

    fn options(&self) -> &'static [PassOption] {
        &[SPARSITY, ROWS, COLS]
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let settings = settings(ctx)?;
        let (found, missed) = matrices::find(g, &ctx.names);
        for (v, reason) in missed {
            remark(g, ctx, self.name(), v, reason);
        }
        let chosen = chosen(&found, &settings)?;
        let mut fates: Vec<Fate> = chosen.iter().map(|&c| if c { Fate::Pruned } else { Fate::Named }).collect();
        for (fate, m) in fates.iter_mut().zip(&found) {
            if *fate == Fate::Pruned && !finite(g, m) {
                *fate = Fate::Strange;
            }
        }
        let picked: Vec<bool> = fates.iter().map(|f| *f == Fate::Pruned).collect();
        let fitted = match settings.samples[..] {
            [] => by_magnitude(g, &found, &picked, &settings),
            _ => calibrate::fit(g, &found, &picked, &settings)?,
        };
        let mut changed = false;
        for (&i, fit) in &fitted.matrices {
            let m = &found[i];
            if put(g, ctx, m, fit.tensor.clone())? {
                let part = 100.0 * fit.zeros as f64 / (m.n * m.k).max(1) as f64;
                let [rows, cols] = settings.block;
                let what = format!("{part:.1}% of {} are 0, in blocks of {rows}x{cols}", m.name());
                applied(g, ctx, self.name(), m.products[0], &what);
                changed = true;
            }
        }
        for (&v, bias) in &fitted.biases {
            rebias(g, v, bias)?;
        }
        if changed {
            g.remove_dead();
        }
        if ctx.settings.prune.is_some() {
            ctx.reports.prune = Some(report::report(&settings, &found, &fates, &fitted));
        }
        Ok(changed)
    }
}

/// Blocks that matter least by their magnitude become 0.
fn by_magnitude(g: &Graph, found: &[Found], picked: &[bool], settings: &PruneSettings) -> Fitted {
    let all: Vec<usize> = (0..found.len()).filter(|&i| picked[i]).collect();
    let grids: Vec<Grid> = all.iter().map(|&i| Grid::new(found[i].n, found[i].k, settings.block)).collect();
    let scores: Vec<Vec<f64>> = all.iter().zip(&grids).map(|(&i, grid)| grid.squares(&weights(g, &found[i]))).collect();
    let masks = blocks::choose(&grids, &scores, settings.sparsity);
    let fit = |(&i, (grid, mask)): (&usize, (&Grid, &Vec<bool>))| {
        let tensor = zeroed(constant(g, found[i].value)?, found[i].axis, grid, mask)?;
        Some((i, Fit { tensor, zeros: grid.elements(mask), error: None }))
    };
    let matrices = all.iter().zip(grids.iter().zip(&masks)).filter_map(fit).collect();
    Fitted { matrices, ..Fitted::default() }
}

/// Gives a product another bias.
fn rebias(g: &mut Graph, v: ValueId, bias: &Tensor) -> Result<(), Diag> {
    let node = g.node(v).clone();
    let Op::Linear(l) = node.op else { return Ok(()) };
    let Some(at) = l.bias_at() else { return Ok(()) };
    let mut operands = node.operands.clone();
    operands[at] = g.add_const(bias.clone(), &node.loc)?;
    let new = g.add(node.op, &operands, &node.loc)?;
    g.replace(v, new)
}

/// What the pass is asked for: by its options, or else by the settings.
fn settings(ctx: &PassContext) -> Result<PruneSettings, Diag> {
    let given = |o: &PassOption| ctx.options.iter().any(|g| g.0 == o.name);
    let mut settings = ctx.settings.prune.clone().unwrap_or_default();
    let fresh = ctx.settings.prune.is_none();
    let size = |o: &PassOption| {
        let n = usize::try_from(ctx.option(o)).ok().filter(|n| (1..=1024).contains(n));
        n.ok_or_else(|| Diag::new(format!("the option '{}' is from 1 to 1024", o.name)))
    };
    if fresh || given(&SPARSITY) {
        settings.sparsity = ctx.option(&SPARSITY) as f64 / 100.0;
    }
    if fresh || given(&ROWS) || given(&COLS) {
        settings.block = [size(&ROWS)?, size(&COLS)?];
    }
    if !(0.0..1.0).contains(&settings.sparsity) {
        return Err(Diag::new("the option 'sparsity' is from 0 to 99 percent"));
    }
    Ok(settings)
}

/// Which matrices are to be pruned.
///
/// # Errors
/// A name that nothing has.
fn chosen(found: &[Found], settings: &PruneSettings) -> Result<Vec<bool>, Diag> {
    let of_all: Vec<&[String]> = found.iter().map(|m| &m.names[..]).collect();
    let only = names::named(&of_all, &settings.only, "--prune-only")?;
    let kept = if settings.strict {
        names::named(&of_all, &settings.keep, "--keep")?
    } else {
        settings.keep.iter().flat_map(|pattern| names::matching(&of_all, pattern)).collect()
    };
    Ok((0..found.len()).map(|i| (settings.only.is_empty() || only.contains(&i)) && !kept.contains(&i)).collect())
}

fn finite(g: &Graph, m: &Found) -> bool {
    constant(g, m.value).is_some_and(|t| floats(t).iter().all(|x| x.is_finite()))
}

/// The weights of a matrix, `[outputs, inputs]`.
fn weights(g: &Graph, m: &Found) -> Vec<f32> {
    let all = constant(g, m.value).map(floats).unwrap_or_default();
    if m.axis == 0 { all } else { transposed(&all, m.n) }
}

/// A matrix with rows of `columns` elements, transposed.
pub fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
    let rows = x.len() / columns.max(1);
    (0..columns).flat_map(|j| (0..rows).map(move |i| x[i * columns + j])).collect()
}

/// The constant with 0 in the blocks of `mask`.
fn zeroed(t: &Tensor, axis: usize, grid: &Grid, mask: &[bool]) -> Option<Tensor> {
    let size = t.dtype().size();
    let mut bytes = t.bytes().to_vec();
    grid.each(mask, |outputs, inputs| {
        for n in outputs {
            for k in inputs.clone() {
                let at = size * if axis == 0 { n * grid.k + k } else { k * grid.n + n };
                bytes[at..at + size].fill(0);
            }
        }
    });
    Tensor::new(t.dtype(), t.shape().to_vec(), bytes.into())
}

/// Puts a constant in the place of a matrix; whether it is another one.
fn put(g: &mut Graph, ctx: &mut PassContext, m: &Found, t: Tensor) -> Result<bool, Diag> {
    let Some(old) = constant(g, m.value).cloned() else { return Ok(false) };
    if old == t {
        return Ok(false);
    }
    let loc = g.node(m.value).loc.clone();
    ctx.rename(&old, &t);
    let mut new = g.add_const(t, &loc)?;
    if let Op::Cast(dtype) = *g.op(m.value) {
        new = g.add(Op::Cast(dtype), &[new], &loc)?;
    }
    g.replace(m.value, new)?;
    Ok(true)
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub use tests::noise;
