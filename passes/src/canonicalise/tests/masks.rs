//! Index arithmetic as exporters write it.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, Scalar, Tensor, ValueId};

use super::{canon, out};
use crate::testing::{T, count};

fn scalar(t: &mut T, v: i64) -> ValueId {
    t.constant(Tensor::scalar(DType::I64, Scalar::Int(v.into())))
}

#[test]
fn a_gather_on_the_flattened_mask_is_a_reshape() {
    // mask.flatten()[b·seq + j] and (j >= 0) and true, as the TorchScript exporter writes it.
    let mut t = T::new();
    let mask = t.input(DType::I64, &["batch", "seq"]);
    let mask_bool = t.add(Op::Cast(DType::Bool), &[mask]);
    let n = t.dim("batch").mul(&t.dim("seq")).unwrap();
    let flat = t.add(Op::Reshape { shape: vec![n] }, &[mask_bool]);
    let (b, j) = (t.iota("batch"), t.iota("seq"));
    let b = t.reshape(b, &["batch", "1", "1", "1"]);
    let j = t.reshape(j, &["1", "1", "1", "seq"]);
    let seq = t.add(Op::Dim(t.dim("seq")), &[]);
    let seq = t.reshape(seq, &["1"]);
    let row = t.bin(BinaryOp::Mul, b, seq);
    let at = t.bin(BinaryOp::Add, j, row);
    let picked = t.add(Op::Gather { axis: 0 }, &[flat, at]);
    let zero = scalar(&mut t, 0);
    let query = t.iota("seq");
    let query = t.reshape(query, &["1", "1", "seq", "1"]);
    let ge = t.add(Op::Compare(CmpOp::Ge), &[query, zero]);
    let yes = t.constant(Tensor::scalar(DType::Bool, Scalar::Int(1)));
    let and = t.bin(BinaryOp::And, yes, ge);
    let all = t.bin(BinaryOp::And, and, picked);
    let all = t.broadcast(all, &["batch", "1", "seq", "seq"]);
    let (hi, lo) = (t.f32(&[], &[0.0]), t.f32(&[], &[-1e9]));
    let bias = t.add(Op::Select, &[all, hi, lo]);
    let scores = t.input(DType::F32, &["batch", "2", "seq", "seq"]);
    let y = t.bin(BinaryOp::Add, scores, bias);
    assert!(canon(&mut t, &[y]));
    // Two inputs, two constants, cast, reshape, select, add.
    assert_eq!(t.g.len(), 8);
    assert_eq!((count(&t.g, "gather"), count(&t.g, "and"), count(&t.g, "iota")), (0, 0, 0));
}

#[test]
fn index_tuples_of_iotas_are_a_reshape() {
    // As dynamo writes it: gather_nd of the mask at (b, j).
    let mut t = T::new();
    let mask = t.input(DType::Bool, &["batch", "seq"]);
    let (b, j) = (t.iota("batch"), t.iota("seq"));
    let b = t.reshape(b, &["batch", "1", "1", "1"]);
    let b = t.broadcast(b, &["batch", "1", "1", "seq"]);
    let b = t.reshape(b, &["batch", "1", "1", "seq", "1"]);
    let j = t.reshape(j, &["1", "1", "1", "seq"]);
    let j = t.broadcast(j, &["batch", "1", "1", "seq"]);
    let j = t.reshape(j, &["batch", "1", "1", "seq", "1"]);
    let at = t.add(Op::Concat { axis: 4 }, &[b, j]);
    let m = t.add(Op::GatherNd { batch_dims: 0 }, &[mask, at]);
    let swapped = t.add(Op::GatherNd { batch_dims: 1 }, &[mask, j]);
    let _ = swapped;
    assert!(canon(&mut t, &[m]));
    assert_eq!(t.g.len(), 2);
}

#[test]
fn tuples_in_another_order_are_a_transpose_and_diagonals_stay() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["3", "seq", "2"]);
    let (i, j) = (t.iota("3"), t.iota("seq"));
    let i = t.reshape(i, &["1", "3", "1"]);
    let i = t.broadcast(i, &["seq", "3", "1"]);
    let j = t.reshape(j, &["seq", "1", "1"]);
    let j = t.broadcast(j, &["seq", "3", "1"]);
    let at = t.add(Op::Concat { axis: 2 }, &[i, j]);
    let y = t.add(Op::GatherNd { batch_dims: 0 }, &[x, at]);
    let sq = t.input(DType::F32, &["3", "3"]);
    let k = t.iota("3");
    let k = t.reshape(k, &["3", "1"]);
    let at = t.add(Op::Concat { axis: 1 }, &[k, k]);
    let z = t.add(Op::GatherNd { batch_dims: 0 }, &[sq, at]);
    assert!(canon(&mut t, &[y, z]));
    assert_eq!((count(&t.g, "gather_nd"), count(&t.g, "transpose")), (1, 1));
}

#[test]
fn a_position_table_is_sliced() {
    let mut t = T::new();
    let ids = t.i64(&[1, 8], &[0, 1, 2, 3, 4, 5, 6, 7]);
    let ids = t.add(Op::Slice { axis: 1, start: 0.into(), len: t.dim("seq"), step: 1 }, &[ids]);
    let table = t.f32(&[10, 2], &(0..20).map(|i| i as f32).collect::<Vec<_>>());
    let two = scalar(&mut t, 2);
    let shifted = t.bin(BinaryOp::Add, ids, two);
    let y = t.add(Op::Gather { axis: 0 }, &[table, shifted]);
    assert!(canon(&mut t, &[y]));
    assert_eq!((count(&t.g, "slice"), count(&t.g, "gather"), count(&t.g, "iota")), (1, 0, 0));
}

#[test]
fn gathers_that_may_leave_the_table_stay() {
    let mut t = T::new();
    let table = t.f32(&[6, 2], &[1.0; 12]);
    let x = t.input(DType::F32, &["6", "2"]);
    let ids = t.iota("seq");
    let y = t.add(Op::Gather { axis: 0 }, &[x, ids]);
    // Elements of a table of one value are that value wherever they are.
    let z = t.add(Op::Gather { axis: 0 }, &[table, ids]);
    t.g.add_output("y", y);
    t.g.add_output("z", z);
    crate::testing::run(&mut t.g, "canonicalise");
    assert_eq!(count(&t.g, "gather"), 1);
}

#[test]
fn constant_positions_are_slices() {
    let mut t = T::new();
    let x = t.input(DType::F32, &["batch", "seq", "4"]);
    let (first, last) = (scalar(&mut t, 0), scalar(&mut t, -1));
    let a = t.add(Op::Gather { axis: 1 }, &[x, first]);
    let b = t.add(Op::Gather { axis: 1 }, &[x, last]);
    let even = t.i64(&[2], &[0, 2]);
    let c = t.add(Op::Gather { axis: 2 }, &[x, even]);
    let odd = t.i64(&[3], &[0, 1, 3]);
    let d = t.add(Op::Gather { axis: 2 }, &[x, odd]);
    assert!(canon(&mut t, &[a, b, c, d]));
    assert_eq!((count(&t.g, "slice"), count(&t.g, "gather")), (3, 1));
}

#[test]
fn comparisons_are_decided_only_where_all_elements_agree() {
    let mut t = T::new();
    let i = t.iota("seq");
    let n = t.add(Op::Dim(t.dim("seq")), &[]);
    let one = scalar(&mut t, 1);
    let inside = t.add(Op::Compare(CmpOp::Lt), &[i, n]);
    let positive = t.add(Op::Compare(CmpOp::Ge), &[i, one]);
    let col = t.reshape(i, &["seq", "1"]);
    let causal = t.add(Op::Compare(CmpOp::Le), &[i, col]);
    assert!(canon(&mut t, &[inside, positive, causal]));
    assert_eq!((count(&t.g, "lt"), count(&t.g, "ge"), count(&t.g, "le")), (0, 1, 1));
}

#[test]
fn index_arithmetic_becomes_one_iota() {
    let mut t = T::new();
    let i = t.iota("seq");
    let (three, two) = (scalar(&mut t, 3), scalar(&mut t, 2));
    let x = t.bin(BinaryOp::Mul, i, three);
    let x = t.bin(BinaryOp::Sub, x, two);
    let x = t.reshape(x, &["seq", "1"]);
    let d = t.add(Op::Dim(t.dim("batch")), &[]);
    let x = t.bin(BinaryOp::Add, x, d);
    assert!(canon(&mut t, &[x]));
    let (iotas, len) = (count(&t.g, "iota"), t.g.len());
    assert_eq!((iotas, len), (1, 2));
    let base = t.dim("batch").sub(&Dim::constant(2)).unwrap();
    assert!(t.g.topo().iter().any(|&v| matches!(t.g.op(v), Op::Iota { start, .. } if *start == base)));
    assert_eq!(t.g.op(out(&t, 0)).name(), "reshape");
}

#[test]
fn a_wrapping_product_is_not_affine() {
    let mut t = T::new();
    let i = t.iota("seq");
    let i = t.add(Op::Cast(DType::I32), &[i]);
    let c = t.constant(Tensor::scalar(DType::I32, Scalar::Int(1 << 29)));
    let x = t.bin(BinaryOp::Mul, i, c);
    let z = t.constant(Tensor::scalar(DType::I32, Scalar::Int(0)));
    let y = t.add(Op::Compare(CmpOp::Ge), &[x, z]);
    assert!(!canon(&mut t, &[y]));
}

#[test]
fn counts_of_a_mask_are_bounded() {
    // RoBERTa's positions: cumsum(ids != 1)·mask + 1 stays above 0, whatever the ids.
    let mut t = T::new();
    let ids = t.input(DType::I64, &["batch", "seq"]);
    let one = scalar(&mut t, 1);
    let ne = t.add(Op::Compare(CmpOp::Ne), &[ids, one]);
    let m = t.add(Op::Cast(DType::I32), &[ne]);
    let c = t.add(Op::CumSum { axis: 1, exclusive: false, reverse: false }, &[m]);
    let c = t.bin(BinaryOp::Mul, c, m);
    let c = t.add(Op::Cast(DType::I64), &[c]);
    let c = t.bin(BinaryOp::Add, c, one);
    let n = t.add(Op::Dim(t.dim("seq")), &[]);
    let low = t.add(Op::Compare(CmpOp::Lt), &[c, one]);
    let high = t.add(Op::Compare(CmpOp::Gt), &[c, n]);
    assert!(canon(&mut t, &[low, high]));
    assert_eq!((count(&t.g, "lt"), count(&t.g, "gt")), (0, 1), "seq + 1 is possible");
}
