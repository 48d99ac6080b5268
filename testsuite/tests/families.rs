//! Encoder families as PyTorch's exporters write them: each against its golden outputs from one object, on this machine and on
//! AArch64, and with its attentions, products and norms in the fused ops.

use std::path::{Path, PathBuf};

use bertc::import::onnx::{ImportOptions, import};
use bertc_testsuite::end_to_end::{Build, Precision, check};
use bertc_testsuite::machine::Machine;
use libtest_mimic::{Arguments, Failed, Trial};

/// A model with its number of attentions, and what it keeps of the ops that fusion is to remove: op, count, why.
type Family = (&'static str, usize, &'static [(&'static str, usize, &'static str)]);

const POSITIONS: (&str, usize, &str) =
    ("matmul", 4, "content by positions and positions by content are no products of constants");
const RMS: (&str, usize, &str) = ("rms_norm", 5, "norms without a mean are kernels of their own");
const GATED: (&str, usize, &str) = ("gelu", 4, "half of the product before it is a factor of its result");

const FAMILIES: &[Family] = &[
    ("camembert-mlm-dynamo", 2, &[]),
    ("deberta", 2, &[POSITIONS]),
    ("deberta-v2", 2, &[POSITIONS, ("gelu", 1, "a convolution is before it")]),
    ("deberta-v3-dynamo", 2, &[POSITIONS]),
    ("mobilebert", 2, &[]),
    ("mobilebert-dynamo", 2, &[]),
    ("modernbert", 4, &[GATED]),
    ("modernbert-dynamo", 4, &[GATED]),
    ("mpnet", 2, &[]),
    ("mpnet-dynamo", 2, &[]),
    ("nomic-bert", 2, &[]),
    ("nomic-bert-dynamo", 2, &[]),
    ("roformer", 2, &[]),
    ("roformer-dynamo", 2, &[]),
    ("t5-encoder", 2, &[RMS]),
    ("t5-gated-encoder-dynamo", 2, &[RMS]),
    ("xlm-roberta-ner", 2, &[]),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/families")
}

fn fused(&(model, attentions, kept): &Family) -> Result<(), String> {
    let show = |e: Vec<bertc_ir::Diag>| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let mut g = import(&folder().join(format!("{model}.onnx")), &ImportOptions::default()).map_err(show)?.graph;
    let options = bertc_passes::Options { verify_each: true };
    bertc_passes::run(&mut g, &bertc_passes::fusion(), &options, &mut |_| {}).map_err(|d| d.to_string())?;
    let count = |name: &str| g.topo().into_iter().filter(|&v| g.op(v).name() == name).count();
    let left = ["softmax", "layer_norm", "matmul", "rms_norm", "reduce_mean", "gelu", "gelu_tanh", "erf", "tanh"];
    let wanted = |op: &str| kept.iter().find(|k| k.0 == op).map_or(0, |k| k.1);
    let all = left.map(|op| (op, wanted(op))).into_iter().chain([("attention", attentions)]);
    let wrong = all.filter(|&(op, n)| count(op) != n).map(|(op, n)| format!("{} of '{op}', expected {n}", count(op)));
    let wrong: Vec<String> = wrong.collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

fn main() -> std::io::Result<()> {
    let args = Arguments::from_args();
    let mut trials = vec![Trial::test("families::every model is listed", || {
        let files = std::fs::read_dir(folder()).map_err(|e| Failed::from(e.to_string()))?;
        let names = files.filter_map(|f| Some(f.ok()?.file_name().to_str()?.strip_suffix(".onnx")?.to_string()));
        let unknown: Vec<String> = names.filter(|n| FAMILIES.iter().all(|f| f.0 != *n)).collect();
        if unknown.is_empty() { Ok(()) } else { Err(Failed::from(format!("not in the table: {unknown:?}"))) }
    })];
    for machine in [Machine::X86_64, Machine::Aarch64] {
        let on = machine.name();
        if let Some(what) = machine.missing() {
            let name = format!("families::{on}::skipped for want of {what}");
            trials.push(Trial::test(name, || Ok(())).with_ignored_flag(true));
            continue;
        }
        for (model, ..) in FAMILIES {
            let build = Build { machine, cpu: "generic", level: 2, precision: Precision::Model };
            let run = move || check(build, model, &folder(), 1e-4).map_err(Failed::from);
            trials.push(Trial::test(format!("families::{on}::{model}"), run));
        }
    }
    for family in FAMILIES {
        trials.push(Trial::test(format!("families::fused::{}", family.0), move || fused(family).map_err(Failed::from)));
    }
    libtest_mimic::run(&args, trials).exit();
}
