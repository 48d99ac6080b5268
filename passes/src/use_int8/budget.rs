//! Which matrices stay floats: those that are named, and those that cost the outputs more than the budget allows.

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::eval::eval_op;
use bertc_ir::{Diag, Graph, Linear, Loc, Op, Tensor, TensorType, ValueId};

use super::measure::{Nearness, Sample, outputs, sums};
use super::product::wide;
use super::{Matrices, candidate, quantised_rows, transform, weights};
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
struct Candidate {
    v: ValueId,
    names: Vec<String>,
    shape: [i64; 2],
}

/// The values that are to stay as they are, and the report.
///
/// # Errors
/// Names that nothing has, samples that the graph can't be evaluated on, and a budget that can't be kept.
pub fn decide(
    g: &Graph,
    made: &mut Matrices,
    settings: &Int8Settings,
) -> Result<(BTreeSet<ValueId>, Int8Report), Diag> {
    let all = candidates(g, made, &settings.names);
    let mut kept = BTreeSet::new();
    for pattern in &settings.keep {
        let found: Vec<ValueId> =
            all.iter().filter(|c| c.names.iter().any(|n| fits(pattern, n))).map(|c| c.v).collect();
        if found.is_empty() {
            let names: Vec<&str> = all.iter().flat_map(|c| c.names.iter().map(String::as_str)).collect();
            let d = unknown("matrix", pattern, &names);
            return Err(
                d.note("--keep takes nodes of products or embeddings, beginnings of their names, and patterns with *")
            );
        }
        kept.extend(found);
    }
    let named = kept.clone();
    let mut errors = BTreeMap::new();
    let mut cosine = None;
    let mut unmeasured = None;
    if settings.budget > 0.0 && !settings.samples.is_empty() {
        match Measured::of(g, made, &all, &settings.samples) {
            Ok(m) => {
                cosine = Some(search(g, made, &m, &mut kept, settings.budget)?);
                errors = m.errors;
            }
            // That the model takes no made-up inputs says nothing against it.
            Err(d) if settings.synthetic => unmeasured = Some(d.message),
            Err(d) => return Err(d),
        }
    }
    let row = |c: &Candidate| {
        let decision = match () {
            () if named.contains(&c.v) => Decision::Named,
            () if kept.contains(&c.v) => Decision::Noisy,
            () => Decision::Int8,
        };
        let error = errors.get(&c.v).map(|n| (n.snr(), n.cosine()));
        MatrixRow { name: c.names.first().cloned().unwrap_or_default(), shape: c.shape, error, decision }
    };
    let synthetic = settings.synthetic;
    let report = Int8Report { matrices: all.iter().map(row).collect(), cosine, synthetic, unmeasured };
    Ok((kept, report))
}

/// Everything that could be integers, in order.
fn candidates(g: &Graph, made: &mut Matrices, known: &[(Tensor, String)]) -> Vec<Candidate> {
    let shape = |v: ValueId| [0, 1].map(|i| g.ty(v).shape.get(i).and_then(bertc_ir::Dim::as_const).unwrap_or(0));
    let mut of = |v: ValueId| {
        let shape = match g.op(v) {
            Op::SumNorm(s) if !s.int8 && s.tables > 0 => {
                let o = &g.operands(v)[..s.addends_at()];
                o.chunks_exact(2).all(|pair| made.of(g, pair[0], 0).is_ok()).then(|| shape(o[0]))?
            }
            _ => {
                let (_, axis) = candidate(g, v).ok()?;
                made.side_by_side(g, g.operands(v)[1], axis).ok()?;
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

/// What the graph gives as it is, and how far each candidate would be off.
struct Measured<'a> {
    samples: &'a [Sample],
    outputs: Vec<Vec<Tensor>>,
    errors: BTreeMap<ValueId, Nearness>,
}

impl<'a> Measured<'a> {
    fn of(g: &Graph, made: &mut Matrices, all: &[Candidate], sets: &'a [Vec<Sample>]) -> Result<Measured<'a>, Diag> {
        let mut first = None;
        for samples in sets {
            match Measured::on(g, made, all, samples) {
                Ok(m) => return Ok(m),
                Err(d) => first = first.or(Some(d)),
            }
        }
        let d = first.unwrap_or_else(|| Diag::new("there are no samples"));
        Err(d.note("while measuring what 8-bit integers cost; --int8-budget 0 measures nothing"))
    }

    fn on(g: &Graph, made: &mut Matrices, all: &[Candidate], samples: &'a [Sample]) -> Result<Measured<'a>, Diag> {
        let wanted: BTreeSet<ValueId> = all.iter().map(|c| c.v).collect();
        let mut errors: BTreeMap<ValueId, Nearness> = BTreeMap::new();
        let mut fault = None;
        let mut results = Vec::new();
        for s in samples {
            let mut watch = |v: ValueId, x: &[&Tensor], y: &Tensor| {
                if !wanted.contains(&v) {
                    return;
                }
                match alone(g, made, v, x) {
                    Ok(Some(q)) => {
                        let of = errors.entry(v).or_default();
                        wide(y).into_iter().zip(wide(&q)).for_each(|(x, y)| of.add(x, y));
                    }
                    Ok(None) => {}
                    Err(d) => fault = Some(d),
                }
            };
            results.push(outputs(g, s, &mut watch)?);
        }
        fault.map_or(Ok(Measured { samples, outputs: results, errors }), Err)
    }

    /// The least cosine of an output of `g` to what it was, in the mean over the samples.
    fn cosine(&self, g: &Graph) -> Result<f64, Diag> {
        let mut sums: BTreeMap<usize, f64> = BTreeMap::new();
        for (s, want) in self.samples.iter().zip(&self.outputs) {
            let got = outputs(g, s, &mut |_, _, _| {})?;
            for (i, (x, y)) in want.iter().zip(&got).enumerate().filter(|(_, (x, _))| x.dtype().is_float()) {
                *sums.entry(i).or_default() += Nearness::of(x, y).cosine();
            }
        }
        let count = self.samples.len().max(1) as f64;
        Ok(sums.into_values().fold(1.0, |m: f64, s| m.min(s / count)))
    }
}

/// What a candidate gives with its matrix in integers, without its epilogue; nothing where it can't be.
fn alone(g: &Graph, made: &mut Matrices, v: ValueId, x: &[&Tensor]) -> Result<Option<Tensor>, Diag> {
    let mut one = Graph::new("one");
    let input = |one: &mut Graph, t: &Tensor| {
        let shape = t.shape().iter().map(|&d| (d as i64).into()).collect();
        one.add_input("x", TensorType::new(t.dtype(), shape))
    };
    if let Op::SumNorm(s) = *g.op(v) {
        let (mut operands, mut inputs) = (Vec::new(), Vec::new());
        for (i, &t) in x.iter().enumerate() {
            let is_table = i < s.addends_at() && i % 2 == 0;
            operands.push(if is_table { one.add_const(t.clone(), &Loc::Unknown)? } else { input(&mut one, t) });
            inputs.extend((!is_table).then(|| t.clone()));
        }
        let y = one.add(Op::SumNorm(s), &operands, &Loc::Unknown)?;
        one.add_output("y", y);
        transform(&mut one, &mut Matrices::default(), &BTreeSet::new(), &mut |_, _, _| {})?;
        return Ok(outputs(&one, &Sample { dims: Vec::new(), inputs }, &mut |_, _, _| {})?.pop());
    }
    let Ok((linear, axis)) = candidate(g, v) else { return Ok(None) };
    let Ok((b, scales)) = made.side_by_side(g, g.operands(v)[1], axis) else { return Ok(None) };
    let a = input(&mut one, x[0]);
    let rows = quantised_rows(&mut one, a)?;
    let part = |v: ValueId| eval_op(one.op(v), one.ty(v), &[], &x[..1]).map_err(Diag::new);
    let [q, s, o] = [part(rows[0])?, part(rows[1])?, part(rows[2])?];
    let scales = Tensor::from_f32(vec![scales.len()], &scales);
    let linear = Linear { trans_b: linear.trans_b, int8: true, offset: true, ..Linear::default() };
    Ok(sums(&linear, &[&q, &b, &s, &scales, &o]))
}

/// Adds to `kept` the noisiest candidates, as few as are enough; the cosine then.
fn search(
    g: &Graph,
    made: &mut Matrices,
    m: &Measured<'_>,
    kept: &mut BTreeSet<ValueId>,
    budget: f64,
) -> Result<f64, Diag> {
    let mut order: Vec<(f64, ValueId)> =
        m.errors.iter().filter(|(v, _)| !kept.contains(v)).map(|(&v, n)| (n.snr(), v)).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let with = |kept: &BTreeSet<ValueId>, n: usize| -> BTreeSet<ValueId> {
        kept.iter().copied().chain(order[..n].iter().map(|o| o.1)).collect()
    };
    let mut cosine_of = |n: usize| {
        let mut part = g.clone();
        transform(&mut part, made, &with(kept, n), &mut |_, _, _| {})?;
        m.cosine(&part)
    };
    let (mut good, mut cosine) = (0, cosine_of(0)?);
    let mut bad = 0;
    while cosine < budget {
        if good == order.len() {
            let d = Diag::new(format!("the least cosine of an output is {cosine:.4} even with every matrix in floats"));
            return Err(
                d.note("the budget is for outputs that are finite on the samples; --int8-budget 0 switches it off")
            );
        }
        bad = good;
        good = (good * 2).clamp(1, order.len());
        cosine = cosine_of(good)?;
    }
    // Enough are kept; `bad` of them were not.
    while good > bad + 1 {
        let middle = bad + (good - bad) / 2;
        match cosine_of(middle)? {
            c if c < budget => bad = middle,
            c => (good, cosine) = (middle, c),
        }
    }
    *kept = with(kept, good);
    Ok(cosine)
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
