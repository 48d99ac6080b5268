//! `bertc demo`: the whole way, from a model to a running app, step by step.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use bertc_backends::target::Target;
use bertc_ir::Diag;

use crate::options::{CompileOptions, name_of, symbol_prefix};
use crate::output::to_stdout;
use crate::progress::{size, time};
use crate::{driver, link, stub};

/// A BERT of two layers with random weights.
const MODEL: &[u8] = include_bytes!("../../testsuite/models/zoo/bert-eager.onnx");

/// The app: it drives any model through its descriptor.
const APP: &str = include_str!("../../examples/c/generic.c");

/// What `demo` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct DemoOptions {
    /// The user's model; `None` takes the small one.
    pub model: Option<PathBuf>,
    /// Folder for the files; `None` takes a temporary one.
    pub keep: Option<PathBuf>,
    /// As in [`CompileOptions`].
    pub dims: Vec<(String, i64, i64)>,
    /// As in [`CompileOptions`].
    pub shapes: Vec<(String, Vec<i64>)>,
}

/// Runs the subcommand.
///
/// # Errors
/// Everything that is wrong with the model, no C compiler, or an app that fails.
pub fn run(o: &DemoOptions) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let scratch = tempfile::tempdir().map_err(|e| one(Diag::new(format!("can't make a temporary folder: {e}"))))?;
    let dir = match &o.keep {
        Some(dir) => {
            let fail = |e| one(Diag::new(format!("can't make the folder '{}': {e}", dir.display())));
            std::fs::create_dir_all(dir).map_err(fail)?;
            dir.as_path()
        }
        None => scratch.path(),
    };
    let model = match &o.model {
        Some(m) => m.clone(),
        None => {
            let m = dir.join("small.onnx");
            write(&m, MODEL)?;
            say(&format!("The model: a BERT of two layers with random weights, {}.\n", size(MODEL.len() as u64)))?;
            m
        }
    };
    let name = symbol_prefix(&name_of(&model)).unwrap_or_else(|_| "bert".to_string());
    let options = CompileOptions {
        cpu: "native".into(),
        dims: o.dims.clone(),
        shapes: o.shapes.clone(),
        name: name.clone(),
        ..CompileOptions::default()
    };
    let target = Target::parse(&options.target, &options.cpu).map_err(one)?;

    say(&format!("\n1. bertc {} -o {name}.o\n", file_name(&model)))?;
    let start = Instant::now();
    let compiled = driver::compile_with(&model, &options, &mut crate::progress::Progress::new(false))?;
    let object = dir.join(format!("{name}.o"));
    let mut bytes = std::io::BufWriter::new(std::fs::File::create(&object).map_err(|e| cant_write(&object, &e))?);
    let stats = compiled.write_object(&mut bytes)?;
    std::io::Write::flush(&mut bytes).map_err(|e| cant_write(&object, &e))?;
    write(&dir.join(format!("{name}.h")), compiled.header().as_bytes())?;
    say(&format!(
        "   {}: wrote {name}.o ({}: {} of code in {} kernels, {} of weights) and {name}.h\n",
        time(start.elapsed()),
        size(std::fs::metadata(&object).map_or(0, |m| m.len())),
        size(stats.text),
        stats.kernels.len(),
        size(stats.consts)
    ))?;

    say(&format!("\n2. cc -O2 -DMODEL={name} generic.c {name}.o libbertc_rt.a -pthread -o app\n"))?;
    let start = Instant::now();
    link_app(dir, &name, &target, &object)?;
    say(&format!("   {}: linked a C app with the model and the thread pool\n", time(start.elapsed())))?;

    for threads in ["1", "0"] {
        let step = if threads == "1" { 3 } else { 4 };
        say(&format!(
            "\n{step}. ./app {threads}{}\n",
            if threads == "0" { "   (one thread for each CPU)" } else { "" }
        ))?;
        let start = Instant::now();
        let app = dir.join(app_name());
        let out = Command::new(&app).arg(threads).output();
        let out = out.map_err(|e| one(Diag::new(format!("can't start '{}': {e}", app.display()))))?;
        for line in String::from_utf8_lossy(&out.stdout).lines() {
            say(&format!("   {line}\n"))?;
        }
        if !out.status.success() {
            let why = String::from_utf8_lossy(&out.stderr).trim().to_string();
            return Err(one(Diag::new(format!("the app failed: {}", out.status)).note(why)));
        }
        say(&format!("   {}: ran the app\n", time(start.elapsed())))?;
    }
    if let Some(dir) = &o.keep {
        say(&format!("\nThe files are in {}.\n", dir.display()))?;
    }
    Ok(())
}

fn link_app(dir: &Path, name: &str, target: &Target, object: &Path) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    for (file, text) in [("bertc.h", bertc_rt::ABI_HEADER), ("bertc_rt.h", bertc_rt::RT_HEADER), ("generic.c", APP)] {
        write(&dir.join(file), text.as_bytes())?;
    }
    let stub = stub::find(&target.triple, None).map_err(one)?;
    let library = dir.join(if stub.bytes.starts_with(b"!<arch>") { "libbertc_rt.a" } else { "bertc_rt.o" });
    write(&library, &stub.bytes)?;
    let mut cc = link::c_compiler(target);
    cc.arg("-O2").arg(format!("-DMODEL={name}")).arg("-I").arg(dir);
    cc.arg(dir.join("generic.c")).arg(object).arg(&library).arg("-pthread").arg("-o").arg(dir.join(app_name()));
    link::run(&mut cc).map_err(one)
}

fn app_name() -> String {
    format!("app{}", std::env::consts::EXE_SUFFIX)
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default()
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Vec<Diag>> {
    std::fs::write(path, bytes).map_err(|e| cant_write(path, &e))
}

fn cant_write(path: &Path, e: &std::io::Error) -> Vec<Diag> {
    vec![Diag::new(format!("can't write '{}': {e}", path.display()))]
}

fn say(text: &str) -> Result<(), Vec<Diag>> {
    to_stdout(text.as_bytes()).map_err(|d| vec![d])
}
