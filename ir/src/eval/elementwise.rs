//! Elementwise ops on operands of equal shapes.

use super::data::{f32s, f64s, int_range, int_to_f64_odd, ints, put_f32, put_f64, put_int, wrap};
use crate::op::{BinaryOp, CmpOp, UnaryOp};
use crate::tensor::Tensor;
use crate::types::DType;

/// Arithmetic that f32 and f64 share; each is monomorphised, so f32 rounds as f32.
macro_rules! float_basics {
    ($unary:ident, $binary:ident, $t:ty) => {
        fn $unary(op: UnaryOp, x: $t) -> $t {
            match op {
                UnaryOp::Neg => -x,
                UnaryOp::Abs => x.abs(),
                UnaryOp::Sign if x == 0.0 || x.is_nan() => x,
                UnaryOp::Sign => x.signum(),
                UnaryOp::Recip => 1.0 / x,
                UnaryOp::Sqrt => x.sqrt(),
                UnaryOp::Relu if x > 0.0 || x.is_nan() => x,
                UnaryOp::Relu => 0.0,
                UnaryOp::Floor => x.floor(),
                UnaryOp::Ceil => x.ceil(),
                UnaryOp::Round => x.round_ties_even(),
                // A function: f64, rounded once.
                _ => function(op, x.into()) as $t,
            }
        }

        fn $binary(op: BinaryOp, x: $t, y: $t) -> $t {
            match op {
                BinaryOp::Add => x + y,
                BinaryOp::Sub => x - y,
                BinaryOp::Mul => x * y,
                BinaryOp::Div => x / y,
                BinaryOp::Rem => x % y,
                BinaryOp::Mod => match x % y {
                    r if r == 0.0 => <$t>::copysign(0.0, y),
                    r if (r < 0.0) != (y < 0.0) && !r.is_nan() => r + y,
                    r => r,
                },
                BinaryOp::Pow => libm::pow(x.into(), y.into()) as $t,
                BinaryOp::Min | BinaryOp::Max if x.is_nan() || y.is_nan() => <$t>::NAN,
                // -0 counts as less than +0, as in IEEE 754-2019 minimum and maximum.
                BinaryOp::Min if x == 0.0 && y == 0.0 => -(-x + -y),
                BinaryOp::Max if x == 0.0 && y == 0.0 => x + y,
                BinaryOp::Min if x < y => x,
                BinaryOp::Max if x > y => x,
                BinaryOp::Min | BinaryOp::Max => y,
                // Not defined on floats; inference refuses them.
                BinaryOp::And | BinaryOp::Or | BinaryOp::Xor | BinaryOp::Shl | BinaryOp::Shr => <$t>::NAN,
            }
        }
    };
}

float_basics!(unary_f32, binary_f32, f32);
float_basics!(unary_f64, binary_f64, f64);

/// The transcendental functions, in f64 with errors of about an ulp of f64 (`libm`, a port of musl's and FreeBSD's
/// msun).
fn function(op: UnaryOp, x: f64) -> f64 {
    use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};
    match op {
        UnaryOp::Exp => libm::exp(x),
        UnaryOp::Log => libm::log(x),
        UnaryOp::Erf => libm::erf(x),
        UnaryOp::Tanh => libm::tanh(x),
        UnaryOp::Sigmoid => 1.0 / (1.0 + libm::exp(-x)),
        UnaryOp::Sin => libm::sin(x),
        UnaryOp::Cos => libm::cos(x),
        // 1 + erf(-z) is erfc(z), which does not cancel for negative x. Of -∞ both gelus are no number, as they are where
        // a model spells them out.
        UnaryOp::Gelu => 0.5 * x * libm::erfc(-x * FRAC_1_SQRT_2),
        // (1 + tanh z)/2 is 1/(1 + e^-2z), which does not cancel for negative x.
        UnaryOp::GeluTanh => x / (1.0 + libm::exp(-2.0 * FRAC_2_PI.sqrt() * (x + 0.044_715 * x * x * x))),
        _ => f64::NAN,
    }
}

fn unary_int(op: UnaryOp, d: DType, x: i128) -> i128 {
    match op {
        UnaryOp::Neg => -x,
        UnaryOp::Abs => x.abs(),
        UnaryOp::Sign => x.signum(),
        UnaryOp::Relu => x.max(0),
        UnaryOp::Not if d == DType::Bool => (x == 0).into(),
        UnaryOp::Not => !x,
        // Not defined on integers; inference refuses them.
        _ => 0,
    }
}

fn binary_int(op: BinaryOp, d: DType, x: i128, y: i128) -> i128 {
    let bits = 8 * d.size() as i128;
    match op {
        BinaryOp::Add => x + y,
        BinaryOp::Sub => x - y,
        BinaryOp::Mul => x.wrapping_mul(y),
        BinaryOp::Div | BinaryOp::Rem | BinaryOp::Mod if y == 0 => 0,
        BinaryOp::Div => x / y,
        BinaryOp::Rem => x % y,
        BinaryOp::Mod => ((x % y) + y) % y,
        BinaryOp::Pow => int_pow(x, y),
        BinaryOp::Min => x.min(y),
        BinaryOp::Max => x.max(y),
        BinaryOp::And => x & y,
        BinaryOp::Or => x | y,
        BinaryOp::Xor => x ^ y,
        // What is shifted out on the right is a number below 1, rounded down: 0 or -1.
        BinaryOp::Shl if !(0..bits).contains(&y) => 0,
        BinaryOp::Shr if !(0..bits).contains(&y) => x >> (bits - 1) >> 1,
        BinaryOp::Shl => x << y,
        BinaryOp::Shr => x >> y,
    }
}

/// x^y modulo 2^128, which has the low bits of every narrower type's result.
fn int_pow(mut x: i128, y: i128) -> i128 {
    if y < 0 {
        return match x {
            1 => 1,
            -1 => 1 - 2 * (y & 1),
            _ => 0,
        };
    }
    let (mut y, mut r) = (y, 1i128);
    while y > 0 {
        if y & 1 == 1 {
            r = r.wrapping_mul(x);
        }
        x = x.wrapping_mul(x);
        y >>= 1;
    }
    r
}

pub(super) fn unary(op: UnaryOp, x: &Tensor) -> Vec<u8> {
    let d = x.dtype();
    match (op, d) {
        (UnaryOp::IsNan, _) => f64s(x).into_iter().map(|v| v.is_nan().into()).collect(),
        (UnaryOp::IsInf, _) => f64s(x).into_iter().map(|v| v.is_infinite().into()).collect(),
        (_, DType::F64) => put_f64(d, f64s(x).into_iter().map(|v| unary_f64(op, v))),
        _ if d.is_float() => put_f32(d, f32s(x).into_iter().map(|v| unary_f32(op, v))),
        _ => put_int(d, ints(x).into_iter().map(|v| unary_int(op, d, v))),
    }
}

pub(super) fn binary(op: BinaryOp, x: &Tensor, y: &Tensor) -> Vec<u8> {
    let d = x.dtype();
    match d {
        DType::F64 => put_f64(d, f64s(x).into_iter().zip(f64s(y)).map(|(a, b)| binary_f64(op, a, b))),
        _ if d.is_float() => put_f32(d, f32s(x).into_iter().zip(f32s(y)).map(|(a, b)| binary_f32(op, a, b))),
        _ => put_int(d, ints(x).into_iter().zip(ints(y)).map(|(a, b)| wrap(d, binary_int(op, d, a, b)))),
    }
}

fn holds<T: PartialOrd>(op: CmpOp, a: &T, b: &T) -> u8 {
    u8::from(match op {
        CmpOp::Eq => a == b,
        CmpOp::Ne => a != b,
        CmpOp::Lt => a < b,
        CmpOp::Le => a <= b,
        CmpOp::Gt => a > b,
        CmpOp::Ge => a >= b,
    })
}

pub(super) fn compare(op: CmpOp, x: &Tensor, y: &Tensor) -> Vec<u8> {
    if x.dtype().is_float() {
        f64s(x).iter().zip(&f64s(y)).map(|(a, b)| holds(op, a, b)).collect()
    } else {
        ints(x).iter().zip(&ints(y)).map(|(a, b)| holds(op, a, b)).collect()
    }
}

/// Copies bytes, so every element keeps its bits.
pub(super) fn select(cond: &Tensor, x: &Tensor, y: &Tensor) -> Vec<u8> {
    let s = x.dtype().size();
    let mut out = Vec::with_capacity(x.bytes().len());
    for (i, &c) in cond.bytes().iter().enumerate() {
        out.extend_from_slice(&if c != 0 { x } else { y }.bytes()[i * s..(i + 1) * s]);
    }
    out
}

pub(super) fn cast(x: &Tensor, to: DType) -> Vec<u8> {
    let from = x.dtype();
    if from == to {
        return x.bytes().to_vec();
    }
    match (from.is_float(), to.is_float()) {
        (true, true) => put_f64(to, f64s(x).into_iter()),
        (true, false) if to == DType::Bool => f64s(x).into_iter().map(|v| (v != 0.0).into()).collect(),
        (true, false) => {
            let (lo, hi) = int_range(to);
            // `as` truncates, saturates and maps NaN to 0.
            put_int(to, f64s(x).into_iter().map(|v| (v as i128).clamp(lo, hi)))
        }
        (false, true) => match to {
            DType::F32 => put_f32(to, ints(x).into_iter().map(|v| v as f32)),
            DType::F64 => put_f64(to, ints(x).into_iter().map(|v| v as f64)),
            _ => put_f64(to, ints(x).into_iter().map(int_to_f64_odd)),
        },
        (false, false) => put_int(to, ints(x).into_iter()),
    }
}
