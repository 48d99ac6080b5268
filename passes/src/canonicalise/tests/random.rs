//! Random graphs, before against after.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Graph, Loc, Op, Scalar, Tensor, UnaryOp, ValueId};
use proptest::prelude::*;

use crate::testing::{T, check_same};

/// Adds one node chosen by four numbers; choices that don't fit the operands add nothing.
fn grow(g: &mut Graph, values: &mut Vec<ValueId>, (kind, a, b, c): (u8, u8, u8, u8)) {
    let pick = |i: u8| values[usize::from(i) % values.len()];
    let (x, y) = (pick(a), pick(b));
    let shape = g.ty(x).shape.clone();
    let rank = shape.len();
    let n = usize::from(c);
    let op = match kind % 14 {
        0 => (Op::Binary(BinaryOp::ALL[n % 12]), vec![x, y]),
        1 => (Op::Unary([UnaryOp::Neg, UnaryOp::Abs, UnaryOp::Not, UnaryOp::Relu][n % 4]), vec![x]),
        2 => (Op::Compare(CmpOp::ALL[n % 6]), vec![x, y]),
        3 => (Op::Select, vec![pick(c), x, y]),
        4 => (Op::Cast([DType::F32, DType::I64, DType::Bool, DType::I32][n % 4]), vec![x]),
        5 if rank > 1 => {
            let mut perm: Vec<usize> = (0..rank).collect();
            perm.rotate_left(n % rank);
            (Op::Transpose { perm }, vec![x])
        }
        6 => {
            let mut s = shape;
            s.insert(n % (rank + 1), 1.into());
            (Op::Reshape { shape: s }, vec![x])
        }
        7 if rank > 1 => {
            let mut s = shape;
            let at = n % (rank - 1);
            let d = s.remove(at).mul(&s[at]).unwrap();
            s[at] = d;
            (Op::Reshape { shape: s }, vec![x])
        }
        8 => {
            let units = shape.iter().map(|d| if d.as_const() == Some(1) { Dim::from(2) } else { d.clone() });
            (Op::Broadcast { shape: [3.into()].into_iter().chain(units).collect() }, vec![x])
        }
        9 if rank > 0 => {
            let axis = n % rank;
            let end = shape[axis].sub(&1.into()).unwrap();
            let (start, len, step) = match (shape[axis].as_const(), b % 4) {
                // Every second element, from the front or from the back.
                (Some(d), 0) => (Dim::from(0), ((d + 1) / 2).into(), 2),
                (Some(d), 1) => (end, ((d + 1) / 2).into(), -2),
                (_, 0 | 2) => (end, shape[axis].clone(), -1),
                (_, _) => (0.into(), 1.into(), 1),
            };
            (Op::Slice { axis, start, len, step }, vec![x])
        }
        10 if rank > 0 => (Op::Concat { axis: n % rank }, vec![x, x]),
        11 => {
            // The constants that identities look for, on either side.
            let v = [0.0, -0.0, 1.0, 2.0, -1.0, 0.5][n % 6];
            let dtype = g.ty(x).dtype;
            let s = if dtype.is_float() { Scalar::Float(v) } else { Scalar::Int(v as i128 & 1) };
            let Ok(k) = g.add_const(Tensor::scalar(dtype, s), &Loc::Unknown) else { return };
            let ops = if dtype == DType::Bool { &BinaryOp::ALL[9..] } else { &BinaryOp::ALL[..9] };
            let op = ops[usize::from(b) % ops.len()];
            (Op::Binary(op), if n & 32 == 0 { vec![x, k] } else { vec![k, x] })
        }
        12 if rank > 0 => {
            let len = shape[n % rank].clone();
            (Op::Iota { len, start: i64::from(a % 3).into(), step: 1.into() }, vec![])
        }
        13 if rank > 0 => {
            // In range by construction: an iota over the axis, perhaps backwards.
            let len = shape[n % rank].clone();
            let (start, step) = if b & 1 == 0 { (0.into(), 1) } else { (len.sub(&1.into()).unwrap(), -1) };
            let Ok(i) = g.add(Op::Iota { len, start, step: step.into() }, &[], &Loc::Unknown) else { return };
            (Op::Gather { axis: n % rank }, vec![x, i])
        }
        _ => return,
    };
    if g.ty(x).rank() > 5 {
        return;
    }
    if let Ok(v) = g.add(op.0, &op.1, &Loc::Unknown) {
        values.push(v);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]
    #[test]
    fn the_numbers_stay(steps in prop::collection::vec(any::<(u8, u8, u8, u8)>(), 1..20)) {
        let mut t = T::new();
        let mut values = vec![
            t.input(DType::F32, &["batch", "seq"]),
            t.input(DType::I64, &["seq"]),
            t.input(DType::Bool, &["batch", "1"]),
            t.input(DType::F32, &["seq", "2"]),
            t.input(DType::I64, &["6", "1"]),
        ];
        for step in steps {
            grow(&mut t.g, &mut values, step);
        }
        // Everything that nothing uses is an output, so no rewrite goes unseen.
        for &v in &values {
            if t.g.users(v).is_empty() {
                t.g.add_output(format!("o{}", v.0), v);
            }
        }
        let before = t.g.clone();
        let options = crate::Options { verify_each: true };
        crate::run(&mut t.g, &crate::pipeline(1), &options, &mut |_| {}).unwrap();
        check_same(&before, &t.g);
    }
}
