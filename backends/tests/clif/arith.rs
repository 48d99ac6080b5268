//! Every arithmetic instruction, element and number of lanes, over all pairs of sample values.

use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, DotKind, Elem, KernelBuilder, Reg, RegType, Un};

use crate::machine::{Arg, Case, run_all};
use crate::value::{self, ELEMS, V, column, dtype, lanes, pairs};

/// A kernel over columns of values: `y[i] = f(x0[i], x1[i], …)`.
pub fn column_case(
    name: &str,
    lanes: u8,
    inputs: &[(Elem, &[V])],
    out: Elem,
    loose: bool,
    f: impl FnOnce(&mut KernelBuilder, &[Reg]) -> Reg,
    expect: impl Fn(usize, bool) -> V + 'static,
) -> Case {
    let count = inputs[0].1.len();
    let mut b = KernelBuilder::new(format!("{name}_{lanes}"));
    let ptrs: Vec<usize> = inputs.iter().enumerate().map(|(i, (e, _))| b.input(format!("x{i}"), dtype(*e))).collect();
    let out_ptr = b.output("y", dtype(out));
    let n = b.int_param("n");
    let zero = b.int(0);
    b.for_loop(zero, n, i64::from(lanes), &[], |b, i, _| {
        let x: Vec<Reg> = ptrs.iter().map(|&p| b.load(p, i, 0, lanes)).collect();
        let y = f(b, &x);
        b.store(out_ptr, i, 0, y);
        Vec::new()
    });
    let size = dtype(out).size();
    let mut args: Vec<Arg> = inputs.iter().map(|(_, c)| Arg::Buffer(column(c))).collect();
    args.extend([Arg::Buffer(vec![0; count * size]), Arg::Int(count as i64)]);
    let kernel = b.finish();
    let name = kernel.name.clone();
    let operands: Vec<Vec<V>> = inputs.iter().map(|(_, c)| c.to_vec()).collect();
    Case::new(kernel, args, move |o, t| {
        for (i, got) in o.buffers[operands.len()].chunks(size).enumerate() {
            let want = expect(i, t.has_fma());
            let given: Vec<V> = operands.iter().map(|c| c[i]).collect();
            assert!(want.same(got, loose), "{name} on {} {}: {given:?}: {got:?} for {want:?}", t.triple, t.cpu);
        }
    })
}

const UNS: [Un; 8] = [Un::Neg, Un::Abs, Un::Sqrt, Un::Floor, Un::Ceil, Un::Nearest, Un::Trunc, Un::Not];
const BINS: [Bin; 15] = [
    Bin::Add,
    Bin::Sub,
    Bin::Mul,
    Bin::Div,
    Bin::Rem,
    Bin::DivU,
    Bin::RemU,
    Bin::Min,
    Bin::Max,
    Bin::And,
    Bin::Or,
    Bin::Xor,
    Bin::Shl,
    Bin::ShrS,
    Bin::ShrU,
];
const CMPS: [CmpOp; 6] = [CmpOp::Eq, CmpOp::Ne, CmpOp::Lt, CmpOp::Le, CmpOp::Gt, CmpOp::Ge];

/// Vectors have no integer division.
fn has(e: Elem, lanes: u8, op: Bin) -> bool {
    let division = matches!(op, Bin::Div | Bin::Rem | Bin::DivU | Bin::RemU);
    !(lanes > 1 && e == Elem::I32 && division)
}

#[test]
fn one_and_two_operands() {
    let mut cases = Vec::new();
    for e in ELEMS {
        let (a, b) = pairs(e);
        for &l in lanes(e) {
            for op in UNS.into_iter().filter(|&op| value::un(op, a[0]).is_some()) {
                let x = a.clone();
                let name = format!("{op:?}_{}", e.name());
                cases.push(column_case(
                    &name,
                    l,
                    &[(e, &a)],
                    e,
                    false,
                    |b, r| b.un(op, r[0]),
                    move |i, _| value::un(op, x[i]).unwrap(),
                ));
            }
            for op in BINS.into_iter().filter(|&op| value::bin(op, a[0], b[0]).is_some() && has(e, l, op)) {
                let (x, y) = (a.clone(), b.clone());
                let name = format!("{op:?}_{}", e.name());
                let loose = matches!(op, Bin::Min | Bin::Max);
                let io = [(e, &a[..]), (e, &b[..])];
                cases.push(column_case(
                    &name,
                    l,
                    &io,
                    e,
                    loose,
                    |b, r| b.bin(op, r[0], r[1]),
                    move |i, _| value::bin(op, x[i], y[i]).unwrap(),
                ));
            }
        }
    }
    run_all(&cases);
}

/// Constant and splatted right operands take other paths: shifts by one amount, division without guards.
#[test]
fn constant_operands() {
    let mut cases = Vec::new();
    let ops = [Bin::Add, Bin::Mul, Bin::Div, Bin::Rem, Bin::DivU, Bin::RemU, Bin::Shl, Bin::ShrS, Bin::ShrU];
    for e in [Elem::I32, Elem::I64] {
        let a = pairs(e).0;
        for &l in lanes(e) {
            for op in ops.into_iter().filter(|&op| has(e, l, op)) {
                for c in [0i64, 1, -1, 3, 7, 33, -5] {
                    for splat in [false, true] {
                        let x = a.clone();
                        let name = format!("{op:?}_{}_{}{}", e.name(), if splat { "s" } else { "c" }, c.unsigned_abs());
                        let build = |b: &mut KernelBuilder, r: &[Reg]| {
                            let k = if splat {
                                // From the loop's data, so that it isn't a constant: x & 0 | c.
                                let v = b.extract(r[0], 0);
                                let (zero, c) = (b.const_i(RegType::scalar(e), 0), b.const_i(RegType::scalar(e), c));
                                let v = b.bin(Bin::And, v, zero);
                                let v = b.bin(Bin::Or, v, c);
                                b.splat(v, l)
                            } else {
                                b.const_i(RegType::vector(e, l), c)
                            };
                            b.bin(op, r[0], k)
                        };
                        let k = if e == Elem::I32 { V::I32(c as i32) } else { V::I64(c) };
                        cases.push(column_case(&name, l, &[(e, &a)], e, false, build, move |i, _| {
                            value::bin(op, x[i], k).unwrap()
                        }));
                    }
                }
            }
        }
    }
    run_all(&cases);
}

#[test]
fn comparisons_and_selects() {
    let mut cases = Vec::new();
    for e in ELEMS {
        let (a, b) = pairs(e);
        for &l in lanes(e) {
            for op in CMPS {
                for unsigned in [false, true] {
                    let (x, y) = (a.clone(), b.clone());
                    let name = format!("cmp_{op:?}_{}_{unsigned}", e.name());
                    let io = [(e, &a[..]), (e, &b[..])];
                    cases.push(column_case(
                        &name,
                        l,
                        &io,
                        Elem::Mask,
                        false,
                        |b, r| b.cmp_sign(op, unsigned, r[0], r[1]),
                        move |i, _| V::M(value::cmp(op, unsigned, x[i], y[i])),
                    ));
                }
            }
            let masks: Vec<V> = (0..a.len()).map(|i| V::M(i % 3 == 0 || i % 7 == 2)).collect();
            let (m, x, y) = (masks.clone(), a.clone(), b.clone());
            let io = [(Elem::Mask, &masks[..]), (e, &a[..]), (e, &b[..])];
            let build = |b: &mut KernelBuilder, r: &[Reg]| b.select(r[0], r[1], r[2]);
            cases.push(column_case(&format!("select_{}", e.name()), l, &io, e, false, build, move |i, _| {
                if matches!(m[i], V::M(true)) { x[i] } else { y[i] }
            }));
        }
    }
    run_all(&cases);
}

/// Small numbers in pairs of bf16, whose sums are exact in any order.
#[test]
fn dot_products_of_bf16() {
    let halves = [0.0f32, 1.0, -1.5, 0.125, 96.0, -7.0].map(|x| x.to_bits() >> 16);
    let words: Vec<u32> = halves.iter().flat_map(|&h| halves.map(|l| h << 16 | l)).collect();
    let n = words.len() * words.len();
    let x: Vec<V> = (0..n).map(|i| V::I32(words[i / words.len()] as i32)).collect();
    let y: Vec<V> = (0..n).map(|i| V::I32(words[i % words.len()] as i32)).collect();
    let io = [(Elem::I32, &x[..]), (Elem::I32, &y[..])];
    let build = |b: &mut KernelBuilder, r: &[Reg]| {
        let c = b.const_f(RegType::vector(Elem::F32, 4), 0.25);
        let once = b.dot(DotKind::Bf16, r[0], r[1], c);
        b.dot(DotKind::Bf16, r[0], r[0], once)
    };
    let (a, b) = (x.clone(), y.clone());
    let case = column_case("dot_bf16", 4, &io, Elem::F32, false, build, move |i, _| {
        let of = |v: V| match v {
            V::I32(w) => [(w as u32) << 16, w as u32 & 0xffff_0000].map(f32::from_bits),
            _ => panic!("not an integer"),
        };
        let dot = |a: [f32; 2], b: [f32; 2]| a[0] * b[0] + a[1] * b[1];
        let (a, b) = (of(a[i]), of(b[i]));
        V::F32(0.25 + dot(a, b) + dot(a, a))
    });
    run_all(&[case]);
}

#[test]
fn fused_multiply_add() {
    let mut cases = Vec::new();
    for e in [Elem::F32, Elem::F64] {
        let (a, b) = pairs(e);
        let c: Vec<V> = b.iter().rev().copied().collect();
        for &l in lanes(e) {
            let (x, y, z) = (a.clone(), b.clone(), c.clone());
            let io = [(e, &a[..]), (e, &b[..]), (e, &c[..])];
            let build = |b: &mut KernelBuilder, r: &[Reg]| b.fma(r[0], r[1], r[2]);
            cases.push(column_case(&format!("fma_{}", e.name()), l, &io, e, false, build, move |i, fused| {
                match (x[i], y[i], z[i]) {
                    (V::F32(a), V::F32(b), V::F32(c)) => V::F32(if fused { a.mul_add(b, c) } else { a * b + c }),
                    (V::F64(a), V::F64(b), V::F64(c)) => V::F64(if fused { a.mul_add(b, c) } else { a * b + c }),
                    _ => panic!("not floats"),
                }
            }));
        }
    }
    run_all(&cases);
}
