//! Every model of the zoo imports, nothing of its shape arithmetic is left, and the graph computes the goldens.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bertc::import::onnx::{ImportOptions, import};
use bertc_ir::eval::{eval, solve_dims};
use bertc_ir::{Op, Tensor};
use ndarray::{IxDyn, OwnedRepr};
use ndarray_npy::NpzReader;

fn zoo() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo");
    let mut v: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("the zoo is there")
        .map(|e| e.expect("a folder entry").path())
        .filter(|p| p.extension().is_some_and(|e| e == "onnx"))
        .collect();
    v.sort();
    assert!(v.len() >= 16);
    v
}

#[test]
fn every_model_imports() {
    let mut failed = Vec::new();
    for path in zoo() {
        match import(&path, &ImportOptions::default()) {
            Ok(m) => {
                let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                let s: Vec<String> =
                    m.graph.symbols.iter().map(|(_, s)| format!("{} {}..={}", s.name, s.min, s.max)).collect();
                if s.len() != 2 || m.graph.symbols.iter().any(|(_, s)| s.min != 1) {
                    failed.push(format!("{name}: symbols {s:?}"));
                }
                let mut count = BTreeMap::new();
                for v in m.graph.topo() {
                    *count.entry(m.graph.op(v).name()).or_insert(0) += 1;
                    if matches!(m.graph.op(v), Op::Dim(_)) {
                        failed.push(format!("{name}: a dim reaches the graph at {}", m.graph.node(v).loc));
                    }
                }
                eprintln!("{name}: {} nodes, {s:?}, {:?} {count:?}", m.graph.len(), m.notes);
            }
            Err(d) => failed.extend(d.iter().map(|d| format!("{}: {d}", path.display()))),
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

/// Largest error relative to the largest reference value.
fn tolerance(model: &str) -> f64 {
    match model.split_once('+').map(|(_, v)| v) {
        Some("fp16") => 5e-3,
        Some("dyn8" | "qdq") => 1e-2,
        Some("qdqall") => 5e-2,
        _ => 1e-4,
    }
}

/// The f32 or i64 arrays of a golden file, by key.
fn goldens(path: &Path) -> BTreeMap<String, Tensor> {
    let mut npz = NpzReader::new(std::fs::File::open(path).expect("goldens")).expect("an npz file");
    let mut all = BTreeMap::new();
    for key in npz.names().expect("names") {
        let name = key.strip_suffix(".npy").unwrap_or(&key).to_string();
        let t = if name.contains("/in:") {
            let a = npz.by_name::<OwnedRepr<i64>, IxDyn>(&key).expect("an i64 array");
            Tensor::from_i64(a.shape().to_vec(), &a.iter().copied().collect::<Vec<_>>())
        } else {
            let a = npz.by_name::<OwnedRepr<f32>, IxDyn>(&key).expect("an f32 array");
            Tensor::from_f32(a.shape().to_vec(), &a.iter().copied().collect::<Vec<_>>())
        };
        all.insert(name, t);
    }
    all
}

#[test]
fn every_model_computes_its_goldens() {
    let mut failed = Vec::new();
    for path in zoo() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let g = match import(&path, &ImportOptions::default()) {
            Ok(m) => m.graph,
            Err(d) => {
                failed.push(format!("{name}: {}", d[0]));
                continue;
            }
        };
        let goldens = goldens(&path.with_extension("npz"));
        for case in ["c0", "c1"] {
            let input = |p: &bertc_ir::Port| goldens[&format!("{case}/in:{}", p.name)].clone();
            let inputs: Vec<Tensor> = g.inputs().iter().map(input).collect();
            let dims = solve_dims(&g, &inputs).expect("dims");
            let outs = match eval(&g, &dims, &inputs) {
                Ok(o) => o,
                Err(d) => {
                    failed.push(format!("{name} {case}: {d}"));
                    continue;
                }
            };
            for (p, y) in g.outputs().iter().zip(&outs) {
                let want = &goldens[&format!("{case}/out:{}", p.name)];
                let scale = want.iter().fold(0f64, |a, v| a.max(v.to_f64().abs()));
                let worst = y.iter().zip(want.iter()).fold(0f64, |a, (x, y)| {
                    let d = (x.to_f64() - y.to_f64()).abs();
                    if d.is_nan() { f64::INFINITY } else { a.max(d) }
                });
                eprintln!("{name} {case} {}: {:.2e}", p.name, worst / scale);
                if y.shape() != want.shape() || worst > tolerance(&name) * scale {
                    failed.push(format!("{name} {case} {}: error {:e}", p.name, worst / scale));
                }
            }
        }
    }
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
