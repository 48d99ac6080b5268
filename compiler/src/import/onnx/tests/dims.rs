//! Symbolic dims and shape arithmetic.

use super::*;

/// input [batch, seq] → Range(0, seq) → Unsqueeze → GreaterOrEqual 0 → And with the mask.
#[test]
fn mask_building_collapses() {
    let m = M::new(17)
        .input("mask", BOOL, "batch seq")
        .i64s("zero", &[], &[0])
        .i64s("one", &[], &[1])
        .i64s("axes", &[1], &[0])
        .node("Shape", "mask", "shape", vec![])
        .node("Gather", "shape one", "seq", vec![])
        .node("Range", "zero seq one", "range", vec![])
        .node("Unsqueeze", "range axes", "grid", vec![])
        .node("GreaterOrEqual", "grid zero", "all", vec![])
        .node("And", "all mask", "y", vec![])
        .output("y");
    assert!(op_names(&m.import()).is_empty());
}

/// Names that differ only in what an identifier can't have stay different dims; equal ones are one dim.
#[test]
fn dims_of_similar_names_stay_apart() {
    let m = M::new(17).input("x", F32, "seq-len seq.len").input("z", F32, "seq.len seq-len");
    let i = m.node("MatMul", "x z", "y", vec![]).output("y").import();
    let names: Vec<&str> = i.graph.symbols.iter().map(|(_, s)| s.name.as_str()).collect();
    assert_eq!(names, ["seq_len", "seq_len_2"]);
    let shape = |n: usize| i.graph.ty(i.graph.inputs()[n].value).shape.clone();
    assert_eq!(shape(0), [shape(1)[1].clone(), shape(1)[0].clone()]);
}

/// Indices that count through a flattened mask are a reshape.
#[test]
fn counting_indices_are_reshapes() {
    let m = M::new(17)
        .input("mask", F32, "batch seq")
        .i64s("zero", &[], &[0])
        .i64s("one", &[], &[1])
        .i64s("b4", &[3], &[1, 2, 3])
        .i64s("s4", &[3], &[0, 1, 2])
        .node("Shape", "mask", "shape", vec![])
        .node("Gather", "shape zero", "batch", vec![])
        .node("Gather", "shape one", "seq", vec![])
        .node("Range", "zero batch one", "rows", vec![])
        .node("Range", "zero seq one", "columns", vec![])
        .node("Unsqueeze", "rows b4", "r", vec![])
        .node("Unsqueeze", "columns s4", "c", vec![])
        .node("Mul", "r seq", "rs", vec![])
        .node("Add", "c rs", "index", vec![])
        .node("Flatten", "mask", "flat", vec![int("axis", 2)])
        .node("Gather", "flat index", "y", vec![])
        .output("y");
    let i = m.import();
    assert!(op_names(&i).iter().all(|&n| n == "reshape"), "{:?}", op_names(&i));
    let y = m.run(&[Tensor::from_f32(vec![2, 2], &[1., 2., 3., 4.])]);
    close(&y, &[2, 1, 1, 2, 1], &[1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn tables_limit_the_sequence() {
    let table: Vec<f32> = (0..32).map(|i| i as f32).collect();
    let m = M::new(17)
        .input("ids", I64, "batch seq")
        .f32s("table", &[16, 2], &table)
        .i64s("zero", &[1], &[0])
        .i64s("one", &[1], &[1])
        .i64s("two", &[1], &[2])
        .i64s("positions", &[1, 16], &(0..16).collect::<Vec<i64>>())
        .node("Shape", "ids", "shape", vec![])
        .node("Slice", "shape one two", "seq", vec![])
        .node("Slice", "positions zero seq one", "p", vec![])
        .node("Gather", "table p", "y", vec![])
        .output("y");
    let i = m.import();
    let seq = i.graph.symbols.get(i.graph.symbols.find("seq").unwrap());
    assert_eq!((seq.min, seq.max), (1, 16));
    assert!(i.notes[0].contains("limited to 1..=16"), "{:?}", i.notes);
    assert_eq!(op_names(&i), ["slice", "reshape"]);
    let y = m.run(&[Tensor::from_i64(vec![1, 3], &[0; 3])]);
    close(&y, &[1, 3, 2], &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0]);
}

#[test]
fn unequal_symbols_are_unified() {
    let m = M::new(17).input("a", F32, "n seq.len").input("b", F32, "? m").node("Add", "a b", "y", vec![]).output("y");
    let i = m.import();
    let names: Vec<&str> = i.graph.symbols.iter().map(|(_, s)| s.name.as_str()).collect();
    assert_eq!(names, ["n", "seq_len"]);
    assert!(i.notes[0].contains("b_dim0 is taken as equal to n"), "{:?}", i.notes);
    // A constant fixes a symbol.
    let m = M::new(17).input("a", F32, "n 3").input("b", F32, "5 k").node("MatMul", "a c", "y", vec![]);
    let m = m.node("Add", "a b", "s", vec![]).node("Identity", "b", "c", vec![]).output("s");
    assert!(m.errors()[0].contains("before it is defined"));
    let m = M::new(17).input("a", F32, "n 3").input("b", F32, "5 k").node("Add", "a b", "y", vec![]).output("y");
    let i = m.import();
    assert!(i.graph.symbols.is_empty());
    assert!(i.notes.iter().any(|n| n.contains("n is fixed to 5")), "{:?}", i.notes);
}

#[test]
fn options_pin_and_limit_dims() {
    let m = M::new(17).input("a", F32, "batch seq").input("b", F32, "batch 4").node("Relu", "a", "y", vec![]);
    let m = m.output("y");
    let pin = ImportOptions { shapes: vec![("a".into(), vec![2, 7])], ..Default::default() };
    let g = m.import_with(&pin).unwrap().graph;
    assert!(g.symbols.is_empty());
    assert_eq!(g.ty(g.inputs()[1].value).const_shape().unwrap(), [2, 4], "the pin holds for the other input too");
    let dims = ImportOptions { dims: vec![("seq".into(), 2, 512)], ..Default::default() };
    let g = m.import_with(&dims).unwrap().graph;
    let s = g.symbols.get(g.symbols.find("seq").unwrap());
    assert_eq!((s.min, s.max), (2, 512));
    for bad in [
        ImportOptions { dims: vec![("sequence".into(), 1, 2)], ..Default::default() },
        ImportOptions { dims: vec![("seq".into(), 3, 2)], ..Default::default() },
        ImportOptions { shapes: vec![("c".into(), vec![1])], ..Default::default() },
        ImportOptions { shapes: vec![("a".into(), vec![1])], ..Default::default() },
        ImportOptions { shapes: vec![("b".into(), vec![1, 5])], ..Default::default() },
    ] {
        assert!(m.import_with(&bad).is_err(), "{bad:?}");
    }
}

#[test]
fn symbolic_values_become_tensors_where_needed() {
    let m = M::new(17)
        .input("x", F32, "batch seq")
        .node("Shape", "x", "shape", vec![])
        .node("Cast", "shape", "y", vec![int("to", F32.into())])
        .output("y");
    close(&m.run(&[Tensor::from_f32(vec![2, 3], &[0.0; 6])]), &[2], &[2.0, 3.0]);
    // The number of elements of an average over a symbolic axis.
    let m = M::new(17)
        .input("x", F32, "batch seq")
        .i64s("zero", &[], &[0])
        .i64s("one", &[], &[1])
        .node("Shape", "x", "shape", vec![])
        .node("Gather", "shape one", "n", vec![])
        .node("Range", "zero n one", "y", vec![])
        .output("y");
    assert_eq!(m.run(&[Tensor::from_f32(vec![2, 3], &[0.0; 6])]).to_i64_vec(), [0, 1, 2]);
}

#[test]
fn initializers_that_are_inputs_are_constants() {
    let m = M::new(13).input("x", F32, "2").input("w", F32, "2").f32s("w", &[2], &[1.0, 2.0]);
    let m = m.node("Add", "x w", "y", vec![]).output("y");
    assert_eq!(m.import().graph.inputs().len(), 1);
}

#[test]
fn if_of_a_known_condition_is_its_branch() {
    let branch = |op: &str| {
        let n = NodeProto {
            op_type: Some(op.to_string()),
            input: vec!["x".to_string()],
            output: vec![format!("{op}_y")],
            ..Default::default()
        };
        let out = ValueInfoProto { name: Some(format!("{op}_y")), ..Default::default() };
        GraphProto { node: vec![n], output: vec![out], ..Default::default() }
    };
    let attrs = |b: &str, op: &str| AttributeProto { g: Some(branch(op)), ..attr(b, A::Graph) };
    let m = M::new(17)
        .input("x", F32, "1 seq")
        .i64s("axis", &[], &[0])
        .i64s("one", &[], &[1])
        .node("Shape", "x", "shape", vec![])
        .node("Gather", "shape axis", "n", vec![])
        .node("Equal", "n one", "c", vec![])
        .node("If", "c", "y", vec![attrs("then_branch", "Exp"), attrs("else_branch", "Abs")])
        .output("y");
    assert_eq!(op_names(&m.import()), ["exp"]);
}
