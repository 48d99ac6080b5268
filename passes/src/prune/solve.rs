//! What blocks matter by the second order, and the best weights in those that are left.
//!
//! A product's error on samples, rows x of which H = Σ x xᵀ is made, is Σ (w − w₀)ᵀ H (w − w₀) over its outputs (Optimal Brain
//! Surgeon, Hassibi & Stork 1992, for one layer, as in Optimal Brain Compression, Frantar & Alistarh 2022). To remove the
//! weights of a block while all others move to make up for it costs w_bᵀ (H⁻¹_bb)⁻¹ w_b: the saliency of block b, summed over
//! its outputs (oBERT, Kurtic et al. 2022). With the blocks chosen, the least error of an output is where H (w − w₀) is 0 at
//! all weights that are left: solved for all outputs together by conjugate gradients, each step a product with H.

use bertc_ir::Tensor;

use super::blocks::Grid;
use super::linalg::{cholesky, inverse, lower_inverse};
use super::moments::Moments;
use crate::measure::product::product;

/// The part of a channel's own square that is added to it, and of the mean one.
pub(super) const DAMPING: [f64; 2] = [0.01, 1e-4];

/// Steps of conjugate gradients at most.
const STEPS: usize = 48;
/// A step that gains less than this part of what was gained is the last.
const ENOUGH: f64 = 1e-4;

/// H as the solver takes it: made once for all matrices that read the same inputs.
pub struct Hessian {
    k: usize,
    /// The inverse of its Cholesky factor.
    lower: Vec<f64>,
    /// `[K, K]` in f32.
    h: Tensor,
    diagonal: Vec<f32>,
}

impl Hessian {
    /// Of sums; nothing where they are not finite.
    pub fn new(m: &Moments) -> Option<Hessian> {
        let k = m.k;
        let [own, mean] = DAMPING;
        let m = m.clone().damped(own, mean);
        if !m.finite() {
            return None;
        }
        let lower = lower_inverse(&cholesky(&m.squares, k)?, k);
        // Weights that the solver gets to see are all of about one size.
        let scale = (0..k).map(|i| m.squares[i * k + i]).fold(0f64, f64::max);
        let h: Vec<f32> = m.squares.iter().map(|x| (x / scale) as f32).collect();
        let diagonal = (0..k).map(|i| h[i * k + i]).collect();
        Some(Hessian { k, lower, h: Tensor::from_f32(vec![k, k], &h), diagonal })
    }

    /// The saliency of each block of weights `[n, k]`; nothing where rounding leaves none.
    pub fn saliencies(&self, w: &[f32], grid: &Grid) -> Option<Vec<f64>> {
        let k = self.k;
        let [rows, columns] = grid.counts();
        let mut all = vec![0.0; grid.len()];
        for j in 0..columns {
            let inputs = grid.inputs(j);
            let c = inputs.len();
            let mut part = vec![0.0; c * c];
            for row in self.lower[inputs.start * k..].chunks_exact(k) {
                let row = &row[inputs.clone()];
                for (sums, x) in part.chunks_exact_mut(c).zip(row) {
                    sums.iter_mut().zip(row).for_each(|(s, y)| *s += x * y);
                }
            }
            let part = inverse(&part, c)?;
            for i in 0..rows {
                let mut sum = 0.0;
                for n in grid.outputs(i) {
                    let w = &w[n * k..][inputs.clone()];
                    for (row, x) in part.chunks_exact(c).zip(w) {
                        sum += f64::from(*x) * row.iter().zip(w).map(|(p, y)| p * f64::from(*y)).sum::<f64>();
                    }
                }
                all[i * columns + j] = sum.max(0.0);
            }
        }
        Some(all)
    }

    /// Σ dᵀ H d over the outputs of `[n, k]`, in the unit of [`Hessian::h`].
    fn energy(&self, d: &[f32]) -> f64 {
        let hd = product(d, &self.h, false);
        d.iter().zip(&hd).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum()
    }

    /// The error of weights `w` in place of `w0`, relative to what `w0` gives.
    pub fn error(&self, w: &[f32], w0: &[f32]) -> f64 {
        let d: Vec<f32> = w.iter().zip(w0).map(|(a, b)| a - b).collect();
        let whole = self.energy(w0);
        if whole > 0.0 { (self.energy(&d) / whole).max(0.0) } else { 0.0 }
    }

    /// The weights `[n, k]` of least error that are 0 where `free` is not set.
    pub fn solve(&self, w0: &[f32], free: &[bool]) -> Vec<f32> {
        let k = self.k.max(1);
        let mut w: Vec<f32> = w0.iter().zip(free).map(|(&x, &f)| if f { x } else { 0.0 }).collect();
        let gone: Vec<f32> = w0.iter().zip(&w).map(|(a, b)| a - b).collect();
        let mut r = product(&gone, &self.h, false);
        r.iter_mut().zip(free).for_each(|(r, &f)| *r = if f { *r } else { 0.0 });
        let whitened =
            |r: &[f32]| -> Vec<f32> { r.iter().enumerate().map(|(i, x)| x / self.diagonal[i % k]).collect() };
        let dots = |a: &[f32], b: &[f32]| -> Vec<f64> {
            let rows = a.chunks_exact(k).zip(b.chunks_exact(k));
            rows.map(|(a, b)| a.iter().zip(b).map(|(x, y)| f64::from(x * y)).sum()).collect()
        };
        let mut z = whitened(&r);
        let mut p = z.clone();
        let mut rz = dots(&r, &z);
        let mut gained = 0.0;
        for _ in 0..STEPS {
            let mut q = product(&p, &self.h, false);
            q.iter_mut().zip(free).for_each(|(q, &f)| *q = if f { *q } else { 0.0 });
            let pq = dots(&p, &q);
            let step: Vec<f64> = rz.iter().zip(&pq).map(|(a, b)| if *b > 0.0 { a / b } else { 0.0 }).collect();
            for (i, &a) in step.iter().enumerate() {
                let at = i * k..(i + 1) * k;
                w[at.clone()].iter_mut().zip(&p[at.clone()]).for_each(|(w, p)| *w += a as f32 * p);
                r[at.clone()].iter_mut().zip(&q[at]).for_each(|(r, q)| *r -= a as f32 * q);
            }
            let gain: f64 = step.iter().zip(&rz).map(|(a, b)| a * b).sum();
            gained += gain;
            if gain <= ENOUGH * gained {
                break;
            }
            z = whitened(&r);
            let next = dots(&r, &z);
            for (i, (new, old)) in next.iter().zip(&rz).enumerate() {
                let keep = if *old > 0.0 { (new / old) as f32 } else { 0.0 };
                let at = i * k..(i + 1) * k;
                p[at.clone()].iter_mut().zip(&z[at]).for_each(|(p, z)| *p = z + keep * *p);
            }
            rz = next;
        }
        w
    }
}
