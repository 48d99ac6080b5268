use bertc_ir::CmpOp;
use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::{constant, double, exp, is_double, polynomial};

/// tanh x within 4 ulp, in f64 within 3. NaN stays NaN.
///
/// An odd polynomial (Cephes) below 0.625, else 1 - 2/(e^(2|x|) + 1).
pub fn tanh(b: &mut KernelBuilder, x: Reg) -> Reg {
    if is_double(b, x) {
        return double::tanh(b, x);
    }
    let a = b.un(Un::Abs, x);
    let z = b.mul(x, x);
    let p = polynomial(
        b,
        z,
        &[-5.704_988_727_45e-3, 2.063_908_879_54e-2, -5.373_971_555_31e-2, 0.133_314_422_036, -0.333_332_819_422],
    );
    let pz = b.mul(p, z);
    let small = b.fma(pz, x, x);
    let two_a = b.add(a, a);
    let e = exp(b, two_a);
    let (one, two) = (constant(b, x, 1.0), constant(b, x, 2.0));
    let d = b.add(e, one);
    let q = b.div(two, d);
    let large = b.sub(one, q);
    let zero = constant(b, x, 0.0);
    let negative = b.cmp(CmpOp::Lt, x, zero);
    let minus = b.un(Un::Neg, large);
    let large = b.select(negative, minus, large);
    let limit = constant(b, x, 0.625);
    // NaN compares false and takes the polynomial, which keeps it.
    let big = b.cmp(CmpOp::Ge, a, limit);
    b.select(big, large, small)
}
