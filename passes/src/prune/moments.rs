//! What samples tell of the inputs of a product: sums of products of channels.

use bertc_ir::Tensor;

use crate::measure::product::{product, wide};

/// Rows that are summed up in f32 before they go into f64.
const CHUNK: usize = 256;

/// Σ xᵢ xⱼ over rows of K channels, and Σ xᵢ.
#[derive(Clone, Debug)]
pub struct Moments {
    pub k: usize,
    pub rows: f64,
    /// `[K, K]`.
    pub squares: Vec<f64>,
    /// `[K]`.
    pub sums: Vec<f64>,
}

impl Moments {
    /// Of no rows.
    pub fn new(k: usize) -> Moments {
        Moments { k, rows: 0.0, squares: vec![0.0; k * k], sums: vec![0.0; k] }
    }

    /// Takes in the rows of tensors `[…, K]`.
    pub fn add(&mut self, all: &[&Tensor]) {
        let k = self.k.max(1);
        let rows: Vec<f32> = all.iter().flat_map(|t| wide(t)).collect();
        for part in rows.chunks(CHUNK * k) {
            let m = part.len() / k;
            let mut turned = vec![0f32; part.len()];
            for (i, row) in part.chunks_exact(k).enumerate() {
                row.iter().enumerate().for_each(|(c, &x)| turned[c * m + i] = x);
                self.sums.iter_mut().zip(row).for_each(|(s, &x)| *s += f64::from(x));
            }
            let squares = product(&turned, &Tensor::from_f32(vec![m, k], part), false);
            self.squares.iter_mut().zip(squares).for_each(|(s, x)| *s += f64::from(x));
            self.rows += m as f64;
        }
    }

    /// Those of the rows without their mean.
    pub fn centred(&self) -> Moments {
        let mut m = self.clone();
        if m.rows > 0.0 {
            for (row, a) in m.squares.chunks_exact_mut(m.k.max(1)).zip(&self.sums) {
                row.iter_mut().zip(&self.sums).for_each(|(s, b)| *s -= a * b / self.rows);
            }
        }
        m
    }

    /// The mean of each channel.
    pub fn mean(&self) -> Vec<f64> {
        self.sums.iter().map(|s| s / self.rows.max(1.0)).collect()
    }

    /// Whether all of it is numbers.
    pub fn finite(&self) -> bool {
        self.squares.iter().all(|x| x.is_finite())
    }

    /// With a part of each channel's own square, and some of the mean one, added to it: samples are few, and what they say of
    /// channels that go together is taken less seriously.
    pub fn damped(mut self, own: f64, mean: f64) -> Moments {
        let k = self.k;
        let usual = (0..k).map(|i| self.squares[i * k + i]).sum::<f64>() / k.max(1) as f64;
        // Of inputs that are 0, weights count as they are.
        let usual = if usual > 0.0 { usual } else { 1.0 };
        for i in 0..k {
            let d = &mut self.squares[i * k + i];
            *d += own * *d + mean * usual;
        }
        self
    }
}
