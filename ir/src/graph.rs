//! The tensor IR's graph: SSA values on a petgraph DAG. The only file that touches petgraph.
//!
//! Architecture invariant: nothing outside holds a petgraph index. A [`ValueId`] is never reused, so a pass may keep
//! one across edits and ask [`Graph::contains`]. Operands are ordered in the node; the DAG's edges mirror them.

use petgraph::Direction;
use petgraph::stable_graph::{NodeIndex, StableDiGraph};
use smallvec::SmallVec;

use crate::diag::{Diag, Loc};
use crate::dims::Symbols;
use crate::infer::infer;
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// An SSA value: the result of one node.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct ValueId(pub u32);

/// One operation and its result.
#[derive(Clone, PartialEq, Debug)]
pub struct Node {
    /// What it computes.
    pub op: Op,
    /// Operands, in the op's order.
    pub operands: SmallVec<[ValueId; 3]>,
    /// Type of the result.
    pub ty: TensorType,
    /// Where it comes from.
    pub loc: Loc,
}

/// A named input or output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Port {
    /// Name, as in the model.
    pub name: String,
    /// The value.
    pub value: ValueId,
}

/// A function over tensors.
#[derive(Clone, Debug)]
pub struct Graph {
    /// Name of the function.
    pub name: String,
    /// The symbolic dims.
    pub symbols: Symbols,
    dag: StableDiGraph<(ValueId, Node), ()>,
    index: Vec<Option<NodeIndex>>,
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

impl Graph {
    /// An empty graph.
    pub fn new(name: impl Into<String>) -> Self {
        Graph {
            name: name.into(),
            symbols: Symbols::default(),
            dag: StableDiGraph::new(),
            index: Vec::new(),
            inputs: Vec::new(),
            outputs: Vec::new(),
        }
    }

    fn insert(&mut self, node: Node) -> ValueId {
        let id = ValueId(self.index.len() as u32);
        let operands = node.operands.clone();
        let at = self.dag.add_node((id, node));
        self.index.push(Some(at));
        for o in operands {
            self.dag.add_edge(self.at(o), at, ());
        }
        id
    }

    fn at(&self, v: ValueId) -> NodeIndex {
        self.index[v.0 as usize].expect("value is live")
    }

    /// Appends an input.
    pub fn add_input(&mut self, name: impl Into<String>, ty: TensorType) -> ValueId {
        let name = name.into();
        let op = Op::Input { index: self.inputs.len() };
        let loc = Loc::Unknown;
        let value = self.insert(Node { op, operands: SmallVec::new(), ty, loc });
        self.inputs.push(Port { name, value });
        value
    }

    /// Adds an operation, inferring its result's type.
    ///
    /// # Errors
    /// Operands or attributes that don't fit the op; the diagnostic carries `loc`.
    pub fn add(&mut self, op: Op, operands: &[ValueId], loc: &Loc) -> Result<ValueId, Diag> {
        if let Some(v) = operands.iter().find(|v| !self.contains(**v)) {
            return Err(Diag::new(format!("operand %{} does not exist", v.0)).at(loc.clone()));
        }
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.ty(v)).collect();
        let ty = infer(&op, &types, &self.symbols).map_err(|m| Diag::new(m).at(loc.clone()))?;
        Ok(self.insert(Node { op, operands: operands.into(), ty, loc: loc.clone() }))
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// As [`Graph::add`].
    pub fn add_const(&mut self, t: Tensor, loc: &Loc) -> Result<ValueId, Diag> {
        self.add(Op::Constant(t), &[], loc)
    }

    /// Marks `value` as the next output.
    pub fn add_output(&mut self, name: impl Into<String>, value: ValueId) {
        self.outputs.push(Port { name: name.into(), value });
    }

    /// Makes output `index` be `value`; other users of what it was keep that.
    ///
    /// # Errors
    /// There is no such output, or the types differ; nothing is changed then.
    pub fn set_output(&mut self, index: usize, value: ValueId) -> Result<(), Diag> {
        let Some(old) = self.outputs.get(index).map(|o| o.value) else {
            return Err(Diag::new(format!("there is no output {index}")));
        };
        if self.ty(old) != self.ty(value) {
            let (a, b) = (self.ty(old).display(&self.symbols), self.ty(value).display(&self.symbols));
            return Err(Diag::new(format!("output {index} is of type {a}, not {b}")));
        }
        self.outputs[index].value = value;
        Ok(())
    }

    /// Inputs in order.
    pub fn inputs(&self) -> &[Port] {
        &self.inputs
    }

    /// Outputs in order. Two outputs may share a value; an output may be an input.
    pub fn outputs(&self) -> &[Port] {
        &self.outputs
    }

    /// Whether `v` names a live value.
    pub fn contains(&self, v: ValueId) -> bool {
        self.index.get(v.0 as usize).is_some_and(Option::is_some)
    }

    /// The node of a live value. Panics on a dead one.
    pub fn node(&self, v: ValueId) -> &Node {
        &self.dag[self.at(v)].1
    }

    /// A node, to break it in the verifier's tests.
    #[cfg(test)]
    pub(crate) fn node_mut(&mut self, v: ValueId) -> &mut Node {
        let at = self.at(v);
        &mut self.dag[at].1
    }

    /// The op of a live value.
    pub fn op(&self, v: ValueId) -> &Op {
        &self.node(v).op
    }

    /// The type of a live value.
    pub fn ty(&self, v: ValueId) -> &TensorType {
        &self.node(v).ty
    }

    /// The operands of a live value.
    pub fn operands(&self, v: ValueId) -> &[ValueId] {
        &self.node(v).operands
    }

    /// The constant a value is, if it is one.
    pub fn as_const(&self, v: ValueId) -> Option<&Tensor> {
        match self.op(v) {
            Op::Constant(t) => Some(t),
            _ => None,
        }
    }

    /// Users of a value, ascending and distinct. Being an output is not a use.
    pub fn users(&self, v: ValueId) -> Vec<ValueId> {
        let mut u: Vec<_> =
            self.dag.neighbors_directed(self.at(v), Direction::Outgoing).map(|n| self.dag[n].0).collect();
        u.sort_unstable();
        u.dedup();
        u
    }

    /// Whether a value is an output.
    pub fn is_output(&self, v: ValueId) -> bool {
        self.outputs.iter().any(|o| o.value == v)
    }

    /// Number of live nodes.
    pub fn len(&self) -> usize {
        self.dag.node_count()
    }

    /// Whether the graph has no node.
    pub fn is_empty(&self) -> bool {
        self.dag.node_count() == 0
    }

    /// Live values, operands before users; among ready ones the smallest id first, so the order is deterministic.
    pub fn topo(&self) -> Vec<ValueId> {
        use std::cmp::Reverse;
        let mut missing: Vec<usize> = vec![0; self.index.len()];
        let mut ready = std::collections::BinaryHeap::new();
        for i in self.dag.node_indices() {
            let (id, _) = self.dag[i];
            let n = self.dag.neighbors_directed(i, Direction::Incoming).count();
            missing[id.0 as usize] = n;
            if n == 0 {
                ready.push(Reverse(id));
            }
        }
        let mut order = Vec::with_capacity(self.len());
        while let Some(Reverse(v)) = ready.pop() {
            order.push(v);
            for n in self.dag.neighbors_directed(self.at(v), Direction::Outgoing) {
                let id = self.dag[n].0;
                let m = &mut missing[id.0 as usize];
                *m -= 1;
                if *m == 0 {
                    ready.push(Reverse(id));
                }
            }
        }
        order
    }

    /// Makes every user and output of `old` use `new`. The types must be equal, and `new` must not depend on `old`.
    ///
    /// # Errors
    /// Types differ, or the edit would make a cycle; nothing is changed then.
    pub fn replace(&mut self, old: ValueId, new: ValueId) -> Result<(), Diag> {
        if old == new {
            return Ok(());
        }
        if self.ty(old) != self.ty(new) {
            let (a, b) = (self.ty(old).display(&self.symbols), self.ty(new).display(&self.symbols));
            return Err(Diag::new(format!("replacing %{} of type {a} by %{} of type {b}", old.0, new.0)));
        }
        if self.depends_on(new, old) {
            return Err(Diag::new(format!("replacing %{} by its own user %{} makes a cycle", old.0, new.0)));
        }
        let (from, to) = (self.at(old), self.at(new));
        for u in self.users(old) {
            let at = self.at(u);
            while let Some(e) = self.dag.find_edge(from, at) {
                self.dag.remove_edge(e);
                self.dag.add_edge(to, at, ());
            }
            for o in &mut self.dag[at].1.operands {
                if *o == old {
                    *o = new;
                }
            }
        }
        for o in &mut self.outputs {
            if o.value == old {
                o.value = new;
            }
        }
        Ok(())
    }

    /// Whether `v` is `on` or is computed from it.
    pub fn depends_on(&self, v: ValueId, on: ValueId) -> bool {
        let mut seen = vec![false; self.index.len()];
        let mut stack = vec![v];
        while let Some(x) = stack.pop() {
            if x == on {
                return true;
            }
            if !std::mem::replace(&mut seen[x.0 as usize], true) {
                stack.extend_from_slice(self.operands(x));
            }
        }
        false
    }

    /// Removes every node that no output needs; inputs stay. Returns how many went.
    pub fn remove_dead(&mut self) -> usize {
        let mut live = vec![false; self.index.len()];
        let mut stack: Vec<ValueId> = self.outputs.iter().chain(&self.inputs).map(|p| p.value).collect();
        while let Some(v) = stack.pop() {
            if !std::mem::replace(&mut live[v.0 as usize], true) {
                stack.extend_from_slice(self.operands(v));
            }
        }
        let mut removed = 0;
        for (id, slot) in self.index.iter_mut().enumerate() {
            if let (Some(at), false) = (*slot, live[id]) {
                self.dag.remove_node(at);
                *slot = None;
                removed += 1;
            }
        }
        removed
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::BinaryOp;
    use crate::types::DType;

    #[test]
    fn edits_keep_edges_and_operands_in_step() {
        let mut g = Graph::new("f");
        let s = g.symbols.intern("seq", 1, 9);
        let ty = TensorType::new(DType::F32, vec![s.into()]);
        let (x, y) = (g.add_input("x", ty.clone()), g.add_input("y", ty));
        let a = g.add(Op::Binary(BinaryOp::Add), &[x, x], &Loc::Unknown).unwrap();
        let b = g.add(Op::Binary(BinaryOp::Mul), &[a, y], &Loc::Unknown).unwrap();
        g.add_output("o", b);
        assert_eq!(g.topo(), [x, y, a, b]);
        g.replace(x, y).unwrap();
        assert_eq!(g.operands(a), [y, y]);
        assert!(g.users(x).is_empty());
        assert!(g.replace(a, b).is_err(), "a cycle is refused");
        g.replace(a, y).unwrap();
        assert_eq!(g.remove_dead(), 1);
        assert_eq!(g.topo(), [x, y, b]);
        assert!(g.add(Op::Binary(BinaryOp::Add), &[a, y], &Loc::Unknown).is_err(), "a dead operand is refused");
    }
}
