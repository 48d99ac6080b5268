//! Every zoo model, compiled at every -O level for every machine, against its golden outputs: both cases from one
//! object, serially and with 1 and 2 threads, bit-identical among those.
//!
//! One test per machine, level and model. A machine that is missing here is reported by name.

use bertc_backends::target::Target;
use bertc_testsuite::end_to_end::{Build, Precision, check};
use bertc_testsuite::machine::Machine;
use bertc_testsuite::zoo_dir;
use libtest_mimic::{Arguments, Failed, Trial};

/// Largest error relative to the largest reference value.
fn tolerance(model: &str) -> f64 {
    match model.split_once('+').map(|(_, v)| v) {
        Some("fp16") => 5e-3,
        Some("dyn8") => 1e-3,
        Some("qdq") => 1e-2,
        Some("qdqall") => 1e-2,
        _ => 1e-4,
    }
}

/// Where models are compiled with `--bf16` and `--int8` too: every variant of the code, and Cranelift's for AArch64.
const NARROW: [(Machine, &str, &[Precision]); 7] = [
    (Machine::X86_64, "generic", &[Precision::Bf16, Precision::Int8, Precision::Both]),
    (Machine::X86_64, "x86-64", &[Precision::Bf16, Precision::Int8]),
    (Machine::X86_64, "x86-64-v3", &[Precision::Int8]),
    (Machine::X86_64, "x86-64-v4", &[Precision::Int8]),
    (Machine::Older("Haswell"), "generic", &[Precision::Bf16, Precision::Int8]),
    (Machine::Aarch64, "generic", &[Precision::Bf16, Precision::Int8, Precision::Both]),
    (Machine::Aarch64, "cortex-a76", &[Precision::Int8]),
];

/// Each operand of some ten products in a row is off by up to 2^-9 of itself on bf16, and by up to 2^-9 of its row's range
/// on int8, where the mean error counts. The evaluator's results are as far from the goldens; kernels are compared with it bit by bit or nearly so
/// elsewhere.
fn narrow_tolerance(precision: Precision) -> f64 {
    if precision == Precision::Bf16 { 6e-2 } else { 1e-1 }
}

fn main() {
    let args = Arguments::from_args();
    let mut trials = Vec::new();
    for (machine, cpu) in [
        (Machine::X86_64, "generic"),
        (Machine::X86_64, "x86-64"),
        (Machine::X86_64, "x86-64-v3"),
        (Machine::X86_64, "x86-64-v4"),
        (Machine::X86_64, "native"),
        (Machine::Older("Nehalem"), "generic"),
        (Machine::Older("Haswell"), "generic"),
        (Machine::Aarch64, "generic"),
        (Machine::Aarch64, "cortex-a76"),
        (Machine::Windows, "generic"),
    ] {
        let runs = Target::parse(machine.name(), cpu).is_ok_and(|t| machine != Machine::X86_64 || t.runs_here());
        let missing = machine.missing().or((!runs).then_some("a CPU with its instructions"));
        let on = match machine {
            Machine::Older(as_cpu) => format!("{} as {as_cpu}", machine.name()),
            _ => machine.name().to_string(),
        };
        if let Some(what) = missing {
            let name = format!("zoo::{on}::{cpu}::skipped for want of {what}");
            trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            continue;
        }
        for model in models() {
            for level in levels(machine, cpu, &model) {
                let model = model.clone();
                let name = format!("zoo::{on}::{cpu}::O{level}::{model}");
                let build = Build { machine, cpu, level, precision: Precision::Model };
                let run = move || check(build, &model, &zoo_dir(), tolerance(&model));
                trials.push(Trial::test(name, move || run().map_err(Failed::from)));
            }
            let narrow = NARROW.iter().filter(|n| (n.0, n.1) == (machine, cpu) && !model.contains('+'));
            for &precision in narrow.flat_map(|n| n.2) {
                let model = model.clone();
                let name = format!("zoo::{on}::{cpu}::{precision:?}::{model}").to_lowercase();
                let build = Build { machine, cpu, level: 2, precision };
                let run = move || check(build, &model, &zoo_dir(), narrow_tolerance(precision));
                trials.push(Trial::test(name, move || run().map_err(Failed::from)));
            }
        }
    }
    libtest_mimic::run(&args, trials).exit();
}

/// The -O levels to test. Wine starts slowly, and older machines are there to see which code is chosen: only those models
/// that have all kinds of kernels. What differs from another CPU in kernels only needs no level but the usual one.
fn levels(machine: Machine, cpu: &str, model: &str) -> Vec<u8> {
    let some = ["bert-mlm", "minilm-dynamo-cls", "bert-eager+qdqall"].contains(&model);
    match machine {
        Machine::Windows | Machine::Older(_) if some => vec![2],
        Machine::Windows | Machine::Older(_) => Vec::new(),
        // For what is narrow only.
        Machine::X86_64 | Machine::Aarch64 if ["x86-64-v4", "cortex-a76"].contains(&cpu) => Vec::new(),
        Machine::X86_64 if ["native", "x86-64-v3"].contains(&cpu) => vec![2],
        Machine::X86_64 | Machine::Aarch64 => (0..=3).collect(),
    }
}

fn models() -> Vec<String> {
    let files = std::fs::read_dir(zoo_dir()).expect("the zoo is in the repository");
    let names = files.filter_map(|f| f.ok()?.file_name().to_str()?.strip_suffix(".onnx").map(str::to_string));
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}
