use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, KernelBuilder, Reg, Un};

use super::bits::with_sign;
use super::{constant, double, exp, is_double, log};

/// Exponents beyond make 0, 1 or ∞ of every base, as this one does: no logarithm but 0 is smaller than 2^-53.
const LARGEST: f64 = (1u128 << 64) as f64;

/// x^y = e^(y·log|x|), with a relative error of about 2^-23·(2 + |y·log|x||); in f64 within 0.7 ulp, so that a power that is
/// an f64 is exact. Special values as C's `pow`: x^0 = 1^y = 1, negative x only to integer powers (else NaN), zeros and
/// infinities by sign and parity.
pub fn pow(b: &mut KernelBuilder, x: Reg, y: Reg) -> Reg {
    let a = b.un(Un::Abs, x);
    // Of |x| = 1 the logarithm is 0, and 0·∞ would be NaN.
    let (least, largest) = (constant(b, y, -LARGEST), constant(b, y, LARGEST));
    let bounded = b.max(least, y);
    let bounded = b.min(largest, bounded);
    let magnitude = if is_double(b, x) {
        double::power(b, a, bounded)
    } else {
        let l = log(b, a);
        let p = b.mul(bounded, l);
        exp(b, p)
    };
    let (zero, one, half) = (constant(b, x, 0.0), constant(b, x, 1.0), constant(b, x, 0.5));
    let whole = b.un(Un::Trunc, y);
    let integer = b.cmp(CmpOp::Eq, whole, y);
    let h = b.mul(y, half);
    let hw = b.un(Un::Trunc, h);
    let uneven = b.cmp(CmpOp::Ne, hw, h);
    let odd = b.bin(Bin::And, integer, uneven);
    let negative = b.cmp(CmpOp::Lt, x, zero);
    // By the sign bit, so that -0 counts.
    let signed = with_sign(b, magnitude, x);
    let r = b.select(odd, signed, magnitude);
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
