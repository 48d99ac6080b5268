//! What `--int8` and `--prune` measure on: inputs from a file, or made-up ones.

use std::collections::BTreeMap;
use std::path::Path;

use bertc_ir::{Diag, Graph, Loc, Op, Tensor, ValueId};
use bertc_passes::{Int8Settings, PruneSettings, Sample, Settings, StructuredSettings};

use crate::check::inputs::{KINDS, descriptor, plausible, small_dims};
use crate::load::{Descriptor, Extent};
use crate::options::CompileOptions;
use crate::run;

/// How many made-up texts of which length.
const MADE_UP: [(i64, i64); 2] = [(8, 12), (4, 24)];
/// Rows of a batch that are evaluated at a time.
const BATCH: usize = 8;
/// Batches that are taken of a file: what more of them tell isn't worth the time.
const BATCHES: usize = 4;
/// The same for weights that are fitted to them: as many rows as a matrix has inputs, and more.
const PRUNE_BATCHES: usize = 32;

/// What the passes are asked for: `g` is the graph as imported.
///
/// # Errors
/// A file that can't be read or doesn't fit the model.
pub fn settings(g: &Graph, o: &CompileOptions) -> Result<Settings, Vec<Diag>> {
    let budget = f64::from(o.int8_budget) / 1e6;
    let texts = |most| match &o.calibrate {
        Some(file) => from_file(g, file, most)
            .map(|samples| vec![samples])
            .map_err(|all| all.into_iter().map(|d| in_file(d, file)).collect::<Vec<_>>()),
        None => made_up(g),
    };
    let int8 = || -> Result<Int8Settings, Vec<Diag>> {
        let samples = if budget == 0.0 { Vec::new() } else { texts(BATCHES)? };
        Ok(Int8Settings { budget, keep: o.keep.clone(), samples, synthetic: o.calibrate.is_none() })
    };
    let prune = |sparsity: u32| -> Result<PruneSettings, Vec<Diag>> {
        Ok(PruneSettings {
            sparsity: f64::from(sparsity) / 1e6,
            block: o.block_shape(),
            only: o.prune_only.clone(),
            keep: o.keep.clone(),
            // With integers, names may be of tables.
            strict: !o.int8,
            samples: if o.calibrate.is_some() { texts(PRUNE_BATCHES)? } else { Vec::new() },
        })
    };
    let parts = [o.prune_heads, o.prune_ffn];
    let structured = || -> Result<StructuredSettings, Vec<Diag>> {
        let [heads, ffn] = parts.map(|p| f64::from(p.unwrap_or(0)) / 1e6);
        let (keep, synthetic) = (o.keep.clone(), o.calibrate.is_none());
        // With other passes, names may be of matrices that these leave as they are.
        let strict = !o.int8 && o.prune.is_none();
        Ok(StructuredSettings { heads, ffn, keep, strict, samples: texts(PRUNE_BATCHES)?, synthetic })
    };
    let is_structured = parts.iter().any(Option::is_some);
    let compresses = o.int8 || o.prune.is_some() || is_structured;
    Ok(Settings {
        int8: o.int8.then(int8).transpose()?,
        prune: o.prune.map(prune).transpose()?,
        structured: is_structured.then(structured).transpose()?,
        names: if compresses { names(g) } else { Vec::new() },
    })
}

/// The nodes that read constants as matrices or tables.
fn names(g: &Graph) -> Vec<(Tensor, String)> {
    let of = |v: ValueId| {
        let at = match g.op(v) {
            Op::MatMul { .. } => 1,
            Op::Gather { axis: 0 } => 0,
            _ => return None,
        };
        let mut x = g.operands(v)[at];
        while let Op::Transpose { .. } | Op::Reshape { .. } | Op::Cast(_) = g.op(x) {
            x = g.operands(x)[0];
        }
        match &g.node(v).loc {
            Loc::Node { name, .. } => Some((g.as_const(x)?.clone(), name.clone())),
            _ => None,
        }
    };
    g.topo().into_iter().filter_map(of).collect()
}

fn in_file(mut d: Diag, file: &Path) -> Diag {
    d.message = format!("--calibrate '{}': {}", file.display(), d.message);
    d
}

/// Texts without padding, which nobody looks at, for each kind of ids and segments that a model may take.
fn made_up(g: &Graph) -> Result<Vec<Vec<Sample>>, Vec<Diag>> {
    let d = descriptor(g);
    let words = vocabulary(g).map(|rows| [(rows, true), (rows, false)]);
    let kinds = words.into_iter().flatten().chain(KINDS);
    let of = |(ids, segments)| {
        let one = |(batch, length)| {
            let dims = small_dims(&d, batch, length);
            Ok(Sample { inputs: plausible(&d, &dims, ids, segments, false)?, dims })
        };
        MADE_UP.into_iter().map(one).collect()
    };
    kinds.map(of).collect()
}

/// Rows of the largest table that an input takes rows of.
fn vocabulary(g: &Graph) -> Option<i128> {
    let rows = |v: ValueId| {
        let (Op::Gather { axis: 0 }, &[table, mut ids]) = (g.op(v), g.operands(v)) else { return None };
        while let Op::Cast(_) | Op::Reshape { .. } | Op::Broadcast { .. } = g.op(ids) {
            ids = g.operands(ids)[0];
        }
        let is_input = matches!(g.op(ids), Op::Input { .. });
        is_input.then(|| g.ty(table).shape.first()?.as_const().map(i128::from)).flatten()
    };
    g.topo().into_iter().filter_map(rows).max()
}

/// The samples of an `.npz`: arrays by the inputs' names, or of several cases with `c0/in:` and so on before them.
fn from_file(g: &Graph, file: &Path, most: usize) -> Result<Vec<Sample>, Vec<Diag>> {
    let d = descriptor(g);
    let mut cases: BTreeMap<String, BTreeMap<String, Tensor>> = BTreeMap::new();
    for (key, t) in run::read_inputs(file).map_err(|d| vec![d])? {
        let (case, name) = match key.split_once("/in:") {
            Some((case, name)) if d.inputs.iter().all(|p| p.name != key) => (case, name),
            _ => ("", key.as_str()),
        };
        // What a file of cases expects of outputs.
        if case.is_empty() && key.contains("/out:") {
            continue;
        }
        cases.entry(case.to_string()).or_default().insert(name.to_string(), t);
    }
    if cases.is_empty() {
        return Err(vec![Diag::new("it has no arrays")]);
    }
    let mut samples = Vec::new();
    for arrays in cases.into_values() {
        for part in batches(&d, arrays, most) {
            let dims = run::unify(&d, &part)?;
            samples.push(Sample { dims, inputs: d.inputs.iter().map(|p| run::typed(p, &part[&p.name])).collect() });
            if samples.len() == most {
                return Ok(samples);
            }
        }
    }
    Ok(samples)
}

/// The arrays in parts along the first axis, where all inputs have it, each of as many rows as the model takes. Rows of about
/// the same length go together, without the padding that they share: the model's users see little of it.
fn batches(d: &Descriptor, arrays: BTreeMap<String, Tensor>, most: usize) -> Vec<BTreeMap<String, Tensor>> {
    let first = d.inputs.first().and_then(|p| p.dims.first().copied());
    let size = match first {
        Some(Extent::Symbol(s)) => usize::try_from(d.symbols[s].max).unwrap_or(BATCH).min(BATCH),
        Some(Extent::Const(c)) => usize::try_from(c).unwrap_or(BATCH),
        _ => 0,
    };
    let rows = arrays.values().next().and_then(|t| t.shape().first().copied()).unwrap_or(0);
    let common = d.inputs.iter().all(|p| p.dims.first().copied() == first)
        && arrays.values().all(|t| t.shape().first() == Some(&rows));
    if !common || size == 0 || rows == 0 {
        return vec![arrays];
    }
    let lengths = lengths(d, &arrays);
    let mut order: Vec<usize> = (0..rows).collect();
    if let Some(lengths) = &lengths {
        order.sort_by_key(|&row| lengths[row]);
    }
    // A rest of less rows may be too few for the model.
    let parts: Vec<&[usize]> = if rows < size { vec![&order] } else { order.chunks_exact(size).collect() };
    // Of more than are wanted, some of all lengths.
    let last = parts.len().min(most) - 1;
    let chosen = (0..=last).map(|i| parts[i * (parts.len() - 1) / last.max(1)]);
    let batch = |part: &[usize]| {
        let length = lengths.as_ref().map(|l| part.iter().map(|&row| l[row]).max().unwrap_or(1).max(1));
        arrays.iter().map(|(name, t)| (name.clone(), rows_of(t, part, length).unwrap_or_else(|| t.clone()))).collect()
    };
    chosen.map(batch).collect()
}

/// The length of each row, if there is a mask and all inputs are `[batch, length]`.
fn lengths(d: &Descriptor, arrays: &BTreeMap<String, Tensor>) -> Option<Vec<usize>> {
    let both = &d.inputs.first()?.dims;
    let &[_, Extent::Symbol(s)] = both.as_slice() else { return None };
    let mask = d.inputs.iter().find(|p| p.name.to_ascii_lowercase().contains("mask"))?;
    let mask = arrays.get(&mask.name)?;
    let same = arrays.values().all(|t| t.shape() == mask.shape()) && d.inputs.iter().all(|p| p.dims == *both);
    let &[_, width] = mask.shape() else { return None };
    if !same || width == 0 {
        return None;
    }
    let least = usize::try_from(d.symbols[s].min).unwrap_or(0);
    let values = mask.to_f64_vec();
    let length = |row: &[f64]| row.iter().rposition(|&x| x != 0.0).map_or(0, |i| i + 1).max(least);
    Some(values.chunks_exact(width).map(length).collect())
}

/// Some rows of a tensor, and with `length` the beginnings of them.
fn rows_of(t: &Tensor, rows: &[usize], length: Option<usize>) -> Option<Tensor> {
    let width = t.shape().get(1..)?.iter().product::<usize>();
    let (row, kept) = (width * t.dtype().size(), length.map_or(width, |n| n.min(width)) * t.dtype().size());
    let bytes: Vec<u8> = rows.iter().flat_map(|&r| t.bytes()[r * row..][..kept].iter().copied()).collect();
    let mut shape = t.shape().to_vec();
    shape[0] = rows.len();
    if let Some(n) = length {
        shape[1] = n.min(width);
    }
    Tensor::new(t.dtype(), shape, bytes.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::text::{no_resources, parse};

    const TEXT: &str = "dims b in 1..=2, s in 1..=64
func @f(%ids: tensor<b x s x i64>, %m: tensor<b x s x i64>) -> (y: tensor<b x s x i64>) {
  %0 = add %ids, %m
  return %0
}";

    fn file(arrays: &[(&str, Tensor)]) -> (tempfile::TempDir, std::path::PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("c.npz");
        crate::npz::write(std::fs::File::create(&path).unwrap(), arrays.iter().map(|(n, t)| (*n, t))).unwrap();
        (dir, path)
    }

    fn ids(rows: usize) -> Tensor {
        Tensor::from_i64(vec![rows, 3], &(0..3 * rows as i64).collect::<Vec<_>>())
    }

    #[test]
    fn files_are_cut_into_batches_that_the_model_takes() {
        let g = parse(TEXT, &no_resources).unwrap();
        let (_dir, path) = file(&[("ids", ids(5)), ("m", ids(5))]);
        let samples = from_file(&g, &path, BATCHES).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1].dims, [2, 3]);
        assert_eq!(samples[1].inputs[0].to_i64_vec(), [6, 7, 8, 9, 10, 11]);
    }

    #[test]
    fn texts_of_one_length_go_together_without_their_padding() {
        let g = parse(&TEXT.replace("%m", "%mask"), &no_resources).unwrap();
        let lengths = [4, 1, 3, 1, 4, 2, 4, 4, 4, 4, 4, 4];
        let mask: Vec<i64> = lengths.iter().flat_map(|&n| (0..4).map(move |i| i64::from(i < n))).collect();
        let ids = Tensor::from_i64(vec![12, 4], &(0..48).collect::<Vec<_>>());
        let (_dir, path) = file(&[("ids", ids), ("mask", Tensor::from_i64(vec![12, 4], &mask))]);
        let samples = from_file(&g, &path, BATCHES).unwrap();
        let dims: Vec<_> = samples.iter().map(|s| s.dims.clone()).collect();
        // Of six batches the shortest, the longest and two between.
        assert_eq!(dims, [[2, 1], [2, 3], [2, 4], [2, 4]]);
        assert_eq!(samples[0].inputs[0].to_i64_vec(), [4, 12]);
        assert_eq!(samples[1].inputs[0].to_i64_vec(), [20, 21, 22, 8, 9, 10]);
        assert_eq!(samples[1].inputs[1].to_i64_vec(), [1, 1, 0, 1, 1, 1]);
    }

    #[test]
    fn cases_are_samples() {
        let g = parse(TEXT, &no_resources).unwrap();
        let all = [
            ("c0/in:ids", ids(1)),
            ("c0/in:m", ids(1)),
            ("c0/out:y", ids(1)),
            ("c1/in:ids", ids(2)),
            ("c1/in:m", ids(2)),
        ];
        let (_dir, path) = file(&all);
        let dims: Vec<_> = from_file(&g, &path, BATCHES).unwrap().into_iter().map(|s| s.dims).collect();
        assert_eq!(dims, [[1, 3], [2, 3]]);
    }

    #[test]
    fn what_does_not_fit_is_an_error_that_names_the_file() {
        let g = parse(TEXT, &no_resources).unwrap();
        let (_dir, path) = file(&[("ids", ids(1)), ("mask", ids(1))]);
        let o = CompileOptions { int8: true, calibrate: Some(path.clone()), ..CompileOptions::default() };
        let e = settings(&g, &o).unwrap_err();
        assert!(e[0].message.contains("c.npz") && e.iter().any(|d| d.message.contains("'mask'")), "{e:?}");
        let none = CompileOptions { int8_budget: 0, ..o };
        assert!(settings(&g, &none).unwrap().int8.unwrap().samples.is_empty());
    }

    #[test]
    fn made_up_texts_are_of_all_kinds() {
        let g = parse(TEXT, &no_resources).unwrap();
        let s = settings(&g, &CompileOptions { int8: true, ..CompileOptions::default() }).unwrap().int8.unwrap();
        assert_eq!((s.samples.len(), s.synthetic), (3, true));
        assert_eq!(s.samples[0].iter().map(|s| s.dims.clone()).collect::<Vec<_>>(), [[2, 12], [2, 24]]);
        // With a table, of all its words first.
        let table =
            "  %t = constant dense<0.5> : tensor<5000 x 1 x f32>\n  %x = gather %t, %ids {axis = 0}\n  %0 = add";
        let text = TEXT.replace("  %0 = add", table);
        let g = parse(&text, &no_resources).unwrap();
        let s = settings(&g, &CompileOptions { int8: true, ..CompileOptions::default() }).unwrap().int8.unwrap();
        assert_eq!(s.samples.len(), 5);
        let ids = s.samples[0][1].inputs[0].to_i64_vec();
        assert!(ids.iter().any(|&i| i > 2500) && ids.iter().all(|&i| (0..5000).contains(&i)), "{ids:?}");
    }
}
