//! What can't be imported is reported, all of it, and nothing panics.

use super::*;

#[test]
fn all_bad_nodes_are_reported() {
    let m = M::new(17)
        .input("x", F32, "2 3")
        .node("Frobnicate", "x", "a", vec![])
        .node("Relu", "a", "b", vec![])
        .node("LSTM", "b", "c", vec![])
        .node("Softmax", "x", "d", vec![int("axis", 5)])
        .node("Exp", "x", "e", vec![int("mystery", 1)])
        .node("org.example.Foo", "x", "f", vec![])
        .output("c")
        .output("d");
    let e = m.errors();
    assert_eq!(e.len(), 5, "{e:#?}");
    assert_eq!(e[0], "node 'a' (Frobnicate): the operator is none of ONNX's (opset 17)");
    assert!(e[1].contains("(LSTM): the operator is not supported"), "also behind a failed node");
    assert!(e[1].contains("\n  help: no recurrent layers"), "{}", e[1]);
    assert!(e[2].contains("axis 5 is out of range for rank 2"));
    assert!(e[3].contains("attribute 'mystery' is not supported"));
    assert!(e[4].contains("(org.example.Foo)"));
}

#[test]
fn nodes_with_one_error_are_reported_once() {
    let m = M::new(17)
        .input("x", F32, "2 3")
        .node("MaxPool", "x", "a", vec![])
        .node("MaxPool", "a", "b", vec![])
        .node("Softmax", "x", "c", vec![int("axis", 5)])
        .node("Softmax", "x", "d", vec![int("axis", 5)])
        .node("MaxPool", "x", "e", vec![])
        .output("b");
    let e = m.errors();
    assert_eq!(e.len(), 2, "{e:#?}");
    let help = "`GlobalAveragePool`, `GlobalMaxPool` and `Conv` are taken; an average is a `Conv` with equal weights";
    assert_eq!(
        e[0],
        format!(
            "node 'a' (MaxPool): the operator is not supported (opset 17)\n  \
             note: the same at 2 more nodes: 'b', 'e'\n  help: {help}"
        )
    );
    assert!(e[1].ends_with("axis 5 is out of range for rank 2 (opset 17)\n  note: the same at node 'd'"), "{}", e[1]);
}

#[test]
fn what_is_nearest_to_an_operator_is_told() {
    let help = |op: &str| {
        let m = M::new(17).input("x", F32, "2").node(op, "x", "y", vec![]).output("y");
        m.errors()[0].split_once("help: ").map_or_else(String::new, |(_, help)| help.to_string())
    };
    assert_eq!(help("Sofmax"), "did you mean 'Softmax'?");
    assert_eq!(help("SkipLayerNormalization"), "'SkipLayerNormalization' of the domain com.microsoft is taken");
    assert_eq!(help("com.microsoft.Relu"), "'Relu' of the standard domain is taken");
    assert_eq!(help("com.microsoft.SkipLayerNormalisation"), "did you mean 'SkipLayerNormalization'?");
    assert_eq!(help("com.microsoft.If"), "'If' of the standard domain is taken");
    assert!(help("com.microsoft.NhwcMaxPool").starts_with("where ONNX Runtime's optimiser has written it"));
    assert!(help("com.microsoft.MaxPool").starts_with("`GlobalAveragePool`"));
    assert!(help("org.example.Foo").starts_with("a function in the model"));
}

#[test]
fn versions_and_structure_are_checked() {
    let m = M::new(6).input("x", F32, "2").node("Relu", "x", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("opset 6 is not supported"));
    let m = M::new(29).input("x", F32, "2").node("Relu", "x", "y", vec![]).output("y");
    assert!(m.errors()[0].contains("opset 29 is not supported"));
    let m = M::new(17).input("x", F32, "2").output("y");
    assert!(m.errors()[0].contains("'y' is used before it is defined"));
    let m = M::new(17).input("x", 8, "2").output("x");
    assert!(m.errors()[0].contains("string is not supported"));
    assert!(M::new(17).errors()[0].contains("no outputs"));
    let m = M::new(17).input("x", F32, "2").node("Relu", "x", "y z", vec![]).output("z");
    assert!(m.errors()[0].contains("output 'z' is not supported"));
}

#[test]
fn huge_sizes_are_refused() {
    for n in [1i64 << 40, i64::MAX] {
        let m = M::new(17).i64s("s", &[2], &[n, 8]).node("ConstantOfShape", "s", "y", vec![]).output("y");
        assert!(m.errors()[0].contains("64 Mi elements"));
        let m = M::new(17).i64s("a", &[], &[0]).i64s("b", &[], &[n]).i64s("c", &[], &[1]);
        let m = m.node("Range", "a b c", "y", vec![]).output("y");
        assert!(m.errors()[0].contains("64 Mi elements"));
        let m = M::new(17).input("x", F32, "1").i64s("s", &[1], &[n]).node("Expand", "x s", "y", vec![]).output("y");
        assert!(m.errors()[0].contains("64 Mi elements"));
        let m = M::new(17).input("x", F32, "2").i64s("s", &[1], &[n]).node("Tile", "x s", "y", vec![]).output("y");
        assert!(!m.errors().is_empty());
    }
}

#[test]
fn extreme_numbers_do_not_panic() {
    let values = [0, 1, -1, 2, i64::MAX, i64::MIN, i64::MIN + 1, 1 << 32, -(1 << 40)];
    for a in values {
        for b in values {
            for c in values {
                let m = M::new(17).input("x", F32, "batch 4").i64s("a", &[1], &[a]).i64s("b", &[1], &[b]);
                let m = m.i64s("c", &[1], &[c]).i64s("k", &[], &[a]);
                let m = m.i64s("bs", &[], &[b]).i64s("cs", &[], &[c]).i64s("ab", &[2], &[a, b]);
                let m = m
                    .node("Slice", "x a b k1 c", "o1", vec![])
                    .i64s("k1", &[1], &[1])
                    .node("Slice", "x a b _ c", "o2", vec![])
                    .node("Reshape", "x ab", "o3", vec![])
                    .node("Range", "k bs cs", "o4", vec![])
                    .node("Unsqueeze", "x a", "o5", vec![])
                    .node("Squeeze", "x a", "o6", vec![])
                    .node("Split", "x ab", "p q", vec![int("axis", c)])
                    .node("Gather", "x a", "o8", vec![int("axis", c)])
                    .node("Trilu", "x k", "o9", vec![])
                    .node("Tile", "x ab", "o10", vec![])
                    .node("Expand", "x ab", "o11", vec![])
                    .node("Shape", "x", "o12", vec![int("start", a), int("end", b)])
                    .node("Flatten", "x", "o13", vec![int("axis", a)])
                    .node("Mul", "k bs", "o14", vec![])
                    .node("Div", "k bs", "o15", vec![])
                    .node("Mod", "k bs", "o16", vec![])
                    .node("Neg", "k", "o17", vec![])
                    .node("CumSum", "x k", "o18", vec![])
                    .node("ReduceSum", "x ab", "o19", vec![])
                    .node("Softmax", "x", "o20", vec![int("axis", a)]);
                drop(m.output("o14").import_with(&ImportOptions::default()));
            }
        }
    }
}

#[test]
fn garbage_is_not_a_model() {
    let no = |b: Vec<u8>| import_bytes(b.into(), None, &ImportOptions::default()).expect_err("garbage");
    assert!(no(b"hello, world".to_vec())[0].message.contains("not an ONNX model"));
    assert!(no(Vec::new())[0].message.contains("no graph"));
    // A graph field that claims 2^60 bytes.
    let mut huge = vec![0x3a];
    huge.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x0f]);
    assert!(no(huge)[0].message.contains("not an ONNX model"));
    // Graphs in attributes of nodes in graphs: each level is `graph { node { attribute { g {…} } } }`.
    let mut nested: Vec<u8> = Vec::new();
    for i in 0..3000 {
        let tag = [0x32u8, 0x2a, 0x0a][i % 3];
        let mut outer = vec![tag];
        prost::encoding::encode_varint(nested.len() as u64, &mut outer);
        outer.extend(&nested);
        nested = outer;
    }
    let mut model = vec![0x3a];
    prost::encoding::encode_varint(nested.len() as u64, &mut model);
    model.extend(&nested);
    assert!(no(model)[0].message.contains("not an ONNX model"));
}

#[test]
fn damaged_models_do_not_panic() {
    let m = M::new(17)
        .input("ids", I64, "batch seq")
        .f32s("table", &[4, 2], &[0.5; 8])
        .i64s("shape", &[2], &[-1, 2])
        .node("Gather", "table ids", "e", vec![int("axis", 0)])
        .node("Reshape", "e shape", "r", vec![])
        .node("Softmax", "r", "y", vec![int("axis", -1)])
        .output("y");
    let good = m.0.encode_to_vec();
    let import = |b: Vec<u8>| drop(import_bytes(b.into(), None, &ImportOptions::default()));
    for i in 0..good.len() {
        import(good[..i].to_vec());
        for x in [0x01, 0x08, 0x80, 0xff] {
            let mut b = good.clone();
            b[i] ^= x;
            import(b);
        }
    }
}

#[test]
fn names_and_numbers_are_checked() {
    let relu = || M::new(17).input("x", F32, "2").node("Relu", "x", "y", vec![]);
    assert_eq!(relu().input("x", F32, "2").output("y").errors(), ["two inputs are called 'x'"]);
    assert_eq!(relu().output("y").output("y").errors(), ["two outputs are called 'y'"]);
    for eps in [f32::NAN, -1.0] {
        let m = M::new(17).input("x", F32, "2").input("g", F32, "2");
        let m = m.node("LayerNormalization", "x g", "y", vec![float("epsilon", eps)]).output("y");
        assert!(m.errors()[0].contains("expected a finite value of at least 0"), "{:?}", m.errors());
    }
}
