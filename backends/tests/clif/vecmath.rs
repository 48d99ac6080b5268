//! The stated error bounds of the elementary functions in compiled code, with and without fused multiply-add.

use bertc_backends::vecmath;
use bertc_ir::DType;
use bertc_ir::kernel::{KernelBuilder, Reg};

use crate::machine::{Arg, Case, run_all};

/// How far the result may be from the exact one.
#[derive(Clone, Copy)]
enum Bound {
    /// Units in the last place of the exact result, and an absolute error that is allowed anyway.
    Ulp(f64, f64),
    /// Absolute, times max(1, |x|).
    Abs(f64),
}

fn ulp(v: f64) -> f64 {
    let f = (v as f32).abs().clamp(f32::MIN_POSITIVE, f32::MAX / 2.0);
    f64::from(f32::from_bits(f.to_bits() + 1)) - f64::from(f)
}

fn within(bound: Bound, x: f64, got: f32, want: f64) -> bool {
    let rounded = want as f32;
    if got == rounded || got.is_nan() && want.is_nan() {
        return true;
    }
    let error = (f64::from(got) - want).abs();
    match bound {
        Bound::Ulp(n, least) => error <= (n * ulp(want)).max(least),
        Bound::Abs(e) => error <= e * x.abs().max(1.0),
    }
}

/// Evenly spaced values, values of every magnitude, and special ones; 1 + 3 more than whole vectors is cut.
fn samples(lo: f64, hi: f64, special: &[f32]) -> Vec<f32> {
    let mut v: Vec<f32> = (0..30_000).map(|i| (lo + (hi - lo) * f64::from(i) / 29_999.0) as f32).collect();
    let scaled = (-300..=0).flat_map(|e| [hi, lo].map(|l| (l * 2f64.powf(f64::from(e) / 2.0)) as f32));
    v.extend(scaled);
    v.extend(special);
    while !v.len().is_multiple_of(4) {
        v.push(lo as f32);
    }
    v
}

type Function = fn(&mut KernelBuilder, Reg) -> Reg;

fn function(name: &'static str, f: Function, exact: fn(f64) -> f64, x: &[f32], bound: Bound) -> [Case; 2] {
    [1u8, 4].map(|lanes| {
        let mut b = KernelBuilder::new(format!("{name}_{lanes}"));
        let (p, q) = (b.input("x", DType::F32), b.output("y", DType::F32));
        let n = b.int_param("n");
        let zero = b.int(0);
        b.for_loop(zero, n, i64::from(lanes), &[], |b, i, _| {
            let v = b.load(p, i, 0, lanes);
            let y = f(b, v);
            b.store(q, i, 0, y);
            Vec::new()
        });
        let bytes: Vec<u8> = x.iter().flat_map(|x| x.to_le_bytes()).collect();
        let args = vec![Arg::Buffer(bytes), Arg::Buffer(vec![0; x.len() * 4]), Arg::Int(x.len() as i64)];
        let x = x.to_vec();
        Case::new(b.finish(), args, move |o, t| {
            for (&x, y) in x.iter().zip(o.buffers[1].chunks(4)) {
                let y = f32::from_le_bytes(y.try_into().expect("four bytes"));
                let want = exact(x.into());
                assert!(
                    within(bound, x.into(), y, want),
                    "{name}({x:e}) on {} {}: {y:e}, not {want:e}",
                    t.triple,
                    t.cpu
                );
            }
        })
    })
}

const INF: f32 = f32::INFINITY;

#[test]
fn bounds_hold_in_compiled_code() {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    let gelu = |x: f64| x / 2.0 * libm::erfc(-x / 2f64.sqrt());
    let gelu_tanh = |x: f64| {
        let s = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
        // (1 + tanh s)/2 without cancellation.
        x / (1.0 + (-2.0 * s).exp())
    };
    let ends = [f32::NAN, INF, -INF, 0.0, -0.0];
    let one = [f32::NAN, 0.0, 1.0];
    let least = f64::from(f32::MIN_POSITIVE) * 1e-6;
    let mut cases = Vec::new();
    let exp_ends = [f32::NAN, INF, -INF, 88.72283, 88.72284, 100.0, -87.4, -103.9, -104.5, -1e30, 1e30];
    cases.extend(function("exp", vecmath::exp, f64::exp, &samples(-110.0, 90.0, &exp_ends), Bound::Ulp(2.0, least)));
    let log_ends = [f32::NAN, INF, -INF, 0.0, -0.0, -1.0, 1e-45, 1e-38, f32::MAX, 0.9999999, 1.0, 1.0000001];
    cases.extend(function("log", vecmath::log, f64::ln, &samples(1e-6, 3.0, &log_ends), Bound::Ulp(2.0, 1e-7)));
    cases.extend(function("log_all", vecmath::log, f64::ln, &samples(1e-30, 3e38, &[]), Bound::Ulp(2.0, 1e-7)));
    cases.extend(function("tanh", vecmath::tanh, f64::tanh, &samples(-12.0, 12.0, &ends), Bound::Ulp(4.0, 1e-45)));
    cases.extend(function("erf", vecmath::erf, libm::erf, &samples(-6.0, 6.0, &ends), Bound::Abs(4e-7)));
    cases.extend(function("erf_small", vecmath::erf, libm::erf, &samples(-1.0, 1.0, &[]), Bound::Ulp(4.0, 1e-45)));
    let end = [f32::NAN, INF, -INF, 1000.0, 0.0];
    cases.extend(function("sigmoid", vecmath::sigmoid, sigmoid, &samples(-87.0, 87.0, &end), Bound::Ulp(4.0, 1e-44)));
    cases.extend(function("sin", vecmath::sin, f64::sin, &samples(-8192.0, 8192.0, &one), Bound::Ulp(0.0, 2e-7)));
    cases.extend(function("cos", vecmath::cos, f64::cos, &samples(-8192.0, 8192.0, &one), Bound::Ulp(0.0, 2e-7)));
    cases.extend(function("sin_far", vecmath::sin, f64::sin, &samples(-1e4, 1e4, &[]), Bound::Ulp(0.0, 1e-6)));
    cases.extend(function("cos_far", vecmath::cos, f64::cos, &samples(-1e4, 1e4, &[]), Bound::Ulp(0.0, 1e-6)));
    cases.extend(function("gelu", vecmath::gelu, gelu, &samples(-12.0, 12.0, &one), Bound::Abs(4e-7)));
    cases.extend(function("gelu_tanh", vecmath::gelu_tanh, gelu_tanh, &samples(-12.0, 12.0, &one), Bound::Abs(4e-7)));
    run_all(&cases);
}

/// Bases and exponents by pairs; special values are C's.
#[test]
fn powers() {
    let bases = [0.0f32, -0.0, 1.0, -1.0, 2.0, -2.0, 0.5, 9.0, -3.5, 1e-3, 1e10, 123.456, INF, -INF, f32::NAN, 0.99999];
    let exponents = [0.0f32, 1.0, 2.0, 3.0, -1.0, -2.0, 0.5, -0.5, 0.33, 10.0, -7.0, 2.5, INF, -INF, f32::NAN, 1e5];
    let x: Vec<f32> = bases.iter().flat_map(|&b| [b; 16]).collect();
    let y: Vec<f32> = exponents.iter().cycle().take(x.len()).copied().collect();
    let cases = [1u8, 4].map(|lanes| {
        let mut b = KernelBuilder::new(format!("pow_{lanes}"));
        let (p, e, q) = (b.input("x", DType::F32), b.input("y", DType::F32), b.output("z", DType::F32));
        let n = b.int_param("n");
        let zero = b.int(0);
        b.for_loop(zero, n, i64::from(lanes), &[], |b, i, _| {
            let (x, y) = (b.load(p, i, 0, lanes), b.load(e, i, 0, lanes));
            let z = vecmath::pow(b, x, y);
            b.store(q, i, 0, z);
            Vec::new()
        });
        let bytes = |v: &[f32]| Arg::Buffer(v.iter().flat_map(|x| x.to_le_bytes()).collect());
        let args = vec![bytes(&x), bytes(&y), Arg::Buffer(vec![0; x.len() * 4]), Arg::Int(x.len() as i64)];
        let (x, y) = (x.clone(), y.clone());
        Case::new(b.finish(), args, move |o, t| {
            for ((&x, &y), z) in x.iter().zip(&y).zip(o.buffers[2].chunks(4)) {
                let z = f32::from_le_bytes(z.try_into().expect("four bytes"));
                let want = f64::from(x).powf(y.into());
                let rounded = want as f32;
                let scale = 2.0 + (f64::from(y) * f64::from(x).abs().ln()).abs();
                let error = (f64::from(z) - want).abs() / want.abs().max(f64::from(f32::MIN_POSITIVE));
                let good = z == rounded || z.is_nan() && want.is_nan() || error <= 2.4e-7 * scale;
                assert!(good, "{x}^{y} on {} {}: {z:e}, not {want:e}", t.triple, t.cpu);
            }
        })
    });
    run_all(&cases);
}
