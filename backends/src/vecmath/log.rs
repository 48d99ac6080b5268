use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg};

use super::{constant, int, polynomial};

/// Natural logarithm within 2 ulp (1e-7 absolute near 1). log 0 = -∞, log ∞ = ∞, NaN for negative x and NaN.
///
/// x = 2^e · m with m in [√½, √2); log x = e·ln 2 + log m. Polynomial: Cephes.
pub fn log(b: &mut KernelBuilder, x: Reg) -> Reg {
    // Denormals are scaled into the normal range first.
    let (tiny, up) = (constant(b, x, f64::from(f32::MIN_POSITIVE)), constant(b, x, 8_388_608.0));
    let small = b.cmp(CmpOp::Lt, x, tiny);
    let scaled = b.mul(x, up);
    let v = b.select(small, scaled, x);
    let bits = b.bitcast(v, Elem::I32);
    // Subtracting √½'s bits makes the exponent field that of the nearest power of two.
    let root = int(b, x, 0x3f35_04f3);
    let shift = int(b, x, 23);
    let d = b.sub(bits, root);
    let e = b.bin(Bin::ShrS, d, shift);
    let down = b.bin(Bin::Shl, e, shift);
    let m = b.sub(bits, down);
    let m = b.bitcast(m, Elem::F32);
    let (adjust, zero_i) = (int(b, x, 23), int(b, x, 0));
    let adjust = b.select(small, adjust, zero_i);
    let e = b.sub(e, adjust);
    let e = b.convert(e, Elem::F32);
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
