use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg};

use super::{constant, double, int, is_double, polynomial};

/// x·Φ(x) = x/2 · (1 + erf(x/√2)), within 4e-7·max(1, |x|) absolute, in f64 within 6 ulp where the result is
/// normal. NaN stays NaN; of -∞ comes 0, in f64 NaN.
///
/// Polynomial: minimax of Φ^⅛ on [-6, 0] by Lawson's iteration, weighted for the error of Φ; 2e-7 of Φ with roundings,
/// 1e-4 of Φ relative down to -5.
pub fn gelu(b: &mut KernelBuilder, x: Reg) -> Reg {
    if is_double(b, x) {
        return double::gelu(b, x);
    }
    let root = [
        -2.977_657_3e-7,
        -7.483_661_6e-6,
        -6.013_864_5e-5,
        -3.350_087e-5,
        1.506_412_3e-3,
        6.745_154_4e-4,
        -0.031_926_52,
        0.091_457_83,
        0.917_004_05,
    ];
    times_distribution(b, x, -6.0, &root, 3)
}

/// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))), within 4e-7·max(1, |x|) absolute, in f64 with a relative error of
/// 2^-51·(2 + 2·|x| + |x|³/10), of which most is the rounding of tanh's argument. NaN stays NaN; of -∞ comes 0, in f64 NaN.
///
/// Polynomial: as [`gelu`]'s, of (1 + tanh …)/2.
pub fn gelu_tanh(b: &mut KernelBuilder, x: Reg) -> Reg {
    if is_double(b, x) {
        return double::gelu_tanh(b, x);
    }
    let root = [
        -5.191_338_3e-7,
        -1.115_925_3e-5,
        -9.186_176_6e-5,
        -3.501_046_2e-4,
        -4.512_353_9e-4,
        1.187_873_3e-3,
        4.269_485_4e-4,
        -0.031_965_043,
        0.091_454_625,
        0.917_004,
    ];
    times_distribution(b, x, -6.0, &root, 3)
}

/// [`gelu`] within 6e-5 absolute, for results that become one of 256 integers. NaN stays NaN.
///
/// Polynomial: as [`gelu`]'s, of Φ^¼ on [-4.5, 0].
pub fn gelu_coarse(b: &mut KernelBuilder, x: Reg) -> Reg {
    let root = [6.433_562_4e-4, 4.011_704e-3, -5.302_754_7e-3, -0.050_871_313, 0.167_560_13, 0.840_890_1];
    times_distribution(b, x, -4.5, &root, 2)
}

/// [`gelu_tanh`] within 8e-5 absolute, likewise. NaN stays NaN.
pub fn gelu_tanh_coarse(b: &mut KernelBuilder, x: Reg) -> Reg {
    let root = [5.778_128e-4, 3.445_274e-3, -6.369_773e-3, -0.051_355_388, 0.167_480_44, 0.840_888_3];
    times_distribution(b, x, -4.5, &root, 2)
}

/// x·F(x) = max(x, 0) - |x|·F(-|x|) for F with F(-x) = 1 - F(x), of which a root is a polynomial from `limit` to 0: the one
/// that `squarings` undo. That root is far flatter than F, so a polynomial of low degree does without a division and without
/// an exponential; F below the limit is taken for 0.
fn times_distribution(b: &mut KernelBuilder, x: Reg, limit: f64, root: &[f64], squarings: usize) -> Reg {
    // -|x|, or 0 from the limit on: what is beyond is 0 or x, to the bit.
    let (bits, sign) = (b.bitcast(x, Elem::I32), int(b, x, i32::MIN.into()));
    let negative = b.bin(Bin::Or, bits, sign);
    let negative = b.bitcast(negative, Elem::F32);
    let (limit, zero) = (constant(b, x, limit), constant(b, x, 0.0));
    let inside = b.cmp(CmpOp::Lt, limit, negative);
    let a = b.select(inside, negative, zero);
    // A constant comes first in extremes: see `float_extreme` of the x86 emitter.
    let positive = b.max(zero, x);
    let mut p = polynomial(b, a, root);
    for _ in 0..squarings {
        p = b.mul(p, p);
    }
    b.fma(p, a, positive)
}
