//! The kernel interpreter against values worked out by hand.

use bertc_ir::kernel::interp::{Arg, Memory, Outcome, run};
use bertc_ir::kernel::{Bin, DotKind, Elem, Kernel, KernelBuilder, Reg, RegType, Un};
use bertc_ir::{CmpOp, DType};

const F32: RegType = RegType::scalar(Elem::F32);
const F64: RegType = RegType::scalar(Elem::F64);
const I32: RegType = RegType::scalar(Elem::I32);
const I64: RegType = RegType::scalar(Elem::I64);

/// The bytes that a kernel of one output writes, whose one store is of `value(builder)`.
fn bytes_of(dtype: DType, count: usize, value: impl FnOnce(&mut KernelBuilder) -> Reg) -> Vec<u8> {
    let mut k = KernelBuilder::new("value");
    let y = k.output("y", dtype);
    let v = value(&mut k);
    let zero = k.int(0);
    k.store(y, zero, 0, v);
    let mut m = Memory::default();
    let b = m.add(vec![0xAA; count * dtype.size()]);
    run(&k.finish(), &mut m, &[Arg::buffer(b)], 0..1).expect("runs");
    m.buffers.swap_remove(b)
}

fn f32_of(value: impl FnOnce(&mut KernelBuilder) -> Reg) -> f32 {
    f32::from_le_bytes(bytes_of(DType::F32, 1, value).try_into().expect("4 bytes"))
}

fn f64_of(value: impl FnOnce(&mut KernelBuilder) -> Reg) -> f64 {
    f64::from_le_bytes(bytes_of(DType::F64, 1, value).try_into().expect("8 bytes"))
}

fn i32_of(value: impl FnOnce(&mut KernelBuilder) -> Reg) -> i32 {
    i32::from_le_bytes(bytes_of(DType::I32, 1, value).try_into().expect("4 bytes"))
}

fn i64_of(value: impl FnOnce(&mut KernelBuilder) -> Reg) -> i64 {
    i64::from_le_bytes(bytes_of(DType::I64, 1, value).try_into().expect("8 bytes"))
}

fn bool_of(value: impl FnOnce(&mut KernelBuilder) -> Reg) -> bool {
    match bytes_of(DType::Bool, 1, value)[..] {
        [0] => false,
        [1] => true,
        ref other => panic!("a bool stored as {other:?}"),
    }
}

fn un_f32(op: Un, a: f32) -> f32 {
    f32_of(|k| {
        let a = k.const_f(F32, a.into());
        k.un(op, a)
    })
}

fn bin_f32(op: Bin, a: f32, b: f32) -> f32 {
    f32_of(|k| {
        let (a, b) = (k.const_f(F32, a.into()), k.const_f(F32, b.into()));
        k.bin(op, a, b)
    })
}

fn bin_i32(op: Bin, a: i32, b: i32) -> i32 {
    i32_of(|k| {
        let (a, b) = (k.const_i(I32, a.into()), k.const_i(I32, b.into()));
        k.bin(op, a, b)
    })
}

fn bin_i64(op: Bin, a: i64, b: i64) -> i64 {
    i64_of(|k| {
        let (a, b) = (k.int(a), k.int(b));
        k.bin(op, a, b)
    })
}

#[test]
fn constants_round_to_their_type() {
    assert_eq!(f32_of(|k| k.const_f(F32, 0.1)), 0.1f32);
    assert_eq!(f64_of(|k| k.const_f(F64, 0.1)), 0.1f64);
    assert_eq!(i32_of(|k| k.const_i(I32, -7)), -7);
    assert_eq!(i32_of(|k| k.const_i(I32, 0xFFFF_FFFF)), -1);
    assert_eq!(i64_of(|k| k.int(i64::MIN)), i64::MIN);
    assert!(bool_of(|k| k.const_i(RegType::scalar(Elem::Mask), -1)));
    assert!(!bool_of(|k| k.const_i(RegType::scalar(Elem::Mask), 0)));
}

#[test]
fn unary_operations() {
    assert_eq!(un_f32(Un::Neg, 0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(un_f32(Un::Abs, -2.5), 2.5);
    assert_eq!(un_f32(Un::Sqrt, 2.0), 2f32.sqrt());
    assert_eq!(un_f32(Un::Floor, -1.5), -2.0);
    assert_eq!(un_f32(Un::Ceil, -1.5), -1.0);
    assert_eq!(un_f32(Un::Nearest, 2.5), 2.0);
    assert_eq!(un_f32(Un::Nearest, -3.5), -4.0);
    assert_eq!(un_f32(Un::Trunc, -1.75), -1.0);
    let int = |op, v: i64| {
        i64_of(|k| {
            let a = k.int(v);
            k.un(op, a)
        })
    };
    assert_eq!(int(Un::Neg, i64::MIN), i64::MIN);
    assert_eq!(int(Un::Abs, -3), 3);
    assert_eq!(int(Un::Not, 5), -6);
    let not = |v| {
        bool_of(|k| {
            let a = k.const_i(RegType::scalar(Elem::Mask), v);
            k.un(Un::Not, a)
        })
    };
    assert!(not(0) && !not(1));
}

#[test]
fn float_operations() {
    assert_eq!(bin_f32(Bin::Add, 16_777_216.0, 1.0), 16_777_216.0);
    assert_eq!(bin_f32(Bin::Sub, 1.0, 0.75), 0.25);
    assert_eq!(bin_f32(Bin::Mul, 0.1, 0.1), 0.1f32 * 0.1f32);
    assert_eq!(bin_f32(Bin::Div, 1.0, 3.0), 1.0f32 / 3.0);
    assert_eq!(bin_f32(Bin::Div, -1.0, 0.0), f32::NEG_INFINITY);
    for op in [Bin::Min, Bin::Max] {
        assert!(bin_f32(op, f32::NAN, 1.0).is_nan() && bin_f32(op, 1.0, f32::NAN).is_nan());
    }
    assert_eq!(bin_f32(Bin::Min, 0.0, -0.0).to_bits(), (-0.0f32).to_bits());
    assert_eq!(bin_f32(Bin::Max, -0.0, 0.0).to_bits(), 0);
    assert_eq!((bin_f32(Bin::Min, 1.0, 2.0), bin_f32(Bin::Max, 1.0, 2.0)), (1.0, 2.0));
}

#[test]
fn integer_operations() {
    assert_eq!(bin_i32(Bin::Add, i32::MAX, 1), i32::MIN);
    assert_eq!(bin_i32(Bin::Sub, i32::MIN, 1), i32::MAX);
    assert_eq!(bin_i32(Bin::Mul, 65_536, 65_537), 65_536);
    assert_eq!((bin_i32(Bin::Div, -7, 2), bin_i32(Bin::Rem, -7, 2)), (-3, -1));
    assert_eq!((bin_i32(Bin::DivU, -1, 2), bin_i32(Bin::RemU, -1, 2)), (i32::MAX, 1));
    assert_eq!((bin_i32(Bin::Min, -1, 1), bin_i32(Bin::Max, -1, 1)), (-1, 1));
    assert_eq!((bin_i32(Bin::And, 6, 3), bin_i32(Bin::Or, 6, 3), bin_i32(Bin::Xor, 6, 3)), (2, 7, 5));
    assert_eq!((bin_i32(Bin::Shl, 1, 33), bin_i32(Bin::ShrS, -8, 1), bin_i32(Bin::ShrU, -8, 1)), (2, -4, 0x7FFF_FFFC));
    for op in [Bin::Div, Bin::Rem, Bin::DivU, Bin::RemU] {
        assert_eq!((bin_i32(op, 5, 0), bin_i64(op, 5, 0)), (0, 0));
    }
    assert_eq!((bin_i64(Bin::Div, i64::MIN, -1), bin_i64(Bin::Rem, i64::MIN, -1)), (i64::MIN, 0));
    assert_eq!(bin_i64(Bin::Shl, 1, 65), 2);
    assert_eq!(bin_i64(Bin::ShrU, -1, 63), 1);
}

#[test]
fn fma_rounds_once() {
    // (1 + e)² = 1 + 2e + e², and e² is lost when the product is rounded.
    let eps = f64::from(f32::EPSILON);
    let v = f32_of(|k| {
        let (a, c) = (k.const_f(F32, 1.0 + eps), k.const_f(F32, -(1.0 + 2.0 * eps)));
        k.fma(a, a, c)
    });
    assert_eq!(f64::from(v), eps * eps);
}

#[test]
fn comparisons() {
    let f = |op, a: f64, b: f64| {
        bool_of(|k| {
            let (a, b) = (k.const_f(F32, a), k.const_f(F32, b));
            k.cmp(op, a, b)
        })
    };
    for &op in CmpOp::ALL {
        assert_eq!(f(op, f64::NAN, 1.0), op == CmpOp::Ne, "{op:?} of NaN");
        assert_eq!(f(op, 1.0, 2.0), matches!(op, CmpOp::Ne | CmpOp::Lt | CmpOp::Le), "{op:?}");
        assert_eq!(f(op, 2.0, 2.0), matches!(op, CmpOp::Eq | CmpOp::Le | CmpOp::Ge), "{op:?}");
    }
    let i = |unsigned| {
        bool_of(|k| {
            let (a, b) = (k.const_i(I32, -1), k.const_i(I32, 1));
            k.cmp_sign(CmpOp::Lt, unsigned, a, b)
        })
    };
    assert!(i(false) && !i(true));
}

#[test]
fn conversions() {
    let f2i = |v: f64, unsigned| {
        i32_of(|k| {
            let a = k.const_f(F32, v);
            k.convert_sign(a, Elem::I32, unsigned)
        })
    };
    assert_eq!((f2i(-1.9, false), f2i(f64::NAN, false), f2i(1e20, false)), (-1, 0, i32::MAX));
    assert_eq!((f2i(-1.0, true), f2i(4e9, true)), (0, 4_000_000_000u32 as i32));
    let i2f = |v: i64, unsigned| {
        f32_of(|k| {
            let a = k.const_i(I32, v);
            k.convert_sign(a, Elem::F32, unsigned)
        })
    };
    assert_eq!((i2f(-1, false), i2f(-1, true), i2f(16_777_219, false)), (-1.0, 4_294_967_296.0, 16_777_220.0));
    let widen = |unsigned| {
        i64_of(|k| {
            let a = k.const_i(I32, -2);
            k.convert_sign(a, Elem::I64, unsigned)
        })
    };
    assert_eq!((widen(false), widen(true)), (-2, 0xFFFF_FFFE));
    let narrow = i32_of(|k| {
        let a = k.int(0x1_8000_0000);
        k.convert(a, Elem::I32)
    });
    assert_eq!(narrow, i32::MIN);
    assert!(bool_of(|k| {
        let a = k.const_f(F32, f64::NAN);
        k.convert(a, Elem::Mask)
    }));
    assert_eq!(
        f32_of(|k| {
            let a = k.const_i(RegType::scalar(Elem::Mask), 1);
            k.convert(a, Elem::F32)
        }),
        1.0
    );
    assert_eq!(
        f32_of(|k| {
            let a = k.const_f(F64, 0.1);
            k.convert(a, Elem::F32)
        }),
        0.1f32
    );
    let bits = i32_of(|k| {
        let a = k.const_f(F32, -0.0);
        k.bitcast(a, Elem::I32)
    });
    assert_eq!(bits, i32::MIN);
}

#[test]
fn lanes_are_independent() {
    let bytes = bytes_of(DType::F32, 4, |k| {
        let x = k.const_f(F32, 2.0);
        let v = k.splat(x, 4);
        let w = k.const_f(RegType::vector(Elem::F32, 4), 3.0);
        let m = k.cmp(CmpOp::Lt, v, w);
        k.select(m, w, v)
    });
    assert_eq!(bytes, 3f32.to_le_bytes().repeat(4));
}

/// Loads 4 elements of `dtype`, reduces them with `add` and stores the sum as the register's own type.
fn sum4(dtype: DType, bytes: &[u8]) -> Vec<u8> {
    let mut k = KernelBuilder::new("sum4");
    let x = k.input("x", dtype);
    let wide = match Elem::of(dtype) {
        Elem::F32 => DType::F32,
        Elem::I32 => DType::I32,
        _ => DType::I64,
    };
    let y = k.output("y", wide);
    let zero = k.int(0);
    let sum = if Elem::of(dtype).vectorises() {
        let v = k.load(x, zero, 0, 4);
        let first = k.extract(v, 0);
        let all = k.reduce(Bin::Add, v);
        let twice = k.add(all, first);
        k.sub(twice, first)
    } else {
        let parts: Vec<Reg> = (0..4).map(|o| k.load(x, zero, o, 1)).collect();
        parts[1..].iter().fold(parts[0], |a, &b| k.add(a, b))
    };
    k.store(y, zero, 0, sum);
    let mut m = Memory::default();
    let (a, b) = (m.add(bytes), m.add(vec![0; wide.size()]));
    run(&k.finish(), &mut m, &[Arg::buffer(a), Arg::buffer(b)], 0..1).expect("runs");
    m.buffers.swap_remove(b)
}

#[test]
fn loads_widen() {
    assert_eq!(sum4(DType::I8, &[255, 1, 128, 2]), (-126i32).to_le_bytes());
    assert_eq!(sum4(DType::U8, &[255, 1, 128, 2]), 386i32.to_le_bytes());
    assert_eq!(sum4(DType::I16, &[255, 255, 1, 0, 0, 128, 0, 0]), (-32768i32).to_le_bytes());
    assert_eq!(sum4(DType::U16, &[255, 255, 1, 0, 0, 128, 0, 0]), 98304i32.to_le_bytes());
    assert_eq!(sum4(DType::U32, &[255; 16]), (4 * 0xFFFF_FFFFi64).to_le_bytes());
    assert_eq!(sum4(DType::U64, &[255; 32]), (-4i64).to_le_bytes());
    let halves: Vec<u8> =
        [1.5f32, -2.0, 0.25, 8.0].iter().flat_map(|&v| half::f16::from_f32(v).to_le_bytes()).collect();
    assert_eq!(sum4(DType::F16, &halves), 7.75f32.to_le_bytes());
    let halves: Vec<u8> =
        [1.5f32, -2.0, 0.25, 8.0].iter().flat_map(|&v| half::bf16::from_f32(v).to_le_bytes()).collect();
    assert_eq!(sum4(DType::BF16, &halves), 7.75f32.to_le_bytes());
}

#[test]
fn stores_narrow() {
    assert_eq!(bytes_of(DType::I8, 1, |k| k.const_i(I32, 0x1FF)), [255]);
    assert_eq!(bytes_of(DType::U16, 1, |k| k.const_i(I32, -1)), [255, 255]);
    assert_eq!(bytes_of(DType::U32, 1, |k| k.const_i(I64, 0x1_0000_0002)), [2, 0, 0, 0]);
    assert_eq!(bytes_of(DType::F16, 1, |k| k.const_f(F32, 65520.0)), half::f16::INFINITY.to_le_bytes());
    assert_eq!(bytes_of(DType::BF16, 1, |k| k.const_f(F32, 1.00390625)), half::bf16::from_f32(1.0).to_le_bytes());
    assert_eq!(bytes_of(DType::Bool, 4, |k| k.const_i(RegType::vector(Elem::Mask, 4), 7)), [1; 4]);
}

#[test]
fn a_loaded_bool_is_normalised() {
    let mut k = KernelBuilder::new("bools");
    let (x, y) = (k.input("x", DType::Bool), k.output("y", DType::Bool));
    let zero = k.int(0);
    let v = k.load(x, zero, 0, 2);
    k.store(y, zero, 0, v);
    let mut m = Memory::default();
    let args = [Arg::buffer(m.add([200u8, 0])), Arg::buffer(m.add([9u8, 9]))];
    run(&k.finish(), &mut m, &args, 0..1).expect("runs");
    assert_eq!(m.buffers[1], [1, 0]);
}

/// y[i] = sum of x[0..=i], with a task per row of `n`.
fn prefix_sums() -> Kernel {
    let mut k = KernelBuilder::new("prefix");
    let (x, y, n) = (k.input("x", DType::F32), k.output("y", DType::F32), k.int_param("n"));
    let task = k.task();
    let base = k.mul(task, n);
    let (zero, start) = (k.int(0), k.const_f(F32, 0.0));
    let sum = k.for_loop(zero, n, 1, &[start], |k, i, acc| {
        let at = k.add(base, i);
        let v = k.load(x, at, 0, 1);
        let s = k.add(acc[0], v);
        k.store(y, at, 0, s);
        vec![s]
    });
    let limit = k.const_f(F32, 100.0);
    let above = k.cmp(CmpOp::Gt, sum[0], limit);
    k.if_else(
        above,
        |k| {
            k.fail();
            vec![]
        },
        |_| vec![],
    );
    k.finish()
}

#[test]
fn loops_tasks_and_failure() {
    let k = prefix_sums();
    let mut m = Memory::default();
    let b = m.add_f32(&[1.0, 2.0, 3.0, 50.0, 50.0, 50.0]);
    let args = [Arg::buffer(b), Arg::buffer(b), Arg::Int(3)];
    assert_eq!(run(&k, &mut m, &args, 0..1), Ok(Outcome { failed: false }));
    assert_eq!(run(&k, &mut m, &args, 1..2), Ok(Outcome { failed: true }));
    assert_eq!(m.f32s(b), [1.0, 3.0, 6.0, 50.0, 100.0, 150.0]);
}

#[test]
fn carried_values_swap() {
    let mut k = KernelBuilder::new("fib");
    let y = k.output("y", DType::I64);
    let (zero, one, n) = (k.int(0), k.int(1), k.int(10));
    let r = k.for_loop(zero, n, 1, &[zero, one], |k, _, a| {
        let next = k.add(a[0], a[1]);
        vec![a[1], next]
    });
    let swapped = k.for_loop(zero, n, 4, &[r[0], r[1]], |_, _, a| vec![a[1], a[0]]);
    k.store(y, zero, 0, swapped[0]);
    k.store(y, zero, 1, swapped[1]);
    let never = k.for_loop(n, zero, 1, &[one], |_, i, _| vec![i]);
    k.store(y, zero, 2, never[0]);
    let mut m = Memory::default();
    let b = m.add(vec![0; 24]);
    run(&k.finish(), &mut m, &[Arg::buffer(b)], 0..1).expect("runs");
    let words: Vec<i64> = m.buffers[b].as_chunks().0.iter().map(|&c| i64::from_le_bytes(c)).collect();
    assert_eq!(words, [89, 55, 1]);
}

#[test]
fn branches_give_values() {
    let pick = |c: i64| {
        i64_of(|k| {
            let (c, a, b) = (k.const_i(RegType::scalar(Elem::Mask), c), k.int(10), k.int(20));
            k.if_else(c, |k| vec![k.add(a, b)], |_| vec![b])[0]
        })
    };
    assert_eq!((pick(1), pick(0)), (30, 20));
}

fn copy_at(index: i64, lanes: u8) -> Kernel {
    let mut k = KernelBuilder::new("copy");
    let (x, y) = (k.input("x", DType::F32), k.output("y", DType::F32));
    let i = k.int(index);
    let v = k.load(x, i, 0, lanes);
    k.store(y, i, 0, v);
    k.finish()
}

#[test]
fn accesses_outside_a_buffer_are_errors() {
    let mut m = Memory::default();
    let (a, b) = (m.add_f32(&[0.0; 8]), m.add_f32(&[0.0; 4]));
    let mut go = |index, lanes, x, y| run(&copy_at(index, lanes), &mut m, &[x, y], 3..4);
    assert_eq!(go(0, 4, Arg::buffer(a), Arg::buffer(b)), Ok(Outcome::default()));
    assert_eq!(
        go(1, 4, Arg::buffer(a), Arg::buffer(b)),
        Err("kernel 'copy': task 3: store of elements 1..=4 of parameter 'y', which has 4 elements of f32".into())
    );
    assert_eq!(
        go(-1, 1, Arg::Ptr { buffer: a, byte_offset: 8 }, Arg::buffer(b)),
        Err("kernel 'copy': task 3: load of element -1 of parameter 'x', which has 6 elements of f32".into())
    );
    let window = Arg::Window { buffer: a, bytes: 4..11 };
    assert_eq!(
        go(1, 1, window, Arg::buffer(b)),
        Err("kernel 'copy': task 3: load of element 1 of parameter 'x', which has 1 elements of f32".into())
    );
    assert!(go(i64::MAX, 4, Arg::buffer(a), Arg::buffer(b)).is_err());
}

#[test]
fn arguments_must_fit() {
    let mut m = Memory::default();
    let b = m.add_f32(&[0.0; 4]);
    let k = copy_at(0, 1);
    let outside = Arg::Ptr { buffer: b, byte_offset: 17 };
    let window = Arg::Window { buffer: b, bytes: 0..17 };
    for args in [
        vec![],
        vec![Arg::buffer(b), Arg::Int(0)],
        vec![Arg::buffer(b), Arg::buffer(7)],
        vec![outside, Arg::buffer(b)],
        vec![window, Arg::buffer(b)],
    ] {
        assert!(run(&k, &mut m, &args, 0..1).is_err(), "{args:?}");
    }
    assert!(run(&prefix_sums(), &mut m, &[Arg::buffer(b), Arg::buffer(b), Arg::buffer(b)], 0..1).is_err());
}

#[test]
fn an_overflowing_counter_is_an_error() {
    let mut k = KernelBuilder::new("forever");
    let (lo, hi) = (k.int(i64::MAX - 1), k.int(i64::MAX));
    k.for_loop(lo, hi, 2, &[], |_, _, _| vec![]);
    let e = run(&k.finish(), &mut Memory::default(), &[], 0..1).expect_err("overflows");
    assert_eq!(e, "kernel 'forever': task 0: loop counter 9223372036854775806 + 2 overflows");
}

#[test]
fn dot_products_of_bytes() {
    let dot = |kind, a: [u8; 4], b: [u8; 4], c: i32| {
        let ty = RegType::vector(Elem::I32, 4);
        let mut k = KernelBuilder::new("dot");
        let y = k.output("y", DType::I32);
        let [a, b, c] = [i32::from_le_bytes(a), i32::from_le_bytes(b), c].map(|v| k.const_i(ty, v.into()));
        let r = k.dot(kind, a, b, c);
        let zero = k.int(0);
        k.store(y, zero, 0, r);
        let mut memory = Memory::default();
        let args = [Arg::buffer(memory.add([0; 16]))];
        run(&k.finish(), &mut memory, &args, 0..1)
            .map(|_| memory.buffers[0].as_chunks().0.iter().map(|&c| i32::from_le_bytes(c)).collect::<Vec<_>>())
    };
    for kind in [DotKind::I8, DotKind::I8Full] {
        // 1·5 - 2·6 - 3·-7 - 128·127 + 10
        assert_eq!(dot(kind, [1, 254, 253, 128], [5, 6, 249, 127], 10), Ok(vec![-16232; 4]));
        assert_eq!(dot(kind, [127; 4], [127; 4], i32::MAX), Ok(vec![i32::MIN + 4 * 127 * 127 - 1; 4]));
    }
    assert_eq!(dot(DotKind::I8Full, [128; 4], [128; 4], 0), Ok(vec![65536; 4]));
    assert_eq!(dot(DotKind::U8I8, [255, 254, 128, 0], [128, 127, 1, 128], -1), Ok(vec![-255; 4]));
    assert_eq!(dot(DotKind::U8I8, [255; 4], [128; 4], i32::MIN), Ok(vec![i32::MAX - 4 * 255 * 128 + 1; 4]));
    let refused = dot(DotKind::I8, [0; 4], [0, 0, 128, 0], 0).unwrap_err();
    assert!(refused.contains("kernel 'dot'") && refused.contains("lane 0, which holds -128"), "{refused}");
}
