use bertc_ir::eval::eval;
use bertc_ir::{DType, Graph, Linear, Op, Tensor, UnaryOp};

use super::{asked, noise, pruned};
use crate::measure::Sample;
use crate::prune::blocks::Grid;
use crate::prune::linalg::inverse;
use crate::prune::moments::Moments;
use crate::prune::solve::{DAMPING, Hessian};
use crate::prune::{PruneReport, PruneSettings};
use crate::testing::T;

/// Rows of channels that go together: each is a mix of a few sources, and a little of its own.
fn correlated(rows: usize, k: usize, seed: u64) -> Vec<f32> {
    let (sources, mix, own) = (noise(rows * 3, seed), noise(3 * k, 99), noise(rows * k, seed + 1));
    let at = |i: usize, c: usize| (0..3).map(|s| sources[i * 3 + s] * mix[s * k + c]).sum::<f32>();
    (0..rows * k).map(|i| at(i / k, i % k) + 0.3 * own[i] + 0.25).collect()
}

/// The least Σ (x·(w − w₀))² over the weights that are free, by the normal equations.
fn least_squares(x: &[f32], w0: &[f32], free: &[bool]) -> Vec<f64> {
    let k = w0.len();
    let h = |i: usize, j: usize| x.chunks_exact(k).map(|r| f64::from(r[i]) * f64::from(r[j])).sum::<f64>();
    let s: Vec<usize> = (0..k).filter(|&i| free[i]).collect();
    let part: Vec<f64> = s.iter().flat_map(|&i| s.iter().map(move |&j| (i, j))).map(|(i, j)| h(i, j)).collect();
    let right: Vec<f64> = s.iter().map(|&i| (0..k).map(|j| h(i, j) * f64::from(w0[j])).sum()).collect();
    let inverse = inverse(&part, s.len()).unwrap();
    let mut w = vec![0.0; k];
    for (row, &i) in inverse.chunks_exact(s.len()).zip(&s) {
        w[i] = row.iter().zip(&right).map(|(a, b)| a * b).sum();
    }
    w
}

fn error(x: &[f32], w: &[f64], w0: &[f32]) -> f64 {
    let d: Vec<f64> = w.iter().zip(w0).map(|(a, b)| a - f64::from(*b)).collect();
    x.chunks_exact(d.len()).map(|r| r.iter().zip(&d).map(|(a, b)| f64::from(*a) * b).sum::<f64>().powi(2)).sum()
}

#[test]
fn the_rest_is_the_least_squares_solution() {
    let (k, rows) = (12, 200);
    let x = correlated(rows, k, 5);
    let w0 = noise(3 * k, 8);
    let mut moments = Moments::new(k);
    moments.add(&[&Tensor::from_f32(vec![rows, k], &x)]);
    let h = Hessian::new(&moments).unwrap();
    let free: Vec<bool> = (0..3 * k).map(|i| (i / 4 + i / k) % 2 == 0).collect();
    let w = h.solve(&w0, &free);
    for n in 0..3 {
        let at = n * k..(n + 1) * k;
        let best = least_squares(&x, &w0[at.clone()], &free[at.clone()]);
        let found: Vec<f64> = w[at.clone()].iter().map(|&x| f64::from(x)).collect();
        assert!(found.iter().zip(&free[at.clone()]).all(|(w, f)| *f || *w == 0.0));
        let errors = [&best, &found].map(|w| error(&x, w, &w0[at.clone()]));
        // Damping takes a little of it.
        assert!(errors[1] <= errors[0] * 1.05, "{errors:?}");
        let cut: Vec<f64> =
            w0[at.clone()].iter().zip(&free[at.clone()]).map(|(&w, &f)| if f { w.into() } else { 0.0 }).collect();
        assert!(errors[1] < 0.5 * error(&x, &cut, &w0[at]), "the rest makes up for what went");
    }
}

#[test]
fn a_saliency_is_what_removing_the_block_costs() {
    let (k, rows) = (10, 300);
    let mut x = correlated(rows, k, 11);
    let mut moments = Moments::new(k);
    moments.add(&[&Tensor::from_f32(vec![rows, k], &x)]);
    let h = Hessian::new(&moments).unwrap();
    // Damping is as if each channel were alone in another row.
    let own: Vec<f64> = (0..k).map(|c| moments.squares[c * k + c]).collect();
    for (c, square) in own.iter().enumerate() {
        let more = DAMPING[0] * square + DAMPING[1] * own.iter().sum::<f64>() / k as f64;
        x.extend((0..k).map(|i| if i == c { more.sqrt() as f32 } else { 0.0 }));
    }
    let w0 = noise(4 * k, 2);
    for block in [[1, 4], [2, 1], [4, 4]] {
        let grid = Grid::new(4, k, block);
        let all = h.saliencies(&w0, &grid).unwrap();
        for (b, found) in all.iter().enumerate() {
            let mut mask = vec![false; grid.len()];
            mask[b] = true;
            let mut cost = 0.0;
            grid.each(&mask, |outputs, inputs| {
                for n in outputs {
                    let w0 = &w0[n * k..(n + 1) * k];
                    let free: Vec<bool> = (0..k).map(|c| !inputs.contains(&c)).collect();
                    cost += error(&x, &least_squares(&x, w0, &free), w0);
                }
            });
            assert!((found - cost).abs() <= 0.01 * cost.max(1e-3), "{block:?} {b}: {found} {cost}");
        }
    }
}

/// Two products with biases and a gelu between them, on 24 channels.
fn two_layers() -> Graph {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "24"]);
    let [b, c] = [(32, 1), (16, 2)].map(|(n, seed)| t.f32(&[n], &noise(n, seed)));
    let (w, u) = (t.f32(&[24, 32], &noise(24 * 32, 3)), t.f32(&[16, 32], &noise(16 * 32, 4)));
    let l = Linear { bias: true, act: Some(UnaryOp::Gelu), ..Linear::default() };
    let y = t.add(Op::Linear(l), &[x, w, b]);
    let y = t.add(Op::Linear(Linear { bias: true, trans_b: true, ..Linear::default() }), &[y, u, c]);
    t.g.add_output("y", y);
    t.g
}

fn sample(seed: u64) -> Sample {
    Sample { dims: vec![1, 8], inputs: vec![Tensor::from_f32(vec![8, 24], &correlated(8, 24, seed))] }
}

fn calibrated(g: &Graph, sparsity: f64, block: [usize; 2]) -> (Graph, PruneReport) {
    let samples = vec![(0..60).map(|i| sample(1000 + 2 * i)).collect()];
    let (g, report, _) = pruned(g, PruneSettings { samples, ..asked(sparsity, block) }).unwrap();
    (g, report)
}

/// The error of the outputs on samples that nothing was fitted to.
fn distance(before: &Graph, after: &Graph) -> f64 {
    let (mut noise, mut signal) = (0.0, 0.0);
    for seed in 0..10 {
        let s = sample(5000 + 2 * seed);
        let [a, b] = [before, after].map(|g| eval(g, &s.dims, &s.inputs).unwrap()[0].to_f64_vec());
        noise += a.iter().zip(&b).map(|(a, b)| (a - b).powi(2)).sum::<f64>();
        signal += a.iter().map(|a| a * a).sum::<f64>();
    }
    noise / signal
}

#[test]
fn calibration_beats_magnitude() {
    let g = two_layers();
    for block in [[1, 4], [4, 4], [16, 1], [16, 4]] {
        let (fitted, report) = calibrated(&g, 0.5, block);
        let (plain, ..) = pruned(&g, asked(0.5, block)).unwrap();
        let errors = [&fitted, &plain].map(|after| distance(&g, after));
        assert!(errors[0] < 0.6 * errors[1], "{block:?}: {errors:?}");
        let zeros: usize = report.matrices.iter().map(|m| m.zeros).sum();
        assert!((zeros as f64 - 0.5 * (24.0 + 16.0) * 32.0).abs() <= (block[0] * block[1]) as f64, "{report:?}");
        assert_eq!(report.rows, 480);
        assert!(report.matrices.iter().all(|m| m.error.is_some_and(|e| (0.0..0.6).contains(&e))), "{report:?}");
    }
    let (same, report) = calibrated(&g, 0.0, [1, 4]);
    assert!(distance(&g, &same) < 1e-10 && report.reached() == 0.0);
}

#[test]
fn one_matrix_of_several_products_is_fitted_to_all() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "24"]);
    let w = t.f32(&[24, 24], &noise(24 * 24, 21));
    let half = t.f32(&[24], &[0.5; 24]);
    let l = Linear { bias: true, act: Some(UnaryOp::Gelu), ..Linear::default() };
    let y = t.add(Op::Linear(l), &[x, w, half]);
    let y = t.add(Op::Linear(l), &[y, w, half]);
    t.g.add_output("y", y);
    let (fitted, report) = calibrated(&t.g, 0.5, [1, 4]);
    assert_eq!(report.matrices.len(), 1);
    let (plain, ..) = pruned(&t.g, asked(0.5, [1, 4])).unwrap();
    let errors = [&fitted, &plain].map(|after| distance(&t.g, after));
    assert!(errors[0] < 0.8 * errors[1], "{errors:?}");
}

#[test]
fn samples_that_do_not_fit_are_errors() {
    let wrong = Sample { dims: vec![1, 8], inputs: vec![] };
    let settings = PruneSettings { samples: vec![vec![wrong]], ..asked(0.5, [1, 4]) };
    let e = pruned(&two_layers(), settings).unwrap_err();
    assert!(e.to_string().contains("without --calibrate"), "{e}");
}

#[test]
fn inputs_that_say_nothing_leave_magnitude() {
    for value in [0.0, f32::NAN] {
        let sample = Sample { dims: vec![1, 8], inputs: vec![Tensor::from_f32(vec![8, 24], &[value; 8 * 24])] };
        let settings = PruneSettings { samples: vec![vec![sample]], ..asked(0.5, [1, 4]) };
        let (g, report, _) = pruned(&two_layers(), settings).unwrap();
        assert_eq!(report.matrices[0].zeros, 24 * 32 / 2);
        let constants = g.topo().into_iter().filter_map(|v| g.as_const(v));
        assert!(constants.flat_map(|t| t.to_f32_vec()).all(f32::is_finite));
    }
}

#[test]
fn the_same_comes_out_every_time() {
    let bytes = |g: &Graph| -> Vec<Vec<u8>> {
        g.topo().into_iter().filter_map(|v| g.as_const(v)).map(|t| t.bytes().to_vec()).collect()
    };
    let g = two_layers();
    assert_eq!(bytes(&calibrated(&g, 0.5, [4, 1]).0), bytes(&calibrated(&g, 0.5, [4, 1]).0));
}
