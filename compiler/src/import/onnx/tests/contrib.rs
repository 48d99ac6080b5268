//! Attention, rotary embeddings, norms and products of integers, against results of ONNX Runtime 1.31.

use bertc_ir::{DType, Scalar};

use super::*;

/// ONNX numbers of 8-bit integers.
const U8: i32 = 2;
const I8: i32 = 3;

/// Numbers that differ from their neighbours, around `k`.
fn floats(n: usize, k: f32) -> Vec<f32> {
    (0..n).map(|i| ((i * 7 + 3) % 11) as f32 / 4.0 - 1.25 + k).collect()
}

fn tensor(shape: &[usize], k: f32) -> Tensor {
    Tensor::from_f32(shape.to_vec(), &floats(shape.iter().product(), k))
}

fn integers(dtype: DType, shape: &[usize], v: &[i128]) -> Tensor {
    Tensor::from_scalars(dtype, shape.to_vec(), v.iter().map(|&i| Scalar::Int(i)))
}

impl M {
    /// A constant of [`floats`].
    fn counted(self, name: &str, dims: &[i64]) -> M {
        let v = floats(dims.iter().product::<i64>() as usize, 0.0);
        self.f32s(name, dims, &v)
    }

    /// Checks the values of outputs of the graph.
    fn gives(&self, inputs: &[Tensor], outputs: &[(&str, &[usize], &[f64])]) {
        for (name, shape, want) in outputs {
            let t = self.clone().output(name).run(inputs);
            assert_eq!(t.shape(), *shape, "{name}");
            close(&t, shape, want);
        }
    }
}

#[test]
fn multi_head_attention() {
    let m = M::new(17)
        .input("q", F32, "1 s 4")
        .input("k", F32, "1 s 4")
        .input("v", F32, "1 s 4")
        .input("m", I32, "1 s")
        .input("a", F32, "1 1 s s")
        .counted("b", &[12])
        .node(
            "com.microsoft.MultiHeadAttention",
            "q k v b m a",
            "y pk pv qk",
            vec![int("num_heads", 2), float("mask_filter_value", -2.0)],
        );
    let x = [
        tensor(&[1, 2, 4], 0.0),
        tensor(&[1, 2, 4], 0.5),
        tensor(&[1, 2, 4], -1.0),
        integers(DType::I32, &[1, 2], &[1, 0]),
        tensor(&[1, 1, 2, 2], 0.0),
    ];
    let y = [-1.70689, -1.03592, -0.36568, -2.11118, -1.7091, -1.03408, -0.36012, -2.11785];
    let qk = [1.88649, -1.63388, 2.15035, -1.42417, -1.11872, -3.40165, 0.38258, -1.9545];
    m.gives(
        &x,
        &[
            ("y", &[1, 2, 4], &y),
            ("pk", &[1, 2, 2, 2], &[1.0, 1.75, 2.5, 0.5, -0.25, 0.5, -1.5, 2.0]),
            ("pv", &[1, 2, 2, 2], &[-1.75, -1.0, -0.25, -2.25, -0.25, -2.25, -1.5, -0.75]),
            ("qk", &[1, 2, 2, 2], &qk),
        ],
    );
}

#[test]
fn attention_behind_the_past() {
    // Ends and starts of the keys in one vector.
    let attrs = vec![int("num_heads", 1), int("unidirectional", 1)];
    let m = M::new(17)
        .input("x", F32, "1 s 2")
        .input("m", I32, "2")
        .input("p", F32, "2 1 1 1 2")
        .counted("w", &[2, 6])
        .counted("b", &[6])
        .node("com.microsoft.Attention", "x w b m p", "y n", attrs);
    let x = [tensor(&[1, 2, 2], 0.0), integers(DType::I32, &[2], &[2, 1]), tensor(&[2, 1, 1, 1, 2], 0.0)];
    let n = [-0.5, 1.25, -0.1875, -1.9375, 0.5, 0.0, 0.25, -0.75, 1.125, -0.625, 0.875, 0.375];
    m.gives(&x, &[("y", &[1, 2, 2], &[1.125, -0.625, 1.125, -0.625]), ("n", &[2, 1, 1, 3, 2], &n)]);
}

#[test]
fn attention_on_integers() {
    let m = M::new(17)
        .input("x", U8, "1 s 2")
        .bytes("w", I8, &[2, 6], &[1, -2, 3, -4, 5, -6, 7, -8, 9, -10, 11, -12])
        .counted("b", &[6])
        .f32s("s", &[], &[0.0625])
        .f32s("t", &[], &[0.125])
        .bytes("z", U8, &[], &[128])
        .node("com.microsoft.QAttention", "x w b s t _ z", "y", vec![int("num_heads", 1)]);
    let x = integers(DType::U8, &[1, 2, 2], &[1, 2, 200, 130]);
    m.gives(&[x], &[("y", &[1, 2, 2], &[-14.78906, 17.76562, 0.98673, -0.15693])]);
}

#[test]
fn products_of_integers() {
    let m = M::new(21)
        .input("x", U8, "m 2")
        .bytes("w", I8, &[2, 3], &[1, -2, 3, 7, -8, 9])
        .bytes("zw", I8, &[3], &[0, 1, 2])
        .bytes("z", U8, &[], &[128])
        .bytes("zy", U8, &[], &[101])
        .f32s("s", &[], &[0.5])
        .f32s("sw", &[3], &[0.25, 0.5, 1.0])
        .f32s("sy", &[], &[8.0])
        .node("QLinearMatMul", "x s z w sw zw sy zy", "y", vec![]);
    let x = integers(DType::U8, &[2, 2], &[1, 2, 200, 130]);
    m.gives(&[x], &[("y", &[2, 3], &[85.0, 148.0, 38.0, 102.0, 94.0, 106.0])]);
    let m = M::new(17)
        .input("x", F32, "m 2")
        .bytes("w", I8, &[2, 3], &[1, -2, 3, 7, -8, 9])
        .bytes("zw", I8, &[3], &[0, 1, 2])
        .f32s("sw", &[3], &[0.25, 0.5, 1.0])
        .counted("b", &[3])
        .node("com.microsoft.DynamicQuantizeMatMul", "x w sw zw b", "y", vec![]);
    let y = [1.55686, -3.60882, 8.47745, -1.7549, 4.26177, -4.76961];
    m.gives(&[tensor(&[2, 2], 0.0)], &[("y", &[2, 3], &y)]);
}

#[test]
fn weights_of_four_bits() {
    let w = [7, 36, 65, 94, 123, 152, 181, 210, 239, 12, 41, 70, 99, 128, 157, 186];
    let m = M::new(17)
        .input("x", F32, "m 16")
        .bytes("w", U8, &[2, 1, 8], &w)
        .counted("s", &[2, 1])
        .bytes("z", U8, &[2, 1], &[5, 9])
        .node(
            "com.microsoft.MatMulNBits",
            "x w s z",
            "y",
            vec![int("K", 16), int("N", 2), int("bits", 4), int("block_size", 16)],
        );
    m.gives(&[tensor(&[2, 16], 0.0)], &[("y", &[2, 2], &[5.5, 21.875, -1.625, -29.6875])]);
}

#[test]
fn four_bits_of_a_tensor() {
    let m = M::new(21)
        .bytes("q", 22, &[3], &[0x7f, 0x08])
        .bytes("u", 21, &[3], &[0x7f, 0x08])
        .bytes("t", 26, &[5], &[0b11_10_01_00, 0b10])
        .f32s("s", &[], &[0.5])
        .node("DequantizeLinear", "q s", "a", vec![])
        .node("DequantizeLinear", "u s", "b", vec![])
        .node("DequantizeLinear", "t s", "c", vec![]);
    m.gives(
        &[],
        &[("a", &[3], &[-0.5, 3.5, -4.0]), ("b", &[3], &[7.5, 3.5, 4.0]), ("c", &[5], &[0.0, 0.5, -1.0, -0.5, -1.0])],
    );
    let short = M::new(21).bytes("q", 22, &[3], &[0x7f]).f32s("s", &[], &[0.5]);
    let e = short.node("DequantizeLinear", "q s", "a", vec![]).output("a").errors();
    assert!(e[0].contains("need 2 bytes, the file has 1"), "{e:?}");
    // Bounds of the zero point's type.
    let m = M::new(21).input("x", F32, "3").f32s("s", &[], &[1.0]).bytes("z", 22, &[], &[1]);
    let m = m.node("QuantizeLinear", "x s z", "q", vec![]).node("Cast", "q", "y", vec![int("to", 3)]).output("y");
    let x = Tensor::from_f32(vec![3], &[100.0, 2.0, -100.0]);
    assert_eq!(m.run(&[x]).to_i64_vec(), [7, 3, -8]);
}

#[test]
fn rotary_embeddings() {
    let m = M::new(23)
        .input("x", F32, "1 s 6")
        .input("p", I64, "1")
        .counted("c", &[4, 1])
        .f32s("n", &[4, 1], &floats(4, 0.5))
        .node(
            "com.microsoft.RotaryEmbedding",
            "x p c n",
            "y",
            vec![int("num_heads", 2), int("rotary_embedding_dim", 2), int("interleaved", 1)],
        );
    let y = [-2.8125, 0.6875, 0.25, -2.6875, -0.0625, 0.0, -0.8125, -0.5625, -0.25, -0.6875, -0.8125, -0.5];
    m.gives(&[tensor(&[1, 2, 6], 0.0), Tensor::from_i64(vec![1], &[1])], &[("y", &[1, 2, 6], &y)]);
    let m = M::new(23)
        .input("x", F32, "1 1 s 4")
        .input("p", I64, "1 s")
        .counted("c", &[3, 2])
        .f32s("n", &[3, 2], &floats(6, 0.5))
        .node("RotaryEmbedding", "x c n p", "y", vec![]);
    let y = [-0.875, 0.375, -0.5, 0.625, -0.5, -1.3125, 0.5, 0.9375];
    m.gives(&[tensor(&[1, 1, 2, 4], 0.0), Tensor::from_i64(vec![1, 2], &[2, 0])], &[("y", &[1, 1, 2, 4], &y)]);
}

#[test]
fn standard_attention() {
    let attrs = vec![int("is_causal", 1), float("softcap", 1.5), int("qk_matmul_output_mode", 3)];
    let m = M::new(23)
        .input("q", F32, "1 2 s 2")
        .input("k", F32, "1 1 s 2")
        .input("v", F32, "1 1 s 1")
        .input("pk", F32, "1 1 1 2")
        .input("pv", F32, "1 1 1 1")
        .node("Attention", "q k v _ pk pv", "y nk nv p", attrs);
    let x = [
        tensor(&[1, 2, 2, 2], 0.0),
        tensor(&[1, 1, 2, 2], 0.5),
        tensor(&[1, 1, 2, 1], 0.0),
        tensor(&[1, 1, 1, 2], 0.0),
        tensor(&[1, 1, 1, 1], 0.0),
    ];
    let p = [0.46966, 0.53034, 0.0, 0.22321, 0.19578, 0.58101, 0.41407, 0.58593, 0.0, 0.46221, 0.43546, 0.10233];
    m.gives(
        &x,
        &[
            ("y", &[1, 2, 2, 1], &[-0.5, 0.51677, -0.5, -0.32093]),
            ("nk", &[1, 1, 3, 2], &[-0.5, 1.25, 0.0, 1.75, 0.75, -0.25]),
            ("nv", &[1, 1, 3, 1], &[-0.5, -0.5, 1.25]),
            ("p", &[1, 2, 2, 3], &p),
        ],
    );
    // A query that sees no key gives zeros.
    let m = M::new(23)
        .input("q", F32, "1 1 2 2")
        .input("k", F32, "1 1 3 2")
        .input("v", F32, "1 1 3 1")
        .input("m", BOOL, "2 3")
        .node("Attention", "q k v m", "y", vec![]);
    let x = [
        tensor(&[1, 1, 2, 2], 0.0),
        tensor(&[1, 1, 3, 2], 0.5),
        tensor(&[1, 1, 3, 1], 0.0),
        integers(DType::Bool, &[2, 3], &[0, 0, 0, 1, 0, 1]),
    ];
    m.gives(&x, &[("y", &[1, 1, 2, 1], &[0.0, 0.03751])]);
}

#[test]
fn a_norm_without_mean_behind_a_sum() {
    let m = M::new(17).input("x", F32, "1 s 3").input("k", F32, "s 3").counted("g", &[3]).node(
        "com.microsoft.SkipSimplifiedLayerNormalization",
        "x k g g",
        "y _ i u",
        vec![float("epsilon", 0.5)],
    );
    m.gives(
        &[tensor(&[1, 2, 3], 0.0), tensor(&[2, 3], 1.0)],
        &[
            ("y", &[1, 2, 3], &[0.08276, 1.96556, 0.14483, 0.18411, 1.95622, 0.11507]),
            ("i", &[1, 2, 1], &[0.33104, 0.36823]),
            ("u", &[1, 2, 3], &[-0.5, 4.75, 1.75, -1.0, 4.25, 1.25]),
        ],
    );
}
