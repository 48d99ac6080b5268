use bertc_ir::eval::eval;
use bertc_ir::{BinaryOp, DType, Graph, Linear, Op, Scalar, Tensor, UnaryOp, ValueId};

use crate::testing::{T, count, run};

/// Bytes with no pattern that a column shares.
fn spread(dtype: DType, shape: [usize; 2], step: i128) -> Tensor {
    let low = if dtype == DType::U8 { 0 } else { -128 };
    let n = shape.iter().product::<usize>() as i128;
    Tensor::from_scalars(dtype, shape.to_vec(), (0..n).map(|i| Scalar::Int((i * step + i / 5) % 256 + low)))
}

fn int(t: &mut T, v: i128) -> ValueId {
    t.constant(Tensor::scalar(DType::I32, Scalar::Int(v)))
}

/// (q - zero)·scale, as an importer spells it out.
fn dequantised(t: &mut T, q: ValueId, zero: i128, scale: ValueId) -> ValueId {
    let mut x = t.add(Op::Cast(DType::I32), &[q]);
    if zero != 0 {
        let z = int(t, zero);
        x = t.bin(BinaryOp::Sub, x, z);
    }
    let x = t.add(Op::Cast(DType::F32), &[x]);
    t.bin(BinaryOp::Mul, x, scale)
}

/// Queries, keys and values of a layer, added up, and a product with an activation of some of its rows.
fn layer() -> Graph {
    let mut t = T::new();
    let x = t.input(DType::F32, &["2", "seq", "32"]);
    let one = t.f32(&[], &[0.03]);
    let z = int(&mut t, 120);
    let q = t.add(Op::Quantise { to: DType::U8 }, &[x, one, z]);
    let mut sum = None;
    for (step, zero, dtype) in [(37, 0, DType::I8), (53, 128, DType::U8), (91, 0, DType::I8)] {
        // Each product dequantises for itself.
        let a = dequantised(&mut t, q, 120, one);
        let w = t.constant(spread(dtype, [32, 16], step));
        let by_column: Vec<f32> = (0..16).map(|i| 0.001 * (i + 1) as f32).collect();
        let scale = if zero == 0 { t.f32(&[16], &by_column) } else { t.f32(&[], &[0.002]) };
        let b = dequantised(&mut t, w, zero, scale);
        let y = t.add(Op::MatMul { trans_b: false }, &[a, b]);
        let bias = t.f32(&[16], &[0.5; 16]);
        let y = t.bin(BinaryOp::Add, y, bias);
        sum = Some(sum.map_or(y, |s| t.bin(BinaryOp::Mul, s, y)));
    }
    let first = t.add(Op::Slice { axis: 1, start: 0.into(), len: 1.into(), step: 1 }, &[sum.unwrap()]);
    let y = t.add(Op::Unary(UnaryOp::Tanh), &[first]);
    t.g.add_output("y", y);
    t.g
}

fn linears(g: &Graph) -> Vec<(ValueId, Linear)> {
    let of = |v: ValueId| if let Op::Linear(l) = g.op(v) { Some((v, *l)) } else { None };
    g.topo().into_iter().filter_map(of).collect()
}

#[test]
fn products_are_of_integers_take_up_biases_and_merge() {
    let before = layer();
    let mut after = before.clone();
    crate::run_named(&mut after, &crate::fusion()).unwrap();
    bertc_ir::verify::verify(&after).unwrap();
    let found = linears(&after);
    let [(v, l)] = found[..] else { panic!("{found:?}") };
    assert!(l.int8 && l.zero && l.bias, "{l:?}");
    assert_eq!(after.ty(v).shape[2].as_const(), Some(48));
    assert_eq!((count(&after, "matmul"), count(&after, "quantise")), (0, 1));
    let x: Vec<f32> = (0..2 * 5 * 32).map(|i| ((i * 7 + i / 11) % 31) as f32 * 0.3 - 4.0).collect();
    let x = Tensor::from_f32(vec![2, 5, 32], &x);
    let [a, b] = [&before, &after].map(|g| eval(g, &[1, 5], std::slice::from_ref(&x)).unwrap()[0].to_f64_vec());
    let worst = a.iter().zip(&b).fold(0f64, |m, (x, y)| m.max((x - y).abs()));
    assert!(worst < 1e-5, "{worst}");
    assert!(a.iter().any(|x| x.abs() > 0.1 && x.abs() < 0.99), "{a:?}");
}

#[test]
fn matrices_become_i8_if_they_fit_without_their_zero_points() {
    for (bytes, zeros, fits) in [
        ([0, 255, 128, 100], vec![128], true),
        ([0, 255, 128, 100], vec![127], false),
        ([0, 227, 100, 227], vec![100], true),
        ([0, 255, 127, 128], vec![0, 128], false),
        ([0, 255, 127, 128], vec![1, 128], true),
    ] {
        let mut t = T::new();
        let x = t.input(DType::U8, &["seq", "4"]);
        let one = t.f32(&[], &[1.0]);
        let a = dequantised(&mut t, x, 3, one);
        let both: Vec<Scalar> = bytes.iter().flat_map(|&b| [b; 2]).map(Scalar::Int).collect();
        let w = t.constant(Tensor::from_scalars(DType::U8, vec![4, 2], both));
        // The columns are alike, but for their zero points.
        let shape = if zeros.len() == 1 { vec![] } else { vec![1, 2] };
        let zero = Tensor::from_scalars(DType::I32, shape, zeros.iter().map(|&z| Scalar::Int(z)));
        let zero = t.constant(zero);
        let wide = t.add(Op::Cast(DType::I32), &[w]);
        let centred = t.bin(BinaryOp::Sub, wide, zero);
        let float = t.add(Op::Cast(DType::F32), &[centred]);
        let b = t.bin(BinaryOp::Mul, float, one);
        let y = t.add(Op::MatMul { trans_b: false }, &[a, b]);
        t.g.add_output("y", y);
        let before = t.g.clone();
        let fits = fits && zeros.iter().all(|z| bytes.iter().all(|b| (-128..128).contains(&(b - z))));
        assert_eq!(run(&mut t.g, "integer-linear"), fits, "{bytes:?} {zeros:?}");
        assert_eq!(linears(&t.g).len(), usize::from(fits));
        crate::testing::check_same(&before, &t.g);
    }
}
