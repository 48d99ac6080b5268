//! The program of every zoo model at -O0 and -O3 for two machines: its text is read back as the same program, without the
//! weights.

use bertc::Program;
use bertc::driver::compile_with;
use bertc::options::CompileOptions;
use bertc::progress::Progress;
use bertc_backends::schedule::parse;
use bertc_ir::text::no_resources;
use bertc_testsuite::zoo_dir;
use libtest_mimic::{Arguments, Failed, Trial};

fn check(model: &str, opt_level: u8) -> Result<(), String> {
    let path = zoo_dir().join(format!("{model}.onnx"));
    let show = |e: Vec<bertc_ir::Diag>| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    for (target, cpu) in [("x86_64", "x86-64-v4"), ("aarch64", "generic")] {
        let options = CompileOptions {
            opt_level,
            target: target.into(),
            cpu: cpu.into(),
            name: "model".into(),
            ..CompileOptions::default()
        };
        let compiled = compile_with(&path, &options, &mut Progress::hidden()).map_err(show)?;
        let want = compiled.program().canonical();
        let back = parse(&compiled.program().print(), &no_resources).map_err(show)?;
        // A kernel with a NaN isn't equal to itself; the text below compares kernels to the bit.
        let without_kernels = |p: &Program| Program { kernels: Vec::new(), ..p.clone() };
        if without_kernels(&back) != without_kernels(&want) {
            return Err(format!("the program for {target} is another one when it is read back"));
        }
        if back.print() != want.print() {
            return Err(format!("the program for {target} prints differently when it is read back"));
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let args = Arguments::from_args();
    let mut models = Vec::new();
    for entry in std::fs::read_dir(zoo_dir())? {
        if let Some(name) = entry?.file_name().to_str().and_then(|n| n.strip_suffix(".onnx")) {
            models.push(name.to_string());
        }
    }
    models.sort();
    let mut trials = Vec::new();
    for model in models {
        for level in [0, 3] {
            let model = model.clone();
            let name = format!("schedule::O{level}::{model}");
            trials.push(Trial::test(name, move || check(&model, level).map_err(Failed::from)));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}
