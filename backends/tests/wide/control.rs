//! Loops, conditionals, values that move between registers, and more values than there are registers.

use bertc_backends::emit::x86::emit_kernel;
use bertc_backends::target::Target;
use bertc_ir::kernel::{Bin, Elem, Kernel, KernelBuilder, Place, Reg, RegType, Un};
use bertc_ir::{CmpOp, DType};

use crate::Test;
use crate::machine::{Arg, Case, run, target, widest};

pub const TESTS: &[Test] = &[
    ("swapped_values", swapped_values),
    ("rotated_values", rotated_values),
    ("shared_and_repeated_values", shared_values),
    ("empty_and_constant_loops", loops),
    ("deep_loops", deep_loops),
    ("conditionals", conditionals),
    ("spilled_integers", spilled_integers),
    ("tasks_and_workers", tasks),
    ("error_flag", error_flag),
    ("too_many_vectors", too_many_vectors),
    ("unsupported_targets_and_lanes", unsupported),
];

/// The widest floats.
fn wide() -> RegType {
    RegType::vector(Elem::F32, widest())
}

fn zeros(n: usize) -> Arg {
    Arg::Buffer(vec![0; n])
}

fn numbers(n: usize) -> Arg {
    Arg::Buffer((0..n).flat_map(|i| (i as f32 * 0.5 - 3.0).to_le_bytes()).collect())
}

/// Two values of each kind of register change places in every iteration.
fn swapped_values() -> Result<(), String> {
    let mut cases = Vec::new();
    for n in 0..4 {
        let mut b = KernelBuilder::new(format!("swap {n}"));
        let (x, y, z) = (b.input("x", DType::F32), b.output("y", DType::F32), b.output("z", DType::I64));
        let m = b.output("m", DType::Bool);
        let count = b.int_param("n");
        let (zero, one) = (b.int(0), b.int(1));
        let (p, q) = (b.load(x, zero, 0, widest()), b.load(x, zero, 16, widest()));
        let (i, j) = (b.load(z, zero, 0, 1), b.load(z, zero, 1, 1));
        let (k, l) = (b.cmp(CmpOp::Lt, p, q), b.cmp(CmpOp::Ge, p, q));
        let r = b.for_loop(zero, count, 1, &[p, q, i, j, k, l], |_, _, v| vec![v[1], v[0], v[3], v[2], v[5], v[4]]);
        for (h, v) in r[..2].iter().enumerate() {
            b.store(y, zero, 16 * h as i64, *v);
        }
        b.store(z, zero, 0, r[2]);
        b.store(z, one, 0, r[3]);
        b.store(m, zero, 0, r[4]);
        b.store(m, zero, 16, r[5]);
        let ints = Arg::Buffer([7i64.to_le_bytes(), (-9i64).to_le_bytes()].concat());
        cases.push(Case::new(b.finish(), vec![numbers(32), zeros(128), ints, zeros(32), Arg::Int(n)]));
    }
    run(&cases)
}

/// Three values go round, and another one takes what one of them was.
fn rotated_values() -> Result<(), String> {
    let mut cases = Vec::new();
    for n in 0..6 {
        let mut b = KernelBuilder::new(format!("rotate {n}"));
        let (x, y) = (b.input("x", DType::F32), b.output("y", DType::F32));
        let count = b.int_param("n");
        let zero = b.int(0);
        let init: Vec<Reg> = (0..4).map(|i| b.load(x, zero, 8 * i, 8)).collect();
        let r = b.for_loop(zero, count, 1, &init, |b, _, v| {
            let sum = b.add(v[0], v[3]);
            vec![v[1], v[2], v[0], sum]
        });
        for (h, v) in r.iter().enumerate() {
            b.store(y, zero, 8 * h as i64, *v);
        }
        cases.push(Case::new(b.finish(), vec![numbers(32), zeros(128), Arg::Int(n)]));
    }
    run(&cases)
}

/// One value starts several carried ones, is yielded several times, and is used after the loop; constants are yielded.
fn shared_values() -> Result<(), String> {
    let mut cases = Vec::new();
    for n in 0..4 {
        let mut b = KernelBuilder::new(format!("shared {n}"));
        let (x, y) = (b.input("x", DType::F32), b.output("y", DType::F32));
        let count = b.int_param("n");
        let zero = b.int(0);
        let v = b.load(x, zero, 0, widest());
        let r = b.for_loop(zero, count, 1, &[v, v, v], |b, _, c| {
            let t = b.mul(c[0], c[1]);
            let k = b.const_f(wide(), 2.5);
            vec![t, t, k]
        });
        let all = b.add(r[0], r[1]);
        let all = b.add(all, r[2]);
        let all = b.add(all, v);
        // What is carried keeps its value behind the loop while it starts another.
        let s = b.for_loop(zero, count, 1, &[r[0]], |b, i, c| {
            let f = b.convert(i, Elem::F32);
            let f = b.splat(f, widest());
            vec![b.add(c[0], f)]
        });
        let all = b.fma(s[0], r[0], all);
        b.store(y, zero, 0, all);
        cases.push(Case::new(b.finish(), vec![numbers(16), zeros(64), Arg::Int(n)]));
    }
    run(&cases)
}

fn loops() -> Result<(), String> {
    let mut cases = Vec::new();
    for (lo, hi, step) in [(0i64, 0i64, 1), (0, 1, 1), (3, 10, 4), (5, 2, 1), (-7, 8, 3), (1 << 33, (1 << 33) + 5, 2)] {
        for constant in [[false, false], [true, false], [false, true], [true, true]] {
            let mut b = KernelBuilder::new(format!("{lo} to {hi} by {step} {constant:?}"));
            let y = b.output("y", DType::I64);
            let (l, h) = (b.int_param("lo"), b.int_param("hi"));
            let l = if constant[0] { b.int(lo) } else { l };
            let h = if constant[1] { b.int(hi) } else { h };
            let zero = b.int(0);
            let r = b.for_loop(l, h, step, &[zero, l], |b, i, c| vec![b.add(c[0], i), i]);
            // The bound is used again behind the loop, which may not have run.
            let past = b.add(r[1], h);
            b.store(y, zero, 0, r[0]);
            b.store(y, zero, 1, past);
            cases.push(Case::new(b.finish(), vec![zeros(16), Arg::Int(lo), Arg::Int(hi)]));
        }
    }
    run(&cases)
}

fn nest(b: &mut KernelBuilder, depth: usize, y: usize, outer: &[Reg], sum: Reg) -> Reg {
    let (zero, two) = (b.int(0), b.int(2));
    b.for_loop(zero, two, 1, &[sum], |b, i, c| {
        let mut all = outer.to_vec();
        all.push(i);
        if depth > 0 {
            return vec![nest(b, depth - 1, y, &all, c[0])];
        }
        let mut s = c[0];
        for &v in &all {
            let three = b.int(3);
            s = b.mul(s, three);
            s = b.add(s, v);
        }
        b.store(y, zero, 0, s);
        vec![s]
    })[0]
}

/// Ten loops in each other: the outer counters don't stay in registers.
fn deep_loops() -> Result<(), String> {
    let mut b = KernelBuilder::new("deep");
    let y = b.output("y", DType::I64);
    let start = b.task();
    let r = nest(&mut b, 9, y, &[], start);
    let zero = b.int(0);
    b.store(y, zero, 1, r);
    run(&[Case::new(b.finish(), vec![zeros(16)])])
}

fn conditionals() -> Result<(), String> {
    let mut cases = Vec::new();
    for n in -1..3i64 {
        let mut b = KernelBuilder::new(format!("if {n}"));
        let (x, y) = (b.input("x", DType::F32), b.output("y", DType::F32));
        let (count, zero, one) = (b.int_param("n"), b.int(0), b.int(1));
        let (v, w) = (b.load(x, zero, 0, widest()), b.load(x, zero, 16, widest()));
        let some = b.cmp(CmpOp::Gt, count, zero);
        let many = b.cmp(CmpOp::Gt, count, one);
        let r = b.if_else(
            some,
            |b| {
                let inner = b.if_else(many, |b| vec![b.mul(v, w), v], |_| vec![w, v]);
                vec![inner[0], inner[1], one]
            },
            |b| vec![b.const_f(wide(), 4.0), w, zero],
        );
        b.if_else(
            some,
            |b| {
                b.store(y, zero, 32, r[1]);
                vec![]
            },
            |_| vec![],
        );
        let f = b.convert(r[2], Elem::F32);
        let f = b.splat(f, widest());
        let sum = b.fma(r[0], v, f);
        b.store(y, zero, 0, sum);
        b.store(y, zero, 16, w);
        cases.push(Case::new(b.finish(), vec![numbers(32), zeros(192), Arg::Int(n)]));
    }
    run(&cases)
}

/// Forty integers live at once, used by every kind of instruction that has spilled operands.
fn spilled_integers() -> Result<(), String> {
    let mut b = KernelBuilder::new("spills");
    let (x, y, z) = (b.input("x", DType::I64), b.output("y", DType::I64), b.output("z", DType::U8));
    let count = b.int_param("n");
    let zero = b.int(0);
    let v: Vec<Reg> = (0..40).map(|i| b.load(x, zero, i, 1)).collect();
    let r = b.for_loop(zero, count, 1, &v, |b, i, c| {
        let mut next = Vec::new();
        for (j, &r) in c.iter().enumerate() {
            let other = c[(j + 7) % c.len()];
            let mask = b.cmp(CmpOp::Lt, r, other);
            next.push(match j % 12 {
                0 => b.add(r, other),
                1 => b.sub(r, other),
                2 => b.mul(r, other),
                3 => b.min(r, other),
                4 => b.bin(Bin::ShrS, r, i),
                5 => b.bin(Bin::Div, r, other),
                6 => b.bin(Bin::RemU, r, other),
                7 => b.select(mask, other, r),
                8 => b.un(Un::Abs, r),
                9 => {
                    let seven = b.int(7);
                    let index = b.bin(Bin::And, r, seven);
                    let a = b.address(y, index, 0);
                    let at = Place { ptr: y, base: Some(a), index, offset: 0, active: None };
                    b.store_at(at, other);
                    b.load_at(at, 1)
                }
                10 => {
                    let three = b.int(3);
                    let index = b.bin(Bin::And, r, three);
                    let narrow = b.convert(other, Elem::I32);
                    b.store(z, index, 1, narrow);
                    b.add(index, r)
                }
                _ => b.bin(Bin::Xor, r, other),
            });
        }
        next
    });
    for (i, &r) in r.iter().enumerate() {
        b.store(y, zero, i as i64, r);
    }
    let data: Vec<u8> = (0..40i64).flat_map(|i| (i * i * 37 - 500).to_le_bytes()).collect();
    let kernel = b.finish();
    let case = |n| Case::new(kernel.clone(), vec![Arg::Buffer(data.clone()), zeros(320), zeros(8), Arg::Int(n)]);
    run(&[case(0), case(1), case(5)])
}

fn tasks() -> Result<(), String> {
    let mut b = KernelBuilder::new("tasks");
    let y = b.output("y", DType::I64);
    let (t, w, two) = (b.task(), b.worker(), b.int(2));
    let at = b.mul(t, two);
    b.store(y, at, 0, t);
    // The caller puts garbage above the worker's 32 bits.
    b.store(y, at, 1, w);
    let mut case = Case::new(b.finish(), vec![Arg::Buffer(vec![0xff; 80])]);
    case.tasks = 5;
    run(&[case])
}

fn error_flag() -> Result<(), String> {
    let cases = [0, 3].map(|n| {
        let mut b = KernelBuilder::new(format!("fails at {n}"));
        let y = b.output("y", DType::F32);
        let count = b.int_param("n");
        let zero = b.int(0);
        let bad = b.cmp(CmpOp::Gt, count, zero);
        b.if_else(
            bad,
            |b| {
                b.fail();
                vec![]
            },
            |_| vec![],
        );
        let v = b.const_f(wide(), 1.0);
        b.store(y, zero, 0, v);
        Case::new(b.finish(), vec![zeros(64), Arg::Int(n)])
    });
    run(&cases)
}

/// `n` vectors that live at once.
fn crowd(n: i64) -> Kernel {
    let mut b = KernelBuilder::new(format!("crowd of {n}"));
    let (x, y) = (b.input("x", DType::F32), b.output("y", DType::F32));
    let zero = b.int(0);
    let all: Vec<Reg> = (0..n).map(|i| b.load(x, zero, i, widest())).collect();
    for (i, &v) in all.iter().enumerate().rev() {
        b.store(y, zero, i as i64, v);
    }
    b.finish()
}

/// As many vectors as there are registers fit; more are an error that names the kernel and says how many there are.
fn too_many_vectors() -> Result<(), String> {
    let all = if widest() == 16 { 32 } else { 16 };
    run(&[Case::new(crowd(all), vec![numbers(48), zeros(192)])])?;
    let more = all + 1;
    let e = emit_kernel(&crowd(more), &target()).expect_err("too many registers");
    let want = format!("kernel 'crowd of {more}': {more} vectors are live at once and there are {all} registers");
    if e.message == want { Ok(()) } else { Err(e.message) }
}

fn unsupported() -> Result<(), String> {
    for (triple, cpu) in [("x86_64", "x86-64-v2"), ("aarch64", "generic"), ("x86_64-pc-windows-msvc", "x86-64-v4")] {
        let e = emit_kernel(&crowd(2), &Target::parse(triple, cpu).unwrap()).expect_err(cpu);
        assert!(e.message.starts_with("kernel 'crowd of 2': wide code is not supported on"), "{e}");
    }
    let mut b = KernelBuilder::new("pair");
    let x = b.output("x", DType::F32);
    let zero = b.int(0);
    let v = b.load(x, zero, 0, 2);
    b.store(x, zero, 0, v);
    let e = emit_kernel(&b.finish(), &target()).expect_err("two lanes");
    assert!(e.message.contains("kernel 'pair': register") && e.message.contains("has 2 lanes of f32"), "{e}");
    Ok(())
}
