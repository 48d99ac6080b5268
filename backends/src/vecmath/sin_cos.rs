use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg, Un};

use super::exp::ROUND;
use super::{constant, double, int, is_double, polynomial};

/// sin x within 2e-7 absolute for |x| ≤ 8192, in f64 within 1 ulp for |x| ≤ 2^20; the error grows with |x| beyond, and what
/// comes of more than 2^22 (2^51) is no sine. NaN for NaN and ±∞.
pub fn sin(b: &mut KernelBuilder, x: Reg) -> Reg {
    quadrant(b, x, 0)
}

/// cos x, with the bounds of [`sin`].
pub fn cos(b: &mut KernelBuilder, x: Reg) -> Reg {
    quadrant(b, x, 1)
}

/// sin(x + shift·π/2): r = x - q·π/2 with π/2 split in three (Cody and Waite), then the sine or cosine polynomial of r
/// by the quadrant's parity. Polynomials and split: Cephes.
fn quadrant(b: &mut KernelBuilder, x: Reg, shift: i64) -> Reg {
    if is_double(b, x) {
        return double::quadrant(b, x, shift);
    }
    let (c, round) = (constant(b, x, std::f64::consts::FRAC_2_PI), constant(b, x, ROUND));
    let t = b.fma(x, c, round);
    let q = b.sub(t, round);
    let mut r = x;
    for part in [-1.570_312_5, -4.837_512_969_970_703e-4, -7.549_789_954_891_882e-8] {
        let part = constant(b, x, part);
        r = b.fma(q, part, r);
    }
    let z = b.mul(r, r);
    let s = polynomial(b, z, &[-1.951_529_589_1e-4, 8.332_160_873_6e-3, -0.166_666_546_11]);
    let s = b.mul(s, z);
    let sine = b.fma(s, r, r);
    let k = polynomial(b, z, &[2.443_315_711_809_948e-5, -1.388_731_625_493_765e-3, 4.166_664_568_298_827e-2]);
    let zz = b.mul(z, z);
    let k = b.mul(k, zz);
    let (minus_half, one) = (constant(b, x, -0.5), constant(b, x, 1.0));
    let cosine = b.fma(z, minus_half, one);
    let cosine = b.add(cosine, k);
    let (ti, ri) = (b.bitcast(t, Elem::I32), b.bitcast(round, Elem::I32));
    let n = b.sub(ti, ri);
    let shift = int(b, x, shift);
    let n = b.add(n, shift);
    let (bit0, bit1, zero) = (int(b, x, 1), int(b, x, 2), int(b, x, 0));
    let odd = b.bin(Bin::And, n, bit0);
    let odd = b.cmp(CmpOp::Ne, odd, zero);
    let y = b.select(odd, cosine, sine);
    let upper = b.bin(Bin::And, n, bit1);
    let upper = b.cmp(CmpOp::Ne, upper, zero);
    let minus = b.un(Un::Neg, y);
    b.select(upper, minus, y)
}
