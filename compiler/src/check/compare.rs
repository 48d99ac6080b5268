//! How far a tensor is from what it should be.

use bertc_ir::Tensor;

/// The distance of a tensor to its reference.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Error {
    /// The largest difference of two elements; infinite where only one of them is a number.
    pub abs: f64,
    /// `abs` divided by the largest absolute value of the reference.
    pub rel: f64,
    /// The cosine of the angle between both, as vectors; of elements that are finite in both.
    pub cosine: f64,
}

impl Error {
    /// No difference.
    pub const NONE: Error = Error { abs: 0.0, rel: 0.0, cosine: 1.0 };
    /// No resemblance.
    pub const TOTAL: Error = Error { abs: f64::INFINITY, rel: f64::INFINITY, cosine: 0.0 };

    /// The distance of `y` to `reference`. Equal infinities, and two NaNs, don't differ.
    pub fn of(y: &Tensor, reference: &Tensor) -> Error {
        if y.dtype() != reference.dtype() || y.shape() != reference.shape() {
            return Error::TOTAL;
        }
        if y.bytes() == reference.bytes() {
            return Error::NONE;
        }
        let (mut abs, mut largest) = (0f64, 0f64);
        let (mut dot, mut squares, mut reference_squares) = (0f64, 0f64, 0f64);
        for (a, b) in y.to_f64_vec().into_iter().zip(reference.to_f64_vec()) {
            if a == b || a.is_nan() && b.is_nan() {
                // Infinite ones would drown the others.
                if !b.is_finite() {
                    continue;
                }
            } else if !(a.is_finite() && b.is_finite()) {
                abs = f64::INFINITY;
                continue;
            }
            abs = abs.max((a - b).abs());
            largest = largest.max(b.abs());
            dot += a * b;
            squares += a * a;
            reference_squares += b * b;
        }
        // Nothing to be relative to.
        let rel = if largest > 0.0 { abs / largest } else { abs };
        let norms = (squares * reference_squares).sqrt();
        let both_zero = squares == 0.0 && reference_squares == 0.0;
        let cosine = if norms > 0.0 { (dot / norms).clamp(-1.0, 1.0) } else { f64::from(u8::from(both_zero)) };
        Error { abs, rel, cosine }
    }

    /// Whether the relative error is above a tolerance.
    pub fn exceeds(&self, tolerance: f64) -> bool {
        self.rel.is_nan() || self.rel > tolerance
    }

    /// The larger one by relative error.
    pub fn worse(self, other: Error) -> Error {
        if other.rel > self.rel { other } else { self }
    }
}

/// The worst of pairs of tensors and references.
pub fn worst(y: &[Tensor], reference: &[Tensor]) -> Error {
    if y.len() != reference.len() {
        return Error::TOTAL;
    }
    y.iter().zip(reference).map(|(y, r)| Error::of(y, r)).fold(Error::NONE, Error::worse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(y: &[f32], r: &[f32]) -> Error {
        Error::of(&Tensor::from_f32(vec![y.len()], y), &Tensor::from_f32(vec![r.len()], r))
    }

    #[test]
    fn errors_are_relative_to_the_largest_element() {
        let e = error(&[1.0, -4.0, 0.5], &[1.0, -4.0, 0.0]);
        assert_eq!((e.abs, e.rel), (0.5, 0.125));
        assert!(e.cosine < 1.0 && e.cosine > 0.99, "{e:?}");
        assert!(e.exceeds(0.1) && !e.exceeds(0.125));
        assert_eq!(error(&[0.25], &[0.0]).rel, 0.25, "of zero");
        assert_eq!(error(&[0.0, -0.0], &[0.0, 0.0]), Error::NONE);
        assert_eq!(error(&[-1.0], &[1.0]).cosine, -1.0);
    }

    #[test]
    fn what_is_no_number_must_be_the_same() {
        let (nan, inf) = (f32::NAN, f32::INFINITY);
        assert_eq!(error(&[nan, inf, 2.0], &[-nan, inf, 2.0]).abs, 0.0);
        for (y, r) in [([nan], [1.0]), ([1.0], [nan]), ([inf], [-inf]), ([inf], [3.0]), ([3.0], [-inf])] {
            assert!(error(&y, &r).exceeds(1e9), "{y:?} {r:?}");
        }
        assert!(error(&[1.0], &[1.0, 1.0]).exceeds(1e9), "shapes differ");
        assert!(worst(&[], &[Tensor::from_f32(vec![1], &[1.0])]).exceeds(1e9));
    }
}
