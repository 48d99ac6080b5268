//! Every zoo model, compiled at every -O level for every machine, against its golden outputs: both cases from one
//! object, serially and with 1 and 2 threads, bit-identical among those.
//!
//! One test per machine, level and model. A machine that is missing here is reported by name.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use bertc_testsuite::golden::{self, Case, relative_error};
use bertc_testsuite::machine::{Machine, case_bytes, read_outputs, scratch};
use bertc_testsuite::{stub, zoo_dir};
use libtest_mimic::{Arguments, Failed, Trial};

/// Largest error relative to the largest reference value.
fn tolerance(model: &str) -> f64 {
    match model.split_once('+').map(|(_, v)| v) {
        Some("fp16") => 5e-3,
        Some("dyn8" | "qdq") => 1e-2,
        Some("qdqall") => 5e-2,
        _ => 1e-4,
    }
}

fn main() {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    for machine in [Machine::X86_64, Machine::Aarch64] {
        if let Some(what) = machine.missing() {
            let name = format!("zoo::{}::skipped for want of {what}", machine.name());
            trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            continue;
        }
        for model in models() {
            for level in 0..=3u8 {
                let model = model.clone();
                let name = format!("zoo::{}::O{level}::{model}", machine.name());
                trials.push(Trial::test(name, move || check(machine, level, &model).map_err(Failed::from)));
            }
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

fn models() -> Vec<String> {
    let files = std::fs::read_dir(zoo_dir()).expect("the zoo is in the repository");
    let names = files.filter_map(|f| f.ok()?.file_name().to_str()?.strip_suffix(".onnx").map(str::to_string));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn check(machine: Machine, level: u8, model: &str) -> Result<(), String> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let options = bertc::CompileOptions {
        opt_level: level,
        target: machine.name().to_string(),
        name: "model".to_string(),
        verify_each: true,
        ..Default::default()
    };
    let show = |e: Vec<bertc_ir::Diag>| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let compiled = bertc::compile(&zoo_dir().join(format!("{model}.onnx")), &options).map_err(show)?;
    let object = scratch(&dir, "model.o");
    let mut file = std::fs::File::create(&object).map_err(|e| e.to_string())?;
    compiled.write_object(&mut file).map_err(show)?;
    let program = scratch(&dir, "drive");
    machine.link(&object, "model", &stub(machine)?, &program)?;
    let p = compiled.program();
    for case in golden::read(&zoo_dir().join(format!("{model}.npz")))? {
        let inputs: Vec<String> = p.inputs.iter().map(|i| i.name.clone()).collect();
        let dims = dims_of(p, &case)?;
        let file = scratch(&dir, "case.bin");
        std::fs::write(&file, case_bytes(&case, &dims, &inputs)?).map_err(|e| e.to_string())?;
        let mut results = BTreeMap::new();
        for threads in ["0", "1", "2"] {
            let out = scratch(&dir, "out.bin");
            let args: Vec<OsString> = [file.clone(), out.clone(), PathBuf::from(threads)].map(Into::into).into();
            machine.run(&program, &args)?;
            results.insert(threads, read_outputs(&out, &vec![4; p.outputs.len()])?);
        }
        if results["0"] != results["1"] || results["0"] != results["2"] {
            return Err(format!("{}: results differ between thread counts", case.name));
        }
        for (port, (shape, bytes)) in p.outputs.iter().zip(&results["0"]) {
            let want = &case.outputs[&port.name];
            let want_shape: Vec<i64> = want.shape().iter().map(|&d| d as i64).collect();
            if *shape != want_shape {
                return Err(format!("{}: {} has shape {shape:?}, expected {want_shape:?}", case.name, port.name));
            }
            let got: Vec<f32> = bytes.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
            let want: Vec<f32> = want.iter().copied().collect();
            let error = relative_error(&got, &want);
            if error > tolerance(model) {
                return Err(format!("{}: {} is off by {error:.2e} of the largest value", case.name, port.name));
            }
        }
    }
    Ok(())
}

/// The dims' values that the case's inputs imply.
fn dims_of(p: &bertc::Program, case: &Case) -> Result<Vec<i64>, String> {
    let mut dims = vec![0; p.symbols.len()];
    for port in &p.inputs {
        let a = case.inputs.get(&port.name).ok_or_else(|| format!("the case has no input '{}'", port.name))?;
        for (d, &n) in port.ty.shape.iter().zip(a.shape()) {
            if let Some(s) = d.as_symbol() {
                dims[s.0 as usize] = n as i64;
            }
        }
    }
    Ok(dims)
}
