//! Loads and stores of every memory type, whole and of the first lanes only, at the end of accessible memory; addresses.

use bertc_ir::DType;
use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Place, parse};

use crate::Test;
use crate::machine::{Arg, Case, run, vectors, widest};

pub const TESTS: &[Test] = &[
    ("every_memory_type", every_memory_type),
    ("active_lanes_at_the_end_of_memory", active_lanes),
    ("constant_counts_of_active_lanes", constant_counts),
    ("addresses", addresses),
    ("a_load_stays_before_a_store", load_before_store),
];

/// For code with instructions for bf16, which takes denormals for 0.
pub const BF16_TESTS: &[Test] = &[("stores_round_to_bf16", round_to_bf16)];

/// Ties, overflow, infinities and NaN, whole and in part.
fn round_to_bf16() -> Result<(), String> {
    let mut words: Vec<u32> =
        bytes(256).chunks_exact(4).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    words.extend([
        0x3f80_8000,
        0x3f81_8000,
        0x3f80_8001,
        0x7f7f_ffff,
        0x7f80_0000,
        0xff80_0000,
        0x7fc0_0000,
        0x7f80_0001,
    ]);
    words.retain(|w| w & 0x7f80_0000 != 0 || w << 1 == 0);
    words.resize(48, 0x8000_0000);
    let data: Vec<u8> = words.iter().flat_map(|w| w.to_le_bytes()).collect();
    let mut cases = Vec::new();
    for lanes in vectors() {
        for active in [None, Some(0), Some(3), Some(i64::from(lanes) - 1)] {
            let mut b = KernelBuilder::new(format!("round {lanes} {active:?}"));
            let (x, y) = (b.input("x", DType::F32), b.output("y", DType::BF16));
            let (zero, n) = (b.int(0), b.int(48));
            let active = active.map(|n| b.int(n));
            b.for_loop(zero, n, lanes.into(), &[], |b, i, _| {
                let v = b.load(x, i, 0, lanes);
                b.store_at(Place { ptr: y, base: None, index: i, offset: 0, active }, v);
                vec![]
            });
            cases.push(Case::new(b.finish(), vec![Arg::Buffer(data.clone()), Arg::Buffer(bytes(96))]));
        }
    }
    run(&cases)
}

/// Bytes without a pattern that a mistake could hit by chance.
fn bytes(n: usize) -> Vec<u8> {
    let mut x = 0x9e37_79b9u32;
    (0..n)
        .map(|_| {
            x ^= x << 13;
            x ^= x >> 17;
            x ^= x << 5;
            (x >> 11) as u8
        })
        .collect()
}

fn lanes_of(d: DType) -> Vec<u8> {
    let vectors = if Elem::of(d).vectorises() { vectors() } else { Vec::new() };
    [1].into_iter().chain(vectors).collect()
}

/// Copies 64 elements through registers; half types from f32s of every size, so that rounding is seen.
fn every_memory_type() -> Result<(), String> {
    let mut cases = Vec::new();
    for from in DType::ALL {
        for to in DType::ALL.into_iter().filter(|&t| Elem::of(t) == Elem::of(from)) {
            for lanes in lanes_of(from) {
                let mut b = KernelBuilder::new(format!("{from} to {to} by {lanes}"));
                let (x, y) = (b.input("x", from), b.output("y", to));
                let (zero, n) = (b.int(0), b.int(64));
                b.for_loop(zero, n, lanes.into(), &[], |b, i, _| {
                    let v = b.load(x, i, 0, lanes);
                    b.store(y, i, 0, v);
                    vec![]
                });
                let mut data = bytes(64 * from.size());
                if from == DType::F32 {
                    // What halves round, overflow and keep as denormals.
                    let interesting = [65504.0f32, 65519.9, 65520.0, 6e-8, 2.9e-8, 6.1e-5, 1e-40, 1.000_488_3, 3e38];
                    for (i, v) in interesting.iter().flat_map(|v| [*v, -*v]).enumerate() {
                        data[4 * i..4 * i + 4].copy_from_slice(&v.to_le_bytes());
                    }
                }
                if from == DType::Bool {
                    data.iter_mut().for_each(|v| *v &= 3);
                }
                cases.push(Case::new(b.finish(), vec![Arg::Buffer(data), Arg::Buffer(bytes(64 * to.size()))]));
            }
        }
    }
    run(&cases)
}

/// A copy of `n` lanes between buffers that end after `n` elements, for every `n`, below and above what there is. The
/// count comes as a parameter; nothing outside the first `n` elements may be touched.
fn active_lanes() -> Result<(), String> {
    let mut cases = Vec::new();
    for d in DType::ALL.into_iter().filter(|&d| Elem::of(d).vectorises()) {
        for lanes in vectors() {
            for n in (-1..=i64::from(lanes) + 1).chain([256, i64::MAX, i64::MIN]) {
                let mut b = KernelBuilder::new(format!("{n} of {lanes} {d}"));
                let (x, y) = (b.input("x", d), b.output("y", d));
                let count = b.int_param("n");
                let zero = b.int(0);
                let at = |ptr| Place { ptr, base: None, index: zero, offset: 0, active: Some(count) };
                let v = b.load_at(at(x), lanes);
                b.store_at(at(y), v);
                let there = n.clamp(0, lanes.into()) as usize * d.size();
                let mut data = bytes(there);
                if d == DType::Bool {
                    data.iter_mut().for_each(|v| *v &= 1);
                }
                let args = vec![Arg::Buffer(data), Arg::Buffer(bytes(there)), Arg::Int(n)];
                cases.push(Case::new(b.finish(), args));
                // All of the result is seen: the lanes that weren't loaded are 0.
                let mut b = KernelBuilder::new(format!("{n} of {lanes} {d}, then all"));
                let (x, y) = (b.input("x", d), b.output("y", d));
                let count = b.int_param("n");
                let zero = b.int(0);
                let v = b.load_at(Place { ptr: x, base: None, index: zero, offset: 0, active: Some(count) }, lanes);
                b.store(y, zero, 0, v);
                let all = bytes(usize::from(lanes) * d.size());
                cases.push(Case::new(b.finish(), vec![Arg::Buffer(bytes(there)), Arg::Buffer(all), Arg::Int(n)]));
            }
        }
    }
    run(&cases)
}

fn constant_counts() -> Result<(), String> {
    let mut cases = Vec::new();
    for n in [-3i64, 0, 1, 7, 15, 16, 300] {
        let lanes = widest();
        let mut b = KernelBuilder::new(format!("{n} of {lanes}"));
        let (x, y) = (b.input("x", DType::F32), b.output("y", DType::F32));
        let (zero, count) = (b.int(0), b.int(n));
        let at = |ptr| Place { ptr, base: None, index: zero, offset: 0, active: Some(count) };
        let v = b.load_at(at(x), lanes);
        let twice = b.add(v, v);
        b.store_at(at(y), twice);
        let there = n.clamp(0, lanes.into()) as usize * 4;
        cases.push(Case::new(b.finish(), vec![Arg::Buffer(bytes(there)), Arg::Buffer(bytes(there))]));
    }
    run(&cases)
}

/// Indices that are constants, sums and differences with constants, and addresses in between, far beyond a displacement
/// of 32 bits and back.
fn addresses() -> Result<(), String> {
    let mut cases = Vec::new();
    for d in [DType::U8, DType::F16, DType::F32, DType::I64] {
        for far in [0i64, 5, -3, 1 << 20, 1 << 31, -(1 << 40), i64::MAX - 7] {
            let mut b = KernelBuilder::new(format!("{d} from {far}"));
            let (x, y) = (b.input("x", d), b.output("y", d));
            let i = b.int_param("i");
            let (by, seven) = (b.int(far), b.int(7));
            let up = b.add(i, by);
            let less = b.sub(up, seven);
            let base = b.address(x, less, 3);
            let back = b.int(far.wrapping_neg());
            let at = Place { ptr: x, base: Some(base), index: back, offset: 6, active: None };
            let v = b.load_at(at, 1);
            let j = b.sub(up, by);
            b.store(y, j, -1, v);
            cases.push(Case::new(
                b.finish(),
                vec![Arg::Buffer(bytes(8 * d.size())), Arg::Buffer(bytes(8 * d.size())), Arg::Int(2)],
            ));
        }
    }
    run(&cases)
}

/// The sum's operand is read before the store to the same place.
fn load_before_store() -> Result<(), String> {
    let lanes = widest();
    let text = "kernel @k(%y: mut ptr<f32>) task %t {
        %zero = const 0 : i64
        %a = load %y[%zero] : f32x16
        %s = load %y[%zero + 3] : f32
        %v = splat %s : f32x16
        %one = const 1.0 : f32x16
        store %y[%zero], %one
        %r = fma %a, %v, %one : f32x16
        store %y[%zero + 16], %r
    }";
    let text = text.replace("x16", &format!("x{lanes}"));
    let kernels = parse(&text).map_err(|d| format!("{d:?}"))?;
    let values: Vec<u8> = (0..32).flat_map(|i| (i as f32 * 0.75).to_le_bytes()).collect();
    let mut cases = vec![Case::new(kernels[0].clone(), vec![Arg::Buffer(values.clone())])];
    // The same with a loop in between.
    let mut b = KernelBuilder::new("loop between");
    let y = b.output("y", DType::F32);
    let (zero, four) = (b.int(0), b.int(4));
    let a = b.load(y, zero, 0, lanes);
    b.for_loop(zero, four, 1, &[], |b, i, _| {
        let x = b.load(y, i, 4, 1);
        let x = b.bin(Bin::Mul, x, x);
        b.store(y, i, 0, x);
        vec![]
    });
    let sum = b.add(a, a);
    b.store(y, zero, 16, sum);
    cases.push(Case::new(b.finish(), vec![Arg::Buffer(values)]));
    run(&cases)
}
