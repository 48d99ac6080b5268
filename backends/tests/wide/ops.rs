//! Every instruction without memory or control flow, on every type and number of lanes, over awkward values.

use bertc_ir::kernel::{Bin, DotKind, Elem, KernelBuilder, Reg, RegType, Un};
use bertc_ir::{CmpOp, DType};

use crate::Test;
use crate::machine::{Arg, Case, run, vectors};

pub const TESTS: &[Test] = &[
    ("unary", unary),
    ("binary", binary),
    ("fma", fma),
    ("comparisons", comparisons),
    ("selects", selects),
    ("conversions", conversions),
    ("bitcasts", bitcasts),
    ("splat_extract", splat_extract),
    ("reductions", reductions),
    ("zips", zips),
    ("constants", constants),
];

/// For code with instructions for bf16 too.
pub const BF16_TESTS: &[Test] = &[("dot_bf16", dot_bf16)];

const ELEMS: [Elem; 5] = [Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::Mask];

/// The memory type that holds an element unchanged.
fn dtype(e: Elem) -> DType {
    match e {
        Elem::F32 => DType::F32,
        Elem::F64 => DType::F64,
        Elem::I32 => DType::I32,
        Elem::I64 | Elem::Addr => DType::I64,
        Elem::Mask => DType::Bool,
    }
}

fn types() -> Vec<RegType> {
    let vectors = |e: Elem| if e.vectorises() { vectors() } else { Vec::new() };
    let lanes = |e: Elem| [1].into_iter().chain(vectors(e));
    ELEMS.iter().flat_map(|&e| lanes(e).map(move |n| RegType::vector(e, n))).collect()
}

fn floats() -> Vec<f64> {
    let mut v = vec![0.0, 0.3, 0.5, 1.0, 1.5, 2.5, 7.25, 100.75, 1e-3, 1e-40, 1e30, 3e9, 9.3e18, 1.9e19, f64::INFINITY];
    v.extend([8388607.5, 8388609.0, 16777217.0, 4503599627370495.5, 2147483648.0, 2147483520.0, 4294967296.0]);
    v.extend([2147483647.0, 4294967295.0, 9223372036854775808.0, 18446744073709551616.0]);
    v.extend(v.clone().iter().map(|x| -x));
    v.push(f64::NAN);
    v
}

fn ints() -> Vec<i64> {
    let mut v = vec![0i64, 1, 2, 3, 7, 31, 32, 33, 63, 64, 100, 255, 256, 65535, 16777217, 0x1234_5678, 2147483647];
    v.extend([2147483648, 4294967295, 4294967296, 0x1234_5678_9abc_def0, i64::MAX, 0x7fff_ffff_8000_0001, 33 << 32]);
    v.extend(v.clone().iter().map(|x| -x));
    v.push(i64::MIN);
    v
}

/// Every value of an element, as bytes.
fn samples(e: Elem) -> Vec<Vec<u8>> {
    match e {
        Elem::F32 => floats().iter().map(|&x| (x as f32).to_le_bytes().to_vec()).collect(),
        Elem::F64 => floats().iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Elem::I32 => ints().iter().map(|&x| (x as i32).to_le_bytes().to_vec()).collect(),
        Elem::I64 | Elem::Addr => ints().iter().map(|x| x.to_le_bytes().to_vec()).collect(),
        Elem::Mask => vec![vec![1], vec![0], vec![0], vec![1], vec![1]],
    }
}

/// Every pair of samples as two columns of whole vectors of 16.
fn pairs(a: Elem, b: Elem) -> (Vec<u8>, Vec<u8>, usize) {
    let (sa, sb) = (samples(a), samples(b));
    let n = (sa.len() * sb.len()).next_multiple_of(16);
    let x = (0..n).flat_map(|i| sa[i / sb.len() % sa.len()].clone()).collect();
    let y = (0..n).flat_map(|i| sb[i % sb.len()].clone()).collect();
    (x, y, n)
}

/// `y[i] = f(a[i], b[i])` over all pairs of samples, `f` of as many lanes as `t`.
fn case(name: &str, t: RegType, from: Elem, to: Elem, f: impl Fn(&mut KernelBuilder, Reg, Reg) -> Reg) -> Case {
    let mut b = KernelBuilder::new(name);
    let (x, y, n) = pairs(from, from);
    let (pa, pb, py) = (b.input("a", dtype(from)), b.input("b", dtype(from)), b.output("y", dtype(to)));
    let (zero, end) = (b.int(0), b.int(n as i64));
    b.for_loop(zero, end, t.lanes.into(), &[], |b, i, _| {
        let (p, q) = (b.load(pa, i, 0, t.lanes), b.load(pb, i, 0, t.lanes));
        let r = f(b, p, q);
        b.store(py, i, 0, r);
        vec![]
    });
    Case::new(b.finish(), vec![Arg::Buffer(x), Arg::Buffer(y), Arg::Buffer(vec![0; n * dtype(to).size()])])
}

fn is_float(e: Elem) -> bool {
    matches!(e, Elem::F32 | Elem::F64)
}

fn unary() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        let ops: &[Un] = match t.elem {
            Elem::Mask => &[Un::Not],
            e if is_float(e) => &[Un::Neg, Un::Abs, Un::Sqrt, Un::Floor, Un::Ceil, Un::Nearest, Un::Trunc],
            _ => &[Un::Neg, Un::Abs, Un::Not],
        };
        for &op in ops {
            cases.push(case(&format!("{op:?} {t}"), t, t.elem, t.elem, |b, x, _| b.un(op, x)));
        }
    }
    run(&cases)
}

/// Operations of both operands in registers, of one from memory (either), and of one that is constant (either).
fn binary() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        let ops: &[Bin] = match t.elem {
            Elem::Mask => &[Bin::And, Bin::Or, Bin::Xor],
            e if is_float(e) => &[Bin::Add, Bin::Sub, Bin::Mul, Bin::Div, Bin::Min, Bin::Max],
            _ if t.lanes == 1 => &Bin::ALL,
            _ => &Bin::ALL[..],
        };
        for &op in ops {
            if t.lanes > 1 && !is_float(t.elem) && matches!(op, Bin::Div | Bin::Rem | Bin::DivU | Bin::RemU) {
                continue;
            }
            let name = format!("{op:?} {t}");
            // Zeros of either sign are both right for an extreme; adding 0 makes them one.
            let extreme = is_float(t.elem) && matches!(op, Bin::Min | Bin::Max);
            let apply = |b: &mut KernelBuilder, x: Reg, y: Reg| {
                let r = b.bin(op, x, y);
                if extreme {
                    let zero = b.const_f(t, 0.0);
                    return b.add(r, zero);
                }
                r
            };
            cases.push(case(&name, t, t.elem, t.elem, apply));
            // Each operand is used twice, so neither is folded.
            cases.push(case(&format!("{name} in registers"), t, t.elem, t.elem, |b, x, y| {
                let r = apply(b, x, y);
                let again = apply(b, y, x);
                let pick = if t.elem == Elem::Mask { b.bin(Bin::Xor, x, y) } else { b.cmp(CmpOp::Lt, x, y) };
                b.select(pick, r, again)
            }));
            let constants: &[i64] = if is_float(t.elem) { &[0, 3] } else { &[0, 1, -1, 2, 3, 8, 40, 1000, 1 << 31] };
            for &c in if t.elem == Elem::Mask { &constants[..2] } else { constants } {
                for left in [false, true] {
                    cases.push(case(&format!("{name} with {c}"), t, t.elem, t.elem, |b, x, _| {
                        let k = if is_float(t.elem) { b.const_f(t, c as f64) } else { b.const_i(t, c) };
                        if left { apply(b, k, x) } else { apply(b, x, k) }
                    }));
                }
            }
        }
    }
    run(&cases)
}

/// Which operand is overwritten and which comes from memory depends on what lives on and how it was made.
fn fma() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types().into_iter().filter(|t| is_float(t.elem)) {
        for order in 0..6 {
            for variant in 0..5 {
                let name = format!("fma {t} {order} {variant}");
                cases.push(case(&name, t, t.elem, t.elem, |b, x, y| {
                    let half = b.const_f(t, 0.5);
                    let z = match variant {
                        0 => b.add(x, y),
                        1 => half,
                        2 => x,
                        3 => b.mul(x, x),
                        _ => b.sub(y, x),
                    };
                    let o = [[x, y, z], [x, z, y], [y, x, z], [y, z, x], [z, x, y], [z, y, x]][order];
                    let r = b.fma(o[0], o[1], o[2]);
                    match variant {
                        3 => b.add(r, z),
                        4 => {
                            let s = b.add(r, o[2]);
                            b.sub(s, o[0])
                        }
                        _ => r,
                    }
                }));
            }
        }
    }
    run(&cases)
}

/// Pairs of small numbers, whose sums are exact in any order, and of infinities. The factors are registers, memory of
/// either side, an element for all lanes, and one register several times; the sum goes on or not.
fn dot_bf16() -> Result<(), String> {
    let halves = [0.0f32, 1.0, -1.0, 1.5, -0.125, 3.0, 100.0, f32::INFINITY].map(|x| x.to_bits() >> 16);
    let words: Vec<u32> = halves.iter().flat_map(|&h| halves.map(|l| h << 16 | l)).collect();
    let n = words.len() * words.len();
    let column = |of: &dyn Fn(usize) -> u32| (0..n).flat_map(|i| of(i).to_le_bytes()).collect::<Vec<u8>>();
    let (x, y) = (column(&|i| words[i / words.len()]), column(&|i| words[i % words.len()]));
    let mut cases = Vec::new();
    for lanes in vectors() {
        for variant in 0..4 {
            let mut b = KernelBuilder::new(format!("dot {lanes} {variant}"));
            let (px, py, pz) = (b.input("x", DType::I32), b.input("y", DType::I32), b.output("z", DType::F32));
            let (zero, end) = (b.int(0), b.int(n as i64));
            b.for_loop(zero, end, lanes.into(), &[], |b, i, _| {
                let (p, q) = (b.load(px, i, 0, lanes), b.load(py, i, 0, lanes));
                let c = b.const_f(RegType::vector(Elem::F32, lanes), 0.25);
                let r = match variant {
                    0 => b.dot(DotKind::Bf16, p, q, c),
                    1 => {
                        let one = b.load(py, i, 0, 1);
                        let all = b.splat(one, lanes);
                        b.dot(DotKind::Bf16, all, p, c)
                    }
                    2 => {
                        let first = b.dot(DotKind::Bf16, p, q, c);
                        let second = b.dot(DotKind::Bf16, p, p, first);
                        b.add(first, second)
                    }
                    _ => {
                        let again = b.load(px, i, 0, lanes);
                        let first = b.dot(DotKind::Bf16, again, q, c);
                        b.dot(DotKind::Bf16, q, q, first)
                    }
                };
                b.store(pz, i, 0, r);
                vec![]
            });
            let args = vec![Arg::Buffer(x.clone()), Arg::Buffer(y.clone()), Arg::Buffer(vec![0; 4 * n])];
            cases.push(Case::new(b.finish(), args));
        }
    }
    run(&cases)
}

fn comparisons() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        for &op in CmpOp::ALL {
            if t.elem == Elem::Mask && !matches!(op, CmpOp::Eq | CmpOp::Ne) {
                continue;
            }
            for unsigned in [false, true] {
                if unsigned && !matches!(t.elem, Elem::I32 | Elem::I64) {
                    continue;
                }
                let name = format!("cmp {unsigned} {op:?} {t}");
                cases.push(case(&name, t, t.elem, Elem::Mask, |b, x, y| b.cmp_sign(op, unsigned, x, y)));
                // As a condition of a choice and of a branch.
                if t.lanes == 1 {
                    cases.push(case(&format!("{name} chooses"), t, t.elem, Elem::I64, |b, x, y| {
                        let c = b.cmp_sign(op, unsigned, x, y);
                        let (p, q) = (b.int(3), b.int(-4));
                        b.select(c, p, q)
                    }));
                    cases.push(case(&format!("{name} branches"), t, t.elem, Elem::I64, |b, x, y| {
                        let c = b.cmp_sign(op, unsigned, x, y);
                        b.if_else(c, |b| vec![b.int(5)], |b| vec![b.int(-6)])[0]
                    }));
                }
            }
        }
    }
    run(&cases)
}

fn selects() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        for variant in 0..3 {
            cases.push(case(&format!("select {t} {variant}"), t, t.elem, t.elem, |b, x, y| {
                let m = match t.elem {
                    Elem::Mask => b.bin(Bin::Xor, x, y),
                    _ => b.cmp(CmpOp::Lt, x, y),
                };
                let k = if is_float(t.elem) { b.const_f(t, 9.0) } else { b.const_i(t, 1) };
                match variant {
                    0 => b.select(m, x, y),
                    1 => b.select(m, k, y),
                    _ => b.select(m, x, k),
                }
            }));
        }
    }
    run(&cases)
}

fn conversions() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        for to in ELEMS {
            if t.lanes > 1 && !to.vectorises() {
                continue;
            }
            for unsigned in [false, true] {
                let name = format!("convert {unsigned} {t} to {to:?}");
                cases.push(case(&name, t, t.elem, to, |b, x, _| b.convert_sign(x, to, unsigned)));
            }
        }
    }
    run(&cases)
}

fn bitcasts() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        let to = match t.elem {
            Elem::F32 => Elem::I32,
            Elem::I32 => Elem::F32,
            Elem::F64 => Elem::I64,
            Elem::I64 => Elem::F64,
            Elem::Mask | Elem::Addr => continue,
        };
        cases.push(case(&format!("bitcast {t}"), t, t.elem, to, |b, x, _| b.bitcast(x, to)));
        // Of constants, some of which are the bits of NaN or denormals.
        for i in 0..5usize {
            cases.push(case(&format!("bitcast of constant {i} of {t}"), t, t.elem, to, |b, x, _| {
                let k = if is_float(t.elem) {
                    b.const_f(t, [-0.0, 1.5, f64::NEG_INFINITY, 1e-40, 2.0][i])
                } else {
                    let wide = t.elem == Elem::I64;
                    let nan = if wide { -1 } else { 0x7fc0_0001 };
                    b.const_i(t, [i64::from(i32::MIN), 1, nan, 0x4049_0fdb, -1][i])
                };
                let bits = b.bitcast(k, to);
                let back = b.bitcast(bits, t.elem);
                let m = b.cmp(CmpOp::Lt, x, back);
                let own = b.bitcast(x, to);
                b.select(m, bits, own)
            }));
        }
    }
    run(&cases)
}

fn splat_extract() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types().into_iter().filter(|t| t.lanes > 1) {
        for lane in 0..t.lanes {
            cases.push(case(&format!("lane {lane} of {t}"), t, t.elem, t.elem, |b, x, y| {
                let one = b.extract(x, lane);
                let all = b.splat(one, t.lanes);
                match t.elem {
                    Elem::F32 => b.mul(all, y),
                    _ => b.bin(Bin::Xor, all, y),
                }
            }));
        }
    }
    run(&cases)
}

fn zips() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types().into_iter().filter(|t| t.lanes > 1 && t.elem != Elem::Mask) {
        for high in [false, true] {
            let name = format!("zip {} {t}", if high { "high" } else { "low" });
            cases.push(case(&name, t, t.elem, t.elem, |b, x, y| b.zip(high, x, y)));
            // An operand lives on, and both are the same.
            cases.push(case(&format!("{name} again"), t, t.elem, t.elem, |b, x, y| {
                let z = b.zip(high, y, x);
                let z = b.zip(high, z, z);
                b.add(z, y)
            }));
        }
    }
    run(&cases)
}

fn reductions() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types().into_iter().filter(|t| t.lanes > 1 && t.elem != Elem::Mask) {
        for op in [Bin::Add, Bin::Min, Bin::Max] {
            cases.push(case(&format!("reduce {op:?} {t}"), t, t.elem, t.elem, |b, x, y| {
                // Values of both columns, so that lanes differ and NaN is not in all.
                let m = b.cmp(CmpOp::Lt, x, y);
                let v = b.select(m, x, y);
                let r = b.reduce(op, v);
                let r = b.splat(r, t.lanes);
                let zero = if is_float(t.elem) { b.const_f(t, 0.0) } else { b.const_i(t, 0) };
                b.add(r, zero)
            }));
        }
    }
    run(&cases)
}

/// Constants of every kind, needed in registers.
fn constants() -> Result<(), String> {
    let mut cases = Vec::new();
    for t in types() {
        for i in 0..6usize {
            cases.push(case(&format!("constant {i} of {t}"), t, t.elem, t.elem, |b, x, _| {
                let k = if is_float(t.elem) {
                    b.const_f(t, [0.0, -0.0, 1.0, f64::INFINITY, 0.1, f64::NAN][i])
                } else {
                    let wide = t.elem == Elem::I64;
                    b.const_i(
                        t,
                        [0, 1, -1, i64::from(u32::MAX), i64::from(i32::MIN), if wide { i64::MIN + 5 } else { 77 }][i],
                    )
                };
                let m = if t.elem == Elem::Mask { x } else { b.cmp(CmpOp::Lt, x, k) };
                b.select(m, x, k)
            }));
        }
    }
    run(&cases)
}
