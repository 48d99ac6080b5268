//! Constant matrices and tables as integers with scales.

use bertc_ir::{DType, Graph, Op, Tensor, ValueId};

pub use crate::measure::constants::{constant, floats};

/// The largest integer that a weight becomes. -128 is none: kernels negate weights, and sums of pairs fit 16 bits.
const MOST: f32 = 127.0;

/// A matrix as i8, symmetric around 0, and what 1 stands for in each row (`axis` 0) or column (1): the largest magnitude
/// there / 127. What is 0 throughout has the unit 0. Elements along the other axis are divided by `factors` before; they
/// become 0 where a factor is 0.
///
/// # Errors
/// Why it can't be.
pub fn quantise(t: &Tensor, axis: usize, factors: Option<&[f32]>) -> Result<(Tensor, Vec<f32>), &'static str> {
    let &[rows, columns] = t.shape() else { return Err("the matrix is not of rank 2") };
    let mut x = floats(t);
    if let Some(factors) = factors {
        let divide = |x: &mut f32, f: f32| *x = if f == 0.0 { 0.0 } else { *x / f };
        for (i, row) in x.chunks_exact_mut(columns.max(1)).enumerate() {
            if axis == 0 {
                row.iter_mut().zip(factors).for_each(|(x, &f)| divide(x, f));
            } else {
                row.iter_mut().for_each(|x| divide(x, factors[i]));
            }
        }
    }
    if x.iter().any(|x| !x.is_finite()) {
        return Err("the matrix has an element that is not finite");
    }
    let mut scales = vec![0f32; if axis == 0 { rows } else { columns }];
    for (i, row) in x.chunks_exact(columns.max(1)).enumerate() {
        if axis == 0 {
            scales[i] = row.iter().fold(0f32, |m, x| m.max(x.abs()));
        } else {
            scales.iter_mut().zip(row).for_each(|(m, x)| *m = m.max(x.abs()));
        }
    }
    scales.iter_mut().for_each(|m| *m /= MOST);
    let each = |x: f32, scale: f32| {
        // A unit of denormals may be 0, or too coarse for its elements to stay within bounds.
        // 1.5·2²³ rounds to nearest even, much faster than a call.
        let q = if scale == 0.0 { 0.0 } else { (x / scale).clamp(-MOST, MOST) + 12_582_912.0 - 12_582_912.0 };
        (q as i8).cast_unsigned()
    };
    let mut bytes = Vec::with_capacity(x.len());
    for (i, row) in x.chunks_exact(columns.max(1)).enumerate() {
        if axis == 0 {
            bytes.extend(row.iter().map(|&x| each(x, scales[i])));
        } else {
            bytes.extend(row.iter().zip(&scales).map(|(&x, &s)| each(x, s)));
        }
    }
    let q = Tensor::new(DType::I8, vec![rows, columns], bytes.into()).ok_or("the matrix has no elements")?;
    Ok((q, scales))
}

/// The part of a product's matrix, or of several side by side whose columns lie along `axis`, that meets some channels:
/// `[channels, N]`, f32.
pub fn channels(g: &Graph, b: ValueId, axis: usize, channels: &[usize]) -> Option<Tensor> {
    let parts = if let Op::Concat { .. } = g.op(b) { g.operands(b) } else { &[b][..] };
    let mut rows = vec![Vec::new(); channels.len()];
    for &part in parts {
        let t = constant(g, part)?;
        let &[height, width] = t.shape() else { return None };
        let x = floats(t);
        for (row, &c) in rows.iter_mut().zip(channels) {
            if axis == 1 {
                row.extend(x.get(c * width..(c + 1) * width)?);
            } else {
                row.extend((0..height).map(|n| x[n * width + c]));
            }
        }
    }
    let n = rows.first()?.len();
    Some(Tensor::from_f32(vec![rows.len(), n], &rows.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_of_rows_or_of_columns() {
        let t = Tensor::from_f32(vec![2, 3], &[1.27, -0.635, 0.0, -0.3, 0.635, 0.0]);
        let (q, scales) = quantise(&t, 1, None).unwrap();
        assert_eq!(q.to_i64_vec(), [127, -127, 0, -30, 127, 0]);
        assert_eq!(scales, [0.01, 0.005, 0.0]);
        let (q, scales) = quantise(&t, 0, None).unwrap();
        // Halves go to the even neighbour: 63.5 to 64, and 60.0 is a whole number.
        assert_eq!(q.to_i64_vec(), [127, -64, 0, -60, 127, 0]);
        assert_eq!(scales, [0.01, 0.005]);
    }

    #[test]
    fn factors_divide_channels() {
        let t = Tensor::from_f32(vec![2, 3], &[1.27, -0.635, 0.0, -0.3, 0.635, 0.0]);
        let scaled = Tensor::from_f32(vec![2, 3], &[0.635, -0.3175, 0.0, -0.6, 1.27, 0.0]);
        assert_eq!(quantise(&t, 1, Some(&[2.0, 0.5])).unwrap(), quantise(&scaled, 1, None).unwrap());
        let (q, scales) = quantise(&t, 0, Some(&[1.0, 0.0, 3.0])).unwrap();
        assert_eq!(q.to_i64_vec(), [127, 0, 0, -127, 0, 0]);
        assert_eq!(scales, [0.01, 0.3 / 127.0]);
        let e = quantise(&t, 1, Some(&[1e-39, 1.0])).unwrap_err();
        assert!(e.contains("finite"), "{e}");
    }

    #[test]
    fn no_weight_is_minus_128_and_none_is_strange() {
        for unit in [f32::MAX, 1.0, f32::MIN_POSITIVE, 1e-44, 1e-45] {
            let t = Tensor::from_f32(vec![1, 3], &[-unit, unit / 3.0, unit]);
            let (q, scales) = quantise(&t, 0, None).unwrap();
            assert!(q.to_i64_vec().iter().all(|q| q.abs() <= 127), "{unit}");
            assert!(scales[0].is_finite());
        }
        for strange in [f32::NAN, f32::INFINITY] {
            assert!(quantise(&Tensor::from_f32(vec![1, 1], &[strange]), 1, None).unwrap_err().contains("finite"));
        }
        assert!(quantise(&Tensor::from_f32(vec![4, 0], &[]), 1, None).is_ok());
    }
}
