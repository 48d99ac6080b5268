//! Ops that only move elements. They copy bytes, so every element keeps its bits.

use super::data::ints;
use crate::tensor::Tensor;

/// Strides of a row-major shape, in elements.
pub(super) fn strides(shape: &[usize]) -> Vec<isize> {
    let mut s = vec![1isize; shape.len()];
    for i in (1..shape.len()).rev() {
        s[i - 1] = s[i] * shape[i] as isize;
    }
    s
}

/// The elements at `offset + Σ index·stride` for every index of `shape` in order. The caller keeps them in bounds.
fn strided(x: &Tensor, shape: &[usize], offset: isize, strides: &[isize]) -> Vec<u8> {
    match x.dtype().size() {
        1 => strided_n::<1>(x.bytes(), shape, offset, strides),
        2 => strided_n::<2>(x.bytes(), shape, offset, strides),
        4 => strided_n::<4>(x.bytes(), shape, offset, strides),
        _ => strided_n::<8>(x.bytes(), shape, offset, strides),
    }
}

fn strided_n<const N: usize>(src: &[u8], shape: &[usize], offset: isize, strides: &[isize]) -> Vec<u8> {
    let total: usize = shape.iter().product();
    let mut out = Vec::with_capacity(total * N);
    if total == 0 {
        return out;
    }
    let Some((&n, outer)) = shape.split_last() else {
        let at = offset as usize * N;
        out.extend_from_slice(&src[at..at + N]);
        return out;
    };
    let step = strides[outer.len()];
    let mut index = vec![0usize; outer.len()];
    let mut at = offset;
    for _ in 0..total / n {
        if step == 1 {
            let a = at as usize * N;
            out.extend_from_slice(&src[a..a + n * N]);
        } else {
            for i in 0..n as isize {
                let a = (at + i * step) as usize * N;
                out.extend_from_slice(&src[a..a + N]);
            }
        }
        for d in (0..outer.len()).rev() {
            index[d] += 1;
            at += strides[d];
            if index[d] < outer[d] {
                break;
            }
            at -= strides[d] * outer[d] as isize;
            index[d] = 0;
        }
    }
    out
}

pub(super) fn broadcast(x: &Tensor, shape: &[usize]) -> Tensor {
    if x.shape() == shape {
        return x.clone();
    }
    let lead = shape.len() - x.shape().len();
    let own = strides(x.shape());
    let step = |i: usize| if i < lead || x.shape()[i - lead] == 1 { 0 } else { own[i - lead] };
    let steps: Vec<isize> = (0..shape.len()).map(step).collect();
    let data = strided(x, shape, 0, &steps);
    Tensor::new(x.dtype(), shape.to_vec(), data.into()).expect("one element for each index of the shape")
}

pub(super) fn transpose(perm: &[usize], x: &Tensor) -> Vec<u8> {
    let own = strides(x.shape());
    let shape: Vec<usize> = perm.iter().map(|&p| x.shape()[p]).collect();
    strided(x, &shape, 0, &perm.iter().map(|&p| own[p]).collect::<Vec<_>>())
}

pub(super) fn slice(axis: usize, start: i64, len: i64, step: i64, x: &Tensor) -> Result<Vec<u8>, String> {
    let n = x.shape()[axis] as i64;
    let len = usize::try_from(len).map_err(|_| format!("the length is negative: {len}"))?;
    let mut shape = x.shape().to_vec();
    shape[axis] = len;
    if len == 0 {
        return Ok(Vec::new());
    }
    let last = (len as i64 - 1).checked_mul(step).and_then(|d| d.checked_add(start));
    if !last.is_some_and(|l| (0..n).contains(&l)) || !(0..n).contains(&start) {
        return Err(format!("{len} elements from {start} by {step} leave an axis of {n} elements"));
    }
    let mut s = strides(x.shape());
    let offset = start as isize * s[axis];
    s[axis] *= step as isize;
    Ok(strided(x, &shape, offset, &s))
}

pub(super) fn concat(axis: usize, x: &[&Tensor]) -> Vec<u8> {
    let outer: usize = x[0].shape()[..axis].iter().product();
    let mut out = Vec::with_capacity(x.iter().map(|t| t.bytes().len()).sum());
    for o in 0..outer {
        for t in x {
            let run = t.bytes().len() / outer;
            out.extend_from_slice(&t.bytes()[o * run..(o + 1) * run]);
        }
    }
    out
}

/// An index into an axis of `n` elements; negative ones count from the end.
pub(super) fn resolve(i: i128, n: usize) -> Result<usize, String> {
    let at = if i < 0 { i + n as i128 } else { i };
    usize::try_from(at)
        .ok()
        .filter(|&a| a < n)
        .ok_or_else(|| format!("index {i} is out of range for an axis of {n} elements"))
}

pub(super) fn gather(axis: usize, data: &Tensor, indices: &Tensor) -> Result<Vec<u8>, String> {
    let shape = data.shape();
    let outer: usize = shape[..axis].iter().product();
    let run = data.dtype().size() * shape[axis + 1..].iter().product::<usize>();
    let at = ints(indices).into_iter().map(|i| resolve(i, shape[axis])).collect::<Result<Vec<_>, _>>()?;
    let mut out = Vec::with_capacity(outer * at.len() * run);
    for o in 0..outer {
        for i in &at {
            let a = (o * shape[axis] + i) * run;
            out.extend_from_slice(&data.bytes()[a..a + run]);
        }
    }
    Ok(out)
}

pub(super) fn gather_elements(axis: usize, data: &Tensor, indices: &Tensor) -> Result<Vec<u8>, String> {
    let (s, own, shape) = (data.dtype().size(), strides(data.shape()), indices.shape());
    let mut out = Vec::with_capacity(indices.len() * s);
    let mut index = vec![0usize; shape.len()];
    for i in ints(indices) {
        let chosen = resolve(i, data.shape()[axis])?;
        let at: isize = (0..shape.len()).map(|d| own[d] * if d == axis { chosen } else { index[d] } as isize).sum();
        let at = at as usize * s;
        out.extend_from_slice(&data.bytes()[at..at + s]);
        for d in (0..shape.len()).rev() {
            index[d] += 1;
            if index[d] < shape[d] {
                break;
            }
            index[d] = 0;
        }
    }
    Ok(out)
}

pub(super) fn gather_nd(batch_dims: usize, data: &Tensor, indices: &Tensor) -> Result<Vec<u8>, String> {
    let (shape, own) = (data.shape(), strides(data.shape()));
    let k = indices.shape().last().copied().unwrap_or(0);
    let batches: usize = shape[..batch_dims].iter().product();
    let run = data.dtype().size() * shape[batch_dims + k..].iter().product::<usize>();
    let batch = data.bytes().len() / batches.max(1);
    let v = ints(indices);
    if k == 0 || batches == 0 {
        return Ok(Vec::new());
    }
    let mut out = Vec::new();
    for (b, tuples) in v.chunks_exact((v.len() / batches).max(1)).enumerate() {
        for tuple in tuples.chunks_exact(k) {
            let mut at = 0;
            for (d, &i) in tuple.iter().enumerate() {
                at += resolve(i, shape[batch_dims + d])? * own[batch_dims + d] as usize;
            }
            let at = b * batch + at * data.dtype().size();
            out.extend_from_slice(&data.bytes()[at..at + run]);
        }
    }
    Ok(out)
}
