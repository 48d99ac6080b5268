//! The stated error bounds, over dense samples, in the kernel interpreter.

mod double;

use bertc_ir::DType;
use bertc_ir::kernel::interp::{Arg, Memory, run};
use bertc_ir::kernel::{KernelBuilder, Reg};

type Function = fn(&mut KernelBuilder, Reg) -> Reg;

fn apply(x: &[f32], build: impl FnOnce(&mut KernelBuilder, usize, Reg) -> Reg) -> Vec<f32> {
    assert_eq!(x.len() % 4, 0, "whole vectors");
    let mut b = KernelBuilder::new("f");
    let (p, q) = (b.input("x", DType::F32), b.output("y", DType::F32));
    let n = b.int_param("n");
    let lo = b.int(0);
    b.for_loop(lo, n, 4, &[], |b, i, _| {
        let y = build(b, p, i);
        b.store(q, i, 0, y);
        Vec::new()
    });
    let mut m = Memory::default();
    let (input, output) = (m.add_f32(x), m.add_f32(&vec![0.0; x.len()]));
    let args = [Arg::buffer(input), Arg::buffer(output), Arg::Int(x.len() as i64)];
    run(&b.finish(), &mut m, &args, 0..1).unwrap();
    m.f32s(output)
}

fn map(f: Function, x: &[f32]) -> Vec<f32> {
    apply(x, |b, p, i| {
        let v = b.load(p, i, 0, 4);
        f(b, v)
    })
}

fn samples(lo: f64, hi: f64) -> Vec<f32> {
    (0..40_000).map(|i| (lo + (hi - lo) * f64::from(i) / 39_999.0) as f32).collect()
}

fn ulp(v: f64) -> f64 {
    let f = (v as f32).abs().max(f32::MIN_POSITIVE);
    f64::from(f32::from_bits(f.to_bits() + 1)) - f64::from(f)
}

fn worst(f: Function, exact: fn(f64) -> f64, x: &[f32], unit: fn(f64, f64) -> f64) -> f64 {
    let errors = map(f, x).into_iter().zip(x).map(|(y, &x)| {
        let e = exact(x.into());
        (f64::from(y) - e).abs() / unit(x.into(), e)
    });
    errors.fold(0.0, f64::max)
}

#[test]
fn bounds_hold() {
    let in_ulp = |_: f64, e: f64| ulp(e);
    assert!(worst(super::exp, f64::exp, &samples(-87.0, 88.7), in_ulp) <= 2.0);
    assert!(worst(super::exp, f64::exp, &samples(-104.0, -87.0), |_, _| f64::from(f32::MIN_POSITIVE)) < 1e-6);
    assert!(worst(super::decay, f64::exp, &samples(-20.0, 0.0), in_ulp) <= 3.0);
    assert!(worst(super::decay, f64::exp, &samples(-87.3, 0.0), in_ulp) <= 5.0);
    assert!(worst(super::decay, f64::exp, &samples(-104.0, -87.0), |_, _| f64::from(f32::MIN_POSITIVE)) <= 1.0);
    assert!(worst(super::log, f64::ln, &samples(1e-3, 50.0), |_, e| ulp(e).max(5e-8)) <= 2.0);
    assert!(worst(super::log, f64::ln, &samples(1e-41, 1e-37), in_ulp) <= 2.0);
    assert!(worst(super::tanh, f64::tanh, &samples(-10.0, 10.0), in_ulp) <= 4.0);
    assert!(worst(super::erf, libm::erf, &samples(-6.0, 6.0), |_, _| 1.0) <= 4e-7);
    assert!(worst(super::erf, libm::erf, &samples(-0.99, 0.99), in_ulp) <= 4.0);
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    assert!(worst(super::sigmoid, sigmoid, &samples(-80.0, 80.0), in_ulp) <= 4.0);
    assert!(worst(super::sin, f64::sin, &samples(-8192.0, 8192.0), |_, _| 1.0) <= 2e-7);
    assert!(worst(super::cos, f64::cos, &samples(-8192.0, 8192.0), |_, _| 1.0) <= 2e-7);
    let gelu = |x: f64| x / 2.0 * (1.0 + libm::erf(x / 2f64.sqrt()));
    assert!(worst(super::gelu, gelu, &samples(-9.0, 9.0), |x, _| x.abs().max(1.0)) <= 4e-7);
    let gelu_tanh =
        |x: f64| x / 2.0 * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
    assert!(worst(super::gelu_tanh, gelu_tanh, &samples(-9.0, 9.0), |x, _| x.abs().max(1.0)) <= 4e-7);
    assert!(worst(super::gelu_coarse, gelu, &samples(-9.0, 9.0), |_, _| 1.0) <= 6e-5);
    assert!(worst(super::gelu_tanh_coarse, gelu_tanh, &samples(-9.0, 9.0), |_, _| 1.0) <= 8e-5);
}

#[test]
fn special_values() {
    const INF: f32 = f32::INFINITY;
    let x = [f32::NAN, INF, -INF, 0.0];
    let check = |f: Function, want: [f32; 4]| {
        for (g, w) in map(f, &x).into_iter().zip(want) {
            assert!(g == w || g.is_nan() && w.is_nan(), "{g} for {w}");
        }
    };
    check(super::exp, [f32::NAN, INF, 0.0, 1.0]);
    check(super::decay, [f32::NAN, f32::NAN, 0.0, 1.0]);
    check(super::log, [f32::NAN, INF, f32::NAN, -INF]);
    check(super::tanh, [f32::NAN, 1.0, -1.0, 0.0]);
    check(super::erf, [f32::NAN, 1.0, -1.0, 0.0]);
    check(super::sigmoid, [f32::NAN, 1.0, 0.0, 0.5]);
    for f in [super::gelu, super::gelu_tanh, super::gelu_coarse, super::gelu_tanh_coarse] {
        let y = map(f, &x);
        assert!(y[0].is_nan() && y[1] == INF && y[2] == 0.0 && y[3] == 0.0, "{y:?}");
        assert_eq!(map(f, &[-50.0, -6.0, 6.0, 50.0]), [0.0, 0.0, 6.0, 50.0]);
    }
}

#[test]
fn powers() {
    const INF: f32 = f32::INFINITY;
    let cases = [
        (2.0, 10.0),
        (-2.0, 3.0),
        (-2.0, 2.0),
        (-2.0, 0.5),
        (0.0, 2.0),
        (0.0, -1.0),
        (-1.5, -3.0),
        (9.0, 0.5),
        (f32::NAN, 0.0),
        (1.0, f32::NAN),
        (INF, -1.0),
        (INF, 2.0),
        (0.5, INF),
        (-1.0, INF),
        (3.7, 0.0),
        (1e-3, 3.0),
    ];
    let x: Vec<f32> = cases.iter().flat_map(|&(x, y)| [x, x, x, x, y, y, y, y]).collect();
    let got = apply(&x, |b, p, i| {
        // Even vectors hold bases, odd ones exponents; every vector gets base^exponent or a repeat of it.
        let (eight, mask) = (b.int(-8), bertc_ir::kernel::Bin::And);
        let base = b.bin(mask, i, eight);
        let (x, y) = (b.load(p, base, 0, 4), b.load(p, base, 4, 4));
        super::pow(b, x, y)
    });
    for (i, (x, y)) in cases.into_iter().enumerate() {
        let (g, w) = (f64::from(got[8 * i]), f64::from(x).powf(y.into()));
        assert!((g - w).abs() <= 2e-6 * w.abs() || g == w || g.is_nan() && w.is_nan(), "{x}^{y}: {g} for {w}");
    }
}
