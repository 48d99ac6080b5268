//! Scatters, and `top_k`.

use std::cmp::Ordering;

use bytes::Bytes;

use super::data::{f64s, ints};
use super::elementwise;
use super::movement::{resolve, strides};
use super::reduce::lines;
use crate::op::BinaryOp;
use crate::tensor::Tensor;
use crate::types::DType;

/// Puts `update` over the elements from byte `at` on, or combines both; each result rounds to the dtype.
fn put(out: &mut [u8], at: usize, update: &[u8], dtype: DType, combine: Option<BinaryOp>) {
    let place = &mut out[at..at + update.len()];
    let Some(op) = combine else { return place.copy_from_slice(update) };
    let tensor =
        |b: &[u8]| Tensor::new(dtype, vec![b.len() / dtype.size()], Bytes::copy_from_slice(b)).expect("whole elements");
    let both = elementwise::binary(op, &tensor(place), &tensor(update));
    place.copy_from_slice(&both);
}

pub(super) fn elements(
    axis: usize,
    combine: Option<BinaryOp>,
    data: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
) -> Result<Vec<u8>, String> {
    let (d, own, shape) = (data.dtype(), strides(data.shape()), indices.shape());
    let mut out = data.bytes().to_vec();
    let mut index = vec![0usize; shape.len()];
    for (i, update) in ints(indices).into_iter().zip(updates.bytes().chunks_exact(d.size())) {
        let chosen = resolve(i, data.shape()[axis])?;
        let at: isize = (0..shape.len()).map(|a| own[a] * if a == axis { chosen } else { index[a] } as isize).sum();
        put(&mut out, at as usize * d.size(), update, d, combine);
        for a in (0..shape.len()).rev() {
            index[a] += 1;
            if index[a] < shape[a] {
                break;
            }
            index[a] = 0;
        }
    }
    Ok(out)
}

pub(super) fn nd(
    combine: Option<BinaryOp>,
    data: &Tensor,
    indices: &Tensor,
    updates: &Tensor,
) -> Result<Vec<u8>, String> {
    let (d, own, shape) = (data.dtype(), strides(data.shape()), data.shape());
    let k = indices.shape().last().copied().unwrap_or(0);
    let run = d.size() * shape[k..].iter().product::<usize>();
    let mut out = data.bytes().to_vec();
    if k == 0 || run == 0 {
        return Ok(out);
    }
    for (tuple, update) in ints(indices).chunks_exact(k).zip(updates.bytes().chunks_exact(run)) {
        let mut at = 0;
        for (a, &i) in tuple.iter().enumerate() {
            at += resolve(i, shape[a])? * own[a] as usize;
        }
        put(&mut out, at * d.size(), update, d, combine);
    }
    Ok(out)
}

pub(super) fn top_k(axis: usize, k: usize, smallest: bool, x: &Tensor) -> Vec<u8> {
    fn sorted<T: Copy>(
        v: &[T],
        shape: &[usize],
        (axis, k): (usize, usize),
        order: impl Fn(T, T) -> Ordering,
    ) -> Vec<u8> {
        let inner: usize = shape[axis + 1..].iter().product();
        let lines_at = |o: usize, i: usize| o * k * inner + i;
        let outer: usize = shape[..axis].iter().product();
        let mut out = vec![0u8; outer * k * inner * 8];
        let mut line = 0;
        lines(shape, axis, |at, stride, n| {
            let mut all: Vec<usize> = (0..n).collect();
            // A stable sort leaves equal ones in the order of their indices.
            all.sort_by(|&a, &b| order(v[at + a * stride], v[at + b * stride]));
            let first = lines_at(line / inner, line % inner);
            for (j, i) in all.into_iter().take(k).enumerate() {
                let to = (first + j * inner) * 8;
                out[to..to + 8].copy_from_slice(&(i as i64).to_le_bytes());
            }
            line += 1;
        });
        out
    }
    let turned = |o: Ordering| if smallest { o } else { o.reverse() };
    if x.dtype().is_float() {
        // NaN is above all numbers, and both zeros are one.
        let order = |a: f64, b: f64| a.partial_cmp(&b).unwrap_or_else(|| a.is_nan().cmp(&b.is_nan()));
        sorted(&f64s(x), x.shape(), (axis, k), |a, b| turned(order(a, b)))
    } else {
        sorted(&ints(x), x.shape(), (axis, k), |a, b| turned(a.cmp(&b)))
    }
}
