//! What `--int8` measures on: inputs from a file, or made-up ones.

use std::collections::BTreeMap;
use std::path::Path;

use bertc_ir::eval::eval_op;
use bertc_ir::{Diag, Graph, Loc, Op, Tensor, TensorType, ValueId};
use bertc_passes::{Int8Settings, Sample};

use crate::check::inputs::{KINDS, descriptor, plausible, small_dims};
use crate::load::{Descriptor, Extent};
use crate::options::CompileOptions;
use crate::run;

/// The length of made-up texts.
const LENGTH: i64 = 16;
/// Rows of a batch that are evaluated at a time.
const BATCH: usize = 8;
/// Batches that are taken of a file: what more of them tell isn't worth the time.
const BATCHES: usize = 4;

/// What `use-int8` is asked for, if it is: `g` is the graph as imported.
///
/// # Errors
/// A file that can't be read or doesn't fit the model.
pub fn settings(g: &Graph, o: &CompileOptions) -> Result<Option<Int8Settings>, Vec<Diag>> {
    if !o.int8 {
        return Ok(None);
    }
    let budget = f64::from(o.int8_budget) / 1e6;
    let samples = match &o.calibrate {
        _ if budget == 0.0 => Vec::new(),
        Some(file) => {
            vec![from_file(g, file).map_err(|all| all.into_iter().map(|d| in_file(d, file)).collect::<Vec<_>>())?]
        }
        None => made_up(g, !o.skip_padding)?,
    };
    Ok(Some(Int8Settings { budget, keep: o.keep.clone(), samples, synthetic: o.calibrate.is_none(), names: names(g) }))
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

/// One sample of each kind that a model may take.
fn made_up(g: &Graph, padding: bool) -> Result<Vec<Vec<Sample>>, Vec<Diag>> {
    let d = descriptor(g);
    let dims = small_dims(&d, LENGTH);
    let one = |(ids, segments)| {
        let inputs = plausible(&d, &dims, ids, segments, padding)?;
        Ok(vec![Sample { dims: dims.clone(), inputs }])
    };
    KINDS.into_iter().map(one).collect()
}

/// The samples of an `.npz`: arrays by the inputs' names, or of several cases with `c0/in:` and so on before them.
fn from_file(g: &Graph, file: &Path) -> Result<Vec<Sample>, Vec<Diag>> {
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
        for part in batches(&d, arrays) {
            let dims = run::unify(&d, &part)?;
            samples.push(Sample { dims, inputs: d.inputs.iter().map(|p| run::typed(p, &part[&p.name])).collect() });
            if samples.len() == BATCHES {
                return Ok(samples);
            }
        }
    }
    Ok(samples)
}

/// The arrays in parts along the first axis, where all inputs have it, each of as many rows as the model takes.
fn batches(d: &Descriptor, arrays: BTreeMap<String, Tensor>) -> Vec<BTreeMap<String, Tensor>> {
    let first = d.inputs.first().and_then(|p| p.dims.first().copied());
    let size = match first {
        Some(Extent::Symbol(s)) => usize::try_from(d.symbols[s].max).unwrap_or(BATCH).min(BATCH),
        Some(Extent::Const(c)) => usize::try_from(c).unwrap_or(BATCH),
        _ => 0,
    };
    let rows = arrays.values().next().and_then(|t| t.shape().first().copied()).unwrap_or(0);
    let common = d.inputs.iter().all(|p| p.dims.first().copied() == first)
        && arrays.values().all(|t| t.shape().first() == Some(&rows));
    if !common || size == 0 || rows <= size {
        return vec![arrays];
    }
    // A rest of less rows may be too few for the model.
    let starts = (0..rows - rows % size).step_by(size);
    let part = |start: usize, t: &Tensor| {
        let dims = [&[size], &t.shape()[1..]].concat();
        let ty = TensorType::new(t.dtype(), dims.iter().map(|&n| (n as i64).into()).collect());
        let op = Op::Slice { axis: 0, start: (start as i64).into(), len: (size as i64).into(), step: 1 };
        eval_op(&op, &ty, &[], &[t]).unwrap_or_else(|_| t.clone())
    };
    starts.map(|s| arrays.iter().map(|(name, t)| (name.clone(), part(s, t))).collect()).collect()
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
        let samples = from_file(&g, &path).unwrap();
        assert_eq!(samples.len(), 2);
        assert_eq!(samples[1].dims, [2, 3]);
        assert_eq!(samples[1].inputs[0].to_i64_vec(), [6, 7, 8, 9, 10, 11]);
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
        let dims: Vec<_> = from_file(&g, &path).unwrap().into_iter().map(|s| s.dims).collect();
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
        assert!(settings(&g, &none).unwrap().unwrap().samples.is_empty());
    }

    #[test]
    fn made_up_texts_are_of_all_kinds() {
        let g = parse(TEXT, &no_resources).unwrap();
        let s = settings(&g, &CompileOptions { int8: true, ..CompileOptions::default() }).unwrap().unwrap();
        assert_eq!((s.samples.len(), s.synthetic), (3, true));
        assert_eq!(s.samples[0][0].dims, [2, 16]);
    }
}
