use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg};

use super::exp::ROUND;
use super::{constant, int, polynomial};

/// e^x for x ≤ 0, for sums of a softmax: within 3 ulp down to -20, 5 ulp down to -87.3; 0 below -87.7, where [`exp`] has
/// denormals. e^0 is 1; NaN stays NaN; a positive x gives anything.
///
/// e^x = 2^n · e^r with n = round(x·log2 e); ln 2 in one piece makes r exact to 2^-29 of x. Polynomial: minimax of
/// (e^r - 1)/r by Lawson's iteration, weighted for the relative error of e^r; that is 9.2e-8.
///
/// [`exp`]: super::exp
pub fn decay(b: &mut KernelBuilder, x: Reg) -> Reg {
    let least = constant(b, x, -88.0);
    let x = b.max(least, x);
    // The low bits of t are n + 127, which moves to the exponent's place as it is: a power of two, or 0 for n = -127.
    let (log2e, round) = (constant(b, x, std::f64::consts::LOG2_E), constant(b, x, ROUND + 127.0));
    let t = b.fma(x, log2e, round);
    let n = b.sub(t, round);
    let ln2 = constant(b, x, -std::f64::consts::LN_2);
    let r = b.fma(n, ln2, x);
    let p = polynomial(b, r, &[8.290_272_2e-3, 4.189_816_1e-2, 0.166_676_39, 0.499_991_48, 0.999_999_7, 1.0]);
    let (bits, shift) = (b.bitcast(t, Elem::I32), int(b, x, 23));
    let scale = b.bin(Bin::Shl, bits, shift);
    let scale = b.bitcast(scale, Elem::F32);
    b.mul(p, scale)
}
