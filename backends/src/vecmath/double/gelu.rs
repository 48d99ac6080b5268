use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use bertc_ir::CmpOp;
use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::super::sigmoid;
use super::erf::{series, tail};
use super::{Pair, constant};

/// x·Φ(x); see the f32 function.
///
/// Φ(-|x|) is half of 1 - erf(|x|/√2), computed without its cancelling; beyond 40, far from where it becomes 0, all
/// arguments are as one.
pub fn gelu(b: &mut KernelBuilder, x: Reg) -> Reg {
    let (limit, one, half, zero) = (constant(b, 40.0), constant(b, 1.0), constant(b, 0.5), constant(b, 0.0));
    let a = b.un(Un::Abs, x);
    let a = b.min(limit, a);
    let square = Pair::product(b, a, a);
    let (z, root) = (square.scale(b, 0.5), constant(b, FRAC_1_SQRT_2));
    let t = b.mul(a, root);
    let (small, rest) = (series(b, t, z.hi), tail(b, t, z));
    let small = b.sub(one, small);
    let near = b.cmp(CmpOp::Lt, t, half);
    let both = b.select(near, small, rest);
    let below = b.mul(both, half);
    let above = b.sub(one, below);
    let negative = b.cmp(CmpOp::Lt, x, zero);
    let share = b.select(negative, below, above);
    b.mul(x, share)
}

/// x·(1 + tanh w)/2 = x·sigmoid(2w), which doesn't cancel; see the f32 function.
pub fn gelu_tanh(b: &mut KernelBuilder, x: Reg) -> Reg {
    let (cubic, factor) = (constant(b, 0.044_715), constant(b, 2.0 * FRAC_2_PI.sqrt()));
    let z = b.mul(x, x);
    let cube = b.mul(z, x);
    let cube = b.mul(cube, cubic);
    let w = b.add(x, cube);
    let w = b.mul(w, factor);
    let share = sigmoid(b, w);
    b.mul(x, share)
}
