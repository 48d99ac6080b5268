use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg, Un};

use super::{constant, exp, int, log};

/// x^y = e^(y·log|x|), with a relative error of about 2^-23·(2 + |y·log|x||). Special values as C's `pow`: x^0 = 1^y = 1,
/// negative x only to integer powers (else NaN), zeros and infinities by sign and parity.
pub fn pow(b: &mut KernelBuilder, x: Reg, y: Reg) -> Reg {
    let a = b.un(Un::Abs, x);
    let l = log(b, a);
    let p = b.mul(y, l);
    let magnitude = exp(b, p);
    let (zero, one, half) = (constant(b, x, 0.0), constant(b, x, 1.0), constant(b, x, 0.5));
    // |x| = 1: log is 0, and 0·∞ would be NaN.
    let unit = b.cmp(CmpOp::Eq, a, one);
    let y_number = b.cmp(CmpOp::Eq, y, y);
    let unit = b.bin(Bin::And, unit, y_number);
    let magnitude = b.select(unit, one, magnitude);
    let whole = b.un(Un::Trunc, y);
    let integer = b.cmp(CmpOp::Eq, whole, y);
    let h = b.mul(y, half);
    let hw = b.un(Un::Trunc, h);
    let uneven = b.cmp(CmpOp::Ne, hw, h);
    let odd = b.bin(Bin::And, integer, uneven);
    let negative = b.cmp(CmpOp::Lt, x, zero);
    // By the sign bit, so that -0 counts.
    let (bits, zero_bits) = (b.bitcast(x, Elem::I32), int(b, x, 0));
    let signed = b.cmp(CmpOp::Lt, bits, zero_bits);
    let flip = b.bin(Bin::And, signed, odd);
    let minus = b.un(Un::Neg, magnitude);
    let r = b.select(flip, minus, magnitude);
    // A negative base to a fraction has no real value, but for ∞ (whose powers are 0 and ∞).
    let inf = constant(b, x, f64::INFINITY);
    let finite = b.cmp(CmpOp::Lt, a, inf);
    let fraction = b.un(Un::Not, integer);
    let bad = b.bin(Bin::And, negative, fraction);
    let bad = b.bin(Bin::And, bad, finite);
    let nan = constant(b, x, f64::NAN);
    let r = b.select(bad, nan, r);
    let y_zero = b.cmp(CmpOp::Eq, y, zero);
    let r = b.select(y_zero, one, r);
    let x_one = b.cmp(CmpOp::Eq, x, one);
    b.select(x_one, one, r)
}
