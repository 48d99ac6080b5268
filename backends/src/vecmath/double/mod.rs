//! The functions on f64, where accuracy matters and speed doesn't.
//!
//! No multiply-add is fused, so that results have the same bits on every target. Coefficients are those of Taylor's series,
//! which need no table: numbers of one or two roundings.

mod erf;
mod exp;
mod gelu;
mod log;
mod pair;
mod pow;
mod sin_cos;
mod tanh;

pub(super) use erf::erf;
pub(super) use exp::exp;
pub(super) use gelu::{gelu, gelu_tanh};
pub(super) use log::log;
pub(super) use pow::power;
pub(super) use sin_cos::quadrant;
pub(super) use tanh::tanh;

use bertc_ir::kernel::{Elem, KernelBuilder, Reg, RegType};

use self::pair::Pair;

/// 1.5·2^52: adding it rounds to an integer in the low bits.
const ROUND: f64 = 1.5 * (1u64 << 52) as f64;

fn constant(b: &mut KernelBuilder, v: f64) -> Reg {
    b.const_f(RegType::scalar(Elem::F64), v)
}

/// The integer nearest to x, as a float and as an i64, for |x| ≤ 2^51.
fn nearest(b: &mut KernelBuilder, x: Reg) -> (Reg, Reg) {
    let round = constant(b, ROUND);
    let t = b.add(x, round);
    let (ti, ri) = (b.bitcast(t, Elem::I64), b.bitcast(round, Elem::I64));
    (b.sub(t, round), b.sub(ti, ri))
}

/// The polynomial with the given coefficients, highest power first, by Horner's rule.
fn polynomial(b: &mut KernelBuilder, x: Reg, mut coefficients: impl Iterator<Item = f64>) -> Reg {
    let first = coefficients.next().unwrap_or_default();
    let mut y = constant(b, first);
    for c in coefficients {
        let c = constant(b, c);
        y = b.mul(y, x);
        y = b.add(y, c);
    }
    y
}

/// k!, exactly up to 22!.
fn factorial(k: u32) -> f64 {
    (1..=k).map(f64::from).product()
}

/// (-1)^k.
fn sign(k: u32) -> f64 {
    if k.is_multiple_of(2) { 1.0 } else { -1.0 }
}
