//! Which layer of the encoder each value of a graph belongs to: what listings and pictures are grouped by.
//!
//! The groups of a graph are in order: what comes before the layers, each layer, what comes after them. A value's group
//! is never before that of one of its operands, so a graph read group by group is read in a topological order.
//!
//! Layers are found in the names of the model's nodes (`/encoder/layer.3/…`). Where names say nothing, or one name stands
//! for several layers that share it, they are found by attention: a layer starts with the values that serve nothing but
//! its attention (its queries, keys and values) and ends where the next one's start. A graph that isn't fused has a
//! softmax and the product behind it in place of an attention.

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::{Graph, Loc, Op, ValueId};

/// The groups of a graph's values.
#[derive(Clone, Debug)]
pub struct Layers {
    /// What the layers are called, in order.
    numbers: Vec<usize>,
    group: BTreeMap<ValueId, usize>,
    by_name: bool,
}

impl Layers {
    /// The groups of `g`.
    pub fn of(g: &Graph) -> Layers {
        let f = Facts::new(g);
        let marks = f.attentions();
        named(&f, &marks).or_else(|| structural(&f, &marks)).unwrap_or_else(|| {
            let group = f.order.iter().map(|&v| (v, 0)).collect();
            Layers { numbers: Vec::new(), group, by_name: false }
        })
    }

    /// Number of layers.
    pub fn count(&self) -> usize {
        self.numbers.len()
    }

    /// Number of groups, empty ones too: two more than layers, or one.
    pub fn groups(&self) -> usize {
        if self.numbers.is_empty() { 1 } else { self.numbers.len() + 2 }
    }

    /// The group of a live value.
    pub fn group(&self, v: ValueId) -> usize {
        self.group.get(&v).copied().unwrap_or(0)
    }

    /// The position among the layers of a group, if it is one.
    pub fn layer(&self, group: usize) -> Option<usize> {
        group.checked_sub(1).filter(|&l| l < self.numbers.len())
    }

    /// What a group is called.
    pub fn title(&self, group: usize) -> String {
        match (self.layer(group), self.numbers.first(), self.numbers.last()) {
            (Some(l), ..) => format!("layer {}", self.numbers[l]),
            (None, None, _) => "whole model".into(),
            (None, Some(first), _) if group == 0 => format!("before layer {first}"),
            (None, _, last) => format!("after layer {}", last.copied().unwrap_or_default()),
        }
    }

    /// Whether names told the layers.
    pub fn by_name(&self) -> bool {
        self.by_name
    }
}

/// What both rules need to know of a graph.
struct Facts<'a> {
    g: &'a Graph,
    order: Vec<ValueId>,
    users: BTreeMap<ValueId, Vec<ValueId>>,
    /// Values that depend on an input.
    live: BTreeSet<ValueId>,
}

impl<'a> Facts<'a> {
    fn new(g: &'a Graph) -> Self {
        let order = g.topo();
        let users = order.iter().map(|&v| (v, g.users(v))).collect();
        let mut live = BTreeSet::new();
        for &v in &order {
            if matches!(g.op(v), Op::Input { .. }) || g.operands(v).iter().any(|o| live.contains(o)) {
                live.insert(v);
            }
        }
        Facts { g, order, users, live }
    }

    /// One value for each attention: the fused op, or else the softmax.
    fn attentions(&self) -> Vec<ValueId> {
        let of = |test: &dyn Fn(&Op) -> bool| -> Vec<ValueId> {
            self.order.iter().copied().filter(|&v| self.live.contains(&v) && test(self.g.op(v))).collect()
        };
        let fused = of(&|op| matches!(op, Op::Attention(_)));
        if fused.is_empty() { of(&|op| matches!(op, Op::Softmax { .. })) } else { fused }
    }

    /// The layer in a value's name.
    fn name(&self, v: ValueId) -> Option<usize> {
        match &self.g.node(v).loc {
            Loc::Node { name, .. } if self.live.contains(&v) => layer_number(name),
            _ => None,
        }
    }

    /// Groups from those that are known of some values: a value goes with the last of its operands, one that depends on
    /// no input with the first of its users.
    fn spread(&self, known: impl Fn(ValueId) -> Option<usize>) -> BTreeMap<ValueId, usize> {
        let mut group: BTreeMap<ValueId, usize> = BTreeMap::new();
        for &v in self.order.iter().filter(|v| self.live.contains(v)) {
            let after = self.g.operands(v).iter().filter_map(|o| group.get(o)).max().copied().unwrap_or(0);
            group.insert(v, after.max(known(v).unwrap_or(0)));
        }
        group
    }

    fn constants_to_users(&self, group: &mut BTreeMap<ValueId, usize>) {
        for &v in self.order.iter().rev().filter(|v| !self.live.contains(v)) {
            let first = self.users[&v].iter().filter_map(|u| group.get(u)).min().copied().unwrap_or(0);
            group.insert(v, first);
        }
    }
}

/// The number in a node's name, such as 3 in `/m/encoder/layer.3/output/Add`.
fn layer_number(name: &str) -> Option<usize> {
    let parts: Vec<&str> = name.split(['/', '.']).collect();
    let stem = |word: &str| {
        let w = word.to_ascii_lowercase();
        (w.contains("layer") || w.contains("block") || w == "h") && !w.contains("norm")
    };
    let pair = parts.windows(2).find(|p| stem(p[0]) && p[1].bytes().all(|b| b.is_ascii_digit()) && !p[1].is_empty());
    let number = match pair {
        Some(p) => p[1],
        None => parts.iter().find_map(|p| p.rsplit_once('_').filter(|(w, n)| stem(w) && n.parse::<u16>().is_ok()))?.1,
    };
    number.parse().ok()
}

fn named(f: &Facts<'_>, marks: &[ValueId]) -> Option<Layers> {
    let numbers: BTreeSet<usize> = f.order.iter().filter_map(|&v| f.name(v)).collect();
    // A name that two attentions share stands for more than one layer.
    let mut seen = BTreeSet::new();
    if numbers.is_empty() || !marks.iter().filter_map(|&v| f.name(v)).all(|n| seen.insert(n)) {
        return None;
    }
    let numbers: Vec<usize> = numbers.into_iter().collect();
    let known = |v: ValueId| f.name(v).and_then(|n| numbers.iter().position(|&x| x == n)).map(|i| i + 1);
    let mut group = f.spread(known);
    // What no layer needs, and no layer's name claims, comes after them.
    let mut needed = BTreeSet::new();
    for &v in f.order.iter().rev() {
        if known(v).is_some() || f.users[&v].iter().any(|u| needed.contains(u)) {
            needed.insert(v);
        } else if let Some(at) = group.get_mut(&v).filter(|at| **at > 0) {
            *at = numbers.len() + 1;
        }
    }
    f.constants_to_users(&mut group);
    Some(Layers { numbers, group, by_name: true })
}

fn structural(f: &Facts<'_>, marks: &[ValueId]) -> Option<Layers> {
    if marks.is_empty() {
        return None;
    }
    let mut starts: BTreeMap<ValueId, usize> = BTreeMap::new();
    for (i, &m) in marks.iter().enumerate() {
        let core = core_of(f, m);
        let mut serves = BTreeSet::from([core]);
        for &v in f.order.iter().rev().filter(|&&v| v != core && f.live.contains(&v)) {
            let users = &f.users[&v];
            let input = matches!(f.g.op(v), Op::Input { .. });
            if !input && !users.is_empty() && !f.g.is_output(v) && users.iter().all(|u| serves.contains(u)) {
                serves.insert(v);
            }
        }
        // What served an earlier attention already belongs there.
        for v in serves {
            starts.entry(v).or_insert(i + 1);
        }
    }
    let mut group = f.spread(|v| starts.get(&v).copied());
    tail(f, marks.len(), &mut group);
    f.constants_to_users(&mut group);
    Some(Layers { numbers: (0..marks.len()).collect(), group, by_name: false })
}

/// The product that follows a softmax, which is where queries, keys and values have met; a fused attention itself.
fn core_of(f: &Facts<'_>, mark: ValueId) -> ValueId {
    let mut at = mark;
    // Between them may be a dropout's remains, casts and quantisation.
    for _ in 0..16 {
        let users = &f.users[&at];
        if matches!(f.g.op(at), Op::Attention(_)) {
            return at;
        }
        if let Some(&p) = users.iter().find(|&&u| matches!(f.g.op(u), Op::MatMul { .. } | Op::Linear(_))) {
            return p;
        }
        match users.first() {
            Some(&u) => at = u,
            None => break,
        }
    }
    mark
}

/// Takes out of the last layer what follows its last layer norm, as far as the layer before tells how many it has.
fn tail(f: &Facts<'_>, layers: usize, group: &mut BTreeMap<ValueId, usize>) {
    let norms = |layer: usize, group: &BTreeMap<ValueId, usize>| -> Vec<ValueId> {
        let is_norm = |v: ValueId| match f.g.op(v) {
            Op::LayerNorm { .. } | Op::RmsNorm { .. } => true,
            Op::Linear(l) => l.norm.is_some(),
            Op::SumNorm(s) => s.norm.is_some(),
            _ => false,
        };
        f.order.iter().copied().filter(|&v| group.get(&v) == Some(&layer) && is_norm(v)).collect()
    };
    if layers < 2 {
        return;
    }
    let count = norms(layers - 1, group).len();
    let Some(&last) = count.checked_sub(1).and_then(|i| norms(layers, group).get(i).copied()).as_ref() else { return };
    let mut after = BTreeSet::from([last]);
    for &v in &f.order {
        if f.g.operands(v).iter().any(|o| after.contains(o)) {
            after.insert(v);
            group.insert(v, layers + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::{BinaryOp, DType, TensorType, UnaryOp};

    #[test]
    fn names_tell_numbers() {
        for (name, number) in [
            ("/m/encoder/layer.3/output/Add", Some(3)),
            ("m.encoder.layers.11.weight_DequantizeLinear", Some(11)),
            ("/transformer/h.0/attn", Some(0)),
            ("bert/encoder/layer_7/attention", Some(7)),
            ("/m/LayerNorm.1/Add", None),
            ("node_layer_norm_4", None),
            ("/m/pooler/dense/Gemm", None),
            ("", None),
            ("layer.99999999999999999999999", None),
        ] {
            assert_eq!(layer_number(name), number, "{name}");
        }
    }

    struct B(Graph);

    impl B {
        fn add(&mut self, op: Op, operands: &[ValueId], name: &str) -> ValueId {
            let loc = match name {
                "" => Loc::Unknown,
                n => Loc::node(n, "Op"),
            };
            self.0.add(op, operands, &loc).unwrap()
        }

        /// A residual layer around attention over one tensor, each node's name after `scope`.
        fn layer(&mut self, x: ValueId, scope: &str) -> [ValueId; 4] {
            let n = |s: &str| if scope.is_empty() { String::new() } else { format!("{scope}/{s}") };
            let q = self.add(Op::Unary(UnaryOp::Neg), &[x], &n("q"));
            let p = self.add(Op::Softmax { axis: 1 }, &[q], &n("softmax"));
            let y = self.add(Op::MatMul { trans_b: false }, &[p, q], &n("product"));
            let r = self.add(Op::Binary(BinaryOp::Add), &[x, y], &n("residual"));
            [q, p, y, r]
        }
    }

    fn two_layers(scopes: [&str; 2]) -> (Graph, Vec<ValueId>, Vec<ValueId>) {
        let mut b = B(Graph::new("f"));
        let x = b.0.add_input("x", TensorType::new(DType::F32, vec![4.into(), 4.into()]));
        let e = b.add(Op::Unary(UnaryOp::Exp), &[x], "/embeddings/Exp");
        let first = b.layer(e, scopes[0]);
        let second = b.layer(first[3], scopes[1]);
        let y = b.add(Op::Unary(UnaryOp::Tanh), &[second[3]], "/pooler/Tanh");
        b.0.add_output("y", y);
        (b.0, first.to_vec(), [second.to_vec(), vec![y]].concat())
    }

    #[test]
    fn layers_by_name() {
        let (g, first, second) = two_layers(["/encoder/layer.0", "/encoder/layer.2"]);
        let l = Layers::of(&g);
        assert!(l.by_name());
        assert_eq!((l.count(), l.groups()), (2, 4));
        assert!(first.iter().all(|&v| l.group(v) == 1));
        assert!(second[..4].iter().all(|&v| l.group(v) == 2));
        assert_eq!(l.group(second[4]), 3);
        let titles: Vec<_> = (0..4).map(|i| l.title(i)).collect();
        assert_eq!(titles, ["before layer 0", "layer 0", "layer 2", "after layer 2"]);
    }

    #[test]
    fn layers_by_attention_where_names_are_shared_or_missing() {
        for scopes in [["", ""], ["/layer.0", "/layer.0"]] {
            let (g, first, second) = two_layers(scopes);
            let l = Layers::of(&g);
            assert!(!l.by_name());
            assert!(first.iter().all(|&v| l.group(v) == 1), "{scopes:?}");
            // No layer norm tells where the last layer ends.
            assert!(second.iter().all(|&v| l.group(v) == 2), "{scopes:?}");
            assert_eq!(l.group(g.inputs()[0].value), 0);
        }
    }

    #[test]
    fn groups_follow_the_operands() {
        for scopes in [["", ""], ["/layer.1", "/layer.0"], ["/layer.0", "/layer.1"]] {
            let (g, ..) = two_layers(scopes);
            let l = Layers::of(&g);
            for v in g.topo() {
                assert!(g.operands(v).iter().all(|&o| l.group(o) <= l.group(v)), "{scopes:?}");
            }
        }
        let empty = Layers::of(&Graph::new("f"));
        assert_eq!((empty.groups(), empty.title(0).as_str()), (1, "whole model"));
    }
}
