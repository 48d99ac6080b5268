//! Functions of the model: calls become what is in them.

use super::*;

/// `org.example.NAME` with inputs, outputs and nodes as in [`M`], of an operator set of its own.
fn function(name: &str, opset: i64, ins: &str, outs: &str, body: M) -> FunctionProto {
    let list = |s: &str| s.split_whitespace().map(String::from).collect();
    let set = |d: &str, v| OperatorSetIdProto { domain: Some(d.to_string()), version: Some(v) };
    FunctionProto {
        name: Some(name.to_string()),
        domain: Some("org.example".to_string()),
        input: list(ins),
        output: list(outs),
        node: body.0.graph.unwrap_or_default().node,
        opset_import: vec![set("", opset), set("org.example", 1)],
        ..Default::default()
    }
}

fn with(mut m: M, functions: Vec<FunctionProto>) -> M {
    m.0.functions = functions;
    m
}

fn refers(name: &str, to: &str, ty: A) -> AttributeProto {
    AttributeProto { ref_attr_name: Some(to.to_string()), ..attr(name, ty) }
}

#[test]
fn a_call_behind_a_failed_node_is_no_error() {
    let f = function("Twice", 17, "x", "y", M::new(17).node("Add", "x x", "y", vec![]));
    let m = M::new(17).input("x", F32, "2").node("Frobnicate", "x", "a", vec![]);
    let m = with(m.node("org.example.Twice", "a", "b", vec![]).output("b"), vec![f]);
    assert_eq!(m.errors().len(), 1, "{:?}", m.errors());
}

#[test]
fn names_of_a_function_are_its_own() {
    // 't' and 'y' are other values inside.
    let body = M::new(17).node("Add", "y t", "s", vec![]).node("Neg", "s", "t2", vec![]);
    let twice = function("AddNeg", 17, "y t", "t2", body);
    let m = M::new(17)
        .input("t", F32, "2")
        .input("y", F32, "2")
        .node("org.example.AddNeg", "t y", "a", vec![])
        .node("org.example.AddNeg", "a t", "b", vec![])
        .output("b");
    let m = with(m, vec![twice]);
    let x = |v: [f32; 2]| Tensor::from_f32(vec![2], &v);
    // -(-(t + y) + t) = y
    assert_eq!(m.run(&[x([1.0, 2.0]), x([5.0, 7.0])]).to_f64_vec(), [5.0, 7.0]);
    let g = m.import().graph;
    let names: Vec<String> = g.topo().into_iter().map(|v| g.node(v).loc.to_string()).collect();
    assert!(names.iter().any(|n| n.contains("a/s")), "{names:?}");
}

#[test]
fn attributes_are_given_by_the_call_or_by_default() {
    let body = |ty| M::new(17).node("LeakyRelu", "x", "y", vec![refers("alpha", "slope", ty)]);
    let mut leaky = function("Leaky", 17, "x", "y", body(A::Float));
    let call = |attrs| M::new(17).input("x", F32, "1").node("org.example.Leaky", "x", "y", attrs).output("y");
    let at = |m: M, f: &FunctionProto| with(m, vec![f.clone()]).run(&[Tensor::from_f32(vec![1], &[-1.0])]).to_f64_vec();
    assert_eq!(at(call(vec![float("slope", 0.5)]), &leaky), [-0.5]);
    // What isn't given is what the operator takes without it.
    assert!((at(call(vec![]), &leaky)[0] + 0.01).abs() < 1e-7);
    leaky.attribute_proto = vec![float("slope", 0.25)];
    assert_eq!(at(call(vec![]), &leaky), [-0.25]);
    assert_eq!(at(call(vec![float("slope", 0.5)]), &leaky), [-0.5]);
    // Through a function around it.
    let outer = M::new(17).node("org.example.Leaky", "x", "y", vec![refers("slope", "outer", A::Float)]);
    let outer = function("Outer", 17, "x", "y", outer);
    let m = M::new(17).input("x", F32, "1").node("org.example.Outer", "x", "y", vec![float("outer", 2.0)]);
    let m = with(m.output("y"), vec![outer, leaky.clone()]);
    assert_eq!(m.run(&[Tensor::from_f32(vec![1], &[-1.0])]).to_f64_vec(), [-2.0]);
    let wrong = function("Leaky", 17, "x", "y", body(A::Float));
    let m = with(call(vec![int("slope", 1)]), vec![wrong]);
    assert!(m.errors()[0].contains("'alpha' is not float"), "{:?}", m.errors());
}

#[test]
fn a_function_has_its_own_operator_set() {
    // Up to opset 12 the axis is the first of several.
    let body = M::new(11).node("Softmax", "x", "y", vec![]);
    let m = M::new(17).input("x", F32, "1 2 2").node("org.example.Old", "x", "y", vec![]).output("y");
    let m = with(m, vec![function("Old", 11, "x", "y", body)]);
    assert_eq!(m.run(&[Tensor::from_f32(vec![1, 2, 2], &[0.0; 4])]).to_f64_vec(), [0.25; 4]);
}

#[test]
fn optional_inputs_may_be_missing() {
    let body = M::new(17).node("Clip", "x low high", "y", vec![]);
    let clip = function("Limit", 17, "x low high", "y", body);
    let m = M::new(17).input("x", F32, "2").f32s("one", &[], &[1.0]);
    let m = m.node("org.example.Limit", "x _ one", "y", vec![]).output("y");
    let y = with(m, vec![clip]).run(&[Tensor::from_f32(vec![2], &[-3.0, 3.0])]);
    assert_eq!(y.to_f64_vec(), [-3.0, 1.0]);
}

#[test]
fn wrong_functions_are_errors() {
    let call = |ins: &str, outs: &str| {
        let m = M::new(17).input("x", F32, "2").node("org.example.F", ins, outs, vec![]);
        m.output(outs.split(' ').next().unwrap())
    };
    let one = |body: M| function("F", 17, "a", "b", body);
    let errors = |m: M, f: FunctionProto| with(m, vec![f]).errors();
    let itself = one(M::new(17).node("org.example.F", "a", "b", vec![]));
    assert!(errors(call("x", "y"), itself)[0].contains("calls others without end"));
    let twice = M::new(17).node("org.example.F", "a", "c", vec![]).node("org.example.F", "c", "b", vec![]);
    assert!(errors(call("x", "y"), one(twice))[0].contains("calls others without end"));
    let nothing = one(M::new(17));
    let e = errors(call("x", "y"), nothing);
    assert!(e.len() == 1 && e[0].contains("the function 'F' has no value 'b'"), "{e:?}");
    let fine = one(M::new(17).node("Relu", "a", "b", vec![]));
    assert!(errors(call("x x", "y"), fine.clone())[0].contains("has 1 inputs and 1 outputs"));
    assert!(errors(call("x", "y z"), fine.clone())[0].contains("has 1 inputs and 1 outputs"));
    // Names of the model are none of the function's.
    let outside = one(M::new(17).node("Add", "a x", "b", vec![]));
    assert!(errors(call("x", "y"), outside)[0].contains("value 'x' is used before it is defined"));
    let unknown = one(M::new(17).node("Frobnicate", "a", "b", vec![]));
    let e = errors(call("x", "y"), unknown);
    assert!(e.len() == 1 && e[0].contains("node 'y/b' (Frobnicate)"), "{e:?}");
    let mut old = fine;
    old.opset_import[0].version = Some(3);
    assert!(errors(call("x", "y"), old)[0].contains("opset 3 is not supported"));
}
