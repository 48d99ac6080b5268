//! Arithmetic on one lane, as the interpreter does it. A lane is 64 bits: 32-bit elements are zero-extended, masks are
//! 0 or 1. Operand types are as the verifier demands.

use half::{bf16, f16};

use super::{Bin, DotKind, Elem, Un};
use crate::op::CmpOp;
use crate::types::DType;

fn f32_of(bits: u64) -> f32 {
    f32::from_bits(bits as u32)
}

fn of_f32(v: f32) -> u64 {
    u64::from(v.to_bits())
}

fn f64_of(bits: u64) -> f64 {
    f64::from_bits(bits)
}

fn of_f64(v: f64) -> u64 {
    v.to_bits()
}

/// What memory of type `dtype` holds, as a register's lane ([`Elem::of`]). `b` has the size of one element.
pub(super) fn load(dtype: DType, b: &[u8]) -> u64 {
    let mut bytes = [0; 8];
    bytes[..b.len()].copy_from_slice(b);
    let bits = u64::from_le_bytes(bytes);
    match dtype {
        DType::F16 => of_f32(f16::from_bits(bits as u16).to_f32()),
        DType::BF16 => of_f32(bf16::from_bits(bits as u16).to_f32()),
        DType::I8 => u64::from(bits as i8 as i32 as u32),
        DType::I16 => u64::from(bits as i16 as i32 as u32),
        DType::Bool => u64::from(bits != 0),
        DType::F32 | DType::F64 | DType::U8 | DType::U16 | DType::I32 | DType::U32 | DType::I64 | DType::U64 => bits,
    }
}

/// The bits to store for a lane; only the low `dtype.size()` bytes count, which is how integers wrap.
pub(super) fn store(dtype: DType, bits: u64) -> u64 {
    match dtype {
        DType::F16 => u64::from(f16::from_f32(f32_of(bits)).to_bits()),
        DType::BF16 => u64::from(bf16::from_f32(f32_of(bits)).to_bits()),
        _ => bits,
    }
}

macro_rules! un_float {
    ($op:expr, $v:expr) => {
        match $op {
            Un::Neg => -$v,
            Un::Abs => $v.abs(),
            Un::Sqrt => $v.sqrt(),
            Un::Floor => $v.floor(),
            Un::Ceil => $v.ceil(),
            Un::Nearest => $v.round_ties_even(),
            Un::Trunc => $v.trunc(),
            // The verifier refuses it.
            Un::Not => $v,
        }
    };
}

macro_rules! un_int {
    ($op:expr, $v:expr) => {
        match $op {
            Un::Neg => $v.wrapping_neg(),
            Un::Abs => $v.wrapping_abs(),
            Un::Not => !$v,
            // The verifier refuses them.
            Un::Sqrt | Un::Floor | Un::Ceil | Un::Nearest | Un::Trunc => $v,
        }
    };
}

pub(super) fn un(op: Un, e: Elem, a: u64) -> u64 {
    match e {
        Elem::F32 => of_f32(un_float!(op, f32_of(a))),
        Elem::F64 => of_f64(un_float!(op, f64_of(a))),
        Elem::I32 => u64::from(un_int!(op, a as i32) as u32),
        Elem::I64 => un_int!(op, a as i64) as u64,
        // The verifier refuses arithmetic on addresses, here and below.
        Elem::Mask | Elem::Addr => a ^ 1,
    }
}

/// Minimum (maximum) as IEEE 754-2019 has it: NaN if either is, and -0 below +0.
macro_rules! bin_float {
    ($op:expr, $a:expr, $b:expr, $nan:expr) => {
        match $op {
            Bin::Add => $a + $b,
            Bin::Sub => $a - $b,
            Bin::Mul => $a * $b,
            Bin::Div => $a / $b,
            Bin::Min | Bin::Max if $a.is_nan() || $b.is_nan() => $nan,
            Bin::Min if $a == $b => {
                if $a.is_sign_negative() {
                    $a
                } else {
                    $b
                }
            }
            Bin::Max if $a == $b => {
                if $a.is_sign_positive() {
                    $a
                } else {
                    $b
                }
            }
            Bin::Min => {
                if $a < $b {
                    $a
                } else {
                    $b
                }
            }
            Bin::Max => {
                if $a > $b {
                    $a
                } else {
                    $b
                }
            }
            // The verifier refuses the rest, which is for integers.
            _ => $a,
        }
    };
}

macro_rules! bin_int {
    ($op:expr, $a:expr, $b:expr, $signed:ty, $unsigned:ty) => {{
        let (a, b) = ($a as $signed, $b as $signed);
        let (ua, ub) = (a as $unsigned, b as $unsigned);
        let r = match $op {
            Bin::Add => a.wrapping_add(b),
            Bin::Sub => a.wrapping_sub(b),
            Bin::Mul => a.wrapping_mul(b),
            Bin::Div | Bin::Rem | Bin::DivU | Bin::RemU if b == 0 => 0,
            Bin::Div => a.wrapping_div(b),
            Bin::Rem => a.wrapping_rem(b),
            Bin::DivU => (ua / ub) as $signed,
            Bin::RemU => (ua % ub) as $signed,
            Bin::Min => a.min(b),
            Bin::Max => a.max(b),
            Bin::And => a & b,
            Bin::Or => a | b,
            Bin::Xor => a ^ b,
            Bin::Shl => a.wrapping_shl(b as u32),
            Bin::ShrS => a.wrapping_shr(b as u32),
            Bin::ShrU => ua.wrapping_shr(b as u32) as $signed,
        };
        u64::from(r as $unsigned)
    }};
}

pub(super) fn bin(op: Bin, e: Elem, a: u64, b: u64) -> u64 {
    match e {
        Elem::F32 => of_f32(bin_float!(op, f32_of(a), f32_of(b), f32::NAN)),
        Elem::F64 => of_f64(bin_float!(op, f64_of(a), f64_of(b), f64::NAN)),
        Elem::I32 => bin_int!(op, a, b, i32, u32),
        Elem::I64 => bin_int!(op, a, b, i64, u64),
        Elem::Mask | Elem::Addr => match op {
            Bin::And => a & b,
            Bin::Or => a | b,
            _ => a ^ b,
        },
    }
}

pub(super) fn fma(e: Elem, a: u64, b: u64, c: u64) -> u64 {
    if e == Elem::F64 {
        of_f64(f64_of(a).mul_add(f64_of(b), f64_of(c)))
    } else {
        of_f32(f32_of(a).mul_add(f32_of(b), f32_of(c)))
    }
}

/// c plus the products of the two bf16 in a and b, each rounded once with its sum, the high ones first.
pub(super) fn dot_bf16(a: u64, b: u64, c: u64) -> u64 {
    let (high, low) = (|x: u64| x & 0xffff_0000, |x: u64| x << 16 & 0xffff_0000);
    fma(Elem::F32, low(a), low(b), fma(Elem::F32, high(a), high(b), c))
}

/// c plus the products of the four bytes in a and b, which don't overflow; only the sum with c wraps.
pub(super) fn dot_bytes(kind: DotKind, a: u64, b: u64, c: u64) -> u64 {
    let (a, b) = ((a as u32).to_le_bytes(), (b as u32).to_le_bytes());
    let first = |x: u8| if kind == DotKind::U8I8 { i32::from(x) } else { i32::from(x as i8) };
    let sum: i32 = a.into_iter().zip(b).map(|(x, y)| first(x) * i32::from(y as i8)).sum();
    u64::from((c as i32).wrapping_add(sum) as u32)
}

pub(super) fn cmp(op: CmpOp, e: Elem, unsigned: bool, a: u64, b: u64) -> bool {
    fn by<T: PartialOrd + Copy>(op: CmpOp, a: T, b: T) -> bool {
        match op {
            CmpOp::Eq => a == b,
            CmpOp::Ne => a != b,
            CmpOp::Lt => a < b,
            CmpOp::Le => a <= b,
            CmpOp::Gt => a > b,
            CmpOp::Ge => a >= b,
        }
    }
    match e {
        Elem::F32 => by(op, f32_of(a), f32_of(b)),
        Elem::F64 => by(op, f64_of(a), f64_of(b)),
        Elem::I32 if !unsigned => by(op, a as i32, b as i32),
        Elem::I64 if !unsigned => by(op, a as i64, b as i64),
        Elem::I32 | Elem::I64 | Elem::Mask | Elem::Addr => by(op, a, b),
    }
}

pub(super) fn convert(from: Elem, to: Elem, unsigned: bool, a: u64) -> u64 {
    use Elem::{Addr, F32, F64, I32, I64, Mask};
    match (from, to, unsigned) {
        (F32, F32, _) | (F64, F64, _) | (I32, I32, _) | (I64, I64, _) | (Mask, Mask, _) => a,
        (Addr, _, _) | (_, Addr, _) => a,
        (F32, Mask, _) => u64::from(f32_of(a) != 0.0),
        (F64, Mask, _) => u64::from(f64_of(a) != 0.0),
        (I32 | I64, Mask, _) => u64::from(a != 0),
        (Mask, F32, _) => of_f32(a as f32),
        (Mask, F64, _) => of_f64(a as f64),
        (Mask, I32 | I64, _) => a,
        (F32, F64, _) => of_f64(f64::from(f32_of(a))),
        (F64, F32, _) => of_f32(f64_of(a) as f32),
        (I32, I64, false) => a as i32 as i64 as u64,
        (I32, I64, true) => a,
        (I64, I32, _) => u64::from(a as u32),
        (I32, F32, false) => of_f32(a as i32 as f32),
        (I32, F64, false) => of_f64(f64::from(a as i32)),
        (I64, F32, false) => of_f32(a as i64 as f32),
        (I64, F64, false) => of_f64(a as i64 as f64),
        (I32 | I64, F32, true) => of_f32(a as f32),
        (I32 | I64, F64, true) => of_f64(a as f64),
        (F32, I32, false) => u64::from(f32_of(a) as i32 as u32),
        (F32, I32, true) => u64::from(f32_of(a) as u32),
        (F32, I64, false) => f32_of(a) as i64 as u64,
        (F32, I64, true) => f32_of(a) as u64,
        (F64, I32, false) => u64::from(f64_of(a) as i32 as u32),
        (F64, I32, true) => u64::from(f64_of(a) as u32),
        (F64, I64, false) => f64_of(a) as i64 as u64,
        (F64, I64, true) => f64_of(a) as u64,
    }
}
