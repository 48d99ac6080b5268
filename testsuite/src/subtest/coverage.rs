//! What the folder of file tests must have: every op's verifier good and bad, every pass in its three tests.

use std::collections::BTreeSet;
use std::path::Path;

use bertc_ir::text::{no_resources, parse};
use bertc_ir::{BinaryOp, CmpOp, Op, ReduceOp, UnaryOp};

use crate::filetest::{FileTest, Kind};

/// The ops by their names in text. The match in [`named`] makes a new op an error here until it is listed.
fn op_names() -> BTreeSet<&'static str> {
    let elementwise = UnaryOp::ALL.iter().map(|o| o.name()).chain(BinaryOp::ALL.iter().map(|o| o.name()));
    let compare = CmpOp::ALL.iter().map(|o| o.name());
    let reduce = ReduceOp::ALL.iter().map(|&op| Op::Reduce { op, axes: Vec::new(), keep: false }.name());
    let rest = [
        "input",
        "constant",
        "dim",
        "iota",
        "select",
        "cast",
        "arg_max",
        "arg_min",
        "cum_sum",
        "softmax",
        "layer_norm",
        "rms_norm",
        "matmul",
        "transpose",
        "reshape",
        "broadcast",
        "slice",
        "concat",
        "gather",
        "gather_elements",
        "gather_nd",
        "scatter_elements",
        "scatter_nd",
        "top_k",
        "linear",
        "attention",
        "sum_norm",
    ];
    elementwise.chain(compare).chain(reduce).chain(rest).collect()
}

/// An op's name, checked to be one of the list's.
fn named(op: &Op) -> &'static str {
    match op {
        Op::Input { .. }
        | Op::Constant(_)
        | Op::Dim(_)
        | Op::Iota { .. }
        | Op::Unary(_)
        | Op::Binary(_)
        | Op::Compare(_)
        | Op::Select
        | Op::Cast(_)
        | Op::Reduce { .. }
        | Op::ArgMax { .. }
        | Op::CumSum { .. }
        | Op::Softmax { .. }
        | Op::LayerNorm { .. }
        | Op::RmsNorm { .. }
        | Op::MatMul { .. }
        | Op::Transpose { .. }
        | Op::Reshape { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. }
        | Op::ScatterElements { .. }
        | Op::ScatterNd { .. }
        | Op::TopK { .. }
        | Op::RowScale(_)
        | Op::RowOffset(_)
        | Op::QuantiseRows(_)
        | Op::Quantise { .. }
        | Op::Linear(_)
        | Op::Attention(_)
        | Op::SumNorm(_) => op.name(),
    }
}

/// The file of an op's verifier, without its extension: families of elementwise ops share one.
fn file_of(op: &str) -> String {
    if UnaryOp::from_name(op).is_some() {
        "unary".to_string()
    } else if BinaryOp::from_name(op).is_some() {
        "binary".to_string()
    } else if CmpOp::from_name(op).is_some() {
        "compare".to_string()
    } else if op.starts_with("reduce_") {
        "reduce".to_string()
    } else {
        op.replace("arg_min", "arg_max").replace('_', "-")
    }
}

fn read(path: &Path) -> Result<FileTest, String> {
    let text = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    FileTest::parse(&text, Kind::Tir)
}

fn report(mut missing: Vec<String>) -> Result<(), String> {
    missing.sort();
    missing.dedup();
    if missing.is_empty() { Ok(()) } else { Err(format!("missing:\n  {}", missing.join("\n  "))) }
}

/// `verify/<op>.tir` has every op and verifies; `verify/<op>-bad.tir` expects an error in a line with every op that
/// can be wrong.
///
/// # Errors
/// A list of what lacks.
pub fn ops(root: &Path) -> Result<(), String> {
    let mut missing = Vec::new();
    for op in op_names() {
        let (good, bad) = (format!("verify/{}.tir", file_of(op)), format!("verify/{}-bad.tir", file_of(op)));
        match read(&root.join(&good)) {
            Ok(t) if t.errors.is_empty() => {
                let g = parse(&t.source, &no_resources).map_err(|e| format!("{good}: {e:?}"))?;
                if !g.topo().into_iter().any(|v| named(g.op(v)) == op) {
                    missing.push(format!("'{op}' in {good}"));
                }
            }
            Ok(_) => missing.push(format!("{good}, without errors")),
            Err(m) => missing.push(format!("{good}: {m}")),
        }
        match read(&root.join(&bad)) {
            Ok(t) => {
                let lines: Vec<&str> = t.source.lines().collect();
                // An input has no statement of its own.
                let word = if op == "input" { "func".to_string() } else { format!("= {op} ") };
                if !t.errors.iter().any(|(n, _)| format!("{} ", lines[n - 1]).contains(&word)) {
                    missing.push(format!("an error of '{op}' in {bad}"));
                }
            }
            Err(m) => missing.push(format!("{bad}: {m}")),
        }
    }
    report(missing)
}

/// Every pass has `passes/<name>.tir`, which changes something, and `passes/<name>-unchanged.tir`, which doesn't; both
/// name the pass first and `run`.
///
/// # Errors
/// A list of what lacks.
pub fn passes(root: &Path) -> Result<(), String> {
    let mut missing = Vec::new();
    for entry in bertc_passes::registry::PASSES {
        let name = entry.pass.name();
        for (suffix, unchanged) in [("", false), ("-unchanged", true)] {
            let file = format!("passes/{name}{suffix}.tir");
            let t = match read(&root.join(&file)) {
                Ok(t) => t,
                Err(m) => {
                    missing.push(format!("{file}: {m}"));
                    continue;
                }
            };
            let opt = t.commands.iter().filter(|c| c.name == "opt").filter_map(|c| c.args.get(1));
            if !opt.filter_map(|l| l.split(',').next()).any(|first| first == name) {
                missing.push(format!("'opt --passes {name}' in {file}"));
            }
            if !t.commands.iter().any(|c| c.name == "run") {
                missing.push(format!("'run' in {file}"));
            }
            if t.unchanged != unchanged {
                missing.push(format!("{file} with{} 'check: unchanged'", if unchanged { "" } else { "out" }));
            }
        }
    }
    report(missing)
}
