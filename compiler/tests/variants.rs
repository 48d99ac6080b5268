//! The variants of a generic object, one after the other in one process: what differs between them is the code alone.

mod common;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use bertc::link::shared_library;
use bertc::load::{LoadedModel, RunError};
use bertc::npz;
use bertc::options::CompileOptions;
use bertc::progress::Progress;
use bertc::run::{plausible_dims, plausible_inputs, select_variant};
use bertc_ir::Tensor;
use common::Sandbox;

/// A model of the zoo as a generic object, linked in `dir`.
fn library(dir: &Path, model: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo").join(model);
    let options = CompileOptions { name: "model".into(), cpu: "generic".into(), ..CompileOptions::default() };
    let compiled = bertc::compile(&path, &options).unwrap_or_else(|e| panic!("{model}: {e:?}"));
    let library = dir.join(format!("{model}.so"));
    shared_library(&compiled, &library, &mut Progress::new(true)).unwrap_or_else(|e| panic!("{model}: {e:?}"));
    library
}

fn open(library: &Path) -> LoadedModel {
    LoadedModel::open(library, "model").unwrap_or_else(|e| panic!("{e:?}"))
}

/// The outputs of a run with inputs that are always the same.
fn outputs(m: &LoadedModel) -> Vec<Tensor> {
    let dims = plausible_dims(m.descriptor());
    let inputs = plausible_inputs(m.descriptor(), &dims, 64).unwrap();
    let mut session = m.session(&inputs, &dims, None).unwrap();
    session.run().unwrap();
    session.outputs()
}

/// Selects every variant in turn; those that this CPU has, each with what `run` gives.
fn each<T>(m: &LoadedModel, mut run: impl FnMut() -> T) -> Vec<(String, T)> {
    let mut done = Vec::new();
    for (i, name) in m.variants().iter().enumerate() {
        match m.select_variant(i) {
            Ok(()) => done.push((name.clone(), run())),
            Err(RunError { code, .. }) => {
                assert_eq!(code, bertc_rt::abi::status::CPU_UNSUPPORTED, "{name}");
                eprintln!("skipped: this machine has not the instructions of {name}");
            }
        }
    }
    done
}

fn deviation(a: &Tensor, b: &Tensor) -> f64 {
    let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
    assert_eq!(a.len(), b.len());
    let most = a.iter().fold(1e-30, |m: f64, x| m.max(x.abs()));
    a.iter().zip(&b).fold(0.0, |m: f64, (x, y)| m.max((x - y).abs())) / most
}

#[test]
#[cfg(target_arch = "x86_64")]
fn all_variants_of_an_object_agree() {
    let dir = tempfile::tempdir().unwrap();
    for model in ["bert-eager.onnx", "bert-mlm.onnx", "minilm-dynamo-cls.onnx"] {
        let m = open(&library(dir.path(), model));
        assert!(m.variants().len() > 1 && m.variants()[0] == "x86-64", "{:?}", m.variants());
        // What the check of the CPU finds is the last of them.
        let chosen = outputs(&m);
        let all = each(&m, || outputs(&m));
        let (last, of_last) = all.last().expect("every CPU has the first");
        assert!(chosen == *of_last, "{model}: {last} differs from what runs unasked");
        for (name, each) in &all {
            for (a, b) in chosen.iter().zip(each) {
                assert!(deviation(a, b) < 1e-4, "{model}: {name} deviates by {}", deviation(a, b));
            }
        }
        // Sums in another order: the variants are not the same code.
        assert!(all.len() == 1 || all[0].1 != *of_last, "{model}: {} and {last} are equal to the bit", all[0].0);
        assert_eq!(m.select_variant(m.variants().len()).unwrap_err().code, bertc_rt::abi::status::INDEX_OUT_OF_RANGE);
        assert!(outputs(&m) == *of_last, "{model}: a refused choice changes nothing");
    }
}

/// Any thread may choose at any time: each run is one variant's, from its start to its end.
#[test]
#[cfg(target_arch = "x86_64")]
fn a_run_keeps_its_variant() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), "bert-eager.onnx");
    let m = open(&library);
    let all = each(&m, || outputs(&m));
    let dims = plausible_dims(m.descriptor());
    let inputs = plausible_inputs(m.descriptor(), &dims, 64).unwrap();
    // The largest workspace of all will do for each.
    let sizes = each(&m, || m.workspace_size(&dims, 1));
    let largest = sizes.iter().max_by_key(|s| s.1).map(|s| s.0.clone()).unwrap();
    select_variant(&m, &largest).unwrap();
    let mut session = m.session(&inputs, &dims, None).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            // The same library, loaded again: there is one choice in a process.
            let again = open(&library);
            for name in all.iter().map(|a| &a.0).cycle().take_while(|_| !done.load(Ordering::Relaxed)) {
                select_variant(&again, name).unwrap();
            }
        });
        let strange = (0..50).find_map(|_| match session.run() {
            Ok(()) => (!all.iter().any(|a| a.1 == session.outputs())).then(|| "the outputs of no variant".to_string()),
            Err(e) => Some(e.to_string()),
        });
        done.store(true, Ordering::Relaxed);
        assert_eq!(strange, None);
    });
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_command_line_chooses_a_variant() {
    let s = Sandbox::new();
    s.ok("run m.onnx --variant x86-64 --output a.npz");
    s.ok("run m.onnx --cpu x86-64 --output b.npz");
    let read = |name: &str| npz::read(std::fs::File::open(s.path(name)).unwrap()).unwrap();
    let (a, b) = (read("a.npz"), read("b.npz"));
    assert!(!a.is_empty() && a == b, "the first variant is the code for x86-64");
    s.fails(1, "run m.onnx --variant i486", &["no variant 'i486'", "the object has code for x86-64, x86-64-v3"]);
    s.fails(1, "run m.onnx --cpu native --variant x86-64", &["the object has code for one CPU only", "generic"]);
}
