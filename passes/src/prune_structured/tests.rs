use bertc_ir::eval::eval;
use bertc_ir::{Attention, DType, Graph, Linear, Op, Tensor, UnaryOp, ValueId};

use super::{StructuredReport, StructuredSettings};
use crate::measure::Sample;
use crate::prune::noise;
use crate::testing::T;
use crate::{PassContext, Settings};

/// An attention of four heads of 4 channels and a feed-forward layer of 40 neurons, with residuals, twice.
fn layers(t: &mut T) -> ValueId {
    let mut x = t.input(DType::F32, &["1", "seq", "16"]);
    for layer in 0..2u64 {
        let product = |t: &mut T, x: ValueId, k: usize, n: usize, l: Linear, more: &[ValueId]| {
            let seed = layer * 100 + (k * n) as u64 + more.len() as u64 + t.g.len() as u64;
            let w = t.f32(if l.trans_b { [n, k] } else { [k, n] }.as_slice(), &noise(k * n, seed));
            let b = t.f32(&[n], &noise(n, seed + 1));
            t.add(Op::Linear(Linear { bias: true, ..l }), &[&[x, w, b], more].concat())
        };
        let plain = Linear::default();
        let qkv = [0; 3].map(|_| product(t, x, 16, 16, plain, &[]));
        let a = t.add(Op::Attention(Attention { heads: 4, scale: 0.5, ..Attention::default() }), &qkv);
        let y = product(t, a, 16, 16, Linear { residual: true, ..plain }, &[x]);
        let up = Linear { act: Some(UnaryOp::Gelu), trans_b: true, ..plain };
        let f = product(t, y, 16, 40, up, &[]);
        x = product(t, f, 40, 16, Linear { residual: true, ..plain }, &[y]);
    }
    t.g.add_output("y", x);
    x
}

fn sample(seed: u64) -> Sample {
    Sample { dims: vec![1, 8], inputs: vec![Tensor::from_f32(vec![1, 8, 16], &noise(128, seed))] }
}

fn shrunk(g: &Graph, heads: f64, ffn: f64, samples: usize) -> (Graph, StructuredReport) {
    let samples = if samples > 0 { vec![(0..samples as u64).map(sample).collect()] } else { Vec::new() };
    let settings = StructuredSettings { heads, ffn, samples, ..StructuredSettings::default() };
    let settings = Settings { structured: Some(settings), ..Settings::default() }.into();
    let mut ctx = PassContext { settings, ..PassContext::default() };
    let mut g = g.clone();
    crate::registry::find("prune-structured").unwrap().pass.run(&mut g, &mut ctx).unwrap();
    bertc_ir::verify::verify(&g).unwrap();
    (g, ctx.reports.structured.unwrap())
}

fn distance(before: &Graph, after: &Graph) -> f64 {
    let (mut noise, mut signal) = (0.0, 0.0);
    for seed in 0..10 {
        let s = sample(900 + seed);
        let [a, b] = [before, after].map(|g| eval(g, &s.dims, &s.inputs).unwrap()[0].to_f64_vec());
        noise += a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        signal += a.iter().map(|a| a * a).sum::<f64>();
    }
    noise / signal
}

#[test]
fn heads_and_neurons_go_under_one_budget_and_dims_shrink() {
    let mut t = T::new();
    layers(&mut t);
    let (g, report) = shrunk(&t.g, 0.5, 0.5, 40);
    let left = |heads: bool| report.rows.iter().filter(|r| r.heads == heads).map(|r| r.counts[1]).collect::<Vec<_>>();
    assert_eq!(left(true).iter().sum::<usize>(), 4, "{report:?}");
    assert!(left(true).iter().all(|&n| n > 0), "{report:?}");
    // The first step of 40 is 8, the others 16.
    let neurons: usize = left(false).iter().sum();
    assert!((32..=48).contains(&neurons) && left(false).iter().all(|n| n % 16 == 0 || *n == 40), "{report:?}");
    let heads: Vec<usize> = g
        .topo()
        .into_iter()
        .filter_map(|v| match g.op(v) {
            Op::Attention(a) => {
                assert_eq!(g.ty(v).shape[2].as_const(), Some(4 * a.heads as i64));
                Some(a.heads)
            }
            _ => None,
        })
        .collect();
    assert_eq!(heads, left(true));
    // All go but the least.
    let (_, report) = shrunk(&t.g, 0.99, 0.99, 40);
    assert!(report.rows.iter().all(|r| r.counts[1] == if r.heads { 1 } else { 16 }), "{report:?}");
    let (same, report) = shrunk(&t.g, 0.0, 0.0, 40);
    assert!(distance(&t.g, &same) == 0.0 && report.rows.iter().all(|r| r.counts[0] == r.counts[1]));
}

#[test]
fn calibration_finds_what_matters_and_makes_up_for_the_rest() {
    let mut t = T::new();
    layers(&mut t);
    for (heads, ffn) in [(0.5, 0.0), (0.0, 0.5), (0.25, 0.25)] {
        let errors = [40, 0].map(|samples| distance(&t.g, &shrunk(&t.g, heads, ffn, samples).0));
        assert!(errors[0] > 0.0 && errors[0] < 0.8 * errors[1], "{heads} {ffn}: {errors:?}");
    }
}

#[test]
fn what_never_fires_goes_for_nothing() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["1", "seq", "16"]);
    // Half of the neurons never fire, and have the greatest weights behind them.
    let bias: Vec<f32> = (0..32).map(|i| if i % 2 == 0 { -100.0 } else { 0.5 }).collect();
    let behind: Vec<f32> =
        noise(512, 4).into_iter().enumerate().map(|(i, w)| if i / 16 % 2 == 0 { 3.0 * w } else { w }).collect();
    let (w, b, u) = (t.f32(&[16, 32], &noise(512, 3)), t.f32(&[32], &bias), t.f32(&[32, 16], &behind));
    let l = Linear { bias: true, act: Some(UnaryOp::Gelu), ..Linear::default() };
    let y = t.add(Op::Linear(l), &[x, w, b]);
    let y = t.add(Op::MatMul { trans_b: false }, &[y, u]);
    t.g.add_output("y", y);
    let (g, report) = shrunk(&t.g, 0.0, 0.5, 40);
    assert_eq!(report.rows[0].counts, [32, 16]);
    assert!(distance(&t.g, &g) < 1e-9, "{}", distance(&t.g, &g));
    let (g, _) = shrunk(&t.g, 0.0, 0.5, 0);
    assert!(distance(&t.g, &g) > 1e-2);
}
