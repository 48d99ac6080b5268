use bertc_ir::kernel::{Elem, KernelBuilder, Reg};

use super::bits::scale;
use super::{constant, double, is_double, polynomial};

/// 1.5·2^23: adding it rounds to an integer in the low bits, on every target alike.
pub(super) const ROUND: f64 = 12_582_912.0;

/// e^x within 2 ulp, in f64 within 0.7. Overflows to +∞ above 88.73 (709.78), goes through the denormals to 0 below -87.3
/// (-708.3); NaN stays NaN.
///
/// e^x = 2^n · e^r with n = round(x·log2 e), |r| ≤ ln(2)/2; ln 2 is split in two so that r is exact to 2^-30 of x
/// (Cody and Waite). Polynomial: Cephes.
pub fn exp(b: &mut KernelBuilder, x: Reg) -> Reg {
    if is_double(b, x) {
        return double::exp(b, x);
    }
    // Beyond these bounds the result is ∞ or 0 anyway, and n stays small.
    let (lo, hi) = (constant(b, x, -105.0), constant(b, x, 89.0));
    let x = b.max(x, lo);
    let x = b.min(x, hi);
    let (log2e, round) = (constant(b, x, std::f64::consts::LOG2_E), constant(b, x, ROUND));
    let t = b.fma(x, log2e, round);
    let n = b.sub(t, round);
    let (c1, c2) = (constant(b, x, -0.693_359_375), constant(b, x, 2.121_944_4e-4));
    let r = b.fma(n, c1, x);
    let r = b.fma(n, c2, r);
    let p = polynomial(
        b,
        r,
        &[
            1.987_569_15e-4,
            1.398_199_950_7e-3,
            8.333_451_907_3e-3,
            4.166_579_589_4e-2,
            0.166_666_654_59,
            0.500_000_012_01,
        ],
    );
    let rr = b.mul(r, r);
    let y = b.fma(p, rr, r);
    let one = constant(b, x, 1.0);
    let y = b.add(y, one);
    // n reaches 128 and -151, beyond what one exponent field holds.
    let (ti, ri) = (b.bitcast(t, Elem::I32), b.bitcast(round, Elem::I32));
    let n = b.sub(ti, ri);
    scale(b, y, n)
}
