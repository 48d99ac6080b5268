use std::f64::consts::FRAC_2_PI;

use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, KernelBuilder, Reg, Un};

use super::super::bits::with_sign;
use super::{Pair, constant, factorial, nearest, polynomial, sign};

/// π/2 in three parts: products of the first two, of 33 bits each, with integers up to 2^20 are exact.
const PARTS: [f64; 3] = [1.570_796_326_734_125_6, 6.077_100_506_303_966e-11, 2.022_266_248_795_950_6e-21];

/// sin(x + shift·π/2) for a shift of 0 or 1; see the f32 functions.
///
/// r = |x| - q·π/2 as a pair (Cody and Waite), then Taylor's series up to r^17/17! or r^18/18!, which are within 2^-62.
pub fn quadrant(b: &mut KernelBuilder, x: Reg, shift: i64) -> Reg {
    let a = b.un(Un::Abs, x);
    let c = constant(b, FRAC_2_PI);
    let q = b.mul(a, c);
    let (q, n) = nearest(b, q);
    let [p1, p2, p3] = PARTS.map(|part| {
        let part = constant(b, -part);
        b.mul(q, part)
    });
    let r = b.add(a, p1);
    let r = Pair::sum(b, r, p2);
    let lo = b.add(r.lo, p3);
    let Pair { hi: r, lo } = Pair::sum(b, r.hi, lo);
    let (z, half, one) = (b.mul(r, r), constant(b, 0.5), constant(b, 1.0));
    let hz = b.mul(z, half);
    let near_cosine = b.sub(one, hz);
    // sin(r + lo) = r + (r³·S(r²) + lo·cos r)
    let s = polynomial(b, z, (1..=8).rev().map(|k| sign(k) / factorial(2 * k + 1)));
    let rz = b.mul(r, z);
    let s = b.mul(s, rz);
    let change = b.mul(lo, near_cosine);
    let s = b.add(s, change);
    let sine = b.add(r, s);
    // cos(r + lo) = 1 - r²/2 + (what that lacks + r⁴·C(r²) - lo·sin r)
    let k = polynomial(b, z, (2..=9).rev().map(|k| sign(k) / factorial(2 * k)));
    let zz = b.mul(z, z);
    let k = b.mul(k, zz);
    let change = b.mul(lo, r);
    let k = b.sub(k, change);
    let lost = b.sub(one, near_cosine);
    let lost = b.sub(lost, hz);
    let k = b.add(lost, k);
    let cosine = b.add(near_cosine, k);
    let shift_by = b.int(shift);
    let n = b.add(n, shift_by);
    let (bit0, bit1, zero) = (b.int(1), b.int(2), b.int(0));
    let odd = b.bin(Bin::And, n, bit0);
    let odd = b.cmp(CmpOp::Ne, odd, zero);
    let y = b.select(odd, cosine, sine);
    let upper = b.bin(Bin::And, n, bit1);
    let upper = b.cmp(CmpOp::Ne, upper, zero);
    let minus = b.un(Un::Neg, y);
    let y = b.select(upper, minus, y);
    if shift == 0 { with_sign(b, y, x) } else { y }
}
