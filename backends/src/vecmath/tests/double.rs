//! The functions on f64. References are libm's, which err by up to an ulp themselves: the bounds here are larger than those
//! stated by as much.

use bertc_ir::DType;
use bertc_ir::kernel::interp::{Arg, Memory, run};
use bertc_ir::kernel::{KernelBuilder, Reg};

use super::super as vecmath;
use super::Function;

const INF: f64 = f64::INFINITY;

/// Results for each row of arguments.
fn apply<const N: usize>(f: impl FnOnce(&mut KernelBuilder, [Reg; N]) -> Reg, rows: &[[f64; N]]) -> Vec<f64> {
    let mut b = KernelBuilder::new("f");
    let (p, q) = (b.input("x", DType::F64), b.output("y", DType::F64));
    let (row, n) = (b.task(), b.int(N as i64));
    let first = b.mul(row, n);
    let x = std::array::from_fn(|k| b.load(p, first, k as i64, 1));
    let y = f(&mut b, x);
    b.store(q, row, 0, y);
    let mut m = Memory::default();
    let input = m.add(rows.as_flattened().iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>());
    let output = m.add(vec![0; 8 * rows.len()]);
    run(&b.finish(), &mut m, &[Arg::buffer(input), Arg::buffer(output)], 0..rows.len() as u64).unwrap();
    m.buffers[output].as_chunks().0.iter().map(|&v| f64::from_le_bytes(v)).collect()
}

fn map(f: Function, x: &[f64]) -> Vec<f64> {
    let rows: Vec<[f64; 1]> = x.iter().map(|&x| [x]).collect();
    apply(|b, [x]| f(b, x), &rows)
}

fn powers(cases: &[[f64; 2]]) -> Vec<f64> {
    apply(|b, [x, y]| vecmath::pow(b, x, y), cases)
}

/// The distance to the next f64, of normal numbers at least.
fn ulp(v: f64) -> f64 {
    let v = v.abs().max(f64::MIN_POSITIVE);
    v - v.next_down()
}

/// Evenly spaced numbers.
fn even(lo: f64, hi: f64) -> Vec<f64> {
    (0..4000).map(|i| lo + (hi - lo) * f64::from(i) / 3999.0).collect()
}

/// Numbers of both signs with evenly spaced exponents, base 2.
fn wide(lo: f64, hi: f64) -> Vec<f64> {
    even(lo, hi).into_iter().map(f64::exp2).flat_map(|x| [x, -x]).collect()
}

/// The largest error, in units that the exact result gives.
fn worst(f: Function, exact: fn(f64) -> f64, x: &[f64], unit: fn(f64) -> f64) -> f64 {
    let errors = map(f, x).into_iter().zip(x).map(|(y, &x)| {
        let e = exact(x);
        if y == e { 0.0 } else { (y - e).abs() / unit(e) }
    });
    errors.fold(0.0, f64::max)
}

fn gelu(x: f64) -> f64 {
    0.5 * x * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)
}

fn gelu_tanh(x: f64) -> f64 {
    x / (1.0 + libm::exp(-2.0 * std::f64::consts::FRAC_2_PI.sqrt() * (x + 0.044715 * x * x * x)))
}

#[test]
fn bounds_hold() {
    let check = |name: &str, f: Function, exact: fn(f64) -> f64, bound: f64, samples: &[Vec<f64>]| {
        for x in samples {
            let w = worst(f, exact, x, ulp);
            assert!(w <= bound, "{name} between {:?} and {:?}: {w} ulp", x[0], x[x.len() - 1]);
        }
    };
    check("exp", vecmath::exp, libm::exp, 1.0, &[even(-708.0, 709.7), even(-1.0, 1.0), wide(-80.0, 0.0)]);
    check("exp", vecmath::exp, libm::exp, 1.0, &[even(-746.0, -708.0), even(709.0, 711.0)]);
    let positive = |x: Vec<f64>| x.into_iter().map(f64::abs).collect::<Vec<_>>();
    check("log", vecmath::log, libm::log, 1.0, &[positive(wide(-1074.0, 1023.9)), even(0.5, 2.0)]);
    let close: Vec<f64> = wide(-52.0, -3.0).into_iter().map(|x| 1.0 + x).collect();
    check("log", vecmath::log, libm::log, 1.0, &[close]);
    check("tanh", vecmath::tanh, libm::tanh, 4.0, &[even(-25.0, 25.0), even(-1.0, 1.0), wide(-1022.0, 0.0)]);
    let sigmoid = |x: f64| 1.0 / (1.0 + libm::exp(-x));
    check("sigmoid", vecmath::sigmoid, sigmoid, 3.0, &[even(-708.0, 50.0), even(-5.0, 5.0)]);
    let angles = [even(-10.0, 10.0), even(-1_048_576.0, 1_048_576.0), wide(-1022.0, 3.0)];
    check("sin", vecmath::sin, libm::sin, 2.0, &angles);
    check("cos", vecmath::cos, libm::cos, 2.0, &angles);
    // Next to multiples of π/2 nearly all bits of the argument cancel.
    let quarters: Vec<f64> = (1..4000).map(|k| f64::from(k * k % 600_000) * std::f64::consts::FRAC_PI_2).collect();
    check("sin", vecmath::sin, libm::sin, 2.0, std::slice::from_ref(&quarters));
    check("cos", vecmath::cos, libm::cos, 2.0, &[quarters]);
    check("erf", vecmath::erf, libm::erf, 3.0, &[even(-6.5, 6.5), even(-1.1, 1.1), wide(-1020.0, 0.0)]);
    // The references lose what their arguments' rounding costs, which grows with them.
    check("gelu", vecmath::gelu, gelu, 8.0, &[even(-1.0, 9.0), wide(-1000.0, 0.0)]);
    check("gelu", vecmath::gelu, gelu, 100.0, &[even(-9.0, -1.0)]);
    check("gelu_tanh", vecmath::gelu_tanh, gelu_tanh, 8.0, &[even(-1.0, 9.0), wide(-1000.0, 0.0)]);
    check("gelu_tanh", vecmath::gelu_tanh, gelu_tanh, 200.0, &[even(-9.0, -1.0)]);
}

/// The same number, with its sign, or both NaN.
fn same(a: f64, b: f64) -> bool {
    a.to_bits() == b.to_bits() || a.is_nan() && b.is_nan()
}

#[test]
fn special_values() {
    let check = |f: Function, want: [f64; 5]| {
        for (g, w) in map(f, &[f64::NAN, INF, -INF, 0.0, -0.0]).into_iter().zip(want) {
            assert!(same(g, w), "{g} for {w}");
        }
    };
    const NAN: f64 = f64::NAN;
    check(vecmath::exp, [NAN, INF, 0.0, 1.0, 1.0]);
    check(vecmath::log, [NAN, INF, NAN, -INF, -INF]);
    check(vecmath::tanh, [NAN, 1.0, -1.0, 0.0, -0.0]);
    check(vecmath::erf, [NAN, 1.0, -1.0, 0.0, -0.0]);
    check(vecmath::sigmoid, [NAN, 1.0, 0.0, 0.5, 0.5]);
    check(vecmath::sin, [NAN, NAN, NAN, 0.0, -0.0]);
    check(vecmath::cos, [NAN, NAN, NAN, 1.0, 1.0]);
    check(vecmath::gelu, [NAN, INF, NAN, 0.0, -0.0]);
    check(vecmath::gelu_tanh, [NAN, INF, NAN, 0.0, -0.0]);
    assert_eq!(map(vecmath::log, &[1.0, -1.0])[0].to_bits(), 0);
    for f in [vecmath::gelu, vecmath::gelu_tanh] {
        assert_eq!(map(f, &[-1e200, -60.0, 10.0, 1e200]), [0.0, 0.0, 10.0, 1e200]);
    }
    assert_eq!(map(vecmath::exp, &[-745.1, -745.2, 709.8, 1e300, -1e300]), [5e-324, 0.0, INF, INF, 0.0]);
}

#[test]
fn powers_are_exact_where_they_can_be() {
    let mut cases = Vec::new();
    for base in 2..300u64 {
        let exact = (0..53).map_while(|k| base.checked_pow(k).filter(|&p| p < 1 << 53).map(|p| (k, p)));
        cases.extend(exact.map(|(k, p)| ([base as f64, k.into()], p as f64)));
    }
    cases.extend((0..23).map(|k| ([10.0, k.into()], 10f64.powi(k))));
    cases.extend((-1074..1024).map(|k| ([2.0, k.into()], f64::exp2(k.into()))));
    cases.extend((1..1000).map(f64::from).map(|k| ([k * k, 0.5], k)));
    cases.extend((1..1000).map(f64::from).map(|k| ([-k, 5.0], -k * k * k * k * k)));
    let (rows, want): (Vec<[f64; 2]>, Vec<f64>) = cases.into_iter().unzip();
    for ((row, g), w) in rows.iter().zip(powers(&rows)).zip(want) {
        assert_eq!(g, w, "{row:?}");
    }
}

#[test]
fn powers_are_close_elsewhere() {
    let mut cases = Vec::new();
    for x in wide(-1074.0, 1023.9).into_iter().step_by(14).map(f64::abs).chain(even(0.7, 1.4)) {
        // Results of all sizes, denormal ones too.
        cases.extend([-740.0, -300.3, -1.7, 0.01, 33.3, 709.5].map(|e| [x, e / x.ln()]));
    }
    for (&[x, y], g) in cases.iter().zip(powers(&cases)) {
        let w = libm::pow(x, y);
        assert!(g == w || (g - w).abs() <= 1.5 * ulp(w), "{x}^{y}: {g} for {w}");
    }
}

#[test]
fn powers_of_special_values() {
    let odd = 9_007_199_254_740_991.0;
    let values = [0.0, 5e-324, 0.3, 0.5, 1.0, 1.5, 2.0, 3.0, odd, odd + 1.0, 1e300, INF, f64::NAN];
    let values: Vec<f64> = values.into_iter().flat_map(|v| [v, -v]).collect();
    let cases: Vec<[f64; 2]> = values.iter().flat_map(|&x| values.iter().map(move |&y| [x, y])).collect();
    for (&[x, y], g) in cases.iter().zip(powers(&cases)) {
        let w = libm::pow(x, y);
        let close = (g - w).abs() <= ulp(w) && g.is_sign_negative() == w.is_sign_negative();
        assert!(same(g, w) || w.is_finite() && close, "{x}^{y}: {g} for {w}");
    }
}
