//! Operators, by family: what they compute, and where opsets differ.

use super::*;

#[test]
fn elementwise_and_broadcasting() {
    close(&one_node(13, "Add", &[&[2, 1], &[2]], vec![]), &[2, 2], &[2.0, 2.5, 2.5, 3.0]);
    close(&one_node(13, "Mean", &[&[2], &[1]], vec![]), &[2], &[1.0, 1.25]);
    close(&one_node(13, "Pow", &[&[2], &[2]], vec![]), &[2], &[1.0, 1.5f64.powf(1.5)]);
    close(&one_node(7, "Clip", &[&[4]], vec![float("min", 1.2), float("max", 2.1)]), &[4], &[1.2, 1.5, 2.0, 2.1]);
    let m = M::new(13).input("x", I64, "3").i64s("k", &[], &[2]).node("Div", "x k", "y", vec![]).output("y");
    assert_eq!(m.run(&[Tensor::from_i64(vec![3], &[-3, 3, 5])]).to_i64_vec(), [-1, 1, 2], "towards zero");
    let m = M::new(13).input("x", F32, "2").input("k", I64, "1").node("Add", "x k", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("operand types f32 and i64 differ"));
}

#[test]
fn activations() {
    close(&one_node(13, "LeakyRelu", &[&[1]], vec![float("alpha", 0.1)]), &[1], &[1.0]);
    close(&one_node(14, "HardSwish", &[&[1]], vec![]), &[1], &[1.0 * (1.0 / 6.0 + 0.5)]);
    close(&one_node(13, "Softplus", &[&[1]], vec![]), &[1], &[1f64.exp().ln_1p()]);
    close(&one_node(13, "com.microsoft.QuickGelu", &[&[1]], vec![]), &[1], &[1.0 / (1.0 + (-1.702f64).exp())]);
    let s = AttributeProto { s: Some("cubic".into()), ..attr("approximate", A::String) };
    let m = M::new(20).input("x", F32, "1").node("Gelu", "x", "y", vec![s]).output("y");
    assert!(m.errors()[0].contains("approximate='cubic'"));
}

#[test]
fn softmax_before_and_after_opset_13() {
    let sum = |t: &Tensor| t.to_f64_vec().iter().sum::<f64>();
    let old = one_node(11, "Softmax", &[&[2, 3, 2]], vec![int("axis", 1)]);
    assert!((sum(&old) - 2.0).abs() < 1e-5, "flattened to 2 rows");
    let new = one_node(13, "Softmax", &[&[2, 3, 2]], vec![int("axis", 1)]);
    assert!((sum(&new) - 4.0).abs() < 1e-5, "2 · 2 columns");
    let log = one_node(13, "LogSoftmax", &[&[2]], vec![]);
    close(&log, &[2], &[-(1.0 + 0.5f64.exp()).ln(), 0.5 - (1.0 + 0.5f64.exp()).ln()]);
}

#[test]
fn axes_as_attribute_and_as_input() {
    close(&one_node(11, "ReduceSum", &[&[2, 2]], vec![ints("axes", &[1]), int("keepdims", 0)]), &[2], &[2.5, 4.5]);
    let m = M::new(13).input("x", F32, "2 2").i64s("axes", &[1], &[-1]).node("ReduceSum", "x axes", "y", vec![]);
    close(&m.output("y").run(&[Tensor::from_f32(vec![2, 2], &[1., 2., 3., 4.])]), &[2, 1], &[3.0, 7.0]);
    close(&one_node(13, "ReduceMean", &[&[2, 2]], vec![ints("axes", &[0])]), &[1, 2], &[1.5, 2.0]);
    close(&one_node(11, "Unsqueeze", &[&[2]], vec![ints("axes", &[0])]), &[1, 2], &[1.0, 1.5]);
    close(&one_node(9, "Slice", &[&[4]], vec![ints("starts", &[-3]), ints("ends", &[99])]), &[3], &[1.5, 2.0, 2.5]);
    let m = M::new(13).input("x", F32, "2 2").node("ReduceSum", "x", "y", vec![ints("axes", &[1])]).output("y");
    assert!(m.errors()[0].contains("attribute 'axes' is not supported"), "it is an input in opset 13");
    close(&one_node(13, "ReduceLogSumExp", &[&[2]], vec![]), &[1], &[1.0 + 0.5f64.exp().ln_1p()]);
}

#[test]
fn slices_by_negative_steps() {
    let m = M::new(13)
        .input("x", F32, "4")
        .i64s("s", &[1], &[-1])
        .i64s("e", &[1], &[i64::MIN])
        .i64s("a", &[1], &[0])
        .i64s("k", &[1], &[-2])
        .node("Slice", "x s e a k", "y", vec![])
        .output("y");
    close(&m.run(&[Tensor::from_f32(vec![4], &[0., 1., 2., 3.])]), &[2], &[3.0, 1.0]);
    let m = M::new(13).input("x", F32, "seq").i64s("s", &[1], &[0]).i64s("e", &[1], &[100]);
    let m = m.node("Slice", "x s e", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("narrow the dims' ranges"));
    let short = ImportOptions { dims: vec![("seq".into(), 1, 100)], ..Default::default() };
    assert!(m.import_with(&short).is_ok());
}

#[test]
fn products() {
    let t = |s: &[usize]| one_node(13, "MatMul", &[s, &[2, 2]], vec![]);
    close(&t(&[2]), &[2], &[1.0 + 1.5 * 2.0, 1.5 + 1.5 * 2.5]);
    close(&one_node(13, "MatMul", &[&[2], &[2]], vec![]), &[], &[1.0 + 2.25]);
    close(&one_node(13, "MatMul", &[&[2, 2], &[2]], vec![]), &[2], &[3.25, 5.75]);
    let attrs = vec![float("alpha", 2.0), float("beta", 3.0), int("transB", 1)];
    let y = one_node(13, "Gemm", &[&[1, 2], &[2, 2], &[2]], attrs);
    close(&y, &[1, 2], &[2.0 * 3.25 + 3.0, 2.0 * (2.0 + 3.75) + 4.5]);
    let y = one_node(13, "Gemm", &[&[2, 1], &[2, 1]], vec![int("transA", 1)]);
    close(&y, &[1, 1], &[3.25]);
    let m = M::new(13).input("x", F32, "2 3").input("w", F32, "2 3").node("MatMul", "x w", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("dims 2 and 3 differ") || m.errors()[0].contains("dims 3 and 2 differ"));
}

#[test]
fn layer_norm_over_several_dims_without_bias() {
    let m = M::new(17)
        .input("x", F32, "n 1 2")
        .f32s("g", &[1, 2], &[1.0, 2.0])
        .node("LayerNormalization", "x g", "y mean", vec![int("axis", 1), float("epsilon", 0.0)])
        .output("y");
    close(&m.run(&[Tensor::from_f32(vec![1, 1, 2], &[1.0, 3.0])]), &[1, 1, 2], &[-1.0, 2.0]);
}

#[test]
fn quantisation_rounds_to_even_and_saturates() {
    let zero = |m: &mut M, v: u8| {
        m.graph().initializer.push(TensorProto {
            name: Some("z".to_string()),
            data_type: Some(2),
            raw_data: Some(vec![v].into()),
            ..Default::default()
        });
    };
    let mut m = M::new(13).input("x", F32, "5").f32s("s", &[], &[2.0]).node("QuantizeLinear", "x s z", "y", vec![]);
    zero(&mut m, 10);
    let x = Tensor::from_f32(vec![5], &[1.0, 3.0, -5.0, 1e9, -1e9]);
    assert_eq!(m.clone().output("y").run(&[x]).to_i64_vec(), [10, 12, 8, 255, 0]);
    let y = one_node(11, "DynamicQuantizeLinear", &[&[3]], vec![]);
    assert_eq!(y.to_i64_vec(), [127, 191, 255]);
    let m = M::new(13).input("x", F32, "2").node("DynamicQuantizeLinear", "x", "y s z", vec![]).output("s");
    close(&m.run(&[Tensor::from_f32(vec![2], &[0.0, 0.0])]), &[], &[1.0]);
    let m = M::new(21).input("x", F32, "4").f32s("s", &[2], &[1.0, 2.0]);
    let m = m.node("QuantizeLinear", "x s", "y", vec![int("block_size", 2), int("axis", 0)]).output("y");
    assert_eq!(m.run(&[Tensor::from_f32(vec![4], &[3.0, 4.0, 5.0, 6.0])]).to_i64_vec(), [3, 4, 2, 3]);
}

#[test]
fn gathers_select_and_trilu() {
    let m = M::new(13).input("x", F32, "2 2").i64s("i", &[1], &[-1]).node("Gather", "x i", "y", vec![int("axis", 1)]);
    close(&m.output("y").run(&[Tensor::from_f32(vec![2, 2], &[1., 2., 3., 4.])]), &[2, 1], &[2.0, 4.0]);
    close(&one_node(14, "Trilu", &[&[2, 2]], vec![int("upper", 0)]), &[2, 2], &[1.0, 0.0, 2.0, 2.5]);
    let m = M::new(13).input("c", BOOL, "2").input("x", F32, "2").f32s("z", &[], &[0.0]);
    let m = m.node("Where", "c x z", "y", vec![]).output("y");
    let c = Tensor::from_scalars(bertc_ir::DType::Bool, vec![2], [1, 0].map(bertc_ir::Scalar::Int));
    close(&m.run(&[c, Tensor::from_f32(vec![2], &[5., 6.])]), &[2], &[5.0, 0.0]);
}

#[test]
fn skip_layer_norm_gives_the_sum_too() {
    let m = M::new(17)
        .input("x", F32, "b s 2")
        .input("k", F32, "b s 2")
        .f32s("g", &[2], &[1.0, 1.0])
        .f32s("bias", &[2], &[1.0, 0.0])
        .node("com.microsoft.SkipLayerNormalization", "x k g _ bias", "y _ _ sum", vec![])
        .output("sum");
    let x = Tensor::from_f32(vec![1, 1, 2], &[1.0, 2.0]);
    close(&m.run(&[x.clone(), x]), &[1, 1, 2], &[3.0, 4.0]);
}

#[test]
fn attention_masks() {
    // Zero queries: the result is the mean of the values that the mask leaves.
    let w: Vec<f32> = (0..12).map(|i| if i == 4 || i == 11 { 1.0 } else { 0.0 }).collect();
    let model = |mask_dims: &str, attrs: Vec<AttributeProto>| {
        let mut a = vec![int("num_heads", 1)];
        a.extend(attrs);
        M::new(17)
            .input("x", F32, "batch seq 2")
            .input("m", I32, mask_dims)
            .f32s("w", &[2, 6], &w)
            .node("com.microsoft.Attention", "x w _ m", "y", a)
            .output("y")
    };
    let x = Tensor::from_f32(vec![1, 2, 2], &[1.0, 2.0, 3.0, 4.0]);
    let mask = |s: Vec<usize>, v: &[i128]| {
        Tensor::from_scalars(bertc_ir::DType::I32, s, v.iter().map(|&i| bertc_ir::Scalar::Int(i)))
    };
    let all = model("batch seq", vec![]).run(&[x.clone(), mask(vec![1, 2], &[1, 1])]);
    close(&all, &[1, 2, 2], &[2.0, 3.0, 2.0, 3.0]);
    let first = [1.0, 2.0, 1.0, 2.0];
    close(&model("batch seq", vec![]).run(&[x.clone(), mask(vec![1, 2], &[1, 0])]), &[1, 2, 2], &first);
    close(&model("batch", vec![]).run(&[x.clone(), mask(vec![1], &[1])]), &[1, 2, 2], &first);
    let e = model("5", vec![]).errors();
    assert!(e[0].contains("mask_index of shape [5]"), "{e:?}");
    let causal = model("batch seq", vec![int("unidirectional", 1)]).run(&[x, mask(vec![1, 2], &[1, 1])]);
    close(&causal, &[1, 2, 2], &[1.0, 2.0, 2.0, 3.0]);
}
