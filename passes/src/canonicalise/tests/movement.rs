use bertc_ir::{BinaryOp, DType, Op, Scalar, Tensor, UnaryOp};

use super::{canon, out};
use crate::testing::{T, count};

#[test]
fn chains_collapse() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["batch", "seq", "4"]);
    let y = t.transpose(x, &[2, 0, 1]);
    let y = t.transpose(y, &[1, 2, 0]);
    let y = t.reshape(y, &["batch", "seq", "2", "2"]);
    let y = t.reshape(y, &["batch", "seq", "4"]);
    let y = t.broadcast(y, &["batch", "seq", "4"]);
    let y = t.add(Op::Concat { axis: 0 }, &[y]);
    let y = t.add(Op::Slice { axis: 1, start: 0.into(), len: t.dim("seq"), step: 1 }, &[y]);
    assert!(canon(&mut t, &[y]));
    assert_eq!(out(&t, 0), x);
}

#[test]
fn slices_compose() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["20", "seq"]);
    let y = t.add(Op::Slice { axis: 0, start: 18.into(), len: 9.into(), step: -2 }, &[x]);
    let y = t.add(Op::Slice { axis: 0, start: 1.into(), len: 3.into(), step: 3 }, &[y]);
    let z = t.add(Op::Slice { axis: 1, start: 0.into(), len: 1.into(), step: 1 }, &[y]);
    assert!(canon(&mut t, &[y, z]));
    assert_eq!(count(&t.g, "slice"), 2, "slices of different axes stay apart");
}

#[test]
fn broadcasts_move_to_the_end() {
    let mut t = T::new();
    let (x, y) = (t.input(DType::F32, &["seq"]), t.input(DType::F32, &["batch", "1", "seq"]));
    let b = t.broadcast(x, &["batch", "3", "seq"]);
    let e = t.add(Op::Unary(UnaryOp::Neg), &[b]);
    let r = t.reshape(e, &["batch", "1", "3", "1", "seq"]);
    let p = t.transpose(r, &[1, 0, 2, 4, 3]);
    let s = t.add(Op::Slice { axis: 2, start: 1.into(), len: 2.into(), step: 1 }, &[p]);
    let full = t.bin(BinaryOp::Add, b, y);
    assert!(canon(&mut t, &[s, full]));
    assert_eq!(t.g.op(out(&t, 0)).name(), "broadcast");
    let neg = t.g.topo().into_iter().find(|&v| t.g.op(v).name() == "neg").unwrap();
    assert_eq!(t.g.operands(neg), [x], "computed on the small operand");
}

#[test]
fn a_reshape_that_mixes_broadcast_dims_stays() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["seq"]);
    let b = t.broadcast(x, &["3", "seq"]);
    let n = t.dim("seq").mul(&3.into()).unwrap();
    let r = t.add(Op::Reshape { shape: vec![n] }, &[b]);
    assert!(!canon(&mut t, &[r]));
}

#[test]
fn matmul_absorbs_transposes() {
    let mut t = T::new();
    let x = t.input(DType::I32, &["batch", "seq", "4"]);
    let w = t.constant(Tensor::from_scalars(DType::I32, vec![2, 4], (0..8).map(Scalar::Int)));
    let wt = t.transpose(w, &[1, 0]);
    let q = t.add(Op::MatMul { trans_b: false }, &[x, wt]);
    // Keys as dynamo writes them: heads in front, flattened, transposed, unflattened, scaled.
    let k = t.reshape(x, &["batch", "seq", "2", "2"]);
    let k = t.transpose(k, &[0, 2, 1, 3]);
    let n = t.dim("batch").mul(&2.into()).unwrap();
    let k = t.add(Op::Reshape { shape: vec![n, t.dim("seq"), 2.into()] }, &[k]);
    let k = t.transpose(k, &[0, 2, 1]);
    let k = t.reshape(k, &["batch", "2", "2", "seq"]);
    let c = t.constant(Tensor::scalar(DType::I32, Scalar::Int(3)));
    let k = t.bin(BinaryOp::Mul, k, c);
    let q4 = t.reshape(q, &["batch", "1", "seq", "2"]);
    let s = t.add(Op::MatMul { trans_b: false }, &[q4, k]);
    assert!(canon(&mut t, &[s]));
    assert_eq!((count(&t.g, "transpose"), count(&t.g, "reshape")), (1, 2));
    let trans = t.g.topo().into_iter().filter(|&v| matches!(t.g.op(v), Op::MatMul { trans_b: true })).count();
    assert_eq!(trans, 2);
}

#[test]
fn other_transposes_stay() {
    let mut t = T::new();
    let x = t.input(DType::I32, &["batch", "seq", "2", "2"]);
    let v = t.transpose(x, &[0, 2, 1, 3]);
    // Merging heads back is a real transpose: the merged dims aren't neighbours.
    let y = t.add(Op::Unary(UnaryOp::Neg), &[v]);
    let z = t.transpose(y, &[0, 2, 1, 3]);
    let p = t.transpose(x, &[0, 3, 1, 2]);
    let n = t.dim("seq").mul(&2.into()).unwrap();
    let r = t.add(Op::Reshape { shape: vec![t.dim("batch"), 2.into(), n] }, &[p]);
    canon(&mut t, &[z, r]);
    assert_eq!(count(&t.g, "transpose"), 3);
}

#[test]
fn a_transpose_of_units_is_a_reshape() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["batch", "1", "seq", "1"]);
    let y = t.transpose(x, &[0, 2, 1, 3]);
    assert!(canon(&mut t, &[y]));
    assert_eq!(t.g.op(out(&t, 0)).name(), "reshape");
}
