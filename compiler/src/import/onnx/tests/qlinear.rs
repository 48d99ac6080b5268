//! Operators on quantised tensors and tables of com.microsoft, against results of ONNX Runtime 1.31.

use super::*;

const U8: i32 = 2;
const I8: i32 = 3;

/// Two rows of u8, with a scale and a zero point.
fn rows(scale: f32) -> M {
    M::new(21).bytes("x", U8, &[2, 3], &[3, 100, 255, 128, 7, 64]).f32s("s", &[], &[scale]).bytes("z", U8, &[], &[128])
}

/// Checks the first output, of which there is one.
fn gives(m: M, shape: &[usize], want: &[f64]) {
    close(&m.output("y").run(&[]), shape, want);
}

#[test]
fn of_two_operands() {
    let row = |m: M| m.bytes("b", U8, &[3], &[10, 200, 128]).f32s("t", &[], &[0.25]).bytes("w", U8, &[], &[100]);
    let to = |m: M| m.f32s("r", &[], &[0.75]).bytes("p", U8, &[], &[120]);
    let m = to(row(rows(0.5))).node("com.microsoft.QLinearAdd", "x s z b t w r p", "y", vec![]);
    gives(m, &[2, 3], &[7.0, 135.0, 214.0, 90.0, 73.0, 87.0]);
    let m = to(row(rows(0.5))).bytes("c", BOOL, &[3], &[1, 0, 1]);
    let m = m.node("com.microsoft.QLinearWhere", "c x s z b t w r p", "y", vec![]);
    gives(m, &[2, 3], &[37.0, 153.0, 205.0, 120.0, 153.0, 77.0]);
    let m = M::new(21)
        .bytes("a", I8, &[2, 2], &[-128, 5, 90, 7])
        .f32s("s", &[], &[0.5])
        .bytes("z", I8, &[], &[3])
        .bytes("b", I8, &[2], &[4, -10])
        .f32s("t", &[], &[0.125])
        .f32s("r", &[], &[0.75])
        .bytes("p", I8, &[], &[-5])
        .node("com.microsoft.QLinearMul", "a s z b t _ r p", "y", vec![]);
    gives(m, &[2, 2], &[-49.0, -7.0, 24.0, -8.0]);
    let m = rows(0.5).f32s("t", &[3], &[0.25; 3]).node("com.microsoft.QLinearAdd", "x t z x s z s z", "y", vec![]);
    assert!(m.output("y").errors()[0].contains("a scale or zero point of shape [3] is not supported"));
}

#[test]
fn of_one_operand() {
    let to = |m: M, z: i16| m.f32s("r", &[], &[1.0 / 256.0]).bytes("p", U8, &[], &[z]);
    let m = to(rows(0.05), 0).node("com.microsoft.QLinearSigmoid", "x s z r p", "y", vec![]);
    gives(m, &[2, 3], &[0.0, 51.0, 255.0, 128.0, 1.0, 10.0]);
    let m = rows(0.05).bytes("p", U8, &[], &[90]);
    let m = m.node("com.microsoft.QLinearLeakyRelu", "x s z s p", "y", vec![float("alpha", 0.25)]);
    gives(m, &[2, 3], &[59.0, 83.0, 217.0, 90.0, 60.0, 74.0]);
    let softmax = |m: M, opset, axis| {
        let attributes = vec![int("opset", opset), int("axis", axis)];
        to(m, 0).node("com.microsoft.QLinearSoftmax", "x s z r p", "y", attributes)
    };
    gives(softmax(rows(0.05), 13, -1), &[2, 3], &[0.0, 0.0, 255.0, 245.0, 1.0, 10.0]);
    let m = to(rows(0.05), 0).node("com.microsoft.QLinearSoftmax", "x s z r p", "y", vec![int("opset", 11)]);
    gives(m, &[2, 3], &[0.0, 0.0, 255.0, 245.0, 1.0, 10.0]);
    // Before opset 13 over all dims from the axis on.
    gives(softmax(rows(0.02), 11, 0), &[2, 3], &[1.0, 10.0, 221.0, 17.0, 2.0, 5.0]);
}

#[test]
fn of_many_operands() {
    let m = rows(0.25).f32s("r", &[], &[0.5]).bytes("p", U8, &[], &[100]).f32s("one", &[], &[1.0]);
    let m = m.bytes("w", U8, &[], &[90]);
    let m = m.node("com.microsoft.QLinearConcat", "r p x s z x one w", "y", vec![int("axis", 1)]);
    gives(m, &[2, 6], &[38.0, 86.0, 164.0, 0.0, 120.0, 255.0, 100.0, 40.0, 68.0, 176.0, 0.0, 48.0]);
}

#[test]
fn products_with_a_bias() {
    let w = |m: M| m.bytes("w", I8, &[2, 3], &[1, -2, 3, 7, -8, 9]).bytes("v", I8, &[3, 2], &[1, 7, -2, -8, 3, 9]);
    let m = |m: M| w(m).bytes("zw", I8, &[], &[1]).f32s("sw", &[], &[0.5]).bytes("p", U8, &[], &[90]);
    let bias = |mut m: M| {
        let t = TensorProto {
            name: Some("c".into()),
            dims: vec![2],
            data_type: Some(I32),
            int32_data: vec![40, -50],
            ..Default::default()
        };
        m.graph().initializer.push(t);
        m
    };
    let quantised = bias(m(rows(0.05))).f32s("r", &[], &[1.5]).node(
        "com.microsoft.QGemm",
        "x s z w sw zw c r p",
        "y",
        vec![int("transB", 1), float("alpha", 0.5)],
    );
    gives(quantised, &[2, 2], &[93.0, 94.0, 92.0, 94.0]);
    let floats = bias(m(rows(0.05))).f32s("columns", &[2], &[0.5, 0.25]);
    let floats = floats.node("com.microsoft.QGemm", "x s z v columns _ c", "y", vec![]);
    gives(floats, &[2, 2], &[8.8, 5.525, 2.25, 4.275]);
    let m = M::new(17).input("a", F32, "3 2").input("b", F32, "2 2 3").node(
        "com.microsoft.FusedMatMul",
        "a b",
        "y",
        vec![int("transA", 1), int("transB", 1), float("alpha", 0.5)],
    );
    let a = Tensor::from_f32(vec![3, 2], &[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let b = Tensor::from_f32(vec![2, 2, 3], &(0..12).map(|i| i as f32 / 4.0).collect::<Vec<_>>());
    close(&m.output("y").run(&[a, b]), &[2, 2, 2], &[0.625, 1.75, 1.75, 6.25, 2.875, 4.0, 10.75, 15.25]);
}

#[test]
fn quantised_embeddings() {
    let scaled = [("a", 0.1, 100), ("b", 0.05, 60), ("c", 0.025, 90), ("d", 0.04, 5), ("e", 0.5, 2)];
    let steps = |first: i16, step: i16, n: i16| (0..n).map(|i| first + step * i).collect::<Vec<_>>();
    let mut m = M::new(17)
        .input("ids", I32, "1 3")
        .input("seg", I32, "1 3")
        .input("mask", I32, "1 3")
        .bytes("wt", U8, &[3, 4], &steps(0, 20, 12))
        .bytes("pt", U8, &[3, 4], &[5, 15, 25, 35, 45, 55, 65, 75, 85, 95, 105, 200])
        .bytes("st", U8, &[2, 4], &steps(50, 10, 8))
        .bytes("g", U8, &[4], &[10, 20, 30, 40])
        .bytes("h", U8, &[4], &[1, 2, 3, 4]);
    for (name, scale, zero) in scaled {
        m = m.f32s(&format!("s{name}"), &[], &[scale]).bytes(&format!("z{name}"), U8, &[], &[zero]);
    }
    let m = m.node(
        "com.microsoft.QEmbedLayerNormalization",
        "ids seg wt pt st g h mask sa sb sc sd se za zb zc zd ze",
        "y n",
        vec![float("epsilon", 1e-5)],
    );
    let i32s = |v: &[i128]| {
        Tensor::from_scalars(bertc_ir::DType::I32, vec![1, 3], v.iter().map(|&v| bertc_ir::Scalar::Int(v)))
    };
    let x = [i32s(&[1, 0, 2]), i32s(&[0, 1, 1]), i32s(&[1, 1, 0])];
    let row = [-0.7683280, -0.2683280, 0.9472134, 2.8782963];
    let last = [-0.7232062, -0.3146400, 0.5672308, 3.2024798];
    let want: Vec<f64> = row.iter().chain(&row).chain(&last).copied().collect();
    close(&m.clone().output("y").run(&x), &[1, 3, 4], &want);
    close(&m.output("n").run(&x), &[1], &[2.0]);
}

#[test]
fn rows_of_a_table_in_blocks() {
    let packed: Vec<i16> = (0..48).map(|k| (37 * k + 11) % 256).collect();
    let m = |zeros: bool| {
        let m = M::new(21).input("i", I64, "1 2").bytes("d", U8, &[3, 16], &packed);
        let m = m.f32s("s", &[3, 2], &[0.5, 0.25, 1.0, 2.0, 0.125, 0.75]).bytes("z", U8, &[3, 1], &[0x95, 0x37, 0xa8]);
        let attributes = vec![int("bits", 4), int("block_size", 16), int("gather_axis", 0), int("quantize_axis", 1)];
        m.node("com.microsoft.GatherBlockQuantized", if zeros { "d i s z" } else { "d i s" }, "y", attributes)
    };
    let x = [Tensor::from_i64(vec![1, 2], &[2, 0])];
    let pick = |t: &Tensor| [0, 1, 15, 16, 17, 31, 32, 33, 47, 48, 63].map(|i| t.to_f64_vec()[i]);
    let y = m(true).output("y").run(&x);
    assert_eq!(y.shape(), [1, 2, 32]);
    assert_eq!(pick(&y), [0.375, 0.25, 0.25, -5.25, 2.25, 2.25, 3.0, -2.5, -2.5, -1.5, -1.5]);
    let y = m(false).output("y").run(&x);
    assert_eq!(pick(&y), [0.375, 0.25, 0.25, -3.75, 3.75, 3.75, 1.5, -4.0, -4.0, -1.25, -1.25]);
    // Two 4-bit elements in a byte of the file, without zero points.
    let m = M::new(21)
        .input("i", I64, "1")
        .bytes("d", 22, &[2, 16], &packed[..16])
        .f32s("s", &[2, 1], &[0.5, 0.25])
        .node("com.microsoft.GatherBlockQuantized", "d i s", "y", vec![int("block_size", 16)])
        .output("y");
    let y = m.run(&[Tensor::from_i64(vec![1], &[1])]).to_f64_vec();
    // Byte 8 is 0x33.
    assert_eq!(y[..2], [0.75, 0.75]);
}

#[test]
fn tables_that_do_not_fit_are_errors() {
    let gather = |m: M, ins: &str, bits: i64, along: i64| {
        let attributes = vec![int("bits", bits), int("block_size", 16), int("quantize_axis", along)];
        m.node("com.microsoft.GatherBlockQuantized", ins, "y", attributes).output("y").errors().remove(0)
    };
    let m = || {
        let m = M::new(21).input("i", I64, "2").bytes("d", U8, &[3, 16], &[7; 48]).f32s("s", &[3, 2], &[0.5; 6]);
        m.bytes("flat", U8, &[3], &[1, 2, 3]).bytes("few", U8, &[1, 1], &[1]).bytes("signed", I8, &[3, 1], &[1; 3])
    };
    assert!(gather(m(), "d i s flat", 4, 1).contains("zero points of another one"));
    assert!(gather(m(), "d i s few", 4, 1).contains("zero points of another one"));
    assert!(gather(m(), "d i s signed", 4, 1).contains("zero points of i8 for data of u8"));
    assert!(gather(m(), "d i s", 3, 1).contains("data of u8 with these bits"));
    assert!(gather(m(), "d i s", 4, 0).contains("gather_axis and quantize_axis are the same"));
    assert!(gather(m(), "d i i", 4, 1).contains("scales of i64 are not supported"));
    assert!(gather(m().bytes("c", 17, &[3, 2], &[1; 6]), "d i c", 4, 1).contains("scales of float8e4m3fn"));
    assert!(gather(m().f32s("t", &[7, 2], &[0.5; 14]), "d i t", 4, 1).contains("for data of shape [3, 32]"));
    let m = M::new(21).input("i", I64, "2").bytes("d", U8, &[0, 1 << 62], &[]).f32s("s", &[0, 2], &[]);
    assert!(gather(m, "d i s", 2, 1).contains("overflows 64 bits"));
    let m = M::new(21).input("i", I64, "2").bytes("d", U8, &[3, 0], &[]).f32s("s", &[3, 0], &[]);
    let m = m.node("com.microsoft.GatherBlockQuantized", "d i s", "y", vec![int("block_size", i64::MIN)]).output("y");
    assert!(m.errors()[0].contains("expected a power of two of at least 16"));
}
