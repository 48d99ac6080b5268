//! Elementary functions, built from kernel IR: the same instructions on every target. Those of f32 take registers of any
//! lanes; their results differ between targets only where one fuses multiply-adds and another doesn't. Those of f64 take
//! single lanes: see [`double`].
//!
//! Polynomials whose source is "Cephes" have the coefficients of S. Moshier's Cephes library, single precision.

mod bits;
mod decay;
mod double;
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

use bertc_ir::kernel::{KernelBuilder, Reg};

use self::bits::{constant, int, is_double};

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
