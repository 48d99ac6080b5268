//! Every op against values computed by hand.

use super::*;
use crate::diag::Loc;
use crate::op::{Attention, BinaryOp as B, CmpOp, Linear, ReduceOp, RowQuant, SumNorm, UnaryOp as U};

fn f32t(shape: &[usize], v: &[f32]) -> Tensor {
    Tensor::from_f32(shape.to_vec(), v)
}

fn typed(d: DType, shape: &[usize], v: &[f64]) -> Tensor {
    let scalar = |&x: &f64| if d.is_float() { Scalar::Float(x) } else { Scalar::Int(x as i128) };
    Tensor::from_scalars(d, shape.to_vec(), v.iter().map(scalar))
}

/// Evaluates one op on constants.
fn try_run(op: Op, x: &[&Tensor]) -> Result<Tensor, Diag> {
    let mut g = Graph::new("f");
    let v: Vec<_> = x.iter().map(|t| g.add_const((*t).clone(), &Loc::Unknown).unwrap()).collect();
    let r = g.add(op, &v, &Loc::Unknown)?;
    g.add_output("y", r);
    Ok(eval(&g, &[], &[])?.remove(0))
}

fn run(op: Op, x: &[&Tensor]) -> Tensor {
    try_run(op, x).unwrap()
}

fn unary(u: U, d: DType, x: &[f64]) -> Vec<f64> {
    run(Op::Unary(u), &[&typed(d, &[x.len()], x)]).to_f64_vec()
}

fn binary(b: B, d: DType, x: &[f64], y: &[f64]) -> Vec<f64> {
    run(Op::Binary(b), &[&typed(d, &[x.len()], x), &typed(d, &[y.len()], y)]).to_f64_vec()
}

/// Equal, counting NaN as equal to itself.
fn same(a: &[f64], b: &[f64]) {
    assert_eq!(a.len(), b.len());
    assert!(a.iter().zip(b).all(|(x, y)| x == y || x.is_nan() && y.is_nan()), "{a:?} is not {b:?}");
}

const NAN: f64 = f64::NAN;
const INF: f64 = f64::INFINITY;

#[test]
fn unary_floats() {
    for d in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        same(&unary(U::Neg, d, &[1.5, -2.0]), &[-1.5, 2.0]);
        same(&unary(U::Abs, d, &[1.5, -2.0]), &[1.5, 2.0]);
        same(&unary(U::Sign, d, &[1.5, -2.0, 0.0, NAN]), &[1.0, -1.0, 0.0, NAN]);
        same(&unary(U::Recip, d, &[4.0, 0.0]), &[0.25, INF]);
        same(&unary(U::Sqrt, d, &[4.0, -1.0]), &[2.0, NAN]);
        same(&unary(U::Exp, d, &[0.0, -INF]), &[1.0, 0.0]);
        same(&unary(U::Log, d, &[1.0, 0.0]), &[0.0, -INF]);
        same(&unary(U::Erf, d, &[0.0, INF]), &[0.0, 1.0]);
        same(&unary(U::Tanh, d, &[0.0, -INF]), &[0.0, -1.0]);
        same(&unary(U::Sigmoid, d, &[0.0, -INF, INF]), &[0.5, 0.0, 1.0]);
        same(&unary(U::Sin, d, &[0.0]), &[0.0]);
        same(&unary(U::Cos, d, &[0.0]), &[1.0]);
        for u in [U::Gelu, U::GeluTanh] {
            // As the formulas say: of -∞ they are -∞ · 0.
            same(&unary(u, d, &[0.0, 20.0, INF, -INF, NAN]), &[0.0, 20.0, INF, NAN, NAN]);
        }
        same(&unary(U::Relu, d, &[2.0, -2.0, NAN]), &[2.0, 0.0, NAN]);
        same(&unary(U::Floor, d, &[1.5, -1.5]), &[1.0, -2.0]);
        same(&unary(U::Ceil, d, &[1.5, -1.5]), &[2.0, -1.0]);
        same(&unary(U::Round, d, &[1.5, 2.5, -0.5]), &[2.0, 2.0, 0.0]);
        same(&unary(U::IsNan, d, &[1.5, NAN]), &[0.0, 1.0]);
        same(&unary(U::IsInf, d, &[1.5, -INF, NAN]), &[0.0, 1.0, 0.0]);
    }
}

#[test]
fn functions_are_accurate() {
    // Reference values from tables of 20 digits.
    let near = |u, x: f64, y: f64| {
        let r = unary(u, DType::F64, &[x])[0];
        assert!((r - y).abs() <= 4e-16 * y.abs(), "{u:?}({x}) = {r}, expected {y}");
        assert_eq!(unary(u, DType::F32, &[f64::from(x as f32)])[0], f64::from(y as f32), "{u:?}");
    };
    near(U::Erf, 0.5, 0.520_499_877_813_046_5);
    near(U::Erf, 1.0, 0.842_700_792_949_714_9);
    near(U::Exp, 1.0, std::f64::consts::E);
    near(U::Tanh, 0.5, 0.462_117_157_260_009_8);
    near(U::Sigmoid, 1.0, 0.731_058_578_630_004_9);
    near(U::Gelu, 1.0, 0.841_344_746_068_542_9);
    near(U::Gelu, -1.0, -0.158_655_253_931_457_05);
    near(U::GeluTanh, 1.0, 0.841_191_990_608_276_7);
    near(U::Log, 2.0, std::f64::consts::LN_2);
}

#[test]
fn unary_integers() {
    same(&unary(U::Neg, DType::I8, &[-128.0, 5.0]), &[-128.0, -5.0]);
    same(&unary(U::Abs, DType::I8, &[-128.0, -5.0]), &[-128.0, 5.0]);
    same(&unary(U::Neg, DType::U8, &[1.0]), &[255.0]);
    same(&unary(U::Sign, DType::I64, &[-9.0, 0.0, 9.0]), &[-1.0, 0.0, 1.0]);
    same(&unary(U::Relu, DType::I32, &[-9.0, 9.0]), &[0.0, 9.0]);
    same(&unary(U::Not, DType::U8, &[1.0]), &[254.0]);
    same(&unary(U::Not, DType::Bool, &[1.0, 0.0]), &[0.0, 1.0]);
}

#[test]
fn binary_floats() {
    for d in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        same(&binary(B::Add, d, &[1.0, 2.0], &[0.5]), &[1.5, 2.5]);
        same(&binary(B::Sub, d, &[1.0], &[0.5, 2.0]), &[0.5, -1.0]);
        same(&binary(B::Mul, d, &[3.0], &[0.5]), &[1.5]);
        same(&binary(B::Div, d, &[3.0, 1.0, 0.0], &[2.0, 0.0, 0.0]), &[1.5, INF, NAN]);
        same(&binary(B::Rem, d, &[5.0, -5.0, 5.0], &[3.0, 3.0, -3.0]), &[2.0, -2.0, 2.0]);
        same(&binary(B::Mod, d, &[5.0, -5.0, 5.0, 6.0], &[3.0, 3.0, -3.0, 3.0]), &[2.0, 1.0, -1.0, 0.0]);
        same(&binary(B::Pow, d, &[2.0, 4.0, 0.0], &[3.0, 0.5, 0.0]), &[8.0, 2.0, 1.0]);
        same(&binary(B::Min, d, &[1.0, NAN, 1.0, 3.0], &[2.0, 1.0, NAN, 3.0]), &[1.0, NAN, NAN, 3.0]);
        same(&binary(B::Max, d, &[1.0, NAN, 1.0, 3.0], &[2.0, 1.0, NAN, 3.0]), &[2.0, NAN, NAN, 3.0]);
    }
    assert!(binary(B::Min, DType::F32, &[0.0], &[-0.0])[0].is_sign_negative());
    assert!(binary(B::Max, DType::F32, &[-0.0], &[0.0])[0].is_sign_positive());
    // 2048 + 1 is not an f16; 2^24 + 1 not an f32.
    same(&binary(B::Add, DType::F16, &[2048.0], &[1.0]), &[2048.0]);
    same(&binary(B::Add, DType::F32, &[16_777_216.0], &[1.0]), &[16_777_216.0]);
}

#[test]
fn binary_integers() {
    same(&binary(B::Add, DType::I8, &[127.0], &[1.0]), &[-128.0]);
    same(&binary(B::Mul, DType::U8, &[16.0], &[17.0]), &[16.0]);
    same(&binary(B::Div, DType::I32, &[7.0, -7.0, 7.0], &[2.0, 2.0, 0.0]), &[3.0, -3.0, 0.0]);
    let min = Tensor::from_i64(vec![1], &[i64::MIN]);
    assert_eq!(run(Op::Binary(B::Div), &[&min, &Tensor::from_i64(vec![1], &[-1])]), min);
    let max = Tensor::from_scalars(DType::U64, vec![1], [Scalar::Int(u64::MAX.into())]);
    assert_eq!(run(Op::Binary(B::Div), &[&max, &typed(DType::U64, &[1], &[2.0])]).get(0), Scalar::Int((1 << 63) - 1));
    same(&binary(B::Rem, DType::I32, &[-5.0, 5.0, 5.0], &[3.0, -3.0, 0.0]), &[-2.0, 2.0, 0.0]);
    same(&binary(B::Mod, DType::I32, &[-5.0, 5.0, 5.0], &[3.0, -3.0, 0.0]), &[1.0, -1.0, 0.0]);
    let (x, y) = ([2.0, -1.0, 2.0, 0.0, 1.0], [10.0, -3.0, -1.0, -2.0, -9.0]);
    same(&binary(B::Pow, DType::I64, &x, &y), &[1024.0, -1.0, 0.0, 0.0, 1.0]);
    same(&binary(B::Min, DType::U32, &[3.0], &[4_294_967_295.0]), &[3.0]);
    same(&binary(B::Max, DType::I8, &[3.0], &[-4.0]), &[3.0]);
    same(&binary(B::And, DType::U8, &[12.0], &[10.0]), &[8.0]);
    same(&binary(B::Or, DType::U8, &[12.0], &[10.0]), &[14.0]);
    same(&binary(B::Xor, DType::Bool, &[1.0, 1.0], &[1.0, 0.0]), &[0.0, 1.0]);
}

#[test]
fn comparisons_and_select() {
    let (x, y) = (f32t(&[4], &[1.0, 2.0, 3.0, f32::NAN]), f32t(&[1], &[2.0]));
    let want: [(CmpOp, [f64; 4]); 6] = [
        (CmpOp::Eq, [0.0, 1.0, 0.0, 0.0]),
        (CmpOp::Ne, [1.0, 0.0, 1.0, 1.0]),
        (CmpOp::Lt, [1.0, 0.0, 0.0, 0.0]),
        (CmpOp::Le, [1.0, 1.0, 0.0, 0.0]),
        (CmpOp::Gt, [0.0, 0.0, 1.0, 0.0]),
        (CmpOp::Ge, [0.0, 1.0, 1.0, 0.0]),
    ];
    for (op, w) in want {
        same(&run(Op::Compare(op), &[&x, &y]).to_f64_vec(), &w);
    }
    let cond = typed(DType::Bool, &[2, 1], &[1.0, 0.0]);
    let r = run(Op::Select, &[&cond, &f32t(&[2], &[1.0, 2.0]), &f32t(&[], &[9.0])]);
    assert_eq!(r, f32t(&[2, 2], &[1.0, 2.0, 9.0, 9.0]));
}

#[test]
fn casts() {
    let x = typed(DType::F32, &[6], &[1.9, -1.9, 300.0, -300.0, NAN, INF]);
    let to = |d| run(Op::Cast(d), &[&x]).to_f64_vec();
    same(&to(DType::I8), &[1.0, -1.0, 127.0, -128.0, 0.0, 127.0]);
    same(&to(DType::U8), &[1.0, 0.0, 255.0, 0.0, 0.0, 255.0]);
    same(&to(DType::Bool), &[1.0; 6]);
    assert_eq!(run(Op::Cast(DType::I64), &[&x]).get(5), Scalar::Int(i64::MAX.into()));
    same(&run(Op::Cast(DType::U8), &[&typed(DType::I32, &[2], &[257.0, -1.0])]).to_f64_vec(), &[1.0, 255.0]);
    same(&run(Op::Cast(DType::F16), &[&typed(DType::I64, &[2], &[2049.0, 70000.0])]).to_f64_vec(), &[2048.0, INF]);
    same(&run(Op::Cast(DType::F32), &[&typed(DType::Bool, &[2], &[1.0, 0.0])]).to_f64_vec(), &[1.0, 0.0]);
}

#[test]
fn reductions() {
    let x = f32t(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let reduce = |op, axes: &[usize], keep| run(Op::Reduce { op, axes: axes.to_vec(), keep }, &[&x]);
    assert_eq!(reduce(ReduceOp::Sum, &[1], true), f32t(&[2, 1], &[6.0, 15.0]));
    assert_eq!(reduce(ReduceOp::Sum, &[0], false), f32t(&[3], &[5.0, 7.0, 9.0]));
    assert_eq!(reduce(ReduceOp::Mean, &[0, 1], false), f32t(&[], &[3.5]));
    assert_eq!(reduce(ReduceOp::Prod, &[1], false), f32t(&[2], &[6.0, 120.0]));
    assert_eq!(reduce(ReduceOp::Max, &[0], false), f32t(&[3], &[4.0, 5.0, 6.0]));
    assert_eq!(reduce(ReduceOp::Min, &[], false), x);
    let nan = typed(DType::F32, &[3], &[1.0, NAN, 2.0]);
    for op in [ReduceOp::Max, ReduceOp::Min] {
        same(&run(Op::Reduce { op, axes: vec![0], keep: false }, &[&nan]).to_f64_vec(), &[NAN]);
    }
    let bytes = typed(DType::I8, &[3], &[100.0, 27.0, 1.0]);
    same(&run(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[&bytes]).to_f64_vec(), &[-128.0]);
    // f64 accumulation: 2^24 ones and more are counted exactly.
    let tiny = f32t(&[3], &[16_777_216.0, 1.0, 1.0]);
    same(&run(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[&tiny]).to_f64_vec(), &[16_777_218.0]);
    let empty = f32t(&[0], &[]);
    same(&run(Op::Reduce { op: ReduceOp::Sum, axes: vec![0], keep: false }, &[&empty]).to_f64_vec(), &[0.0]);
}

#[test]
fn scans_and_arg_max() {
    let x = f32t(&[2, 3], &[1.0, 3.0, 3.0, 6.0, 5.0, 4.0]);
    let arg = |axis, min| run(Op::ArgMax { axis, min }, &[&x]).to_i64_vec();
    assert_eq!(arg(1, false), [1, 0]);
    assert_eq!(arg(1, true), [0, 2]);
    assert_eq!(arg(0, false), [1, 1, 1]);
    assert_eq!(run(Op::ArgMax { axis: 0, min: true }, &[&typed(DType::F32, &[3], &[1.0, NAN, 0.0])]).to_i64_vec(), [1]);
    let cum = |exclusive, reverse| run(Op::CumSum { axis: 1, exclusive, reverse }, &[&x]).to_f64_vec();
    same(&cum(false, false), &[1.0, 4.0, 7.0, 6.0, 11.0, 15.0]);
    same(&cum(true, false), &[0.0, 1.0, 4.0, 0.0, 6.0, 11.0]);
    same(&cum(false, true), &[7.0, 6.0, 3.0, 15.0, 9.0, 4.0]);
    same(&cum(true, true), &[6.0, 3.0, 0.0, 9.0, 4.0, 0.0]);
}

#[test]
fn softmax_and_layer_norm() {
    let x = f32t(&[2, 2], &[0.0, 3f32.ln(), 1000.0, 1000.0]);
    assert_eq!(run(Op::Softmax { axis: 1 }, &[&x]), f32t(&[2, 2], &[0.25, 0.75, 0.5, 0.5]));
    let r = run(Op::Softmax { axis: 0 }, &[&x]);
    assert_eq!(r, f32t(&[2, 2], &[0.0, 0.0, 1.0, 1.0]));
    let x = f32t(&[1, 4], &[1.0, 3.0, 1.0, 3.0]);
    let (g, b) = (f32t(&[4], &[1.0, 2.0, 3.0, 4.0]), f32t(&[4], &[0.0, 0.0, 10.0, 10.0]));
    assert_eq!(run(Op::LayerNorm { eps: 0.0 }, &[&x, &g, &b]), f32t(&[1, 4], &[-1.0, 2.0, 7.0, 14.0]));
}

#[test]
fn matrix_products() {
    let a = f32t(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let b = f32t(&[3, 2], &[1.0, 0.0, 0.0, 1.0, 2.0, 2.0]);
    let want = f32t(&[2, 2], &[7.0, 8.0, 16.0, 17.0]);
    assert_eq!(run(Op::MatMul { trans_b: false }, &[&a, &b]), want);
    let bt = run(Op::Transpose { perm: vec![1, 0] }, &[&b]);
    assert_eq!(run(Op::MatMul { trans_b: true }, &[&a, &bt]), want);
    // Batch dims broadcast both ways: [2, 1, 1, 2] by [3, 2, 1].
    let a = f32t(&[2, 1, 1, 2], &[1.0, 1.0, 1.0, 2.0]);
    let b = f32t(&[3, 2, 1], &[1.0, 1.0, 2.0, 1.0, 3.0, 1.0]);
    let r = run(Op::MatMul { trans_b: false }, &[&a, &b]);
    assert_eq!(r, f32t(&[2, 3, 1, 1], &[2.0, 3.0, 4.0, 3.0, 4.0, 5.0]));
    let i = typed(DType::I32, &[1, 1], &[65_536.0 * 2.0]);
    same(&run(Op::MatMul { trans_b: false }, &[&i, &i]).to_f64_vec(), &[0.0]);
    let none = run(Op::MatMul { trans_b: false }, &[&f32t(&[2, 0], &[]), &f32t(&[0, 2], &[])]);
    assert_eq!(none, f32t(&[2, 2], &[0.0; 4]));
    // Wider than one panel.
    let (a, b) = (vec![1.0; 3], (0..3 * 700).map(|i| i as f32).collect::<Vec<_>>());
    let r = run(Op::MatMul { trans_b: false }, &[&f32t(&[1, 3], &a), &f32t(&[3, 700], &b)]);
    assert!(r.to_f32_vec().iter().enumerate().all(|(j, &v)| v == (3 * j + 2100) as f32));
}

#[test]
fn movement() {
    let x = f32t(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let dims = |v: &[i64]| v.iter().map(|&d| Dim::constant(d)).collect::<Vec<_>>();
    let t = run(Op::Transpose { perm: vec![1, 0] }, &[&x]);
    assert_eq!(t, f32t(&[3, 2], &[1.0, 4.0, 2.0, 5.0, 3.0, 6.0]));
    assert_eq!(run(Op::Reshape { shape: dims(&[3, 2]) }, &[&x]), f32t(&[3, 2], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]));
    let b = run(Op::Broadcast { shape: dims(&[2, 2, 3]) }, &[&x]);
    same(&b.to_f64_vec(), &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let slice = |axis, start: i64, len: i64, step| {
        run(Op::Slice { axis, start: start.into(), len: len.into(), step }, &[&x]).to_f64_vec()
    };
    same(&slice(1, 0, 2, 2), &[1.0, 3.0, 4.0, 6.0]);
    same(&slice(1, 2, 3, -1), &[3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    same(&slice(0, 1, 1, 1), &[4.0, 5.0, 6.0]);
    same(&slice(0, 1, 0, 1), &[]);
    let c = run(Op::Concat { axis: 1 }, &[&x, &f32t(&[2, 1], &[7.0, 8.0])]);
    assert_eq!(c, f32t(&[2, 4], &[1.0, 2.0, 3.0, 7.0, 4.0, 5.0, 6.0, 8.0]));
    assert_eq!(run(Op::Dim(7.into()), &[]), Tensor::scalar(DType::I64, Scalar::Int(7)));
    let iota = Op::Iota { len: 3.into(), start: 5.into(), step: (-2).into() };
    assert_eq!(run(iota, &[]), Tensor::from_i64(vec![3], &[5, 3, 1]));
}

#[test]
fn gathers() {
    let x = f32t(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let i = |shape: &[usize], v: &[i64]| Tensor::from_i64(shape.to_vec(), v);
    assert_eq!(run(Op::Gather { axis: 1 }, &[&x, &i(&[2], &[2, -3])]), f32t(&[2, 2], &[3.0, 1.0, 6.0, 4.0]));
    assert_eq!(run(Op::Gather { axis: 0 }, &[&x, &i(&[], &[-1])]), f32t(&[3], &[4.0, 5.0, 6.0]));
    for op in [Op::Gather { axis: 0 }, Op::GatherElements { axis: 0 }] {
        let e = try_run(op, &[&f32t(&[2], &[1.0, 2.0]), &i(&[1], &[2])]).unwrap_err();
        assert!(e.message.contains("index 2 is out of range for an axis of 2 elements"), "{e}");
    }
    let g = run(Op::GatherElements { axis: 1 }, &[&x, &i(&[2, 2], &[0, 2, -1, 1])]);
    assert_eq!(g, f32t(&[2, 2], &[1.0, 3.0, 6.0, 5.0]));
    let g = run(Op::GatherElements { axis: 0 }, &[&x, &i(&[1, 3], &[1, 0, 1])]);
    assert_eq!(g, f32t(&[1, 3], &[4.0, 2.0, 6.0]));
    let g = run(Op::GatherNd { batch_dims: 0 }, &[&x, &i(&[2, 2], &[0, 2, 1, -2])]);
    assert_eq!(g, f32t(&[2], &[3.0, 5.0]));
    let g = run(Op::GatherNd { batch_dims: 0 }, &[&x, &i(&[1, 1], &[1])]);
    assert_eq!(g, f32t(&[1, 3], &[4.0, 5.0, 6.0]));
    let g = run(Op::GatherNd { batch_dims: 1 }, &[&x, &i(&[2, 1], &[1, 2])]);
    assert_eq!(g, f32t(&[2], &[2.0, 6.0]));
    assert!(try_run(Op::GatherNd { batch_dims: 0 }, &[&x, &i(&[1, 2], &[0, 3])]).is_err());
}

#[test]
fn scatters() {
    let x = f32t(&[2, 3], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let i = |shape: &[usize], v: &[i64]| Tensor::from_i64(shape.to_vec(), v);
    let elements = |axis, combine| Op::ScatterElements { axis, combine };
    // Of two updates of one element the later one stays.
    let u = f32t(&[2, 2], &[7.0, 8.0, 9.0, 10.0]);
    let s = run(elements(1, None), &[&x, &i(&[2, 2], &[1, 1, -1, 0]), &u]);
    assert_eq!(s, f32t(&[2, 3], &[1.0, 8.0, 3.0, 10.0, 5.0, 9.0]));
    let s = run(elements(1, Some(B::Add)), &[&x, &i(&[2, 2], &[1, 1, -1, 0]), &u]);
    assert_eq!(s, f32t(&[2, 3], &[1.0, 17.0, 3.0, 14.0, 5.0, 15.0]));
    // Fewer lines than the data has.
    let s = run(elements(0, Some(B::Max)), &[&x, &i(&[1, 2], &[1, 0]), &f32t(&[1, 2], &[0.0, 9.0])]);
    assert_eq!(s, f32t(&[2, 3], &[1.0, 9.0, 3.0, 4.0, 5.0, 6.0]));
    let s = run(Op::ScatterNd { combine: None }, &[&x, &i(&[1, 1], &[-1]), &f32t(&[1, 3], &[7.0, 8.0, 9.0])]);
    assert_eq!(s, f32t(&[2, 3], &[1.0, 2.0, 3.0, 7.0, 8.0, 9.0]));
    let at = i(&[2, 2], &[0, 2, 0, -1]);
    let s = run(Op::ScatterNd { combine: Some(B::Mul) }, &[&x, &at, &f32t(&[2], &[2.0, 3.0])]);
    assert_eq!(s, f32t(&[2, 3], &[1.0, 2.0, 18.0, 4.0, 5.0, 6.0]));
    let e = try_run(elements(0, None), &[&x, &i(&[1, 1], &[2]), &f32t(&[1, 1], &[0.0])]).unwrap_err();
    assert!(e.message.contains("index 2 is out of range for an axis of 2 elements"), "{e}");
    assert!(try_run(Op::ScatterNd { combine: None }, &[&x, &i(&[1, 2], &[0, 3]), &f32t(&[1], &[0.0])]).is_err());
}

#[test]
fn top_k_and_shifts() {
    let top = |k: i64, smallest, v: &[f32]| {
        let x = f32t(&[v.len()], v);
        run(Op::TopK { axis: 0, k: k.into(), smallest }, &[&x]).to_i64_vec()
    };
    assert_eq!(top(3, false, &[1.0, 3.0, 2.0, 3.0]), [1, 3, 2]);
    assert_eq!(top(2, true, &[1.0, 0.0, -0.0, 0.0]), [1, 2], "both zeros are one");
    let nan = f32::NAN;
    assert_eq!(top(3, false, &[1.0, f32::INFINITY, nan, nan]), [2, 3, 1]);
    assert_eq!(top(3, true, &[nan, 1.0, nan]), [1, 0, 2]);
    let x = f32t(&[2, 2], &[1.0, 4.0, 3.0, 2.0]);
    assert_eq!(run(Op::TopK { axis: 0, k: 2.into(), smallest: false }, &[&x]).to_i64_vec(), [1, 0, 0, 1]);
    let of = |d: DType, op: B, x: i128, y: i128| {
        let t = |v| Tensor::scalar(d, Scalar::Int(v));
        run(Op::Binary(op), &[&t(x), &t(y)]).to_i64_vec()[0]
    };
    assert_eq!(
        [of(DType::U8, B::Shl, 0x81, 1), of(DType::U8, B::Shl, 1, 8), of(DType::U8, B::Shr, 0x81, 1)],
        [2, 0, 0x40]
    );
    assert_eq!([of(DType::I8, B::Shr, -3, 1), of(DType::I8, B::Shr, -3, 8), of(DType::I8, B::Shr, 3, -1)], [-2, -1, 0]);
    assert_eq!([of(DType::I64, B::Shl, 1, 63), of(DType::I64, B::Shl, -1, 64)], [i64::MIN, 0]);
}

#[test]
fn graphs_and_their_checks() {
    let mut g = Graph::new("f");
    let s = g.symbols.intern("seq", 1, 9);
    let x = g.add_input("x", TensorType::new(DType::F32, vec![s.into()]));
    let loc = Loc::node("n", "Neg");
    let y = g.add(Op::Unary(U::Neg), &[x], &loc).unwrap();
    let d = g.add(Op::Dim(s.into()), &[], &loc).unwrap();
    let unused = g.add(Op::Unary(U::Abs), &[x], &loc).unwrap();
    g.add_output("y", y);
    g.add_output("x", x);
    g.add_output("d", d);
    let t = f32t(&[2], &[1.0, -2.0]);
    let r = eval(&g, &[2], std::slice::from_ref(&t)).unwrap();
    assert_eq!(r, [f32t(&[2], &[-1.0, 2.0]), t.clone(), Tensor::scalar(DType::I64, Scalar::Int(2))]);
    let all = eval_all(&g, &[2], std::slice::from_ref(&t)).unwrap();
    assert_eq!(all[&unused], f32t(&[2], &[1.0, 2.0]));
    assert_eq!(solve_dims(&g, std::slice::from_ref(&t)).unwrap(), [2]);
    assert!(eval(&g, &[10], std::slice::from_ref(&t)).unwrap_err().message.contains("outside of 1..=9"));
    assert!(eval(&g, &[3], std::slice::from_ref(&t)).unwrap_err().message.contains("expected f32 [3]"));
    assert!(eval(&g, &[], &[]).is_err() && eval(&g, &[2], &[]).is_err());
    assert!(eval(&g, &[2], &[Tensor::from_i64(vec![2], &[1, 2])]).is_err());
}

#[test]
fn linear_applies_its_parts_in_order() {
    let (a, b) = (f32t(&[1, 1, 2], &[1.0, 2.0]), f32t(&[2, 2], &[1.0, 1.0, 2.0, -1.0]));
    let (bias, residual) = (f32t(&[2], &[-4.0, 2.0]), f32t(&[1, 1, 2], &[1.0, -1.0]));
    let (gamma, beta) = (f32t(&[2], &[1.0, 2.0]), f32t(&[2], &[0.5, 0.0]));
    let run = |l: Linear, x: &[&Tensor]| run(Op::Linear(l), x).to_f64_vec();
    let l = Linear::default();
    same(&run(l, &[&a, &b]), &[5.0, -1.0]);
    let l = Linear { trans_b: true, bias: true, ..l };
    same(&run(l, &[&a, &b, &bias]), &[-1.0, 2.0]);
    let l = Linear { act: Some(U::Relu), residual: true, ..l };
    same(&run(l, &[&a, &b, &bias, &residual]), &[1.0, 1.0]);
    let l = Linear { act: None, norm: Some(0.0), ..l };
    same(&run(l, &[&a, &b, &bias, &residual, &gamma, &beta]), &[-0.5, 2.0]);
}

#[test]
fn results_round_to_bf16_once() {
    let half = |shape: &[usize], v: &[f64]| typed(DType::BF16, shape, v);
    // 1 + 2^-8 is no bf16: it ties to even, thus to 1; with 2^-12 more it is above the tie.
    let (a, b) = (half(&[1, 2], &[1.0, 0.00390625]), half(&[2, 1], &[1.0, 1.0]));
    let l = Linear { bf16: true, ..Linear::default() };
    assert_eq!(run(Op::Linear(l), &[&a, &b]), half(&[1, 1], &[1.0]));
    let l = Linear { residual: true, ..l };
    let small = 1.0 / 4096.0;
    for residual in [f32t(&[1, 1], &[small as f32]), half(&[1, 1], &[small])] {
        assert_eq!(run(Op::Linear(l), &[&a, &b, &residual]), half(&[1, 1], &[1.0078125]));
    }
    let one = half(&[1, 1, 1], &[1.0]);
    let at = Attention { heads: 1, scale: 1.0, bf16: true, ..Attention::default() };
    assert_eq!(run(Op::Attention(at), &[&one, &one, &one]), one);
    let n = SumNorm { tables: 1, addends: 1, bf16: true, ..SumNorm::default() };
    let y = run(Op::SumNorm(n), &[&b, &Tensor::from_i64(vec![1], &[1]), &f32t(&[1, 1], &[0.00390625])]);
    assert_eq!(y, half(&[1, 1], &[1.0]));
    let e = try_run(Op::Linear(Linear::default()), &[&a, &f32t(&[2, 1], &[1.0, 1.0])]).unwrap_err();
    assert!(e.message.contains("operand types bf16 and f32 differ"), "{e}");
}

#[test]
fn attention_keeps_heads_apart() {
    let third = 3f32.ln();
    let q = f32t(&[1, 1, 2], &[0.0, 2.0 * third]);
    let k = f32t(&[1, 2, 2], &[5.0, 0.0, 7.0, 1.0]);
    let v = f32t(&[1, 2, 4], &[2.0, 0.0, 4.0, 1.0, 4.0, 0.0, 8.0, 5.0]);
    let a = Attention { heads: 2, scale: 0.5, ..Attention::default() };
    let near = |a: Attention, x: &[&Tensor], want: &[f64]| {
        let y = run(Op::Attention(a), x).to_f64_vec();
        let close = |(x, y): (&f64, &f64)| (x - y).abs() < 1e-6 || x.is_nan() && y.is_nan();
        assert!(y.iter().zip(want).all(close) && y.len() == want.len(), "{y:?}");
    };
    near(a, &[&q, &k, &v], &[3.0, 0.0, 7.0, 4.0]);
    let inf = f32::NEG_INFINITY;
    let masks = f32t(&[1, 2, 1, 2], &[0.0, inf, inf, inf]);
    near(Attention { mask: true, ..a }, &[&q, &k, &v, &masks], &[2.0, 0.0, NAN, NAN]);
    near(Attention { mask: true, nan_to_zero: true, ..a }, &[&q, &k, &v, &masks], &[2.0, 0.0, 0.0, 0.0]);
    let per_key = f32t(&[1, 1, 1, 2], &[inf, 0.0]);
    near(Attention { mask: true, ..a }, &[&q, &k, &v, &per_key], &[4.0, 0.0, 8.0, 5.0]);
}

#[test]
fn sums_of_rows_are_normalised() {
    let words = f32t(&[3, 2], &[0.0, 1.0, 10.0, 11.0, 20.0, 24.0]);
    let ids = typed(DType::I32, &[2, 2], &[0.0, 1.0, -1.0, 1.0]);
    let places = f32t(&[2, 2], &[100.0, 200.0, 300.0, 400.0]);
    let place_ids = Tensor::from_i64(vec![2], &[1, 0]);
    let column = f32t(&[1, 1, 2], &[0.0, 1.0]);
    let n = SumNorm { tables: 2, addends: 1, ..SumNorm::default() };
    let y = run(Op::SumNorm(n), &[&words, &ids, &places, &place_ids, &column]);
    assert_eq!(y, f32t(&[2, 2, 2], &[300.0, 402.0, 110.0, 212.0, 320.0, 425.0, 110.0, 212.0]));
    let gamma = f32t(&[2], &[1.0, 3.0]);
    let n = SumNorm { addends: 1, norm: Some(0.0), ..SumNorm::default() };
    assert_eq!(run(Op::SumNorm(n), &[&places, &gamma, &gamma]), f32t(&[2, 2], &[0.0, 6.0, 0.0, 6.0]));
    let n = SumNorm { tables: 1, ..SumNorm::default() };
    let e = try_run(Op::SumNorm(n), &[&places, &Tensor::from_i64(vec![1], &[-3])]).unwrap_err();
    assert!(e.message.contains("index -3 is out of range"), "{e}");
}

#[test]
fn rows_become_integers() {
    let x = f32t(&[3, 3], &[1.0, -2.0, 0.5, 0.0, 0.0, 0.0, 1.0, f32::NAN, 3.0]);
    let q = RowQuant::default();
    let unit = run(Op::RowScale(q), &[&x]).to_f32_vec();
    assert_eq!(unit[..2], [2.0 * (1.0 / 127.0), 0.0]);
    assert!(unit[2].is_nan());
    // 63.5 and 31.75 units, ties to even.
    let y = run(Op::QuantiseRows(q), &[&x]);
    assert_eq!(y, typed(DType::I8, &[3, 3], &[64.0, -127.0, 32.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]));
    let q = RowQuant { offset: true, factor: true };
    let (x, factor) = (f32t(&[2, 3], &[1.0, 4.0, 0.0, 5.0, 5.0, 5.0]), f32t(&[3], &[2.0, 1.0, 7.0]));
    let y = run(Op::QuantiseRows(q), &[&x, &factor]);
    // 0 to 4, and 5 to 35.
    assert_eq!(y, typed(DType::I8, &[2, 3], &[0.0, 127.0, -128.0, -86.0, -128.0, 127.0]));
    let [unit, zero] = [Op::RowScale(q), Op::RowOffset(q)].map(|op| run(op, &[&x, &factor]).to_f64_vec());
    for (i, x) in [2.0, 4.0, 0.0, 10.0, 5.0, 35.0].into_iter().enumerate() {
        let near = y.get(i).to_f64() * unit[i / 3] + zero[i / 3];
        assert!((near - x).abs() <= 0.51 * unit[i / 3], "{near} for {x}");
    }
}

#[test]
fn tensors_become_integers_as_onnx_says() {
    let x = f32t(&[6], &[-1.0, 0.25, 0.75, 1e9, f32::NAN, -1e9]);
    let (scale, zero) = (f32t(&[], &[0.5]), typed(DType::I32, &[], &[3.0]));
    let y = run(Op::Quantise { to: DType::U8 }, &[&x, &scale, &zero]);
    assert_eq!(y, typed(DType::U8, &[6], &[1.0, 3.0, 5.0, 255.0, 0.0, 0.0]));
    let y = run(Op::Quantise { to: DType::I8 }, &[&x, &scale, &zero]);
    assert_eq!(y, typed(DType::I8, &[6], &[1.0, 3.0, 5.0, 127.0, 0.0, -128.0]));
    let e = try_run(Op::Quantise { to: DType::I16 }, &[&x, &scale, &zero]).unwrap_err();
    assert!(e.message.contains("'to' must be i8 or u8"), "{e}");
}

#[test]
fn products_of_integers_are_scaled() {
    let a = typed(DType::U8, &[2, 2], &[255.0, 0.0, 1.0, 2.0]);
    let b = typed(DType::I8, &[2, 3], &[-128.0, 1.0, 0.0, 127.0, 1.0, 2.0]);
    let (scale, columns) = (f32t(&[2, 1], &[1.0, 0.5]), f32t(&[3], &[1.0, 2.0, 4.0]));
    let (zero, offset) = (typed(DType::I32, &[], &[1.0]), f32t(&[2, 1], &[0.0, 10.0]));
    let l = Linear { int8: true, ..Linear::default() };
    let y = run(Op::Linear(l), &[&a, &b, &scale, &columns]);
    assert_eq!(y, f32t(&[2, 3], &[-32640.0, 510.0, 0.0, 63.0, 3.0, 8.0]));
    let l = Linear { zero: true, offset: true, bias: true, ..l };
    let y = run(Op::Linear(l), &[&a, &b, &scale, &columns, &zero, &offset, &columns]);
    // (a - 1)·b, and Σ b is -1, 2 and 2.
    assert_eq!(y, f32t(&[2, 3], &[-32638.0, 508.0, -4.0, 54.5, 43.0, 88.0]));
    let transposed = typed(DType::I8, &[3, 2], &[-128.0, 127.0, 1.0, 1.0, 0.0, 2.0]);
    let l = Linear { trans_b: true, ..l };
    assert_eq!(run(Op::Linear(l), &[&a, &transposed, &scale, &columns, &zero, &offset, &columns]), y);
}

#[test]
fn tables_of_integers_have_scales() {
    let table = typed(DType::I8, &[2, 2], &[-127.0, 4.0, 2.0, 3.0]);
    let (ids, scales) = (Tensor::from_i64(vec![2], &[1, 0]), f32t(&[2], &[0.5, 2.0]));
    let n = SumNorm { tables: 1, int8: true, addends: 1, ..SumNorm::default() };
    let y = run(Op::SumNorm(n), &[&table, &ids, &scales, &f32t(&[2], &[1.0, 0.0])]);
    assert_eq!(y, f32t(&[2, 2], &[5.0, 6.0, -62.5, 2.0]));
}
