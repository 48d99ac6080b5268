//! Elementary functions on f32 registers of any lanes, built from kernel IR: the same instructions on every target.
//! Results differ between targets only where one fuses multiply-adds and another doesn't.
//!
//! Polynomials whose source is "Cephes" have the coefficients of S. Moshier's Cephes library, single precision.

mod decay;
mod erf;
mod exp;
mod gelu;
mod log;
mod pow;
mod sigmoid;
mod sin_cos;
mod tanh;

pub use decay::decay;
pub use erf::erf;
pub use exp::exp;
pub use gelu::{gelu, gelu_coarse, gelu_tanh, gelu_tanh_coarse};
pub use log::log;
pub use pow::pow;
pub use sigmoid::sigmoid;
pub use sin_cos::{cos, sin};
pub use tanh::tanh;

use bertc_ir::kernel::{Elem, KernelBuilder, Reg, RegType};

/// A float constant with the lanes of `like`.
fn constant(b: &mut KernelBuilder, like: Reg, v: f64) -> Reg {
    let lanes = b.ty(like).lanes;
    b.const_f(RegType::vector(Elem::F32, lanes), v)
}

/// An i32 constant with the lanes of `like`.
fn int(b: &mut KernelBuilder, like: Reg, v: i64) -> Reg {
    let lanes = b.ty(like).lanes;
    b.const_i(RegType::vector(Elem::I32, lanes), v)
}

/// The polynomial with the given coefficients, highest power first, by Horner's rule.
fn polynomial(b: &mut KernelBuilder, x: Reg, coefficients: &[f64]) -> Reg {
    let mut y = constant(b, x, coefficients[0]);
    for &c in &coefficients[1..] {
        let c = constant(b, x, c);
        y = b.fma(y, x, c);
    }
    y
}

#[cfg(test)]
mod tests;
