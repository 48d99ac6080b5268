use std::f64::consts::{LN_2, LOG2_E};

use bertc_ir::CmpOp;
use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::super::bits::scale;
use super::{Pair, constant, factorial, nearest, polynomial};

/// ln 2 without its last 11 bits: products with integers up to 2^11 are exact.
pub(super) const LN2_HI: f64 = f64::from_bits(LN_2.to_bits() & !0x7ff);

/// ln 2 - [`LN2_HI`].
pub(super) const LN2_LO: f64 = 5.497_923_018_708_371e-14;

/// e^x = 2^n · (1 + s + t), where t is at most 0.08.
pub(super) struct Reduced {
    /// An i64.
    pub n: Reg,
    /// The exponent's rest, at most ln(2)/2.
    pub s: Reg,
    /// What e^s has besides.
    pub t: Reg,
}

/// e^x; see the f32 function.
pub fn exp(b: &mut KernelBuilder, x: Reg) -> Reg {
    let lo = constant(b, 0.0);
    exp_pair(b, Pair { hi: x, lo })
}

/// e^(hi + lo), with an error of 0.15 ulp before the last rounding.
pub(super) fn exp_pair(b: &mut KernelBuilder, x: Pair) -> Reg {
    let Reduced { n, s, t } = reduce(b, x);
    let one = constant(b, 1.0);
    let sum = Pair::sum(b, one, s);
    let rest = b.add(sum.lo, t);
    let y = b.add(sum.hi, rest);
    // n reaches 1024 and -1076, beyond what one exponent field holds.
    scale(b, y, n)
}

/// n = round(x·log2 e), s = x - n·ln 2 with ln 2 in two parts (Cody and Waite), and Taylor's series up to s^14/14!, which is
/// within 2^-63.
pub(super) fn reduce(b: &mut KernelBuilder, Pair { hi: x, lo }: Pair) -> Reduced {
    // Where the result is ∞ or 0 anyway, the low half may be no number.
    let (zero, far) = (constant(b, 0.0), constant(b, 1024.0));
    let a = b.un(Un::Abs, x);
    let near = b.cmp(CmpOp::Lt, a, far);
    let lo = b.select(near, lo, zero);
    let (least, most) = (constant(b, -746.0), constant(b, 710.0));
    let x = b.max(least, x);
    let x = b.min(most, x);
    let log2e = constant(b, LOG2_E);
    let p = b.mul(x, log2e);
    let (whole, n) = nearest(b, p);
    let (c1, c2) = (constant(b, LN2_HI), constant(b, LN2_LO));
    let (p1, p2) = (b.mul(whole, c1), b.mul(whole, c2));
    // This difference is exact.
    let (hi, lo) = (b.sub(x, p1), b.sub(lo, p2));
    let Pair { hi: s, lo } = Pair::sum(b, hi, lo);
    let p = polynomial(b, s, (2..=14).rev().map(|k| 1.0 / factorial(k)));
    let ss = b.mul(s, s);
    let t = b.mul(p, ss);
    Reduced { n, s, t: b.add(t, lo) }
}
