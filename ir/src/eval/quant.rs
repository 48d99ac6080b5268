//! Quantisation.

use super::data::{f32s, ints, put_f32};
use crate::op::RowQuant;
use crate::tensor::Tensor;
use crate::types::DType;

/// x' of each row.
fn rows(q: &RowQuant, x: &[&Tensor]) -> impl Iterator<Item = Vec<f32>> {
    let n = x[0].shape().last().copied().unwrap_or(1);
    let count = x[0].shape().iter().rev().skip(1).product();
    let all = f32s(x[0]);
    let factor = q.factor_at().map(|at| f32s(x[at]));
    (0..count).map(move |i| {
        let mut row = all[i * n..(i + 1) * n].to_vec();
        if let Some(factor) = &factor {
            row.iter_mut().zip(factor).for_each(|(x, f)| *x *= f);
        }
        row
    })
}

/// What the integers 0 (or with an offset -128) and the largest one stand for; NaN in a row that has one.
fn range(q: &RowQuant, row: &[f32]) -> (f32, f32) {
    let Some(&first) = row.first() else { return (0.0, 0.0) };
    let fold = |init: f32, pick: fn(f32, f32) -> f32| {
        row.iter().fold(init, |m, &x| if m.is_nan() || x.is_nan() { f32::NAN } else { pick(m, x) })
    };
    if q.offset { (fold(first, f32::min), fold(first, f32::max)) } else { (0.0, fold(0.0, |m, x| m.max(x.abs()))) }
}

/// The number of units in a range.
fn units(q: &RowQuant) -> f32 {
    if q.offset { 255.0 } else { 127.0 }
}

pub(super) fn row_scale(q: &RowQuant, x: &[&Tensor]) -> Vec<u8> {
    let unit = |row: Vec<f32>| {
        let (low, high) = range(q, &row);
        (high - low) * (1.0 / units(q))
    };
    put_f32(DType::F32, rows(q, x).map(unit))
}

pub(super) fn row_offset(q: &RowQuant, x: &[&Tensor]) -> Vec<u8> {
    let offset = |row: Vec<f32>| {
        let (low, high) = range(q, &row);
        if q.offset { (high - low) * (128.0 / 255.0) + low } else { 0.0 }
    };
    put_f32(DType::F32, rows(q, x).map(offset))
}

pub(super) fn quantise_rows(q: &RowQuant, x: &[&Tensor]) -> Vec<u8> {
    let row = |row: Vec<f32>| {
        let (low, high) = range(q, &row);
        let inverse = if high == low { 0.0 } else { units(q) / (high - low) };
        let (least, most, less) = if q.offset { (0.0, 255.0, 128) } else { (-127.0, 127.0, 0) };
        // The cast makes 0 of NaN.
        let each = move |x: f32| ((x - low) * inverse).round_ties_even().clamp(least, most) as i16 - less;
        row.into_iter().map(move |x| each(x) as u8)
    };
    rows(q, x).flat_map(row).collect()
}

pub(super) fn quantise(to: DType, x: &[&Tensor]) -> Vec<u8> {
    let (scale, zero) = (f32s(x[1])[0], ints(x[2])[0] as f32);
    let each = |x: f32| {
        let q = (x / scale).round_ties_even() + zero;
        if to == DType::U8 { q as u8 } else { q as i8 as u8 }
    };
    f32s(x[0]).into_iter().map(each).collect()
}
