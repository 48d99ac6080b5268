use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::super::bits::{power_of_two, with_sign};
use super::exp::{Reduced, reduce};
use super::{Pair, constant};

/// tanh x; see the f32 function.
///
/// d/(2 - d) with d = 1 - e^(-2|x|) = (1 - 2^n) - 2^n·(s + t), where nothing cancels: n is 0, or the first term is more than
/// twice the second.
pub fn tanh(b: &mut KernelBuilder, x: Reg) -> Reg {
    let a = b.un(Un::Abs, x);
    // Beyond, tanh is 1, and 2^n stays a normal number.
    let limit = constant(b, 40.0);
    let a = b.min(limit, a);
    let (zero, one, two, minus_two) = (constant(b, 0.0), constant(b, 1.0), constant(b, 2.0), constant(b, -2.0));
    let exponent = b.mul(a, minus_two);
    let Reduced { n, s, t } = reduce(b, Pair { hi: exponent, lo: zero });
    let power = power_of_two(b, x, n);
    let (whole, rest) = (b.sub(one, power), b.add(s, t));
    let rest = b.mul(rest, power);
    let d = b.sub(whole, rest);
    let below = b.sub(two, d);
    let y = b.div(d, below);
    with_sign(b, y, x)
}
