use bertc_ir::kernel::{KernelBuilder, Reg};

use super::{constant, erf, tanh};

/// x/2 · (1 + erf(x/√2)), within 4e-7·max(1, |x|) absolute.
pub fn gelu(b: &mut KernelBuilder, x: Reg) -> Reg {
    let c = constant(b, x, std::f64::consts::FRAC_1_SQRT_2);
    let s = b.mul(x, c);
    let e = erf(b, s);
    half_of_x_times_one_plus(b, x, e)
}

/// x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³))), within 4e-7·max(1, |x|) absolute.
pub fn gelu_tanh(b: &mut KernelBuilder, x: Reg) -> Reg {
    let (cubic, one) = (constant(b, x, 0.044715), constant(b, x, 1.0));
    let z = b.mul(x, x);
    let p = b.fma(z, cubic, one);
    let p = b.mul(p, x);
    let c = constant(b, x, 0.797_884_560_802_865_4);
    let s = b.mul(p, c);
    let t = tanh(b, s);
    half_of_x_times_one_plus(b, x, t)
}

fn half_of_x_times_one_plus(b: &mut KernelBuilder, x: Reg, e: Reg) -> Reg {
    let (one, half) = (constant(b, x, 1.0), constant(b, x, 0.5));
    let s = b.add(e, one);
    let h = b.mul(x, half);
    b.mul(h, s)
}
