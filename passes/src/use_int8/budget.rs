//! What `use-int8` is asked for and reports, and what the matrices are called; `search` finds those that cost too much.

use std::collections::BTreeSet;

use bertc_ir::{Diag, Graph, Loc, Op, Tensor, ValueId};

use super::matrices::Matrices;
use super::measure::Sample;
use super::plan::Plan;
use super::search::{Found, Reference};
use super::{candidate, weights};
use crate::step::unknown;

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
    /// What the model calls the nodes that read its constants. The constants are told by where they lie in memory, which
    /// fusion leaves as it is.
    pub names: Vec<(Tensor, String)>,
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
pub fn decide(g: &Graph, made: &mut Matrices, settings: &Int8Settings) -> Result<(Plan, Int8Report), Diag> {
    let all = candidates(g, made, &settings.names);
    let named = named(&all, &settings.keep)?;
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

/// The candidates that the patterns name.
fn named(all: &[Candidate], patterns: &[String]) -> Result<BTreeSet<ValueId>, Diag> {
    let mut named = BTreeSet::new();
    for pattern in patterns {
        let found: Vec<ValueId> =
            all.iter().filter(|c| c.names.iter().any(|n| fits(pattern, n))).map(|c| c.v).collect();
        if found.is_empty() {
            let names: Vec<&str> = all.iter().flat_map(|c| c.names.iter().map(String::as_str)).collect();
            let d = unknown("matrix", pattern, &names);
            return Err(
                d.note("--keep takes nodes of products or embeddings, beginnings of their names, and patterns with *")
            );
        }
        named.extend(found);
    }
    Ok(named)
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
        let own = [v].into_iter().chain(slices).filter_map(|u| match &g.node(u).loc {
            Loc::Node { name, .. } => Some(name),
            _ => None,
        });
        let is_merged = matches!(g.op(v), Op::Linear(_)) && matches!(g.op(g.operands(v)[1]), Op::Concat { .. });
        let parts: &[ValueId] = if is_merged { g.operands(g.operands(v)[1]) } else { g.operands(v) };
        let constants: Vec<&Tensor> = parts.iter().filter_map(|&o| weights::constant(g, o)).collect();
        let same = |t: &Tensor| constants.iter().any(|c| c.bytes().as_ptr() == t.bytes().as_ptr());
        let read = known.iter().filter(|(t, _)| !t.is_empty() && same(t)).map(|(_, name)| name);
        // A fused op is called as its last part; the product says more of one matrix, but is one of several here.
        let all: Vec<&String> = if is_merged { own.chain(read).collect() } else { read.chain(own).collect() };
        let mut names: Vec<String> = Vec::new();
        for name in all {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
        if names.is_empty() {
            names.push(format!("%{}", v.0));
        }
        Some(Candidate { v, names, shape })
    };
    g.topo().into_iter().filter_map(&mut of).collect()
}

/// Whether a name is what `pattern` says: it, below it, or like it where it has `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        let below = name.strip_prefix(pattern).filter(|_| !pattern.is_empty());
        return below.is_some_and(|r| r.is_empty() || r.starts_with(['/', '.']) || pattern.ends_with(['/', '.']));
    };
    let Some(tail) = name.strip_prefix(start) else { return false };
    let mut cuts = tail.char_indices().map(|(i, _)| i).chain([tail.len()]);
    if rest.contains('*') {
        // Another star follows: the least that the first one takes is as good as any.
        cuts.any(|i| fits_tail(rest, &tail[i..]))
    } else {
        tail.ends_with(rest)
    }
}

/// [`fits`] for what is behind a star.
fn fits_tail(pattern: &str, tail: &str) -> bool {
    if pattern.contains('*') { fits(pattern, tail) } else { pattern == tail }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn names_are_whole_or_begin_or_fit_a_pattern() {
        for (pattern, name, yes) in [
            ("/encoder/layer.1/output/MatMul", "/encoder/layer.1/output/MatMul", true),
            ("/encoder/layer.1", "/encoder/layer.1/output/MatMul", true),
            ("/encoder/layer.1", "/encoder/layer.10/output/MatMul", false),
            ("/encoder/layer", "/encoder/layer.10/output/MatMul", true),
            ("", "/a", false),
            ("*", "/a", true),
            ("*/output/*", "/encoder/layer.1/output/MatMul", true),
            ("*/output/*", "/encoder/layer.1/input/MatMul", false),
            ("/e*MatMul", "/encoder/MatMul", true),
            ("/e*MatMul", "/encoder/MatMul_1", false),
            ("é*é", "éé", true),
            ("é*é", "é", false),
        ] {
            assert_eq!(fits(pattern, name), yes, "{pattern} {name}");
        }
    }
}
