//! Arbitrary graphs: every op can occur, its operands always fit it, and the verifier finds nothing.

use super::Source;
use super::ops::fitting;
use crate::diag::Loc;
use crate::dims::Dim;
use crate::graph::{Graph, ValueId};
use crate::infer::infer;
use crate::op::Op;
use crate::tensor::{Scalar, Tensor};
use crate::types::{DType, TensorType};

/// What graphs look like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// Ops, beside inputs and the constants made for them.
    pub max_ops: usize,
    /// Elements of a value at the largest dims.
    pub max_elements: usize,
    /// Constants of any bits: NaN with payloads, infinities, the largest integers. Otherwise small numbers.
    pub any_bits: bool,
    /// Names that need quotes.
    pub odd_names: bool,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_ops: 24, max_elements: 4096, any_bits: true, odd_names: true }
    }
}

/// A valid graph of arbitrary ops with symbolic dims; it has an input and an output at least.
pub fn graph(source: &mut Source<'_>, options: &Options) -> Graph {
    let name = if options.odd_names { source.of(&["main", "a graph", "torch-jit", "ü\"\\\n"]) } else { "main" };
    let mut g = Gen { graph: Graph::new(name), values: Vec::new(), source, options: *options };
    for s in ["batch", "seq", "x", "f32"].into_iter().take(if options.odd_names { 4 } else { 2 }) {
        if g.source.flag() {
            let max = 1 + g.source.below(4) as i64;
            g.graph.symbols.intern(s, g.source.below(2) as i64, max);
        }
    }
    for _ in 0..1 + g.source.below(3) {
        let rank = g.source.below(4);
        let shape = (0..rank).map(|_| g.dim()).collect();
        let dtype = g.dtype(&DType::ALL);
        g.input(TensorType::new(dtype, shape));
    }
    for _ in 0..g.source.below(options.max_ops + 1) {
        let (op, operands) = fitting(&mut g);
        g.add(op, &operands);
    }
    for i in 0..1 + g.source.below(3) {
        let v = g.values[g.values.len() - 1 - g.source.below(g.values.len())];
        let name = if options.odd_names { ["logits", "last hidden", "dims"][i] } else { ["a", "b", "c"][i] };
        g.graph.add_output(name, v);
    }
    if g.source.flag() {
        g.graph.remove_dead();
    }
    g.graph
}

/// The state.
pub(super) struct Gen<'g, 's> {
    pub graph: Graph,
    pub source: &'g mut Source<'s>,
    /// Values that operands are chosen from.
    values: Vec<ValueId>,
    options: Options,
}

impl Gen<'_, '_> {
    /// A float type half of the time, as most ops want one.
    pub fn dtype(&mut self, of: &[DType]) -> DType {
        if self.source.flag() && of.contains(&DType::F32) { DType::F32 } else { self.source.of(of) }
    }

    /// A size: a small number, a symbol, or a small polynomial.
    pub fn dim(&mut self) -> Dim {
        let symbols: Vec<Dim> = self.graph.symbols.iter().map(|(s, _)| s.into()).collect();
        let mut d = Dim::constant(self.source.of(&[1, 2, 3, 4, 0, 5]));
        for s in symbols {
            let next = match self.source.below(6) {
                0 => d.mul(&s),
                1 => d.add(&s),
                2 => Some(s),
                _ => None,
            };
            d = next.unwrap_or(d);
        }
        d
    }

    /// Whether a value of this type is small enough.
    pub fn fits(&self, ty: &TensorType) -> bool {
        let n = ty.elements().map(|n| n.bounds(&self.graph.symbols).1);
        n.is_some_and(|n| n <= self.options.max_elements as i128)
    }

    fn location(&mut self) -> Loc {
        match self.source.below(4) {
            0 => Loc::Unknown,
            1 => Loc::node("/layer.0/\"odd\"\n", "com.microsoft.Op").output("ü"),
            n => Loc::node(format!("/n{n}"), "Op"),
        }
    }

    /// A new input.
    pub fn input(&mut self, ty: TensorType) -> ValueId {
        let i = self.graph.inputs().len();
        let odd = ["input.1", "7", "x y", "return", "%"];
        let name = match odd.get(i).filter(|_| self.options.odd_names) {
            Some(n) => (*n).to_string(),
            None => format!("in{i}"),
        };
        let v = self.graph.add_input(name, ty);
        self.values.push(v);
        v
    }

    /// A new constant.
    pub fn constant(&mut self, dtype: DType, shape: Vec<usize>) -> ValueId {
        let n = shape.iter().product::<usize>();
        let t = if self.options.any_bits && self.source.flag() {
            let top = if dtype == DType::Bool { 2 } else { 256 };
            let bytes: Vec<u8> = (0..n * dtype.size()).map(|_| self.source.below(top) as u8).collect();
            Tensor::new(dtype, shape, bytes.into())
        } else {
            let element = |k: usize| match (dtype.is_float(), dtype == DType::Bool) {
                (true, _) => Scalar::Float((k as f64 - 3.0) / 2.0),
                (_, true) => Scalar::Int((k % 2) as i128),
                _ => Scalar::Int(k as i128),
            };
            let elements: Vec<Scalar> = (0..n).map(|_| element(self.source.below(8))).collect();
            Some(Tensor::from_scalars(dtype, shape, elements))
        };
        let loc = self.location();
        let made = t.and_then(|t| self.graph.add_const(t, &loc).ok());
        let v = made.expect("as many elements as the shape has");
        self.values.push(v);
        v
    }

    /// An existing value of a type with the property, mostly a recent one, or a new one of type `or`.
    pub fn any(&mut self, property: impl Fn(&TensorType) -> bool, or: TensorType) -> ValueId {
        let fit: Vec<ValueId> = self.values.iter().rev().copied().filter(|&v| property(self.graph.ty(v))).collect();
        // Now and then a new one although there is one.
        let at = self.source.below(fit.len().min(6) + usize::from(fit.len() < 6));
        match fit.get(at) {
            Some(&v) => v,
            None => self.new_value(or),
        }
    }

    /// A value of exactly this type.
    pub fn of_type(&mut self, ty: &TensorType) -> ValueId {
        self.any(|t| t == ty, ty.clone())
    }

    fn new_value(&mut self, ty: TensorType) -> ValueId {
        match ty.const_shape() {
            Some(shape) if shape.iter().product::<usize>() <= 32 && self.source.flag() => {
                self.constant(ty.dtype, shape)
            }
            _ => self.input(ty),
        }
    }

    /// Adds the op unless its result is too large.
    fn add(&mut self, op: Op, operands: &[ValueId]) {
        let types: Vec<&TensorType> = operands.iter().map(|&v| self.graph.ty(v)).collect();
        match infer(&op, &types, &self.graph.symbols) {
            Ok(ty) if self.fits(&ty) => {
                let loc = self.location();
                self.values.extend(self.graph.add(op, operands, &loc).ok());
            }
            _ => {}
        }
    }
}
