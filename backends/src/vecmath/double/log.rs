use bertc_ir::kernel::{KernelBuilder, Reg};

use super::super::bits::split;
use super::super::log::edges;
use super::exp::{LN2_HI, LN2_LO};
use super::{Pair, constant, polynomial};

/// Natural logarithm; see the f32 function.
pub fn log(b: &mut KernelBuilder, x: Reg) -> Reg {
    log_pair(b, x).hi
}

/// Natural logarithm with a relative error of 2^-75. Where it is infinite or NaN, the low half is anything.
///
/// x = 2^e · m with m in [√½, √2); log m = 2·artanh s = 2·(s + s^3/3 + s^5/5 + …) with s = (m-1)/(m+1), up to s^27/27.
pub(super) fn log_pair(b: &mut KernelBuilder, x: Reg) -> Pair {
    let (m, e) = split(b, x);
    let (zero, one) = (constant(b, 0.0), constant(b, 1.0));
    let (less, more) = (b.sub(m, one), Pair::sum(b, m, one));
    let s = Pair { hi: less, lo: zero }.div(b, more);
    let z = s.mul(b, s);
    // Terms from s^9 on are so small that one half will do.
    let rest = polynomial(b, z.hi, (4..=13).rev().map(|k| 1.0 / f64::from(2 * k + 1)));
    let mut series = Pair { hi: rest, lo: zero };
    for odd in [7.0f64, 5.0, 3.0, 1.0] {
        let hi = odd.recip();
        let reciprocal = Pair::constant(b, hi, hi.mul_add(-odd, 1.0) / odd);
        series = z.mul(b, series).add(b, reciprocal);
    }
    let log_m = s.scale(b, 2.0).mul(b, series);
    let (c1, c2) = (constant(b, LN2_HI), constant(b, LN2_LO));
    let power = Pair { hi: b.mul(e, c1), lo: b.mul(e, c2) };
    let y = power.add(b, log_m);
    Pair { hi: edges(b, x, y.hi), lo: y.lo }
}
