use std::f64::consts::{FRAC_2_SQRT_PI, PI, TAU};

use bertc_ir::CmpOp;
use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::super::bits::with_sign;
use super::exp::{exp, exp_pair};
use super::{Pair, constant, factorial, polynomial, sign};

/// 2/√π - 1.
const SLOPE: f64 = 0.128_379_167_095_512_57;

/// e^(-k²/4)/π for k from 0; the first is halved.
const WEIGHTS: [f64; 13] = [
    0.159_154_943_091_895_35,
    0.247_899_988_619_305_93,
    0.117_099_663_048_638_32,
    0.033_549_615_174_146_834,
    0.005_830_048_930_056_387,
    6.144_826_363_856_7e-4,
    3.928_256_069_279_487_4e-5,
    1.523_150_172_466_462e-6,
    3.582_105_865_656_037e-8,
    5.109_599_595_451_596e-10,
    4.420_669_830_983_571_6e-12,
    2.319_754_627_479_235_2e-14,
    7.383_270_480_955_346e-17,
];

/// erf x; see the f32 function. Beyond 30, far from where it becomes 1, all arguments are as one.
pub fn erf(b: &mut KernelBuilder, x: Reg) -> Reg {
    let (limit, one) = (constant(b, 30.0), constant(b, 1.0));
    let a = b.un(Un::Abs, x);
    let a = b.min(limit, a);
    let z = Pair::product(b, a, a);
    let (small, rest) = (series(b, a, z.hi), tail(b, a, z));
    let large = b.sub(one, rest);
    let near = b.cmp(CmpOp::Lt, a, one);
    let y = b.select(near, small, large);
    with_sign(b, y, x)
}

/// erf t for 0 ≤ t ≤ 1, where z = t², within 2 ulp: Taylor's series up to t^37, which is within 2^-61.
pub(super) fn series(b: &mut KernelBuilder, t: Reg, z: Reg) -> Reg {
    let term = |k: u32| FRAC_2_SQRT_PI * sign(k) / (factorial(k) * f64::from(2 * k + 1));
    let p = polynomial(b, z, (1..=18).rev().map(term).chain([SLOPE]));
    let p = b.mul(p, t);
    b.add(t, p)
}

/// 1 - erf t for 0.25 ≤ t ≤ 30, where z = t², within 4 ulp where it is normal.
///
/// It is e^(-t²)·t/π times the integral of e^(-u²)/(u² + t²) over all u, which the trapezoidal rule with steps of ½ gives
/// with a relative error of e^(-4π²): the residue at the pole u = it, 2/(e^(4πt) - 1), is subtracted where it is between the
/// real line and the path that proves that, which is up to 2π (Goodwin 1949, Chiarella and Reichel 1968).
pub(super) fn tail(b: &mut KernelBuilder, t: Reg, z: Pair) -> Reg {
    let mut sum = constant(b, 0.0);
    for (k, weight) in WEIGHTS.into_iter().enumerate().rev() {
        let (square, weight) = (constant(b, (k * k) as f64 / 4.0), constant(b, weight));
        let d = b.add(z.hi, square);
        let term = b.div(weight, d);
        sum = b.add(sum, term);
    }
    let minus = z.scale(b, -1.0);
    let e = exp_pair(b, minus);
    let e = b.mul(e, t);
    let y = b.mul(e, sum);
    let (steps, one, two) = (constant(b, 4.0 * PI), constant(b, 1.0), constant(b, 2.0));
    let p = b.mul(t, steps);
    let p = exp(b, p);
    let p = b.sub(p, one);
    let residue = b.div(two, p);
    let corrected = b.sub(y, residue);
    let limit = constant(b, TAU);
    let near = b.cmp(CmpOp::Lt, t, limit);
    b.select(near, corrected, y)
}
