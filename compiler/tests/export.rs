//! `--emit onnx`: every model of the zoo, written and imported again, computes what it did, and what is on disk afterwards.

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bertc::CompileOptions;
use bertc::driver::front;
use bertc::export::onnx::{Files, Source, model, pipeline};
use bertc::import::onnx::{ImportOptions, import, import_bytes};
use bertc::progress::Progress;
use bertc_ir::eval::{eval, solve_dims};
use bertc_ir::{Graph, Tensor};
use common::Sandbox;
use ndarray::{IxDyn, OwnedRepr};
use ndarray_npy::NpzReader;

fn zoo() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo");
    let files = std::fs::read_dir(dir).expect("the zoo is there").map(|e| e.expect("a folder entry").path());
    let mut v: Vec<PathBuf> = files.filter(|p| p.extension().is_some_and(|e| e == "onnx")).collect();
    v.sort();
    assert!(v.len() >= 16);
    v
}

/// Inputs and outputs of the first case, by name.
fn golden(model: &Path) -> BTreeMap<String, Tensor> {
    let file = std::fs::File::open(model.with_extension("npz")).expect("goldens");
    let mut npz = NpzReader::new(file).expect("an npz file");
    let mut all = BTreeMap::new();
    for key in npz.names().expect("names") {
        let Some(name) = key.strip_suffix(".npy").unwrap_or(&key).strip_prefix("c0/") else { continue };
        let t = if name.starts_with("in:") {
            let a = npz.by_name::<OwnedRepr<i64>, IxDyn>(&key).expect("an i64 array");
            Tensor::from_i64(a.shape().to_vec(), &a.iter().copied().collect::<Vec<_>>())
        } else {
            let a = npz.by_name::<OwnedRepr<f32>, IxDyn>(&key).expect("an f32 array");
            Tensor::from_f32(a.shape().to_vec(), &a.iter().copied().collect::<Vec<_>>())
        };
        all.insert(name.to_string(), t);
    }
    all
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

fn computed(g: &Graph, golden: &BTreeMap<String, Tensor>) -> Vec<Tensor> {
    let inputs: Vec<Tensor> = g.inputs().iter().map(|p| golden[&format!("in:{}", p.name)].clone()).collect();
    eval(g, &solve_dims(g, &inputs).expect("dims"), &inputs).expect("values")
}

fn error(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.shape(), want.shape());
    let scale = want.iter().fold(0f64, |a, v| a.max(v.to_f64().abs()));
    let far = got.iter().zip(want.iter()).map(|(x, y)| (x.to_f64() - y.to_f64()).abs());
    far.fold(0f64, |a, d| if d.is_nan() { f64::INFINITY } else { a.max(d) }) / scale
}

/// What is wrong with a model that is written with these options: differences to `wanted`, which may be the goldens or what
/// the graph computes that was written.
fn check(path: &Path, options: &CompileOptions, of_graph: bool, tol: f64) -> Vec<String> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let g = front(path, options, &mut Progress::hidden()).expect("a graph").graph;
    let written = model(&g, &Source::open(path)).expect("a model");
    let mut bytes = Vec::new();
    written.write(&Files::One, &mut bytes).expect("memory");
    let back = match import_bytes(bytes.into(), None, &ImportOptions::default()) {
        Ok(back) => back.graph,
        Err(d) => return d.iter().map(|d| format!("{name}: {d}")).collect(),
    };
    let own = import(path, &ImportOptions::default()).expect("the model").graph;
    let ports = |g: &Graph| {
        let show = |p: &bertc_ir::Port| format!("{} {}", p.name, g.ty(p.value).display(&g.symbols));
        g.inputs().iter().chain(g.outputs()).map(show).collect::<Vec<_>>()
    };
    let mut wrong = Vec::new();
    if ports(&back) != ports(&own) {
        wrong.push(format!("{name}: {:?} became {:?}", ports(&own), ports(&back)));
    }
    let golden = golden(path);
    let want = match of_graph {
        true => computed(&g, &golden),
        false => g.outputs().iter().map(|p| golden[&format!("out:{}", p.name)].clone()).collect(),
    };
    for (p, (got, want)) in g.outputs().iter().zip(computed(&back, &golden).iter().zip(&want)) {
        let e = error(got, want);
        if e > tol {
            wrong.push(format!("{name} -O{} int8 {} {}: error {e:.2e}", options.opt_level, options.int8, p.name));
        }
    }
    wrong
}

#[test]
fn the_zoo_computes_its_goldens_after_the_way_through_onnx() {
    let mut wrong = Vec::new();
    for path in zoo() {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        for passes in [None, Some(pipeline(2, false).join(","))] {
            let opt_level = if passes.is_some() { 2 } else { 0 };
            let options = CompileOptions { opt_level, passes, ..CompileOptions::default() };
            wrong.extend(check(&path, &options, false, tolerance(&name)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn integers_and_bf16_are_near_what_the_evaluator_makes_of_them() {
    let mut wrong = Vec::new();
    // Rows of 64 random numbers lose a 200th of their largest one in 8 bits, some twenty times; here nothing.
    let int8 = CompileOptions { int8: true, int8_budget: 0, ..CompileOptions::default() };
    // Rounded where the graph rounds: another order of sums moves a few numbers to the next of 8 bits.
    let bf16 = CompileOptions { bf16: true, ..CompileOptions::default() };
    for path in zoo() {
        wrong.extend(check(&path, &int8, true, 1e-1));
        wrong.extend(check(&path, &bf16, true, 2e-2));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn pruned_weights_are_zeros_under_their_own_names() {
    let path = zoo().into_iter().find(|p| p.ends_with("bert-eager.onnx")).expect("a model of the zoo");
    let passes = Some(pipeline(2, false).join(","));
    let options = CompileOptions { prune: Some(500_000), block: Some([1, 4]), passes, ..CompileOptions::default() };
    assert_eq!(check(&path, &options, true, 1e-4), Vec::<String>::new());
    let g = front(&path, &options, &mut Progress::hidden()).expect("a graph").graph;
    let written = model(&g, &Source::open(&path)).expect("a model");
    let weights: Vec<&Tensor> =
        written.initializers().filter(|(name, _)| name.starts_with("onnx::MatMul_")).map(|(_, t)| t).collect();
    let zeros = weights.iter().flat_map(|t| t.iter()).filter(|s| s.to_f64() == 0.0).count();
    let all: usize = weights.iter().map(|t| t.len()).sum();
    assert!(weights.len() == 12 && zeros * 10 > all * 4, "{zeros} of {all} in {} matrices", weights.len());
}

#[test]
fn rows_of_padding_stay_left_out() {
    let path = zoo().into_iter().find(|p| p.ends_with("bert-eager.onnx")).expect("a model of the zoo");
    let options = CompileOptions { skip_padding: true, ..CompileOptions::default() };
    assert_eq!(check(&path, &options, true, 1e-5), Vec::<String>::new());
}

#[test]
fn weights_keep_their_names() {
    let path = zoo().into_iter().find(|p| p.ends_with("bert-eager.onnx")).expect("a model of the zoo");
    let passes = Some(pipeline(2, false).join(","));
    let g = front(&path, &CompileOptions { passes, ..CompileOptions::default() }, &mut Progress::hidden())
        .expect("a graph");
    let written = model(&g.graph, &Source::open(&path)).expect("a model");
    let mut bytes = Vec::new();
    written.write(&Files::One, &mut bytes).expect("memory");
    let text = String::from_utf8_lossy(&bytes);
    for name in ["m.embeddings.word_embeddings.weight", "m.encoder.layer.1.output.dense.bias", "/m/pooler/dense/Gemm"] {
        assert!(text.contains(name), "{name}");
    }
}

#[test]
fn files_appear_beside_each_other() {
    let s = Sandbox::new();
    assert!(s.ok("m.onnx --emit onnx -o out.onnx").is_empty());
    s.ok("m.onnx --emit obj,onnx -o b.o");
    s.ok("m.onnx --emit onnx --external-data -o ext.onnx");
    assert_eq!(s.files(), ["b.h", "b.o", "b.onnx", "ext.onnx", "ext.onnx.data", "m.onnx", "out.onnx"]);
    let size = |name: &str| std::fs::metadata(s.path(name)).expect("a file").len();
    assert!(size("ext.onnx") < 60_000 && size("ext.onnx.data") > 200_000);
    // What was written can be compiled.
    s.ok("ext.onnx --emit onnx -o again.onnx");
    assert!(s.ok("out.onnx --emit onnx -o -").len() > 200_000);
}

#[test]
fn wrong_usage_is_told() {
    let s = Sandbox::new();
    s.fails(2, "m.onnx --emit onnx", &["-o OUT is missing"]);
    s.fails(2, "m.onnx -o b.o --external-data", &["needs --emit onnx"]);
    s.fails(1, "m.onnx --emit onnx -o m.onnx", &["is the input 'm.onnx'"]);
    std::fs::rename(s.path("m.onnx"), s.path("m.onnx.data")).expect("a new name");
    s.fails(1, "m.onnx.data --emit onnx --external-data -o m.onnx", &["is the input 'm.onnx.data'"]);
}

#[test]
fn what_rows_of_floats_change_is_told() {
    let s = Sandbox::new();
    let (_, err) = s.exits(0, "m.onnx --int8 --emit onnx -o out.onnx");
    assert!(err.contains("products in 8 bits") && err.contains("cosine 0.99"), "{err}");
    assert!(s.exits(0, "m.onnx --int8 -q --emit onnx -o out.onnx").1.is_empty());
    assert!(s.exits(0, "m.onnx --emit onnx -o out.onnx").1.is_empty());
}
