//! The verifier of the tensor IR. It runs after the importer and, under `--verify-each`, after every pass.
//!
//! What holds of a graph:
//!
//! 1. Symbols have distinct names that are identifiers, and ranges `0 <= min <= max`.
//! 2. Every symbol used in a type or an attribute exists.
//! 3. Operands, inputs and outputs are live values.
//! 4. Values and operands form no cycle, and the graph's record of users mirrors the operands.
//! 5. The type of every value is the one that inference gives for its op and operands.
//! 6. Types have a small rank, dims that can be non-negative, and a size in bytes below 2^62
//!    ([`check_type`]).
//! 7. Input `i` is a value whose op is `input` with index `i`; no other value has an `input` op.
//! 8. Inputs have distinct, non-empty names; so have outputs. There is an output.
//! 9. The `eps` of a layer norm is finite and not negative, also inside a fused op; an attention's scale is finite;
//!    bool constants hold 0 and 1 only.
//!
//! Cost: linear in the graph, and in the size of bool constants.

use std::collections::{BTreeMap, BTreeSet};

use crate::diag::Diag;
use crate::dims::{Dim, Symbols};
use crate::graph::{Graph, Node, Port, ValueId};
use crate::infer::{check_type, infer};
use crate::op::Op;
use crate::text::is_ident;
use crate::types::DType;

/// Checks every invariant in this file's header.
///
/// # Errors
/// All violations found, with the location of the value where there is one.
pub fn verify(graph: &Graph) -> Result<(), Vec<Diag>> {
    let mut v = Verifier { graph, diags: Vec::new() };
    v.symbols();
    v.ports();
    let order = graph.topo();
    if order.len() != graph.len() {
        v.error(format!("{} values lie on a cycle or behind one", graph.len() - order.len()));
    }
    let mut users: BTreeMap<ValueId, BTreeSet<ValueId>> = BTreeMap::new();
    let seen = order.iter().enumerate().map(|(i, &x)| (x, i)).collect::<BTreeMap<_, _>>();
    for (i, &x) in order.iter().enumerate() {
        for o in graph.operands(x) {
            users.entry(*o).or_default().insert(x);
            if graph.contains(*o) && seen.get(o).is_none_or(|&j| j >= i) {
                v.error_at(x, &format!("operand %{} does not come before its use", o.0));
            }
        }
        v.value(x);
    }
    for &x in &order {
        let recorded = graph.users(x);
        if !users.get(&x).map_or(recorded.is_empty(), |u| u.iter().eq(&recorded)) {
            v.error_at(x, "the recorded users differ from the operands");
        }
    }
    if v.diags.is_empty() { Ok(()) } else { Err(v.diags) }
}

struct Verifier<'a> {
    graph: &'a Graph,
    diags: Vec<Diag>,
}

impl Verifier<'_> {
    fn error(&mut self, message: String) {
        self.diags.push(Diag::new(message));
    }

    fn error_at(&mut self, v: ValueId, message: &str) {
        let node = self.graph.node(v);
        self.diags.push(Diag::new(format!("%{} = {}: {message}", v.0, node.op.name())).at(node.loc.clone()));
    }

    fn symbols(&mut self) {
        let mut names = BTreeSet::new();
        for (_, s) in self.graph.symbols.iter() {
            if !is_ident(&s.name) {
                self.error(format!("the name of dim '{}' is not an identifier", s.name));
            }
            if !names.insert(&s.name) {
                self.error(format!("two dims are called '{}'", s.name));
            }
            if s.min < 0 || s.min > s.max {
                self.error(format!("dim '{}' has the range {}..={}", s.name, s.min, s.max));
            }
        }
    }

    fn ports(&mut self) {
        let g = self.graph;
        for (what, ports) in [("input", g.inputs()), ("output", g.outputs())] {
            let mut names = BTreeSet::new();
            for Port { name, value } in ports {
                if name.is_empty() {
                    self.error(format!("an {what} has no name"));
                } else if !names.insert(name) {
                    self.error(format!("two {what}s are called '{name}'"));
                }
                if !g.contains(*value) {
                    self.error(format!("{what} '{name}' is %{}, which does not exist", value.0));
                }
            }
        }
        for (i, p) in g.inputs().iter().enumerate() {
            if g.contains(p.value) && *g.op(p.value) != (Op::Input { index: i }) {
                self.error_at(p.value, &format!("expected input {i}, '{}'", p.name));
            }
        }
        if g.outputs().is_empty() {
            self.error("the graph has no output".to_string());
        }
    }

    fn value(&mut self, v: ValueId) {
        let g = self.graph;
        let node = g.node(v);
        if let Some(m) = self.check(v, node) {
            self.error_at(v, &m);
        }
    }

    /// What is wrong with a value.
    fn check(&self, v: ValueId, node: &Node) -> Option<String> {
        let g = self.graph;
        let mut dims = node.ty.shape.iter().chain(op_dims(&node.op));
        // Inference looks symbols up, so unknown ones stop here.
        if !dims.all(|d| known(d, &g.symbols)) {
            return Some("a size uses a dim that does not exist".to_string());
        }
        if let Some(o) = node.operands.iter().find(|o| !g.contains(**o)) {
            return Some(format!("operand %{} does not exist", o.0));
        }
        if let Op::Input { index } = node.op {
            if g.inputs().get(index).is_none_or(|p| p.value != v) {
                return Some(format!("it is not the graph's input {index}"));
            }
            if !node.operands.is_empty() {
                return Some("an input has operands".to_string());
            }
            return check_type(&node.ty, &g.symbols).err();
        }
        let types: Vec<_> = node.operands.iter().map(|&o| g.ty(o)).collect();
        if !types.iter().all(|t| t.shape.iter().all(|d| known(d, &g.symbols))) {
            // Reported at the operand.
            return None;
        }
        match infer(&node.op, &types, &g.symbols) {
            Err(m) => return Some(m),
            Ok(ty) if ty != node.ty => {
                let (a, b) = (node.ty.display(&g.symbols), ty.display(&g.symbols));
                return Some(format!("the type is {a}, inference gives {b}"));
            }
            Ok(_) => {}
        }
        match &node.op {
            Op::LayerNorm { eps } | Op::RmsNorm { eps } if !(eps.is_finite() && *eps >= 0.0) => {
                Some(format!("eps is {eps}, expected a finite value of at least 0"))
            }
            Op::Constant(t) if t.dtype() == DType::Bool && t.bytes().iter().any(|&b| b > 1) => {
                Some("a bool constant holds a byte that is neither 0 nor 1".to_string())
            }
            _ => None,
        }
    }
}

fn known(d: &Dim, symbols: &Symbols) -> bool {
    d.iter().all(|(_, m)| m.iter().all(|(s, _)| (s.0 as usize) < symbols.len()))
}

/// The sizes among an op's attributes.
fn op_dims(op: &Op) -> Vec<&Dim> {
    match op {
        Op::Dim(d) => vec![d],
        Op::Iota { len, start, step } => vec![len, start, step],
        Op::Reshape { shape } | Op::Broadcast { shape } => shape.iter().collect(),
        Op::Slice { start, len, .. } => vec![start, len],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests;
