use bertc_ir::eval::eval;
use bertc_ir::{DType, Graph, Linear, Op, SumNorm, Tensor, ValueId};

use super::{Decision, Int8Report, Int8Settings, MatrixRow};
use crate::measure::{Nearness, Sample};
use crate::testing::{T, count, run};

/// Numbers between -1 and 1 with no pattern that a column shares.
fn spread(n: usize, k: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * k + i / 7) % 29) as f32 / 16.0 - 0.8).collect()
}

/// Embeddings, attention over a merged product, a product with the sum as its residual, and a classifier.
fn layer() -> Graph {
    let mut t = T::new();
    let ids = t.input(DType::I64, &["1", "seq"]);
    let table = t.f32(&[5, 16], &spread(80, 7));
    let gamma = t.f32(&[16], &spread(16, 5));
    let norm = SumNorm { tables: 1, norm: Some(1e-5), ..Default::default() };
    let x = t.add(Op::SumNorm(norm), &[table, ids, gamma, gamma]);
    let parts = [3, 11, 13].map(|k| t.f32(&[16, 16], &spread(256, k)));
    let w = t.add(Op::Concat { axis: 1 }, &parts);
    let qkv = t.add(Op::Linear(Linear::default()), &[x, w]);
    let slice =
        |t: &mut T, i: i64| t.add(Op::Slice { axis: 2, start: (i * 16).into(), len: 16.into(), step: 1 }, &[qkv]);
    let [q, k, v] = [0, 1, 2].map(|i| slice(&mut t, i));
    let a = bertc_ir::Attention { heads: 2, scale: 0.5, ..Default::default() };
    let y = t.add(Op::Attention(a), &[q, k, v]);
    let y = t.add(Op::Linear(Linear { residual: true, trans_b: true, ..Default::default() }), &[y, parts[1], x]);
    t.g.add_output("y", y);
    let head = t.f32(&[16, 2], &spread(32, 9));
    let z = t.add(Op::MatMul { trans_b: false }, &[y, head]);
    t.g.add_output("z", z);
    t.g
}

fn of<'a>(g: &'a Graph, name: &str) -> Vec<(ValueId, &'a Op)> {
    g.topo().into_iter().filter(|&v| g.op(v).name() == name).map(|v| (v, g.op(v))).collect()
}

fn close(before: &Graph, after: &Graph, tolerance: f64) {
    bertc_ir::verify::verify(after).unwrap();
    let ids = Tensor::from_i64(vec![1, 4], &[4, 0, 2, 1]);
    let [a, b] = [before, after].map(|g| eval(g, &[1, 4], std::slice::from_ref(&ids)).unwrap());
    for (a, b) in a.iter().zip(&b) {
        let (a, b) = (a.to_f64_vec(), b.to_f64_vec());
        let top = a.iter().fold(0f64, |m, x| m.max(x.abs()));
        let worst = a.iter().zip(&b).fold(0f64, |m, (x, y)| m.max((x - y).abs()));
        assert!(worst <= tolerance * top && worst > 0.0, "{worst} of {top}");
    }
}

#[test]
fn products_and_tables_are_integers_and_rows_are_made_once() {
    let before = layer();
    let mut after = before.clone();
    assert!(run(&mut after, "use-int8"));
    close(&before, &after, 0.05);
    // Of the sum, read by the merged product, and of the attention's result.
    for op in ["row_scale", "row_offset", "quantise_rows"] {
        assert_eq!(count(&after, op), 2);
    }
    let linears = of(&after, "linear");
    assert_eq!(linears.len(), 2);
    for &(v, op) in &linears {
        let Op::Linear(l) = op else { panic!("{op:?}") };
        assert!(l.int8 && l.offset && !l.zero, "{l:?}");
        assert_eq!(after.ty(v).dtype, DType::F32);
    }
    assert_eq!(linears.iter().filter(|(_, op)| matches!(op, Op::Linear(l) if l.trans_b && l.residual)).count(), 1);
    let concat = of(&after, "concat")[0].0;
    assert!(after.operands(concat).iter().all(|&o| after.as_const(o).is_some_and(|t| t.dtype() == DType::I8)));
    assert!(matches!(of(&after, "sum_norm")[0].1, Op::SumNorm(s) if s.int8));
    assert_eq!(count(&after, "matmul"), 1, "two columns are not worth it");
    assert!(!run(&mut after, "use-int8"));
}

#[test]
fn attentions_among_integers_are_bf16() {
    let before = layer();
    let mut after = before.clone();
    let mut steps = crate::parse("use-int8,use-bf16{attention-only=1}", crate::registry::PASSES).unwrap();
    crate::run_steps(&mut after, &steps, &crate::Options { verify_each: true }, &mut crate::Unwatched).unwrap();
    close(&before, &after, 0.05);
    let types = |g: &Graph, name| of(g, name).into_iter().map(|(v, _)| g.ty(v).dtype).collect::<Vec<_>>();
    assert_eq!(types(&after, "attention"), [DType::BF16]);
    assert_eq!(types(&after, "linear"), [DType::BF16, DType::F32]);
    assert_eq!(types(&after, "sum_norm"), [DType::F32], "a stream between layers keeps its precision");
    assert_eq!(count(&after, "cast"), 0);
    steps[1].options.clear();
    let mut all = before.clone();
    crate::run_steps(&mut all, &steps, &crate::Options { verify_each: true }, &mut crate::Unwatched).unwrap();
    close(&before, &all, 0.05);
    assert_eq!(types(&all, "sum_norm"), [DType::BF16]);
    assert_eq!(count(&all, "cast"), 0);
}

#[test]
fn what_integers_can_not_do_stays() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "6"]);
    let six = t.f32(&[6, 16], &[0.25; 96]);
    let y = t.add(Op::Linear(Linear::default()), &[x, six]);
    let given = t.input(DType::F32, &["16", "16"]);
    let y = t.add(Op::Linear(Linear::default()), &[y, given]);
    let strange = t.f32(&[16, 16], &[f32::INFINITY; 256]);
    let y = t.add(Op::Linear(Linear::default()), &[y, strange]);
    // Below one another, and of half a panel.
    let [half, whole] = [8, 16].map(|n| t.f32(&[8, n], &vec![0.5; 8 * n]));
    let below = t.add(Op::Concat { axis: 0 }, &[whole, whole]);
    let y = t.add(Op::Linear(Linear::default()), &[y, below]);
    let left = t.add(Op::Slice { axis: 1, start: 0.into(), len: 8.into(), step: 1 }, &[y]);
    let beside = t.add(Op::Concat { axis: 1 }, &[half, whole]);
    let y = t.add(Op::MatMul { trans_b: false }, &[left, beside]);
    t.g.add_output("y", y);
    assert!(!run(&mut t.g, "use-int8"));
}

#[test]
fn widened_constants_are_constants() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "16"]);
    let half = t.constant(Tensor::from_scalars(
        DType::F16,
        vec![16, 16],
        spread(256, 5).into_iter().map(|x| bertc_ir::Scalar::Float(x.into())),
    ));
    let w = t.add(Op::Cast(DType::F32), &[half]);
    let y = t.add(Op::MatMul { trans_b: true }, &[x, w]);
    t.g.add_output("y", y);
    assert!(run(&mut t.g, "use-int8"));
    assert!(matches!(of(&t.g, "linear")[0].1, Op::Linear(l) if l.int8 && l.trans_b));
}

fn settings_of(int8: Option<Int8Settings>) -> std::sync::Arc<crate::Settings> {
    crate::Settings { int8, ..Default::default() }.into()
}

/// The graph with settings, and the report.
fn with(settings: Int8Settings) -> Result<(Graph, Int8Report), bertc_ir::Diag> {
    let mut g = layer();
    let mut ctx = crate::PassContext { settings: settings_of(Some(settings)), ..Default::default() };
    crate::registry::find("use-int8").unwrap().pass.run(&mut g, &mut ctx)?;
    Ok((g, ctx.reports.int8.unwrap()))
}

fn samples() -> Vec<Vec<Sample>> {
    let ids = |ids: &[i64]| Sample { dims: vec![1, 4], inputs: vec![Tensor::from_i64(vec![1, 4], ids)] };
    // The first set has an id that the table lacks.
    vec![vec![ids(&[9, 0, 0, 0])], vec![ids(&[4, 0, 2, 1]), ids(&[3, 3, 1, 0])]]
}

#[test]
fn measured_errors_are_those_of_the_evaluator() {
    let settings = Int8Settings { budget: 0.5, samples: samples(), ..Default::default() };
    let (after, report) = with(settings).unwrap();
    assert_eq!(report.matrices.len(), 3);
    assert_eq!(report.matrices[1].shape, [16, 48]);
    for m in &report.matrices {
        let (snr, cosine) = m.error.unwrap();
        assert!((20.0..60.0).contains(&snr) && (0.99..1.0).contains(&cosine), "{m:?}");
        assert_eq!(m.decision, Decision::Int8);
    }
    let mut least = 1f64;
    for out in 0..2 {
        let mean: f64 = samples()[1]
            .iter()
            .map(|s| {
                let [a, b] = [&layer(), &after].map(|g| eval(g, &s.dims, &s.inputs).unwrap().swap_remove(out));
                Nearness::of(&a, &b).cosine() / 2.0
            })
            .sum();
        least = least.min(mean);
    }
    assert!((report.cosine.unwrap() - least).abs() < 1e-6, "{report:?} {least}");
}

#[test]
fn a_budget_keeps_the_noisiest_and_no_more_than_needed() {
    let of = |budget: f64| with(Int8Settings { budget, samples: samples(), ..Default::default() }).unwrap().1;
    let loose = of(0.5);
    let tight = of(loose.cosine.unwrap() + 1e-7);
    let kept: Vec<_> = tight.matrices.iter().filter(|m| m.decision == Decision::Noisy).collect();
    assert!((1..3).contains(&kept.len()), "{tight:?}");
    let snr = |m: &MatrixRow| m.error.unwrap().0;
    let rest = tight.matrices.iter().filter(|m| m.decision == Decision::Int8).map(snr).fold(f64::INFINITY, f64::min);
    assert!(kept.iter().all(|m| snr(m) <= rest));
    assert!(tight.cosine > loose.cosine);
    // Nothing but what is exact is enough.
    let exact = of(1.0 - 1e-12);
    assert!(exact.matrices.iter().all(|m| m.decision == Decision::Noisy));
    let beyond = with(Int8Settings { budget: 1.5, samples: samples(), ..Default::default() }).unwrap_err();
    assert!(beyond.message.contains("even with every matrix in floats"), "{beyond}");
}

#[test]
fn kept_matrices_stay_and_unknown_ones_are_errors() {
    let (g, report) = with(Int8Settings { keep: vec!["%*".into()], ..Default::default() }).unwrap();
    assert!(report.matrices.iter().all(|m| m.decision == Decision::Named && m.error.is_none()));
    assert_eq!(count(&g, "quantise_rows"), 0);
    let name = report.matrices[1].name.clone();
    let (_, report) = with(Int8Settings { keep: vec![name.clone()], ..Default::default() }).unwrap();
    let named: Vec<_> = report.matrices.iter().filter(|m| m.decision == Decision::Named).collect();
    assert_eq!((named.len(), &named[0].name), (1, &name));
    let e = with(Int8Settings { keep: vec![format!("{name}0")], ..Default::default() }).unwrap_err();
    assert!(e.message.contains("unknown matrix") && e.to_string().contains(&format!("did you mean '{name}'?")), "{e}");
}

#[test]
fn samples_that_do_not_fit_are_errors() {
    let settings = Int8Settings { budget: 0.9, samples: samples()[..1].to_vec(), ..Default::default() };
    assert!(with(settings.clone()).unwrap_err().to_string().contains("--int8-budget 0"));
    let report = with(Int8Settings { synthetic: true, ..settings }).unwrap().1;
    assert!(report.cosine.is_none() && report.unmeasured.is_some_and(|why| why.contains("sum_norm")));
}

/// A product with gelu, one with a norm that reads it and one that reads that, of 64 channels.
fn wide() -> Graph {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "64"]);
    let [a, b, c] = [3, 11, 13].map(|k| t.f32(&[64, 64], &spread(4096, k)));
    let bias = t.f32(&[64], &spread(64, 17));
    let act = Some(bertc_ir::UnaryOp::Gelu);
    let y = t.add(Op::Linear(Linear { bias: true, act, residual: true, ..Linear::default() }), &[x, a, bias, x]);
    let norm = Linear { trans_b: true, residual: true, norm: Some(1e-5), ..Linear::default() };
    let y = t.add(Op::Linear(norm), &[y, b, x, bias, bias]);
    let y = t.add(Op::Linear(Linear::default()), &[y, c]);
    t.g.add_output("y", y);
    t.g
}

/// Inputs of [`wide`], in which a channel is so many times as large.
fn with_outlier(times: f32) -> Vec<Vec<Sample>> {
    let sample = |k: usize| {
        let mut x = spread(6 * 64, k);
        x.iter_mut().skip(5).step_by(64).for_each(|x| *x = (*x + 1.0) * times);
        Sample { dims: vec![1, 6], inputs: vec![Tensor::from_f32(vec![6, 64], &x)] }
    };
    vec![(0..12).map(|k| sample(7 + 12 * k)).collect()]
}

/// [`wide`] by the pass, and its least cosine by the evaluator.
fn calibrated(settings: Option<Int8Settings>) -> (Graph, Option<Int8Report>, f64) {
    let mut g = wide();
    let mut ctx = crate::PassContext { settings: settings_of(settings), ..Default::default() };
    crate::registry::find("use-int8").unwrap().pass.run(&mut g, &mut ctx).unwrap();
    bertc_ir::verify::verify(&g).unwrap();
    let cosine = |s: &Sample| {
        let [a, b] = [&wide(), &g].map(|g| eval(g, &s.dims, &s.inputs).unwrap().remove(0));
        Nearness::of(&a, &b).cosine() / 12.0
    };
    let cosine = with_outlier(40.0)[0].iter().map(cosine).sum();
    (g, ctx.reports.int8, cosine)
}

/// What [`wide`] is calibrated with.
fn calibration(budget: f64, synthetic: bool) -> Option<Int8Settings> {
    Some(Int8Settings { budget, samples: with_outlier(40.0), synthetic, ..Default::default() })
}

#[test]
fn calibration_evens_channels_out() {
    let (_, _, without) = calibrated(None);
    for synthetic in [true, false] {
        let (g, report, cosine) = calibrated(calibration(0.5, synthetic));
        let report = report.unwrap();
        assert!((report.cosine.unwrap() - cosine).abs() < 1e-6, "{report:?} {cosine}");
        assert!(1.0 - cosine < (1.0 - without) * 0.75, "{cosine} {without}");
        let smooth = report
            .matrices
            .iter()
            .filter(|m| matches!(m.decision, Decision::Smooth(before) if m.error.unwrap().0 >= before + 0.5));
        let smooth = smooth.count();
        assert!(smooth > 1, "{report:?}");
        // Also those of products that read what is rewritten before them.
        let with_factor = of(&g, "quantise_rows").iter().filter(|(v, _)| g.operands(*v).len() == 2).count();
        assert_eq!(with_factor, smooth);
        // What rounding takes from columns in the mean of texts is in the biases.
        let biased = of(&g, "linear").iter().filter(|(_, op)| matches!(op, Op::Linear(l) if l.bias)).count();
        assert_eq!(biased, if synthetic { 1 } else { 3 });
    }
    // Few rows have means of no worth.
    let mut few = calibration(0.5, false).unwrap();
    few.samples[0].truncate(2);
    let (g, _, _) = calibrated(Some(few));
    assert_eq!(of(&g, "linear").iter().filter(|(_, op)| matches!(op, Op::Linear(l) if l.bias)).count(), 1);
}

#[test]
fn outliers_stay_floats_before_whole_matrices_do() {
    let (_, loose, cosine) = calibrated(calibration(0.5, false));
    let (g, tight, reached) = calibrated(calibration(1.0 - (1.0 - cosine) * 0.7, false));
    let tight = tight.unwrap();
    assert!((tight.cosine.unwrap() - reached).abs() < 1e-6 && reached > cosine);
    let apart: Vec<_> = tight.matrices.iter().filter(|m| matches!(m.decision, Decision::Outliers(8, _))).collect();
    assert!(!apart.is_empty(), "{loose:?} {tight:?}");
    assert!(
        apart.iter().all(|m| matches!(m.decision, Decision::Outliers(_, before) if m.error.unwrap().0 > before + 2.0))
    );
    let gathers = of(&g, "gather");
    assert_eq!(gathers.len(), apart.len());
    let ids = |v: ValueId| g.as_const(g.operands(v)[1]).unwrap().to_i64_vec();
    assert!(gathers.iter().any(|&(v, _)| ids(v).contains(&5)), "the channel that sticks out");
    // All the same as floats, whatever the product does with its sums.
    for kept in 0..3 {
        let mut matrices = super::Matrices::default();
        let before = wide();
        let products: Vec<ValueId> = of(&before, "linear").into_iter().map(|o| o.0).collect();
        let others = products.iter().copied().enumerate().filter(|(i, _)| *i != kept).map(|p| p.1).collect();
        let mut plan = super::Plan { kept: others, ..Default::default() };
        plan.outliers.insert(products[kept], vec![0, 5, 63]);
        let mut after = before.clone();
        super::transform(&mut after, &mut matrices, &plan, &mut |_, _, _| {}).unwrap();
        bertc_ir::verify::verify(&after).unwrap();
        assert_eq!(count(&after, "gather"), 1);
        let s = &with_outlier(40.0)[0][0];
        let [a, b] = [&before, &after].map(|g| eval(g, &s.dims, &s.inputs).unwrap().remove(0));
        assert!(Nearness::of(&a, &b).snr() > 30.0, "product {kept}: {} dB", Nearness::of(&a, &b).snr());
    }
}

#[test]
fn a_matrix_with_several_readers_stays_one() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "64"]);
    let w = t.f32(&[64, 64], &spread(4096, 3));
    let y = t.add(Op::Linear(Linear::default()), &[x, w]);
    let y = t.add(Op::Linear(Linear::default()), &[y, w]);
    t.g.add_output("y", y);
    let settings = Int8Settings { budget: 0.5, samples: with_outlier(40.0), ..Default::default() };
    let mut ctx = crate::PassContext { settings: settings_of(Some(settings)), ..Default::default() };
    crate::registry::find("use-int8").unwrap().pass.run(&mut t.g, &mut ctx).unwrap();
    let matrices: std::collections::BTreeSet<_> = of(&t.g, "linear").iter().map(|(v, _)| t.g.operands(*v)[1]).collect();
    assert_eq!(matrices.len(), 1);
}
