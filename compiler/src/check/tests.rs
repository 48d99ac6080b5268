//! Things broken on purpose, and that `check` names them.

use std::path::{Path, PathBuf};

use bertc_backends::lower::Traced;
use bertc_backends::plan::{Arg, Part};
use bertc_ir::{BinaryOp, Diag, Graph, Op, Scalar, Tensor, ValueId};
use bertc_passes::registry::{Entry, PASSES};
use bertc_passes::{Pass, PassContext};

use super::*;

/// Swaps what is subtracted from what: right types, wrong numbers.
struct SwapsSub;

/// Drops the scale of attention scores.
struct DropsScale;

/// Makes one element of a matrix of weights another number.
struct BendsWeights;

/// Replaces the first op that `of` has a replacement for.
fn sabotage(g: &mut Graph, of: impl Fn(&Graph, ValueId) -> Option<(Op, Vec<ValueId>)>) -> Result<bool, Diag> {
    let Some((v, (op, x))) = g.topo().into_iter().find_map(|v| Some((v, of(g, v)?))) else { return Ok(false) };
    let loc = g.node(v).loc.clone();
    let new = g.add(op, &x, &loc)?;
    g.replace(v, new)?;
    g.remove_dead();
    Ok(true)
}

impl Pass for SwapsSub {
    fn name(&self) -> &'static str {
        "swaps-sub"
    }

    fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
        sabotage(g, |g, v| match (g.op(v), g.operands(v)) {
            (Op::Binary(BinaryOp::Sub), &[a, b]) if [a, b].iter().all(|&x| g.as_const(x).is_none()) => {
                Some((Op::Binary(BinaryOp::Sub), vec![b, a]))
            }
            _ => None,
        })
    }
}

impl Pass for DropsScale {
    fn name(&self) -> &'static str {
        "drops-scale"
    }

    fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
        sabotage(g, |g, v| match g.op(v) {
            Op::Attention(a) if a.scale != 1.0 => {
                let a = bertc_ir::Attention { scale: 1.0, ..*a };
                Some((Op::Attention(a), g.operands(v).to_vec()))
            }
            _ => None,
        })
    }
}

impl Pass for BendsWeights {
    fn name(&self) -> &'static str {
        "bends-weights"
    }

    fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
        sabotage(g, |g, v| {
            let matrix = |u: &ValueId| matches!(g.op(*u), Op::Linear(_)) && g.operands(*u)[1] == v;
            let t = g.as_const(v)?;
            g.users(v).iter().any(matrix).then(|| (Op::Constant(bent(t)), vec![]))
        })
    }
}

fn bent(t: &Tensor) -> Tensor {
    let new = |(i, s)| if i == 5 { Scalar::Float(3.0) } else { s };
    Tensor::from_scalars(t.dtype(), t.shape().to_vec(), t.iter().enumerate().map(new))
}

/// The real passes and these.
fn table() -> &'static [Entry] {
    let real = PASSES.iter().map(|e| Entry { pass: e.pass, doc: e.doc });
    let bad: [Entry; 3] = [
        Entry { pass: &SwapsSub, doc: "" },
        Entry { pass: &DropsScale, doc: "" },
        Entry { pass: &BendsWeights, doc: "" },
    ];
    Vec::leak(real.chain(bad).collect())
}

fn zoo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testsuite/models/zoo").join(name)
}

fn options(model: PathBuf) -> CheckOptions {
    CheckOptions {
        model,
        resources: None,
        compile: CompileOptions { cpu: "native".into(), name: "model".into(), ..CompileOptions::default() },
        input: None,
        tolerance: 1e-4,
        taps: true,
        bisect: true,
        json: false,
        quiet: true,
    }
}

/// What is wrong with `report`, which prints in both forms.
fn failure(o: &CheckOptions, report: &Report) -> (String, String) {
    let diag = report::failure(report).expect("a failure").to_string();
    let json: serde_json::Value = serde_json::from_str(&report::json(o, report)).expect("json");
    assert_eq!(json["ok"], false);
    (diag, report::text(report))
}

#[test]
fn a_model_is_right_op_by_op() {
    let o = options(zoo("bert-eager.onnx"));
    let report = check(&o, PASSES, None).unwrap();
    let text = report::text(&report);
    assert!(matches!(report.verdict(), Verdict::Fine), "{text}");
    assert!(text.contains("no pass changes the outputs") && text.contains("all within the tolerance"), "{text}");
    let ops = report.ops.as_ref().unwrap();
    let of = |name: &str| ops.iter().filter(|r| r.op == name).count();
    assert!(of("attention") == 2 && of("linear") > 4 && of("sum_norm") > 0, "{text}");
    assert!(ops.iter().all(|r| !r.kernels.is_empty()), "{ops:?}");
    assert!(ops.iter().any(|r| r.error.abs > 0.0), "two computations of floats are never the same to the bit");
    // Nothing is right to an impossible tolerance: the comparison compares.
    let report = check(&CheckOptions { tolerance: 0.0, bisect: false, ..o.clone() }, PASSES, None).unwrap();
    failure(&o, &report);
}

#[test]
fn bisect_names_the_pass_that_is_wrong() {
    let pipeline = bertc_passes::pipeline(2);
    let fused = pipeline.iter().position(|n| *n == "fuse-linear").unwrap();
    // Where each one finds what it breaks: before fusion, and behind.
    let last = pipeline.len() - 1;
    let bad = [
        ("swaps-sub", 0, "bert-opset13.onnx"),
        ("drops-scale", fused, "bert-eager.onnx"),
        ("bends-weights", last, "bert-eager.onnx"),
    ];
    for (name, at, model) in bad {
        let mut names = pipeline.clone();
        names.insert(at, name);
        let mut o = options(zoo(model));
        o.compile.passes = Some(names.join(","));
        o.taps = false;
        let report = check(&o, table(), None).unwrap();
        let (diag, text) = failure(&o, &report);
        let found = report.bisect.as_ref().and_then(|b| b.as_ref()).unwrap_or_else(|| panic!("{name}: {text}"));
        assert_eq!((found.pass.as_str(), found.run), (name, 1), "{text}");
        assert!(!found.before.exceeds(1e-4) && found.after.as_ref().is_ok_and(|e| e.exceeds(1e-4)), "{text}");
        assert!(found.first.is_some() && found.diff.iter().any(|l| l.starts_with('+')), "{text}");
        assert!(diag.contains(&format!("the pass '{name}' makes the outputs wrong")), "{diag}");
        // Without bisection the blame is on all passes.
        o.bisect = false;
        let report = check(&o, table(), None).unwrap();
        assert!(failure(&o, &report).0.contains("--bisect names the pass"), "{name}");
    }
}

#[test]
fn wrong_code_is_named_at_its_op() {
    let o = options(zoo("bert-eager.onnx"));
    let node = std::cell::RefCell::new(String::new());
    // The matrix of the second layer's first product of several becomes another one, in the program only.
    let bend = |g: &Graph, t: &mut Traced| {
        let step = t.program.steps.iter().zip(&t.values);
        let of_layer = |v: ValueId| ops::node_name(g, v).filter(|n| n.contains("layer.1/intermediate"));
        let found = step.filter(|(_, v)| matches!(g.op(**v), Op::Linear(_))).find_map(|(s, &v)| {
            let constant = |a: &Arg| if let Arg::Const(c) = a { Some(*c) } else { None };
            Some((s.args.iter().find_map(constant)?, of_layer(v)?))
        });
        let (constant, name) = found.expect("a linear of that layer");
        let parts = &mut t.program.consts[constant].parts;
        let tensor = bent(parts[0].tensor().expect("a model's constants are there"));
        parts[0] = Part::Tensor(tensor);
        node.replace(name);
    };
    let report = check(&o, PASSES, Some(&bend)).unwrap();
    let (diag, text) = failure(&o, &report);
    let node = node.into_inner();
    let Verdict::Op(row) = report.verdict() else { panic!("{text}") };
    assert_eq!(row.node.as_ref(), Some(&node), "{text}");
    assert!(diag.contains(&node) && diag.contains("lowering"), "{diag}");
    assert!(text.contains("no pass changes the outputs"), "{text}");
    // What comes after it is wrong as a whole, but not by itself.
    let ops = report.ops.as_ref().unwrap();
    assert_eq!(ops.iter().filter(|r| r.own.exceeds(o.tolerance)).count(), 1, "{text}");
    assert!(ops.iter().filter(|r| r.error.exceeds(o.tolerance)).count() > 1, "{text}");
}

#[test]
fn integers_are_told_layer_by_layer() {
    let mut o = CheckOptions { tolerance: 0.2, bisect: false, taps: false, ..options(zoo("bert-eager.onnx")) };
    o.compile.int8 = true;
    let report = check(&o, PASSES, None).unwrap();
    let text = report::text(&report);
    let rows = report.layers.as_ref().unwrap();
    assert!(rows.len() > 2 && rows.iter().all(|r| (5.0..80.0).contains(&r.snr) && r.cosine > 0.9), "{text}");
    assert!(text.contains("layer 0") && text.contains("least cosine of an output to dense f32"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&report::json(&o, &report)).unwrap();
    assert_eq!(json["layers"].as_array().map(Vec::len), Some(rows.len()));
    o.compile.int8 = false;
    assert!(check(&o, PASSES, None).unwrap().layers.is_none());
}

#[test]
fn what_pruning_costs_is_told_and_is_no_deviation() {
    let mut o = CheckOptions { bisect: true, taps: false, ..options(zoo("bert-eager.onnx")) };
    (o.compile.prune, o.compile.block) = (Some(500_000), Some([1, 4]));
    let report = check(&o, PASSES, None).unwrap();
    let text = report::text(&report);
    assert!(matches!(report.verdict(), Verdict::Fine), "{text}");
    let rows = report.layers.as_ref().unwrap();
    assert!(rows.len() > 2 && rows.iter().any(|r| r.snr < 30.0), "{text}");
    assert!(report.outputs.iter().any(|o| o.dense.unwrap().exceeds(1e-2)), "{text}");
    assert!(text.contains("no pass changes the outputs") && text.contains("to dense f32"), "{text}");
    // What is wrong is found before it and behind it.
    let pipeline = bertc_passes::pipeline(2);
    let fused = pipeline.iter().position(|n| *n == "fuse-linear").unwrap();
    for (name, at) in [("drops-scale", fused), ("bends-weights", pipeline.len() - 1)] {
        let mut names = pipeline.clone();
        names.insert(at, name);
        o.compile.passes = Some(names.join(","));
        let report = check(&o, table(), None).unwrap();
        let (diag, _) = failure(&o, &report);
        assert!(diag.contains(&format!("the pass '{name}' makes the outputs wrong")), "{diag}");
    }
}

#[test]
fn buffers_that_collide_are_told_from_wrong_code() {
    let o = CheckOptions { bisect: false, ..options(zoo("bert-eager.onnx")) };
    // Only the program without taps has its values in a few shared slots.
    let collide = |g: &Graph, t: &mut Traced| {
        if g.outputs().len() > 8 {
            return;
        }
        let slots = &mut t.program.slots;
        let sizes: Vec<_> = slots.drain(..).flat_map(|s| s.sizes).collect();
        slots.push(bertc_backends::plan::Slot { sizes });
        t.program.buffers.iter_mut().for_each(|b| b.slot = 0);
    };
    let report = check(&o, PASSES, Some(&collide)).unwrap();
    assert!(matches!(report.verdict(), Verdict::Memory), "{}", report::text(&report));
}

#[test]
fn text_is_checked_too_and_inputs_can_be_given() {
    let dir = tempfile::tempdir().unwrap();
    let (file, arrays) = (dir.path().join("f.tir"), dir.path().join("x.npz"));
    let text = "func @f(%x: tensor<4 x f32>) -> (y: tensor<4 x f32>) {\n  %0 = exp %x\n  %1 = neg %0\n  return %1\n}\n";
    std::fs::write(&file, text).unwrap();
    let x = Tensor::from_f32(vec![4], &[0.0, 1.0, -2.0, 0.5]);
    crate::npz::write(std::fs::File::create(&arrays).unwrap(), [("x", &x)]).unwrap();
    let o = CheckOptions { input: Some(arrays.clone()), ..options(file.clone()) };
    let report = check(&o, PASSES, None).unwrap();
    assert!(matches!(report.verdict(), Verdict::Fine), "{}", report::text(&report));
    assert_eq!(report.ops.as_ref().unwrap().iter().map(|r| r.op).collect::<Vec<_>>(), ["exp", "neg"]);
    assert!(!report.plausible && report.inputs == ["x f32 [4]"], "{:?}", report.inputs);
    let wrong = Tensor::from_f32(vec![5], &[0.0; 5]);
    crate::npz::write(std::fs::File::create(&arrays).unwrap(), [("x", &wrong)]).unwrap();
    let e = check(&o, PASSES, None).unwrap_err();
    assert!(e[0].message.contains("input 'x': dim 0 is 5, expected 4"), "{e:?}");
}
