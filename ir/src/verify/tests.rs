//! Good graphs pass; every invariant has a graph that breaks it.

use super::*;
use crate::diag::Loc;
use crate::dims::SymbolId;
use crate::op::{BinaryOp, UnaryOp};
use crate::tensor::Tensor;
use crate::types::TensorType;

fn f32s(shape: Vec<Dim>) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// `y = x + x` over `seq`.
fn good() -> (Graph, ValueId, ValueId) {
    let mut g = Graph::new("f");
    let s = g.symbols.intern("seq", 1, 9);
    let x = g.add_input("x", f32s(vec![s.into()]));
    let y = g.add(Op::Binary(BinaryOp::Add), &[x, x], &Loc::Unknown).unwrap();
    g.add_output("y", y);
    (g, x, y)
}

/// Checks that `g` breaks exactly one invariant, with `message`.
fn bad(g: &Graph, message: &str) {
    let e = verify(g).unwrap_err();
    assert!(e.len() == 1 && e[0].message.contains(message), "expected '{message}' in {e:#?}");
}

#[test]
fn good_graphs() {
    let (mut g, x, y) = good();
    assert_eq!(verify(&g), Ok(()));
    // Values without users, outputs that share a value or are inputs.
    g.add(Op::Unary(UnaryOp::Neg), &[x], &Loc::Unknown).unwrap();
    g.add_output("same", y);
    g.add_output("x", x);
    assert_eq!(verify(&g), Ok(()));
}

#[test]
fn symbols_and_ranges() {
    let (mut g, ..) = good();
    g.symbols.get_mut(SymbolId(0)).max = 0;
    bad(&g, "dim 'seq' has the range 1..=0");
    g.symbols.get_mut(SymbolId(0)).min = -1;
    bad(&g, "dim 'seq' has the range -1..=0");
    let (mut g, ..) = good();
    g.symbols.intern("2 x", 1, 1);
    bad(&g, "is not an identifier");
    let (mut g, ..) = good();
    let other = g.symbols.intern("len", 1, 1);
    g.symbols.get_mut(other).name = "seq".to_string();
    bad(&g, "two dims are called 'seq'");
    let (mut g, ..) = good();
    g.add_input("z", f32s(vec![SymbolId(7).into()]));
    bad(&g, "a dim that does not exist");
}

#[test]
fn ports() {
    let (mut g, _, y) = good();
    g.add_output("y", y);
    bad(&g, "two outputs are called 'y'");
    let (mut g, _, y) = good();
    g.add_output("", y);
    bad(&g, "an output has no name");
    let (mut g, ..) = good();
    g.add_input("x", f32s(vec![]));
    bad(&g, "two inputs are called 'x'");
    let (mut g, ..) = good();
    g.add_output("z", ValueId(99));
    bad(&g, "output 'z' is %99, which does not exist");
    bad(&Graph::new("f"), "no output");
    let (mut g, _, y) = good();
    g.node_mut(y).op = Op::Input { index: 0 };
    g.node_mut(y).operands.clear();
    assert!(verify(&g).unwrap_err().iter().any(|d| d.message.contains("it is not the graph's input 0")));
    let (mut g, x, _) = good();
    g.node_mut(x).op = Op::Input { index: 3 };
    assert!(verify(&g).unwrap_err().iter().any(|d| d.message.contains("expected input 0, 'x'")));
}

#[test]
fn operands_and_types() {
    let (mut g, _, y) = good();
    g.node_mut(y).operands[1] = ValueId(50);
    assert!(verify(&g).unwrap_err().iter().any(|d| d.message.contains("operand %50 does not exist")));
    let (mut g, _, y) = good();
    g.node_mut(y).operands[1] = y;
    assert!(verify(&g).unwrap_err().iter().any(|d| d.message.contains("does not come before its use")));
    let (mut g, _, y) = good();
    let c = g.add_const(Tensor::from_f32(vec![1], &[1.0]), &Loc::Unknown).unwrap();
    g.node_mut(y).operands[1] = c;
    let e = verify(&g).unwrap_err();
    assert!(e.iter().any(|d| d.message.contains("the recorded users differ")), "{e:?}");
    let (mut g, _, y) = good();
    g.node_mut(y).ty.dtype = DType::F16;
    bad(&g, "the type is tensor<seq x f16>, inference gives tensor<seq x f32>");
    let (mut g, _, y) = good();
    g.node_mut(y).op = Op::Binary(BinaryOp::And);
    bad(&g, "'and' is not defined on f32");
    let (mut g, ..) = good();
    g.add_input("z", f32s(vec![Dim::constant(-1)]));
    bad(&g, "dim -1 is negative");
}

#[test]
fn attributes() {
    let (mut g, ..) = good();
    let t = Tensor::from_f32(vec![1], &[1.0]);
    let v = g.add_const(t, &Loc::Unknown).unwrap();
    g.add(Op::LayerNorm { eps: f32::NAN }, &[v, v, v], &Loc::Unknown).unwrap();
    bad(&g, "eps is NaN");
    let (mut g, ..) = good();
    let t = Tensor::new(DType::Bool, vec![2], vec![1, 2].into()).unwrap();
    g.add_const(t, &Loc::Unknown).unwrap();
    bad(&g, "neither 0 nor 1");
}
