use bertc_ir::CmpOp;
use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::{constant, double, exp, is_double, polynomial};

/// erf x within 4e-7 absolute, and within 4 ulp below 1; in f64 within 2 ulp. NaN stays NaN.
///
/// An odd polynomial below 1 (Cephes), else 1 - t·P(t)·e^(-x²) with t = 1/(1 + 0.3275911 x) (Abramowitz and Stegun,
/// 7.1.26).
pub fn erf(b: &mut KernelBuilder, x: Reg) -> Reg {
    if is_double(b, x) {
        return double::erf(b, x);
    }
    let a = b.un(Un::Abs, x);
    let z = b.mul(x, x);
    let p = polynomial(
        b,
        z,
        &[
            7.853_861_353_153_693e-5,
            -8.010_193_625_184_903e-4,
            5.188_327_685_732_524e-3,
            -2.685_381_193_529_856e-2,
            0.112_835_851_486_141_8,
            -0.376_126_258_242_33,
            1.128_379_165_726_71,
        ],
    );
    let small = b.mul(p, x);
    let (one, c) = (constant(b, x, 1.0), constant(b, x, 0.327_591_1));
    let d = b.fma(a, c, one);
    let t = b.div(one, d);
    let p = polynomial(b, t, &[1.061_405_429, -1.453_152_027, 1.421_413_741, -0.284_496_736, 0.254_829_592]);
    let p = b.mul(p, t);
    let minus_z = b.un(Un::Neg, z);
    let e = exp(b, minus_z);
    let q = b.mul(p, e);
    let large = b.sub(one, q);
    let zero = constant(b, x, 0.0);
    let negative = b.cmp(CmpOp::Lt, x, zero);
    let minus = b.un(Un::Neg, large);
    let large = b.select(negative, minus, large);
    // NaN compares false and takes the polynomial, which keeps it.
    let big = b.cmp(CmpOp::Ge, a, one);
    b.select(big, large, small)
}
