use bertc_ir::CmpOp;
use bertc_ir::kernel::{KernelBuilder, Reg};

use super::bits::split;
use super::{constant, double, is_double, polynomial};

/// Natural logarithm within 2 ulp (1e-7 absolute near 1), in f64 within 0.51 ulp. log 0 = -∞, log ∞ = ∞, NaN for negative x
/// and NaN.
///
/// x = 2^e · m with m in [√½, √2); log x = e·ln 2 + log m. Polynomial: Cephes.
pub fn log(b: &mut KernelBuilder, x: Reg) -> Reg {
    if is_double(b, x) {
        return double::log(b, x);
    }
    let (m, e) = split(b, x);
    let one = constant(b, x, 1.0);
    let r = b.sub(m, one);
    let z = b.mul(r, r);
    let p = polynomial(
        b,
        r,
        &[
            7.037_683_629_2e-2,
            -0.115_146_103_10,
            0.116_769_987_40,
            -0.124_201_408_46,
            0.142_493_227_87,
            -0.166_680_576_65,
            0.200_007_147_65,
            -0.249_999_939_93,
            0.333_333_311_74,
        ],
    );
    let rz = b.mul(r, z);
    let y = b.mul(p, rz);
    let (c2, half, c1) = (constant(b, x, -2.121_944_4e-4), constant(b, x, -0.5), constant(b, x, 0.693_359_375));
    let y = b.fma(e, c2, y);
    let y = b.fma(half, z, y);
    let y = b.add(r, y);
    let y = b.fma(e, c1, y);
    edges(b, x, y)
}

/// The logarithm of x, given as y for positive finite x.
pub(super) fn edges(b: &mut KernelBuilder, x: Reg, y: Reg) -> Reg {
    // ∞ and NaN have no mantissa to speak of; zero and negatives are outside the domain.
    let (inf, zero) = (constant(b, x, f64::INFINITY), constant(b, x, 0.0));
    let (minus_inf, nan) = (constant(b, x, f64::NEG_INFINITY), constant(b, x, f64::NAN));
    let finite = b.cmp(CmpOp::Lt, x, inf);
    let y = b.select(finite, y, x);
    let is_zero = b.cmp(CmpOp::Eq, x, zero);
    let y = b.select(is_zero, minus_inf, y);
    let negative = b.cmp(CmpOp::Lt, x, zero);
    b.select(negative, nan, y)
}
