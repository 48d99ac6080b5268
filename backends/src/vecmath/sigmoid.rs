use bertc_ir::kernel::{KernelBuilder, Reg, Un};

use super::{constant, exp};

/// 1 / (1 + e^-x) within 4 ulp where the result is normal, in f64 within 3. NaN stays NaN.
pub fn sigmoid(b: &mut KernelBuilder, x: Reg) -> Reg {
    let n = b.un(Un::Neg, x);
    let e = exp(b, n);
    let one = constant(b, x, 1.0);
    let d = b.add(e, one);
    b.div(one, d)
}
