//! Between a tensor's bytes and vectors of the type that an op computes in.

use half::{bf16, f16};

use crate::tensor::{Tensor, bf16_from_f64, f16_from_f64};
use crate::types::DType;

/// The little-endian elements of `N` bytes each.
fn chunks<const N: usize>(bytes: &[u8]) -> impl ExactSizeIterator<Item = [u8; N]> + '_ {
    bytes.chunks_exact(N).map(|c| c.try_into().expect("chunks have the asked size"))
}

/// Elements of an f32, f16 or bf16 tensor as f32 (exact).
pub(super) fn f32s(t: &Tensor) -> Vec<f32> {
    let b = t.bytes();
    match t.dtype() {
        DType::F16 => chunks(b).map(|c| f16::from_le_bytes(c).to_f32()).collect(),
        DType::BF16 => chunks(b).map(|c| bf16::from_le_bytes(c).to_f32()).collect(),
        _ => chunks(b).map(f32::from_le_bytes).collect(),
    }
}

/// Elements of a float tensor as f64 (exact).
pub(super) fn f64s(t: &Tensor) -> Vec<f64> {
    match t.dtype() {
        DType::F64 => chunks(t.bytes()).map(f64::from_le_bytes).collect(),
        DType::F32 => chunks(t.bytes()).map(|c| f32::from_le_bytes(c).into()).collect(),
        _ => f32s(t).into_iter().map(f64::from).collect(),
    }
}

/// Elements of an integer or bool tensor as i128 (exact).
pub(super) fn ints(t: &Tensor) -> Vec<i128> {
    let b = t.bytes();
    match t.dtype() {
        DType::I8 => chunks(b).map(|c| i8::from_le_bytes(c).into()).collect(),
        DType::U8 => chunks(b).map(|c| u8::from_le_bytes(c).into()).collect(),
        DType::I16 => chunks(b).map(|c| i16::from_le_bytes(c).into()).collect(),
        DType::U16 => chunks(b).map(|c| u16::from_le_bytes(c).into()).collect(),
        DType::I32 => chunks(b).map(|c| i32::from_le_bytes(c).into()).collect(),
        DType::U32 => chunks(b).map(|c| u32::from_le_bytes(c).into()).collect(),
        DType::U64 => chunks(b).map(|c| u64::from_le_bytes(c).into()).collect(),
        DType::Bool => b.iter().map(|&c| (c != 0).into()).collect(),
        _ => chunks(b).map(|c| i64::from_le_bytes(c).into()).collect(),
    }
}

/// Bytes of a float tensor of type `d` from f32, each rounded.
pub(super) fn put_f32(d: DType, v: impl Iterator<Item = f32>) -> Vec<u8> {
    match d {
        DType::F16 => v.flat_map(|x| f16::from_f32(x).to_le_bytes()).collect(),
        DType::BF16 => v.flat_map(|x| bf16::from_f32(x).to_le_bytes()).collect(),
        DType::F64 => v.flat_map(|x| f64::from(x).to_le_bytes()).collect(),
        _ => v.flat_map(f32::to_le_bytes).collect(),
    }
}

/// Bytes of a float tensor of type `d` from f64, each rounded once.
pub(super) fn put_f64(d: DType, v: impl Iterator<Item = f64>) -> Vec<u8> {
    match d {
        DType::F16 => v.flat_map(|x| f16_from_f64(x).to_le_bytes()).collect(),
        DType::BF16 => v.flat_map(|x| bf16_from_f64(x).to_le_bytes()).collect(),
        DType::F64 => v.flat_map(f64::to_le_bytes).collect(),
        _ => v.flat_map(|x| (x as f32).to_le_bytes()).collect(),
    }
}

/// Bytes of an integer or bool tensor of type `d`, each element wrapped (bool: `!= 0`).
pub(super) fn put_int(d: DType, v: impl Iterator<Item = i128>) -> Vec<u8> {
    match d {
        DType::I8 | DType::U8 => v.map(|x| x as u8).collect(),
        DType::I16 | DType::U16 => v.flat_map(|x| (x as u16).to_le_bytes()).collect(),
        DType::I32 | DType::U32 => v.flat_map(|x| (x as u32).to_le_bytes()).collect(),
        DType::Bool => v.map(|x| (x != 0).into()).collect(),
        _ => v.flat_map(|x| (x as u64).to_le_bytes()).collect(),
    }
}

/// Smallest and largest value of an integer type (bool: 0 and 1).
pub(super) fn int_range(d: DType) -> (i128, i128) {
    if d == DType::Bool {
        return (0, 1);
    }
    let bits = 8 * d.size() as u32;
    if d.is_signed_int() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
}

/// `v` wrapped to an integer type.
pub(super) fn wrap(d: DType, v: i128) -> i128 {
    match d {
        DType::I8 => (v as i8).into(),
        DType::U8 => (v as u8).into(),
        DType::I16 => (v as i16).into(),
        DType::U16 => (v as u16).into(),
        DType::I32 => (v as i32).into(),
        DType::U32 => (v as u32).into(),
        DType::U64 => (v as u64).into(),
        DType::Bool => (v != 0).into(),
        _ => (v as i64).into(),
    }
}

/// An integer to f64, rounding to odd (see `to_f32_odd` in `tensor`).
pub(super) fn int_to_f64_odd(v: i128) -> f64 {
    let f = v as f64;
    if f as i128 == v {
        return f;
    }
    let toward_zero = if (f as i128).unsigned_abs() > v.unsigned_abs() { f.to_bits() - 1 } else { f.to_bits() };
    f64::from_bits(toward_zero | 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_once() {
        // Just above a tie of bf16: rounding to f32 first would hit the tie and go down to even.
        let tie = 1.0 + 2f64.powi(-8);
        assert_eq!(bf16_from_f64(tie).to_f64(), 1.0);
        assert_eq!(bf16_from_f64(tie + 2f64.powi(-40)).to_f64(), 1.0 + 2f64.powi(-7));
        let tie = 1.0 + 2f64.powi(-11);
        assert_eq!(f16_from_f64(tie).to_f64(), 1.0);
        assert_eq!(f16_from_f64(tie + 2f64.powi(-50)).to_f64(), 1.0 + 2f64.powi(-10));
        assert_eq!(f16_from_f64(-(tie + 2f64.powi(-50))).to_f64(), -1.0 - 2f64.powi(-10));
        assert!(f16_from_f64(f64::NAN).is_nan() && f16_from_f64(1e300).is_infinite());
        assert_eq!(f16_from_f64(2f64.powi(-25)).to_f64(), 0.0);
        assert_eq!(f16_from_f64(2f64.powi(-25) * 1.0000001).to_f64(), 2f64.powi(-24));
        assert_eq!(int_to_f64_odd((1 << 60) + 1).to_bits() & 1, 1);
        assert_eq!(int_to_f64_odd(-7), -7.0);
    }
}
