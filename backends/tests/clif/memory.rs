//! Loads and stores of every memory type, at odd addresses, up to the last byte of a buffer.

use bertc_ir::DType;
use bertc_ir::kernel::{Elem, Kernel, KernelBuilder, Place};
use half::{bf16, f16};

use crate::machine::{Arg, Case, Outcome, run_all};

/// Copies `n` elements, `lanes` at a time, from type `from` to type `to` (of the same register element).
fn copy(from: DType, to: DType, lanes: u8) -> Kernel {
    let mut b = KernelBuilder::new(format!("copy_{from}_{to}_{lanes}"));
    let (p, q) = (b.input("x", from), b.output("y", to));
    let n = b.int_param("n");
    let zero = b.int(0);
    b.for_loop(zero, n, i64::from(lanes), &[], |b, i, _| {
        let x = b.load(p, i, 0, lanes);
        b.store(q, i, 0, x);
        Vec::new()
    });
    b.finish()
}

/// Pseudo-random bytes (a linear congruential generator: Knuth, MMIX).
fn noise(count: usize) -> Vec<u8> {
    let mut s = 1u64;
    let mut next = || {
        s = s.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (s >> 56) as u8
    };
    (0..count).map(|_| next()).collect()
}

fn case(from: DType, to: DType, lanes: u8, input: Vec<u8>, check: impl Fn(&[u8], &[u8]) + 'static) -> Case {
    let n = input.len() / from.size();
    let args = vec![Arg::Buffer(input), Arg::Buffer(vec![0; n * to.size()]), Arg::Int(n as i64)];
    Case::new(copy(from, to, lanes), args, move |o: &Outcome, _| check(&o.buffers[0], &o.buffers[1]))
}

fn all_lanes(d: DType) -> &'static [u8] {
    if Elem::of(d).vectorises() { &[1, 4] } else { &[1] }
}

/// Integers of any two widths with the same register element: extended by the source's sign, cut to the target's width.
#[test]
fn integers_and_floats() {
    let mut cases = Vec::new();
    let halves = [DType::F16, DType::BF16];
    for from in DType::ALL.into_iter().filter(|d| !halves.contains(d)) {
        for to in DType::ALL.into_iter().filter(|d| !halves.contains(d) && Elem::of(*d) == Elem::of(from)) {
            for &l in all_lanes(from) {
                let input = if from == DType::Bool { (0..=255).collect() } else { noise(from.size() * 260) };
                cases.push(case(from, to, l, input, move |x, y| {
                    for (x, y) in x.chunks(from.size()).zip(y.chunks(to.size())) {
                        let mut wide = [0u8; 8];
                        wide[..x.len()].copy_from_slice(x);
                        if from.is_signed_int() && x[x.len() - 1] > 127 {
                            wide[x.len()..].fill(0xff);
                        }
                        if from == DType::Bool {
                            wide = [0; 8];
                            wide[0] = u8::from(x[0] != 0);
                        }
                        assert_eq!(&wide[..y.len()], y, "{from} to {to}, {l} lanes");
                    }
                }));
            }
        }
    }
    run_all(&cases);
}

#[test]
fn halves_widen() {
    let every: Vec<u8> = (0..=u16::MAX).flat_map(u16::to_le_bytes).collect();
    let mut cases = Vec::new();
    for d in [DType::F16, DType::BF16] {
        for l in [1, 4] {
            cases.push(case(d, DType::F32, l, every.clone(), move |x, y| {
                for (x, y) in x.chunks(2).zip(y.chunks(4)) {
                    let bits = u16::from_le_bytes([x[0], x[1]]);
                    let y = f32::from_le_bytes(y.try_into().expect("four bytes"));
                    let want =
                        if d == DType::F16 { f16::from_bits(bits).to_f32() } else { bf16::from_bits(bits).to_f32() };
                    assert!(
                        y.to_bits() == want.to_bits() || y.is_nan() && want.is_nan(),
                        "{d} {bits:#x}: {y}, not {want}"
                    );
                }
            }));
        }
    }
    run_all(&cases);
}

/// Values around every half, and the middles between halves, where ties go to even.
fn near_halves(d: DType) -> Vec<f32> {
    let widen = |b: u16| if d == DType::F16 { f16::from_bits(b).to_f32() } else { bf16::from_bits(b).to_f32() };
    let mut v = vec![f32::NAN, f32::MAX, f32::MIN, 65519.99, 65520.0, 65536.0, 1e-45, 2f32.powi(-25), 2.9802326e-8];
    for b in (0..u16::MAX).step_by(3) {
        let (x, y) = (widen(b), widen(b.wrapping_add(1)));
        let middle = ((f64::from(x) + f64::from(y)) / 2.0) as f32;
        v.extend([
            x,
            middle,
            f32::from_bits(middle.to_bits().wrapping_add(1)),
            f32::from_bits(middle.to_bits().wrapping_sub(1)),
        ]);
    }
    v.extend(noise(4 * 20_000).chunks(4).map(|c| f32::from_le_bytes(c.try_into().expect("four bytes"))));
    v.truncate(v.len() / 4 * 4);
    v
}

#[test]
fn halves_round() {
    let mut cases = Vec::new();
    for d in [DType::F16, DType::BF16] {
        for l in [1, 4] {
            let input: Vec<u8> = near_halves(d).iter().flat_map(|x| x.to_le_bytes()).collect();
            cases.push(case(DType::F32, d, l, input, move |x, y| {
                for (x, y) in x.chunks(4).zip(y.chunks(2)) {
                    let x = f32::from_le_bytes(x.try_into().expect("four bytes"));
                    let bits = u16::from_le_bytes([y[0], y[1]]);
                    let (want, nan) = if d == DType::F16 {
                        (f16::from_f32(x).to_bits(), f16::from_bits(bits).is_nan())
                    } else {
                        (bf16::from_f32(x).to_bits(), bf16::from_bits(bits).is_nan())
                    };
                    assert!(if x.is_nan() { nan } else { bits == want }, "{x:e} to {d}: {bits:#x}, not {want:#x}");
                }
            }));
        }
    }
    run_all(&cases);
}

/// Static offsets, constants in the index and far offsets give the same address.
#[test]
fn addresses() {
    let mut cases = Vec::new();
    for d in [DType::U8, DType::I16, DType::I32, DType::I64] {
        let mut b = KernelBuilder::new(format!("address_{d}"));
        let (p, q) = (b.input("x", d), b.output("y", d));
        let n = b.int_param("n");
        let (zero, three, far) = (b.int(0), b.int(3), b.int(1 << 33));
        let a = b.load(p, three, 1, 1);
        let i = b.add(n, three);
        let i = b.add(three, i);
        let c = b.load(p, i, -2, 1);
        let i = b.add(n, far);
        let e = b.load(p, i, -(1 << 33), 1);
        let i = b.sub(n, far);
        let g = b.load(p, i, (1 << 33) - 1, 1);
        for (o, v) in [a, c, e, g].into_iter().enumerate() {
            b.store(q, zero, o as i64, v);
        }
        let input = noise(d.size() * 16);
        let args = vec![Arg::Buffer(input.clone()), Arg::Buffer(vec![0; d.size() * 4]), Arg::Int(5)];
        cases.push(Case::new(b.finish(), args, move |o, _| {
            for (out, at) in o.buffers[1].chunks(d.size()).zip([4usize, 9, 5, 4]) {
                assert_eq!(out, &input[at * d.size()..][..d.size()], "{d} at {at}");
            }
        }));
    }
    run_all(&cases);
}

/// Loads and stores of some lanes only, from an address; inactive lanes load 0, and their memory stays.
#[test]
fn active_lanes() {
    let mut cases = Vec::new();
    for (dtype, ordered) in [(DType::F32, false), (DType::F32, true), (DType::I16, true), (DType::Bool, false)] {
        for n in [i64::MIN, -1, 0, 1, 2, 3, 4, 5, i64::MAX] {
            let mut b = KernelBuilder::new(format!("active_{dtype}_{ordered}_{n}"));
            if ordered {
                b.keep_order();
            }
            let (x, all, some) = (b.input("x", dtype), b.output("all", dtype), b.output("some", dtype));
            let n_reg = b.int_param("n");
            let (zero, two) = (b.int(0), b.int(2));
            let base = b.address(x, two, 1);
            let at = Place { ptr: x, base: Some(base), index: zero, offset: -1, active: Some(n_reg) };
            let v = b.load_at(at, 4);
            b.store(all, zero, 0, v);
            let full = b.load(x, two, 0, 4);
            let base = b.address(some, zero, 0);
            b.store_at(Place { ptr: some, base: Some(base), index: zero, offset: 1, active: Some(n_reg) }, full);
            let size = dtype.size();
            let input: Vec<u8> = (0..8 * size).map(|i| if dtype == DType::Bool { 1 } else { i as u8 + 1 }).collect();
            let active = n.clamp(0, 4) as usize * size;
            let mut want = vec![0; 4 * size];
            want[..active].copy_from_slice(&input[2 * size..][..active]);
            let mut kept = vec![0xa5; 6 * size];
            kept[size..size + active].copy_from_slice(&input[2 * size..][..active]);
            let args = vec![
                Arg::Buffer(input),
                Arg::Buffer(vec![0; 4 * size]),
                Arg::Buffer(vec![0xa5; 6 * size]),
                Arg::Int(n),
            ];
            cases.push(Case::new(b.finish(), args, move |o: &Outcome, _| {
                assert_eq!(o.buffers[1], want, "load of {n} lanes of {dtype}");
                assert_eq!(o.buffers[2], kept, "store of {n} lanes of {dtype}");
            }));
        }
    }
    run_all(&cases);
}
