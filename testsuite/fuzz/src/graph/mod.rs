//! Random valid graphs of the tensor IR. Every choice is read from bytes, so a graph can be mutated, minimised and kept
//! as a file like any other input.

mod bytes;
mod ops;
mod patterns;

use bertc_ir::{DType, Dim, Graph, Loc, Op, Scalar, Tensor, TensorType, ValueId};

/// Choices read from bytes; zeros behind their end.
#[derive(Clone, Debug)]
pub struct Choices<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Choices<'a> {
    /// Choices from `data`.
    pub fn new(data: &'a [u8]) -> Self {
        Choices { data, at: 0 }
    }

    fn byte(&mut self) -> usize {
        let b = self.data.get(self.at).copied().unwrap_or(0);
        self.at += 1;
        b.into()
    }

    /// A number below `n`; 0 where `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        match n {
            0 | 1 => 0,
            2..=256 => self.byte() % n,
            _ => (self.byte() << 8 | self.byte()) % n,
        }
    }

    /// True once in `n` times, and never when the bytes are used up.
    pub fn one_in(&mut self, n: usize) -> bool {
        !self.done() && self.below(n) == n - 1
    }

    /// Whether all bytes are used up.
    pub fn done(&self) -> bool {
        self.at >= self.data.len()
    }

    /// An element of a slice that isn't empty.
    pub fn pick<T: Clone>(&mut self, of: &[T]) -> Option<T> {
        of.get(self.below(of.len())).cloned()
    }
}

/// A graph under construction.
struct Gen<'a> {
    c: Choices<'a>,
    g: Graph,
    /// What may be an operand.
    values: Vec<ValueId>,
    /// Small dims to make shapes of.
    dims: Vec<Dim>,
    /// Whether it is about products of bytes.
    bytes: bool,
}

/// Elements of a value at most, for the largest dims.
const MAX_ELEMENTS: i128 = 1 << 13;

/// Nodes at most.
const MAX_NODES: usize = 120;

/// The graph that `data` stands for, and values of its symbols.
pub fn generate(data: &[u8]) -> (Graph, Vec<i64>) {
    generate_of(data, false)
}

/// [`generate`] of graphs in which half of all is about products of 8-bit integers: what quantised models have, and what
/// `--int8` makes such of.
pub fn generate_bytes(data: &[u8]) -> (Graph, Vec<i64>) {
    generate_of(data, true)
}

fn generate_of(data: &[u8], bytes: bool) -> (Graph, Vec<i64>) {
    let (c, graph) = (Choices::new(data), Graph::new("fuzzed"));
    let mut g = Gen { c, g: graph, values: Vec::new(), dims: Vec::new(), bytes };
    let mut at = Vec::new();
    for (name, max) in [("seq", 9), ("batch", 3)].iter().take(g.c.below(3)) {
        let min = i64::from(!g.c.one_in(4));
        let s = g.g.symbols.intern(name, min, *max);
        at.push(min + g.c.below((max - min + 1) as usize) as i64);
        g.dims.push(s.into());
    }
    for _ in 0..2 {
        let sizes = if bytes { [4, 8, 12, 16, 20, 32, 36, 64, 5, 1] } else { [1, 2, 3, 4, 5, 8, 16, 17, 32, 7] };
        let d = g.c.pick(&sizes).unwrap_or(1);
        g.dims.push(d.into());
    }
    for i in 0..1 + g.c.below(3) {
        let dtype = if g.c.one_in(4) { g.dtype() } else { DType::F32 };
        let shape = g.shape();
        let v = g.g.add_input(format!("x{i}"), TensorType::new(dtype, shape));
        g.values.push(v);
    }
    if bytes && g.c.one_in(3) {
        g.mask();
        g.masked_layer();
    }
    while !g.c.done() && g.g.len() < MAX_NODES {
        if bytes && g.c.one_in(2) {
            g.bytes();
        } else if g.c.one_in(6) {
            g.pattern();
        } else {
            g.op();
        }
    }
    g.outputs();
    (g.g, at)
}

impl Gen<'_> {
    fn dtype(&mut self) -> DType {
        let common = [DType::F32, DType::I64, DType::Bool, DType::I32, DType::F32];
        if self.c.one_in(3) { self.c.pick(&DType::ALL) } else { self.c.pick(&common) }.unwrap_or(DType::F32)
    }

    fn dim(&mut self) -> Dim {
        self.c.pick(&self.dims.clone()).unwrap_or(Dim::constant(1))
    }

    /// A shape of rank 0 to 4.
    fn shape(&mut self) -> Vec<Dim> {
        let rank = [2, 3, 1, 3, 4, 0][self.c.below(6)];
        let mut shape = Vec::new();
        for _ in 0..rank {
            let d = if self.c.one_in(6) { Dim::constant(1) } else { self.dim() };
            shape.push(d);
            if !self.small(&shape) {
                shape.pop();
            }
        }
        shape
    }

    fn small(&self, shape: &[Dim]) -> bool {
        Dim::product(shape).is_some_and(|n| n.bounds(&self.g.symbols).1 <= MAX_ELEMENTS)
    }

    fn ty(&self, v: ValueId) -> &TensorType {
        self.g.ty(v)
    }

    /// A value, the later ones more often.
    fn value(&mut self) -> Option<ValueId> {
        let recent = self.values.len().saturating_sub(4);
        if self.c.below(3) == 0 { self.c.pick(&self.values) } else { self.c.pick(&self.values[recent..]) }
    }

    /// A value of which `f` holds.
    fn value_that(&mut self, f: impl Fn(&TensorType) -> bool) -> Option<ValueId> {
        let all: Vec<ValueId> = self.values.iter().copied().filter(|&v| f(self.g.ty(v))).collect();
        self.c.pick(&all)
    }

    /// Adds a node, unless it is invalid or too large; those who ask for odd operands get nothing.
    fn add(&mut self, op: Op, operands: &[ValueId]) -> Option<ValueId> {
        let v = self.g.add(op, operands, &Loc::Unknown).ok()?;
        if self.small(&self.ty(v).shape.clone()) {
            self.values.push(v);
            Some(v)
        } else {
            None
        }
    }

    /// A constant with tame elements.
    fn constant(&mut self, dtype: DType, shape: &[usize]) -> Option<ValueId> {
        let n: usize = shape.iter().product();
        let mut state = self.c.below(1 << 16) as u64 + 1;
        // Matrices of equal columns make rows whose layer norm is of rounding errors alone.
        let splat = self.c.below(4) == 0 && !(self.bytes && shape.len() == 2);
        let special = self.c.one_in(12);
        let mut element = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let r = (state >> 33) as i64;
            match dtype {
                d if d.is_float() && special => {
                    let edges = [0.0, 1.0, -1.0, 0.5, 2.0, -1e4, f64::NEG_INFINITY, 1e-12];
                    Scalar::Float(edges[(r % 8) as usize])
                }
                d if d.is_float() => Scalar::Float((r % 257 - 128) as f64 / 64.0),
                DType::Bool => Scalar::Int((r % 2).into()),
                d if d.is_signed_int() => Scalar::Int((r % 9 - 3).into()),
                _ => Scalar::Int((r % 6).into()),
            }
        };
        let first = element();
        let elements: Vec<Scalar> = (0..n).map(|_| if splat { first } else { element() }).collect();
        let t = Tensor::from_scalars(dtype, shape.to_vec(), elements);
        self.g.add_const(t, &Loc::Unknown).ok()
    }

    /// A constant of one element that broadcasts anywhere.
    fn scalar(&mut self, dtype: DType, v: f64) -> Option<ValueId> {
        let s = if dtype.is_float() { Scalar::Float(v) } else { Scalar::Int(v as i128) };
        self.g.add_const(Tensor::scalar(dtype, s), &Loc::Unknown).ok()
    }

    /// A constant of a shape, or where that has symbols one that broadcasts to it.
    fn filled(&mut self, dtype: DType, shape: &[Dim]) -> Option<ValueId> {
        let one = |d: &Dim| d.as_const().map_or(1, |c| c.max(0) as usize);
        let sizes: Vec<usize> = shape.iter().map(one).collect();
        let c = self.constant(dtype, &sizes)?;
        if shape.iter().all(|d| d.as_const().is_some()) {
            return Some(c);
        }
        self.add(Op::Broadcast { shape: shape.to_vec() }, &[c])
    }

    /// What nobody uses, some of what is used.
    fn outputs(&mut self) {
        let unused: Vec<ValueId> = self.values.iter().copied().filter(|&v| self.g.users(v).is_empty()).collect();
        let mut chosen: Vec<ValueId> = unused.iter().rev().take(4).copied().collect();
        if let Some(v) = self.c.pick(&self.values) {
            chosen.push(v);
        }
        chosen.dedup();
        for (i, v) in chosen.into_iter().enumerate() {
            self.g.add_output(format!("y{i}"), v);
        }
        self.g.remove_dead();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn graphs_are_valid_and_varied() {
        let mut ops = std::collections::BTreeSet::new();
        for i in 0..400 {
            let mut r = Random::new(3, i);
            let data: Vec<u8> = (0..30 + r.below(300)).map(|_| r.next_u64() as u8).collect();
            let (g, dims) = generate(&data);
            bertc_ir::verify::verify(&g).expect("a valid graph");
            assert_eq!(dims.len(), g.symbols.len());
            ops.extend(g.topo().into_iter().map(|v| g.op(v).name()));
        }
        for op in
            ["matmul", "softmax", "layer_norm", "gather", "gather_nd", "gather_elements", "concat", "slice", "top_k"]
        {
            assert!(ops.contains(op), "no {op} in 400 graphs: {ops:?}");
        }
        assert!(ops.len() > 50, "{ops:?}");
    }

    #[test]
    fn graphs_about_bytes_have_all_of_them() {
        let mut found = std::collections::BTreeSet::new();
        for i in 0..400 {
            let mut r = Random::new(5, i);
            let data: Vec<u8> = (0..30 + r.below(300)).map(|_| r.next_u64() as u8).collect();
            let (g, _) = generate_bytes(&data);
            bertc_ir::verify::verify(&g).expect("a valid graph");
            found.extend(g.topo().into_iter().map(|v| match g.op(v) {
                Op::Linear(l) if l.int8 => "linear int8",
                Op::SumNorm(s) if s.int8 => "sum_norm int8",
                op => op.name(),
            }));
            let mut after = g.clone();
            let mut steps = bertc_passes::steps(&bertc_passes::pipeline(3)).expect("passes");
            steps.iter_mut().filter(|s| s.pass.name() == "skip-padding").for_each(|s| s.options.push(("outputs", 1)));
            let options = bertc_passes::Options::default();
            let done = bertc_passes::run_steps(&mut after, &steps, &options, &mut bertc_passes::Unwatched);
            let values = if done.is_err() { Vec::new() } else { after.topo() };
            // What patterns became.
            let padded = |v: &ValueId| matches!(after.op(*v), Op::Attention(a) if a.lengths);
            if values.iter().any(padded) {
                found.insert("lengths");
            }
        }
        for op in ["linear int8", "sum_norm int8", "quantise", "quantise_rows", "row_scale", "row_offset", "lengths"] {
            assert!(found.contains(op), "no {op} in 400 graphs: {found:?}");
        }
    }

    #[test]
    fn no_bytes_are_a_graph_too() {
        let (g, _) = generate(&[]);
        bertc_ir::verify::verify(&g).expect("a valid graph");
    }
}
