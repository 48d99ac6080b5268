use bertc_ir::{BinaryOp, CmpOp, DType, Op, ReduceOp, Scalar, Tensor, UnaryOp};

use super::{canon, out};
use crate::testing::{T, count};

fn scalar(t: &mut T, dtype: DType, v: f64) -> bertc_ir::ValueId {
    let s = if dtype.is_float() { Scalar::Float(v) } else { Scalar::Int(v as i128) };
    t.constant(Tensor::scalar(dtype, s))
}

#[test]
fn exact_identities_vanish() {
    use BinaryOp::{Add, Div, Mul, Pow, Sub};
    for dtype in [DType::F32, DType::F16, DType::I64] {
        let mut t = T::new();
        let x = t.input(dtype, &["seq", "4"]);
        let mut y = x;
        for (op, c) in [(Add, -0.0), (Sub, 0.0), (Mul, 1.0), (Div, 1.0), (Pow, 1.0)] {
            let c = scalar(&mut t, dtype, c);
            y = t.bin(op, y, c);
        }
        assert!(canon(&mut t, &[y]));
        assert_eq!(out(&t, 0), x);
    }
}

#[test]
fn inexact_identities_stay() {
    use BinaryOp::{Add, Mul, Pow, Sub};
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "4"]);
    let outs: Vec<_> = [(Add, 0.0), (Sub, -0.0), (Mul, 0.0), (Pow, 0.5)]
        .into_iter()
        .map(|(op, c)| {
            let c = scalar(&mut t, DType::F32, c);
            t.bin(op, x, c)
        })
        .collect();
    let d = t.bin(Sub, x, x);
    let sum = t.add(Op::Reduce { op: ReduceOp::Sum, axes: vec![], keep: true }, &[x]);
    assert!(!canon(&mut t, &[&outs[..], &[d, sum]].concat()));
}

#[test]
fn an_identity_that_broadcasts_stays_a_broadcast() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["4"]);
    let c = t.f32(&[2, 4], &[1.0; 8]);
    let y = t.bin(BinaryOp::Mul, x, c);
    assert!(canon(&mut t, &[y]));
    assert_eq!(t.g.op(out(&t, 0)).name(), "broadcast");
}

#[test]
fn powers_of_known_signs() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq", "4"]);
    let (two, half) = (scalar(&mut t, DType::F32, 2.0), scalar(&mut t, DType::F32, 0.5));
    let square = t.bin(BinaryOp::Pow, x, two);
    let mean = t.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![1], keep: true }, &[square]);
    let y = t.bin(BinaryOp::Pow, mean, half);
    assert!(canon(&mut t, &[y]));
    assert_eq!((count(&t.g, "pow"), count(&t.g, "mul"), count(&t.g, "sqrt")), (0, 1, 1));
}

#[test]
fn logic_and_selects() {
    let mut t = T::new();
    let (c, x) = (t.input(DType::Bool, &["seq"]), t.input(DType::F32, &["seq"]));
    let y = t.input(DType::F32, &["batch", "1"]);
    let yes = t.constant(Tensor::scalar(DType::Bool, Scalar::Int(1)));
    let all = t.broadcast(yes, &["batch", "seq"]);
    let c2 = t.bin(BinaryOp::And, all, c);
    let not = t.add(Op::Unary(UnaryOp::Not), &[c2]);
    let a = t.add(Op::Select, &[not, x, y]);
    let b = t.add(Op::Select, &[all, a, y]);
    assert!(canon(&mut t, &[b]));
    assert_eq!((count(&t.g, "and"), count(&t.g, "not"), count(&t.g, "select")), (0, 0, 1));
}

#[test]
fn negated_comparisons_respect_nan() {
    let mut t = T::new();
    let (x, y) = (t.input(DType::F32, &["seq"]), t.input(DType::I64, &["seq"]));
    let mut outs = Vec::new();
    for (op, v) in [(CmpOp::Eq, x), (CmpOp::Lt, x), (CmpOp::Lt, y), (CmpOp::Ge, y)] {
        let dtype = t.g.ty(v).dtype;
        let c = scalar(&mut t, dtype, 1.0);
        let cmp = t.add(Op::Compare(op), &[v, c]);
        outs.push(t.add(Op::Unary(UnaryOp::Not), &[cmp]));
    }
    assert!(canon(&mut t, &outs));
    assert_eq!(count(&t.g, "not"), 1, "only the float order comparison has no opposite");
}

#[test]
fn casts_that_lose_nothing_merge() {
    use DType::{Bool, F16, F32, F64, I8, I32, I64, U16};
    let cases = [
        (Bool, I64, F32, 1),
        (F16, F32, F64, 1),
        (I32, I64, F32, 1),
        (I32, I64, I8, 1),
        (I32, F64, I64, 1),
        (I32, F32, I64, 2),
        (F32, I32, F32, 2),
        (F32, F16, F32, 2),
        (U16, F32, I8, 2),
        (I64, I32, Bool, 2),
    ];
    for (a, b, c, want) in cases {
        let mut t = T::new();
        let x = t.input(a, &["seq", "7"]);
        let y = t.add(Op::Cast(b), &[x]);
        let z = t.add(Op::Cast(c), &[y]);
        canon(&mut t, &[z]);
        assert_eq!(count(&t.g, "cast"), want, "{a} -> {b} -> {c}");
    }
}

#[test]
fn a_round_trip_of_casts_vanishes() {
    let mut t = T::new();
    let x = t.input(DType::F16, &["seq"]);
    let y = t.add(Op::Cast(DType::F32), &[x]);
    let z = t.add(Op::Cast(DType::F16), &[y]);
    assert!(canon(&mut t, &[z]));
    assert_eq!(out(&t, 0), x);
}
