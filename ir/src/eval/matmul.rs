//! Matrix product with f64 accumulators (i32: wrapping), summed in ascending order of k.

use super::data::{f64s, ints, put_f64};
use crate::tensor::Tensor;
use crate::types::DType;

/// Columns of a panel: a row of accumulators stays in the first-level cache.
const PANEL: usize = 256;

/// What an element is multiplied and summed in.
trait Num: Copy {
    const ZERO: Self;
    fn mul_add_to(self, b: Self, acc: &mut Self);
}

impl Num for f64 {
    const ZERO: f64 = 0.0;
    #[inline]
    fn mul_add_to(self, b: f64, acc: &mut f64) {
        *acc += self * b;
    }
}

impl Num for i32 {
    const ZERO: i32 = 0;
    #[inline]
    fn mul_add_to(self, b: i32, acc: &mut i32) {
        *acc = acc.wrapping_add(self.wrapping_mul(b));
    }
}

/// One product: a is m×k, b k×n or (`trans`) n×k, c m×n.
fn product<T: Num>(a: &[T], b: &[T], c: &mut [T], [m, k, n]: [usize; 3], trans: bool) {
    let mut panel = vec![T::ZERO; k * PANEL.min(n)];
    for j0 in (0..n).step_by(PANEL) {
        let w = PANEL.min(n - j0);
        for p in 0..k {
            for j in 0..w {
                panel[p * w + j] = if trans { b[(j0 + j) * k + p] } else { b[p * n + j0 + j] };
            }
        }
        for i in 0..m {
            let acc = &mut c[i * n + j0..i * n + j0 + w];
            for (&x, row) in a[i * k..(i + 1) * k].iter().zip(panel.chunks_exact(w)) {
                for (s, &y) in acc.iter_mut().zip(row) {
                    x.mul_add_to(y, s);
                }
            }
        }
    }
}

/// Every product of the batch; `shape` is the result's.
fn batched<T: Num>(trans: bool, (a, sa): (&[T], &[usize]), (b, sb): (&[T], &[usize]), shape: &[usize]) -> Vec<T> {
    let r = shape.len();
    let (m, n, k) = (shape[r - 2], shape[r - 1], sa[sa.len() - 1]);
    let mut out = vec![T::ZERO; shape.iter().product()];
    if out.is_empty() {
        return out;
    }
    let (ba, bb) = (&sa[..sa.len() - 2], &sb[..sb.len() - 2]);
    if bb.iter().all(|&d| d == 1) {
        // One matrix for the whole batch: its panels are read once.
        let m = out.len() / n;
        product(a, b, &mut out, [m, k, n], trans);
        return out;
    }
    for (i, c) in out.chunks_exact_mut(m * n).enumerate() {
        let (x, y) = (m * k * batch_index(i, ba, &shape[..r - 2]), k * n * batch_index(i, bb, &shape[..r - 2]));
        product(&a[x..x + m * k], &b[y..y + k * n], c, [m, k, n], trans);
    }
    out
}

/// The operand's matrix for the result's matrix `i`, under broadcasting.
fn batch_index(mut i: usize, operand: &[usize], result: &[usize]) -> usize {
    let (mut at, mut stride) = (0, 1);
    for (&d, &n) in operand.iter().rev().zip(result.iter().rev()) {
        at += if d == 1 { 0 } else { (i % n) * stride };
        stride *= d;
        i /= n;
    }
    at
}

pub(super) fn matmul(trans_b: bool, a: &Tensor, b: &Tensor, shape: &[usize]) -> Vec<u8> {
    let (sa, sb) = (a.shape(), b.shape());
    if a.dtype() == DType::I32 {
        let narrow = |t: &Tensor| ints(t).into_iter().map(|v| v as i32).collect::<Vec<_>>();
        let (a, b) = (narrow(a), narrow(b));
        return batched(trans_b, (&a, sa), (&b, sb), shape).into_iter().flat_map(i32::to_le_bytes).collect();
    }
    put_f64(a.dtype(), batched(trans_b, (&f64s(a), sa), (&f64s(b), sb), shape).into_iter())
}
