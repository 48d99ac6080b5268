//! Reductions, and ops that reduce inside: arg-max, prefix sums, softmax, layer norm.

use super::data::{f64s, int_range, ints, put_f64, put_int, wrap};
use super::movement::transpose;
use crate::op::ReduceOp;
use crate::tensor::Tensor;
use crate::types::DType;

/// Products of the dims before, at and after an axis.
fn split(shape: &[usize], axis: usize) -> (usize, usize, usize) {
    (shape[..axis].iter().product(), shape[axis], shape[axis + 1..].iter().product())
}

/// Calls `f` with the flat indices of every line along `axis`: first, stride, count.
pub(super) fn lines(shape: &[usize], axis: usize, mut f: impl FnMut(usize, usize, usize)) {
    let (outer, n, inner) = split(shape, axis);
    for o in 0..outer {
        for i in 0..inner {
            f(o * n * inner + i, inner, n);
        }
    }
}

fn fold_float(op: ReduceOp, v: &[f64]) -> f64 {
    // A NaN wins over everything, wherever it stands.
    let pick = |a: f64, b: f64, b_wins: bool| if a.is_nan() || !(b_wins || b.is_nan()) { a } else { b };
    match op {
        ReduceOp::Sum => v.iter().fold(0.0, |a, b| a + b),
        ReduceOp::Mean => v.iter().fold(0.0, |a, b| a + b) / v.len() as f64,
        ReduceOp::Prod => v.iter().product(),
        ReduceOp::Max => v.iter().fold(f64::NEG_INFINITY, |a, &b| pick(a, b, b > a)),
        ReduceOp::Min => v.iter().fold(f64::INFINITY, |a, &b| pick(a, b, b < a)),
    }
}

fn fold_int(op: ReduceOp, d: DType, v: &[i128]) -> i128 {
    match op {
        // Sums of 64-bit values can't overflow 128 bits; there are fewer than 2^63 of them.
        ReduceOp::Sum => wrap(d, v.iter().sum()),
        ReduceOp::Prod => v.iter().fold(1, |a, b| wrap(d, a.wrapping_mul(*b))),
        ReduceOp::Max => v.iter().copied().max().unwrap_or(int_range(d).0),
        ReduceOp::Min => v.iter().copied().min().unwrap_or(int_range(d).1),
        // Not defined on integers; inference refuses it.
        ReduceOp::Mean => 0,
    }
}

pub(super) fn reduce(op: ReduceOp, axes: &[usize], x: &Tensor) -> Vec<u8> {
    // Reduced axes go last, so each result element folds one contiguous run.
    let shape = x.shape();
    let kept: Vec<usize> = (0..shape.len()).filter(|i| !axes.contains(i)).collect();
    let perm: Vec<usize> = kept.iter().chain(axes).copied().collect();
    let count: usize = kept.iter().map(|&i| shape[i]).product();
    let run: usize = axes.iter().map(|&i| shape[i]).product();
    let d = x.dtype();
    let moved = if perm.is_sorted() {
        x.clone()
    } else {
        let t = perm.iter().map(|&i| shape[i]).collect();
        Tensor::new(d, t, transpose(&perm, x).into()).expect("a transpose keeps the element count")
    };
    let at = |i: usize| i * run..(i + 1) * run;
    if d.is_float() {
        let v = f64s(&moved);
        put_f64(d, (0..count).map(|i| fold_float(op, &v[at(i)])))
    } else {
        let v = ints(&moved);
        put_int(d, (0..count).map(|i| fold_int(op, d, &v[at(i)])))
    }
}

pub(super) fn arg_max(axis: usize, min: bool, x: &Tensor) -> Vec<u8> {
    fn first<T: PartialOrd + Copy>(v: &[T], shape: &[usize], axis: usize, min: bool) -> Vec<u8> {
        let mut out = Vec::new();
        lines(shape, axis, |at, stride, n| {
            let mut best = 0;
            for i in 1..n {
                let (a, b) = (v[at + best * stride], v[at + i * stride]);
                // A NaN counts as the extreme, as in numpy: it differs from itself.
                #[allow(clippy::eq_op)]
                let nan = (a != a, b != b);
                let better = if min { b < a } else { b > a };
                if !nan.0 && (nan.1 || better) {
                    best = i;
                }
            }
            out.extend((best as i64).to_le_bytes());
        });
        out
    }
    if x.dtype().is_float() { first(&f64s(x), x.shape(), axis, min) } else { first(&ints(x), x.shape(), axis, min) }
}

pub(super) fn cum_sum(axis: usize, exclusive: bool, reverse: bool, x: &Tensor) -> Vec<u8> {
    fn scan<T: Copy>(
        v: &mut [T],
        shape: &[usize],
        axis: usize,
        (exclusive, reverse): (bool, bool),
        zero: T,
        add: impl Fn(T, T) -> T,
    ) {
        lines(shape, axis, |at, stride, n| {
            let mut sum = zero;
            for i in 0..n {
                let i = at + stride * if reverse { n - 1 - i } else { i };
                let next = add(sum, v[i]);
                v[i] = if exclusive { sum } else { next };
                sum = next;
            }
        });
    }
    let (d, how) = (x.dtype(), (exclusive, reverse));
    if d.is_float() {
        let mut v = f64s(x);
        scan(&mut v, x.shape(), axis, how, 0.0, |a, b| a + b);
        put_f64(d, v.into_iter())
    } else {
        let mut v = ints(x);
        scan(&mut v, x.shape(), axis, how, 0, |a, b| wrap(d, a + b));
        put_int(d, v.into_iter())
    }
}

pub(super) fn softmax(axis: usize, x: &Tensor) -> Vec<u8> {
    let mut v = f64s(x);
    lines(x.shape(), axis, |at, stride, n| {
        let index = |i: usize| at + i * stride;
        let max = (0..n).fold(f64::NEG_INFINITY, |m, i| m.max(v[index(i)]));
        let mut sum = 0.0;
        for i in 0..n {
            let e = libm::exp(v[index(i)] - max);
            v[index(i)] = e;
            sum += e;
        }
        for i in 0..n {
            v[index(i)] /= sum;
        }
    });
    put_f64(x.dtype(), v.into_iter())
}

pub(super) fn layer_norm(eps: f32, x: &Tensor, gamma: &Tensor, beta: &Tensor) -> Vec<u8> {
    let (mut v, gamma, beta) = (f64s(x), f64s(gamma), f64s(beta));
    let n = gamma.len();
    if n > 0 {
        for row in v.chunks_exact_mut(n) {
            let mean = row.iter().sum::<f64>() / n as f64;
            let var = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / n as f64;
            let scale = 1.0 / (var + f64::from(eps)).sqrt();
            for ((x, g), b) in row.iter_mut().zip(&gamma).zip(&beta) {
                *x = (*x - mean) * scale * g + b;
            }
        }
    }
    put_f64(x.dtype(), v.into_iter())
}

pub(super) fn rms_norm(eps: f32, x: &Tensor, gamma: &Tensor) -> Vec<u8> {
    let (mut v, gamma) = (f64s(x), f64s(gamma));
    if !gamma.is_empty() {
        for row in v.chunks_exact_mut(gamma.len()) {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / gamma.len() as f64;
            let scale = 1.0 / (mean + f64::from(eps)).sqrt();
            row.iter_mut().zip(&gamma).for_each(|(x, g)| *x *= scale * g);
        }
    }
    put_f64(x.dtype(), v.into_iter())
}
