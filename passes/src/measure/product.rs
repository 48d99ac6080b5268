//! Products for measuring: in f32, by all cores. What is told of them has three digits; the evaluator has sixteen, and takes
//! a hundred times as long.

use bertc_ir::{DType, Tensor};

use super::constants::floats;

/// Columns of a panel: its accumulators stay in registers.
const PANEL: usize = 32;

/// Rows of a panel that stay in the first cache while all rows of the product meet them.
const DEPTH: usize = 128;

/// A matrix of floats or of 8-bit integers that is multiplied as f32.
#[derive(Clone, Copy)]
struct Matrix<'a> {
    dtype: DType,
    bytes: &'a [u8],
    /// Elements from one row of the product's k to the next, and from one column to the next.
    strides: [usize; 2],
}

impl Matrix<'_> {
    fn at(&self, k: usize, n: usize) -> f32 {
        let i = k * self.strides[0] + n * self.strides[1];
        match (self.dtype, self.bytes.get(4 * i..4 * i + 4)) {
            (DType::F32, Some(&[a, b, c, d])) => f32::from_le_bytes([a, b, c, d]),
            _ => self.bytes.get(i).map_or(0.0, |&q| f32::from(q.cast_signed())),
        }
    }
}

/// The elements of floats or integers as f32.
pub fn wide(t: &Tensor) -> Vec<f32> {
    match t.dtype() {
        DType::I8 => t.bytes().iter().map(|&q| f32::from(q.cast_signed())).collect(),
        DType::U8 => t.bytes().iter().map(|&q| f32::from(q)).collect(),
        _ => floats(t),
    }
}

/// a `[M, K]` by `b`, `[K, N]` or with `trans` `[N, K]`, of f32 or i8.
pub fn product(a: &[f32], b: &Tensor, trans: bool) -> Vec<f32> {
    let &[x, y] = b.shape() else { return Vec::new() };
    let (k, n) = if trans { (y, x) } else { (x, y) };
    let m = a.len() / k.max(1);
    let strides = if trans { [1, k] } else { [n, 1] };
    let b = Matrix { dtype: b.dtype(), bytes: b.bytes(), strides };
    let starts: Vec<usize> = (0..n).step_by(PANEL).collect();
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(starts.len().max(1));
    let share = starts.len().div_ceil(workers).max(1);
    let panels: Vec<Vec<f32>> = std::thread::scope(|s| {
        let work = |part: &[usize]| part.iter().map(|&j| panel(a, b, [m, k, n], j)).collect::<Vec<_>>();
        let running: Vec<_> = starts.chunks(share).map(|part| s.spawn(move || work(part))).collect();
        running.into_iter().flat_map(|r| r.join().unwrap_or_else(|p| std::panic::resume_unwind(p))).collect()
    });
    let mut out = vec![0.0; m * n];
    for (&j, panel) in starts.iter().zip(&panels) {
        let w = PANEL.min(n - j);
        for (row, sums) in out.chunks_exact_mut(n).zip(panel.chunks_exact(PANEL)) {
            row[j..j + w].copy_from_slice(&sums[..w]);
        }
    }
    out
}

/// Columns `j` and on of a product.
fn panel(a: &[f32], b: Matrix<'_>, [m, k, n]: [usize; 3], j: usize) -> Vec<f32> {
    let w = PANEL.min(n - j);
    let mut packed = vec![[0f32; PANEL]; k];
    if b.strides[1] == 1 {
        packed.iter_mut().enumerate().for_each(|(p, row)| (0..w).for_each(|i| row[i] = b.at(p, j + i)));
    } else {
        (0..w).for_each(|i| packed.iter_mut().enumerate().for_each(|(p, row)| row[i] = b.at(p, j + i)));
    }
    let mut out = vec![[0f32; PANEL]; m];
    for (at, block) in packed.chunks(DEPTH).enumerate() {
        for (row, sums) in a.chunks_exact(k.max(1)).zip(&mut out) {
            let mut sum = *sums;
            for (&x, y) in row[at * DEPTH..].iter().zip(block) {
                sum.iter_mut().zip(y).for_each(|(s, y)| *s += x * y);
            }
            *sums = sum;
        }
    }
    out.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_of_both_types_and_orientations() {
        for n in [1, 31, 32, 70] {
            let (m, k) = (3, DEPTH + 5);
            let a: Vec<f32> = (0..m * k).map(|i| (i % 7) as f32 - 3.0).collect();
            let b: Vec<i8> = (0..k * n).map(|i| (i * 37 % 13) as i8 - 6).collect();
            let want = |trans: bool| -> Vec<f32> {
                let at = |p: usize, j: usize| f32::from(if trans { b[j * k + p] } else { b[p * n + j] });
                (0..m * n).map(|i| (0..k).map(|p| a[i / n * k + p] * at(p, i % n)).sum()).collect()
            };
            for trans in [false, true] {
                let shape = if trans { vec![n, k] } else { vec![k, n] };
                let bytes: Vec<u8> = b.iter().map(|&x| x.cast_unsigned()).collect();
                let integers = Tensor::new(DType::I8, shape.clone(), bytes.into()).unwrap();
                let floats = Tensor::from_f32(shape, &b.iter().map(|&x| f32::from(x)).collect::<Vec<_>>());
                assert_eq!(product(&a, &integers, trans), want(trans));
                assert_eq!(product(&a, &floats, trans), want(trans));
            }
        }
    }
}
