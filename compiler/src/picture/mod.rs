//! A graph as a picture: nodes with what a person wants to know of them, in the groups of [`Layers`].
//!
//! `html` makes a page of it that needs nothing else, `dot` a file for Graphviz. Both show constants only where asked:
//! most of a model's nodes are weights, and what they feed tells enough.

pub mod dot;
pub mod html;
pub mod layout;
mod same;

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::text::PrintOptions;
use bertc_ir::{Graph, Loc, Op, SumNorm, ValueId, cost};

use crate::layers::Layers;

/// Kinds of ops, told apart by colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// An input or output of the model.
    Port,
    /// A matrix product.
    Product,
    /// Attention, or the softmax of one.
    Attention,
    /// A layer norm, or a sum of terms with one.
    Norm,
    /// A reduction.
    Reduction,
    /// Element by element.
    Elementwise,
    /// Elements go elsewhere.
    Movement,
    /// Known before the model runs.
    Constant,
}

impl Kind {
    /// Every kind with its name.
    pub const ALL: [(Kind, &'static str); 8] = [
        (Kind::Port, "port"),
        (Kind::Product, "product"),
        (Kind::Attention, "attention"),
        (Kind::Norm, "norm"),
        (Kind::Reduction, "reduction"),
        (Kind::Elementwise, "elementwise"),
        (Kind::Movement, "movement"),
        (Kind::Constant, "constant"),
    ];

    /// Its name.
    pub fn name(self) -> &'static str {
        Kind::ALL.iter().find(|k| k.0 == self).map_or("", |k| k.1)
    }

    fn of(op: &Op) -> Kind {
        match op {
            Op::Input { .. } => Kind::Port,
            Op::Constant(_) | Op::Dim(_) | Op::Iota { .. } => Kind::Constant,
            Op::MatMul { .. } | Op::Linear(_) => Kind::Product,
            Op::Attention(_) | Op::Softmax { .. } => Kind::Attention,
            Op::LayerNorm { .. } | Op::RmsNorm { .. } | Op::SumNorm(_) => Kind::Norm,
            Op::Reduce { .. } | Op::ArgMax { .. } | Op::TopK { .. } | Op::CumSum { .. } => Kind::Reduction,
            Op::RowScale(_) | Op::RowOffset(_) => Kind::Reduction,
            Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => Kind::Elementwise,
            Op::QuantiseRows(_) | Op::Quantise { .. } => Kind::Elementwise,
            Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. }
            | Op::Concat { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. }
            | Op::ScatterElements { .. }
            | Op::ScatterNd { .. } => Kind::Movement,
        }
    }
}

/// One node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name in the text of the tensor IR, or that of an output.
    pub name: String,
    /// The op, with what a fused one has taken up.
    pub title: String,
    /// Colour.
    pub kind: Kind,
    /// Its type as text.
    pub ty: String,
    /// Shape as text; with the type where that isn't f32.
    pub shape: String,
    /// Its line of the tensor IR.
    pub ir: String,
    /// Name and operator of the model's node.
    pub source: Option<(String, String)>,
    /// Multiply-adds, if any.
    pub multiply_adds: Option<String>,
    /// Elements of the constants that it reads.
    pub parameters: u64,
    /// Group.
    pub group: usize,
    /// Whether it is hidden unless asked for.
    pub constant: bool,
    /// Operands, in order, as indices of nodes before this one.
    pub operands: Vec<usize>,
}

/// One group of nodes.
#[derive(Clone, Debug)]
pub struct Group {
    /// What it is called.
    pub title: String,
    /// Whether it is a layer.
    pub layer: bool,
    /// Its nodes, in a topological order.
    pub nodes: Vec<usize>,
    /// Elements of its constants, without those of groups before it.
    pub parameters: u64,
    /// The first group that is the same but for the weights' values.
    pub same_as: Option<usize>,
}

/// A graph, ready to be drawn.
#[derive(Clone, Debug)]
pub struct Picture {
    /// The model's name.
    pub title: String,
    /// What phase of the compilation it shows, and facts of the whole, one each.
    pub facts: Vec<(String, String)>,
    /// Operands before users.
    pub nodes: Vec<Node>,
    /// In order; none is empty.
    pub groups: Vec<Group>,
}

impl Picture {
    /// The picture of `g`. `phase` says what has been done to it.
    pub fn new(g: &Graph, title: &str, phase: &str) -> Picture {
        let layers = Layers::of(g);
        let lines = ir_lines(g);
        let mut nodes: Vec<Node> = Vec::new();
        let mut index = BTreeMap::new();
        for v in g.topo() {
            let next = node(g, v, &layers, &index, &nodes, lines.get(&v));
            index.insert(v, nodes.len());
            nodes.push(next);
        }
        for o in g.outputs() {
            let ty = g.ty(o.value);
            nodes.push(Node {
                name: o.name.clone(),
                title: "output".into(),
                kind: Kind::Port,
                ty: ty.display(&g.symbols).to_string(),
                shape: o.name.clone(),
                ir: String::new(),
                source: None,
                multiply_adds: None,
                parameters: 0,
                group: layers.groups() - 1,
                constant: false,
                operands: vec![index[&o.value]],
            });
        }
        let mut groups = Vec::new();
        let mut same = same::Same::default();
        for i in 0..layers.groups() {
            let members: Vec<usize> = (0..nodes.len()).filter(|&n| nodes[n].group == i).collect();
            if members.is_empty() {
                continue;
            }
            let layer = layers.layer(i).is_some();
            members.iter().for_each(|&n| nodes[n].group = groups.len());
            let parameters = g.topo().into_iter().filter(|&v| layers.group(v) == i);
            let parameters = parameters.filter_map(|v| g.as_const(v)).map(|t| t.len() as u64).sum();
            let same_as = if layer { same.first(groups.len(), &nodes, &members) } else { None };
            groups.push(Group { title: layers.title(i), layer, nodes: members, parameters, same_as });
        }
        let mut p = Picture { title: title.to_string(), facts: Vec::new(), nodes, groups };
        p.facts = p.facts_of(g, phase, &layers);
        p
    }

    fn facts_of(&self, g: &Graph, phase: &str, layers: &Layers) -> Vec<(String, String)> {
        let fact = |k: &str, v: String| (k.to_string(), v);
        let ops = self.nodes.iter().filter(|n| !n.constant && n.kind != Kind::Port).count();
        let mut facts = vec![fact("phase", phase.to_string()), fact("ops", ops.to_string())];
        if layers.count() > 0 {
            let how = if layers.by_name() { "by the nodes' names" } else { "by their attention" };
            facts.push(fact("layers", format!("{}, told {how}", layers.count())));
        }
        let parameters: u64 = self.groups.iter().map(|g| g.parameters).sum();
        facts.push(fact("parameters", grouped(parameters)));
        if let Some(n) = cost::multiply_adds(g) {
            facts.push(fact("multiply-adds", n.display(&g.symbols).to_string()));
        }
        for (kind, list) in [("input", g.inputs()), ("output", g.outputs())] {
            facts.extend(list.iter().map(|p| fact(kind, format!("{}: {}", p.name, g.ty(p.value).display(&g.symbols)))));
        }
        facts.extend(g.symbols.iter().map(|(_, s)| fact("dim", format!("{} in {}..={}", s.name, s.min, s.max))));
        facts
    }

    /// The edges between nodes that are shown, each once.
    pub fn edges(&self, constants: bool) -> Vec<(usize, usize)> {
        let shown = |n: usize| constants || !self.nodes[n].constant;
        let mut edges = Vec::new();
        for (i, n) in self.nodes.iter().enumerate().filter(|(i, _)| shown(*i)) {
            let mut from: Vec<usize> = n.operands.iter().copied().filter(|&o| shown(o)).collect();
            from.sort_unstable();
            from.dedup();
            edges.extend(from.into_iter().map(|o| (o, i)));
        }
        edges
    }
}

fn node(
    g: &Graph,
    v: ValueId,
    layers: &Layers,
    index: &BTreeMap<ValueId, usize>,
    nodes: &[Node],
    line: Option<&(String, String)>,
) -> Node {
    let op = g.op(v);
    let ty = g.ty(v);
    let dims: Vec<String> = ty.shape.iter().map(|d| d.display(&g.symbols).to_string()).collect();
    let dtype = if ty.dtype == bertc_ir::DType::F32 { String::new() } else { format!("{} ", ty.dtype) };
    let count = cost::multiply_adds_of(g, v).filter(|n| n.as_const() != Some(0));
    let operands = g.operands(v);
    let (name, ir) = line.cloned().unwrap_or_else(|| (format!("v{}", v.0), String::new()));
    let input = g.inputs().iter().find(|p| p.value == v);
    // Everything known before the model runs is a constant, also what is computed from others.
    let constant = input.is_none() && operands.iter().all(|o| nodes[index[o]].constant);
    Node {
        name: input.map_or(name, |p| format!("%{}", p.name)),
        title: title(op),
        kind: if constant { Kind::Constant } else { Kind::of(op) },
        ty: ty.display(&g.symbols).to_string(),
        shape: input.map_or_else(|| format!("{dtype}[{}]", dims.join(", ")), |p| p.name.clone()),
        ir,
        source: match &g.node(v).loc {
            Loc::Node { name, op, .. } => Some((name.clone(), op.clone())),
            _ => None,
        },
        multiply_adds: count.map(|n| n.display(&g.symbols).to_string()),
        parameters: parameters_of(g, v, index, nodes),
        group: layers.group(v),
        constant,
        operands: operands.iter().map(|o| index[o]).collect(),
    }
}

/// The elements of all constants that a value is computed from through constants alone.
fn parameters_of(g: &Graph, v: ValueId, index: &BTreeMap<ValueId, usize>, nodes: &[Node]) -> u64 {
    let mut seen = BTreeSet::new();
    let mut todo = g.operands(v).to_vec();
    let mut sum = 0;
    while let Some(o) = todo.pop() {
        if nodes[index[&o]].constant && seen.insert(o) {
            sum += g.as_const(o).map_or(0, |t| t.len() as u64);
            todo.extend(g.operands(o));
        }
    }
    sum
}

fn title(op: &Op) -> String {
    let mut parts = vec![op.name().to_string()];
    match op {
        Op::Linear(l) => {
            parts.extend(l.act.map(|a| a.name().to_string()));
            parts.extend(l.residual.then(|| "residual".into()));
            parts.extend(l.norm.map(|_| "norm".into()));
        }
        Op::SumNorm(SumNorm { tables, norm, .. }) => {
            parts.extend((*tables > 0).then(|| format!("{tables} tables")));
            parts.extend(norm.map(|_| "norm".into()));
        }
        Op::Attention(a) => {
            parts.push(format!("{} heads", a.heads));
            parts.extend(a.mask.then(|| "mask".into()));
        }
        Op::Cast(to) => parts = vec![format!("cast to {to}")],
        _ => {}
    }
    parts.join(" · ")
}

/// Each value's name and line in the printed graph. Values are printed one a line, in topological order.
fn ir_lines(g: &Graph) -> BTreeMap<ValueId, (String, String)> {
    let text = bertc_ir::text::print(g, &PrintOptions::default());
    let body: Vec<&str> = text.lines().filter(|l| l.starts_with("  %")).map(str::trim).collect();
    let values: Vec<ValueId> = g.topo().into_iter().filter(|&v| !matches!(g.op(v), Op::Input { .. })).collect();
    if body.len() != values.len() {
        return BTreeMap::new();
    }
    let name = |line: &str| line.split_once(" = ").map_or("", |l| l.0).to_string();
    values.into_iter().zip(body).map(|(v, line)| (v, (name(line), line.to_string()))).collect()
}

/// A number with its thousands apart.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(c);
    }
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bertc_ir::{Attention, DType, Dim, Linear, Tensor, TensorType};

    /// `n` equal layers of attention and a product with a residual, behind an input with an awkward name.
    pub(crate) fn model(n: usize, input: &str) -> Graph {
        let mut g = Graph::new("m");
        let b = Dim::symbol(g.symbols.intern("batch", 1, 8));
        let s = Dim::symbol(g.symbols.intern("seq", 1, 64));
        let mut x = g.add_input(input, TensorType::new(DType::F32, vec![b, s, 4.into()]));
        let loc = |i: usize, what: &str| Loc::node(format!("/layer.{i}/{what}"), "MatMul");
        for i in 0..n {
            let weights = |k: f32| Tensor::from_f32(vec![4, 4], &[k; 16]);
            let w: Vec<_> = (0..2).map(|k| g.add_const(weights((i + k) as f32), &Loc::Unknown).unwrap()).collect();
            let q = g.add(Op::Linear(Linear::default()), &[x, w[0]], &loc(i, "q")).unwrap();
            let a = Attention { heads: 2, scale: 1.0, ..Attention::default() };
            let a = g.add(Op::Attention(a), &[q, q, q], &loc(i, "a")).unwrap();
            let l = Linear { residual: true, ..Linear::default() };
            x = g.add(Op::Linear(l), &[a, w[1], x], &loc(i, "o")).unwrap();
        }
        g.add_output("y", x);
        g
    }

    #[test]
    fn a_picture_has_groups_and_facts() {
        let p = Picture::new(&model(4, "x"), "m", "imported");
        let titles: Vec<_> = p.groups.iter().map(|g| g.title.as_str()).collect();
        assert_eq!(titles, ["before layer 0", "layer 0", "layer 1", "layer 2", "layer 3", "after layer 3"]);
        assert_eq!(p.groups.iter().map(|g| g.parameters).collect::<Vec<_>>(), [0, 32, 32, 32, 32, 0]);
        let same: Vec<_> = p.groups.iter().map(|g| g.same_as).collect();
        assert_eq!(same, [None, None, Some(1), Some(1), Some(1), None]);
        assert!(p.facts.contains(&("ops".into(), "12".into())), "{:?}", p.facts);
        for (a, b) in p.edges(true) {
            assert!(a < b && p.nodes[a].group <= p.nodes[b].group);
        }
        assert!(p.edges(false).len() + 8 == p.edges(true).len());
        let linear = p.nodes.iter().find(|n| n.title == "linear · residual").unwrap();
        assert_eq!((linear.parameters, linear.kind), (16, Kind::Product));
        assert!(linear.ir.starts_with(&format!("{} = linear ", linear.name)), "{}", linear.ir);
    }

    #[test]
    fn thousands() {
        assert_eq!([0, 999, 1000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
    }
}
