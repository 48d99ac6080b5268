//! Every zoo model after the fusion passes, without code generation: attention, products and normalisation end in the
//! fused ops, all layers share one mask, and the evaluator gets the same outputs from the graph before and after. With
//! symbolic dims, with one sentence of a known length, and with one token, where transposes are reshapes.

use std::collections::BTreeMap;

use bertc::import::onnx::{ImportOptions, import};
use bertc_ir::eval::{eval, solve_dims};
use bertc_ir::{Graph, Op, Tensor};
use bertc_testsuite::golden::{Case, read, relative_error};
use bertc_testsuite::zoo_dir;
use libtest_mimic::{Arguments, Failed, Trial};
use ndarray::{Axis, Slice};

/// Encoder layers of every model in the zoo.
const LAYERS: usize = 2;

/// What a model may keep of the ops that fusion is to remove: op, count, why.
fn kept(model: &str) -> &'static [(&'static str, usize, &'static str)] {
    match model {
        "bert-eager+qdq" => &[
            ("softmax", LAYERS, "its operand and its result are quantised"),
            ("matmul", 2 * LAYERS, "operands and results of attention's products are quantised"),
            ("gelu", LAYERS, "the product before it is quantised"),
            ("tanh", 1, "the product before it is quantised"),
        ],
        "bert-eager+qdqall" => &[
            ("softmax", LAYERS, "its operand and its result are quantised"),
            ("matmul", 2 * LAYERS, "operands and results of attention's products are quantised"),
            ("erf", LAYERS, "every op of gelu is quantised"),
            ("tanh", 1, "the product before it is quantised"),
        ],
        _ => &[],
    }
}

/// Largest difference between the graphs' outputs, relative to the largest output. Rounding before a quantisation can
/// move a value to the next step, so quantised models differ by more.
fn tolerance(model: &str) -> f64 {
    match model.split_once('+').map(|(_, v)| v) {
        Some("dyn8" | "qdq") => 1e-2,
        Some("qdqall") => 5e-2,
        // Its gelu divides by √2 rounded to f16.
        Some("fp16") => 5e-4,
        _ => 1e-5,
    }
}

fn count(g: &Graph, name: &str) -> usize {
    g.topo().into_iter().filter(|&v| g.op(v).name() == name).count()
}

/// The dims of a test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Dims {
    Symbolic,
    /// As the first case has them.
    Pinned,
    OneToken,
}

fn check(model: &str, dims: Dims) -> Result<(), String> {
    let show = |e: Vec<bertc_ir::Diag>| e.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
    let mut cases = read(&zoo_dir().join(format!("{model}.npz")))?;
    let mut import_options = ImportOptions::default();
    if dims != Dims::Symbolic {
        cases.truncate(1);
        for (name, a) in cases.iter_mut().flat_map(|c| &mut c.inputs) {
            if dims == Dims::OneToken {
                *a = a.slice_axis(Axis(1), Slice::from(..1)).to_owned();
            }
            import_options.shapes.push((name.clone(), a.shape().iter().map(|&d| d as i64).collect()));
        }
    }
    let before = import(&zoo_dir().join(format!("{model}.onnx")), &import_options).map_err(show)?.graph;
    let mut g = before.clone();
    let options = bertc_passes::Options { verify_each: true };
    bertc_passes::run(&mut g, &bertc_passes::fusion(), &options, &mut |_| {}).map_err(|d| d.to_string())?;
    if let Some(dir) = std::env::var_os("BERTC_DUMP_FUSED") {
        let text = bertc_ir::text::print(&g, &bertc_ir::text::PrintOptions::default());
        let file = std::path::Path::new(&dir).join(format!("{model}-{dims:?}.tir"));
        std::fs::write(file, text).map_err(|e| e.to_string())?;
    }
    let mut wrong = String::new();
    let table: BTreeMap<&str, usize> = kept(model).iter().map(|(op, n, _)| (*op, *n)).collect();
    for op in ["softmax", "layer_norm", "matmul", "gelu", "gelu_tanh", "erf", "tanh"] {
        let (got, want) = (count(&g, op), table.get(op).copied().unwrap_or(0));
        if got != want {
            wrong += &format!("{got} of '{op}', expected {want}\n");
        }
    }
    let attention = count(&g, "attention");
    if attention + count(&g, "softmax") != LAYERS {
        wrong += &format!("{attention} of 'attention', expected {LAYERS}\n");
    }
    let mut masks: Vec<_> = g.topo().into_iter().filter(|&v| matches!(g.op(v), Op::Attention(_))).collect();
    masks.iter_mut().for_each(|v| *v = g.operands(*v)[3]);
    masks.dedup();
    if masks.len() > 1 {
        wrong += "the layers' masks differ\n";
    }
    for case in &cases {
        wrong += &compare(&before, &g, case, tolerance(model))?;
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// What differs between the graphs' outputs.
fn compare(before: &Graph, after: &Graph, case: &Case, tolerance: f64) -> Result<String, String> {
    let input = |p: &bertc_ir::Port| {
        let a = case.inputs.get(&p.name).ok_or_else(|| format!("the case has no input '{}'", p.name))?;
        let values: Vec<i64> = a.iter().copied().collect();
        Ok::<_, String>(Tensor::from_i64(a.shape().to_vec(), &values))
    };
    let inputs = before.inputs().iter().map(input).collect::<Result<Vec<_>, _>>()?;
    let dims = solve_dims(before, &inputs).map_err(|d| d.to_string())?;
    let run = |g: &Graph| eval(g, &dims, &inputs).map_err(|d| d.to_string());
    let mut wrong = String::new();
    for ((a, b), port) in run(before)?.iter().zip(&run(after)?).zip(before.outputs()) {
        let error = relative_error(&b.to_f32_vec(), &a.to_f32_vec());
        if error > tolerance {
            wrong += &format!("{}: {} differs by {error:.2e} of the largest value\n", case.name, port.name);
        }
    }
    Ok(wrong)
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
        for (name, dims) in [("symbolic", Dims::Symbolic), ("pinned", Dims::Pinned), ("one token", Dims::OneToken)] {
            let model = model.clone();
            let name = format!("fusion::{name}::{model}");
            trials.push(Trial::test(name, move || check(&model, dims).map_err(Failed::from)));
        }
    }
    libtest_mimic::run(&args, trials).exit();
}
