//! What `use-int8` is asked for and reports, and what the matrices are called; `search` finds those that cost too much.

use std::collections::BTreeSet;

use bertc_ir::{Diag, Graph, Op, Tensor, ValueId};

use super::matrices::Matrices;
use super::plan::Plan;
use super::search::{Found, Reference};
use super::{candidate, weights};
use crate::measure::{Sample, names};

/// What `use-int8` is asked for.
#[derive(Clone, Debug, Default)]
pub struct Int8Settings {
    /// The least cosine of outputs to those of f32; 0 measures nothing.
    pub budget: f64,
    /// Matrices that stay as they are: names of nodes, beginnings of such up to a `/` or `.`, or patterns with `*`.
    pub keep: Vec<String>,
    /// What to measure on: the first set that the graph can be evaluated on.
    pub samples: Vec<Vec<Sample>>,
    /// The samples are made up.
    pub synthetic: bool,
}

/// What became of a matrix.
#[derive(Clone, PartialEq, Debug)]
pub enum Decision {
    /// It is 8-bit integers.
    Int8,
    /// The same, with factors of channels; without them the signal to noise would be so many dB.
    Smooth(f64),
    /// So many channels stay floats, where the signal to noise would have been so many dB.
    Outliers(usize, f64),
    /// It was named.
    Named,
    /// Its error is one of the largest, and the outputs were too far off.
    Noisy,
}

/// A product's matrix, or the tables of a sum, of those that could be integers.
#[derive(Clone, PartialEq, Debug)]
pub struct MatrixRow {
    /// The model's node.
    pub name: String,
    /// Its shape: the inner dim of a product and its columns, or rows and columns of the first table.
    pub shape: [i64; 2],
    /// Signal to noise of what it gives, in dB, and its cosine.
    pub error: Option<(f64, f64)>,
    /// What became of it.
    pub decision: Decision,
}

/// What was decided.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Int8Report {
    /// All matrices that could be integers.
    pub matrices: Vec<MatrixRow>,
    /// The least cosine of an output, in the mean over the samples.
    pub cosine: Option<f64>,
    /// The samples were made up.
    pub synthetic: bool,
    /// Why nothing was measured, where made-up samples are what the model can't take.
    pub unmeasured: Option<String>,
}

/// What can become integers, and what it is called.
pub(super) struct Candidate {
    pub v: ValueId,
    names: Vec<String>,
    shape: [i64; 2],
}

/// What is to become of all candidates, and the report.
///
/// # Errors
/// Names that nothing has, samples that the graph can't be evaluated on, and a budget that can't be kept.
pub fn decide(
    g: &Graph,
    made: &mut Matrices,
    settings: &Int8Settings,
    known: &[(Tensor, String)],
) -> Result<(Plan, Int8Report), Diag> {
    let all = candidates(g, made, known);
    let of_all: Vec<&[String]> = all.iter().map(|c| &c.names[..]).collect();
    let named = names::named(&of_all, &settings.keep, "--keep")?;
    let named: BTreeSet<ValueId> = named.into_iter().map(|i| all[i].v).collect();
    let mut plan = Plan { kept: named.clone(), ..Plan::default() };
    let mut found = Found::default();
    let mut unmeasured = None;
    if settings.budget > 0.0 && !settings.samples.is_empty() {
        match Reference::of(g, &all, settings) {
            Ok(reference) => found = reference.search(g, made, &all, &mut plan, settings.budget)?,
            // That the model takes no made-up inputs says nothing against it.
            Err(d) if settings.synthetic => unmeasured = Some(d.message),
            Err(d) => return Err(d),
        }
    }
    let row = |c: &Candidate| {
        let error = found.errors.get(&c.v);
        let plain = found.plain.get(&c.v).map_or(0.0, |n| n.snr());
        let decision = match () {
            () if named.contains(&c.v) => Decision::Named,
            () if plan.kept.contains(&c.v) => Decision::Noisy,
            () if plan.outliers.contains_key(&c.v) => Decision::Outliers(plan.outliers[&c.v].len(), plain),
            () if plan.factors.contains_key(&c.v) => Decision::Smooth(plain),
            () => Decision::Int8,
        };
        let error = error.map(|n| (n.snr(), n.cosine()));
        MatrixRow { name: c.names.first().cloned().unwrap_or_default(), shape: c.shape, error, decision }
    };
    let matrices = all.iter().map(row).collect();
    let report = Int8Report { matrices, cosine: found.cosine, synthetic: settings.synthetic, unmeasured };
    Ok((plan, report))
}

/// Everything that could be integers, in order.
fn candidates(g: &Graph, made: &mut Matrices, known: &[(Tensor, String)]) -> Vec<Candidate> {
    let shape = |v: ValueId| [0, 1].map(|i| g.ty(v).shape.get(i).and_then(bertc_ir::Dim::as_const).unwrap_or(0));
    let mut of = |v: ValueId| {
        let shape = match g.op(v) {
            Op::SumNorm(s) if !s.int8 && s.tables > 0 => {
                let o = &g.operands(v)[..s.addends_at()];
                o.chunks_exact(2).all(|pair| made.of(g, pair[0], 0, None).is_ok()).then(|| shape(o[0]))?
            }
            _ => {
                let (_, axis) = candidate(g, v).ok()?;
                made.side_by_side(g, g.operands(v)[1], axis, None).ok()?;
                let [rows, columns] = shape(g.operands(v)[1]);
                if axis == 1 { [rows, columns] } else { [columns, rows] }
            }
        };
        // What the model calls the products that were merged stands at the slices of the merged one.
        let slices = g.users(v).into_iter().filter(|&u| matches!(g.op(u), Op::Slice { .. }));
        let is_merged = matches!(g.op(v), Op::Linear(_)) && matches!(g.op(g.operands(v)[1]), Op::Concat { .. });
        let parts: &[ValueId] = if is_merged { g.operands(g.operands(v)[1]) } else { g.operands(v) };
        let constants: Vec<&Tensor> = parts.iter().filter_map(|&o| weights::constant(g, o)).collect();
        let mut names = names::of(g, known, &constants, [v].into_iter().chain(slices), is_merged);
        if names.is_empty() {
            names.push(format!("%{}", v.0));
        }
        Some(Candidate { v, names, shape })
    };
    g.topo().into_iter().filter_map(&mut of).collect()
}
