//! A graph written as an ONNX model: `--emit onnx`.
//!
//! Every op of the tensor IR has a spelling in operators of ONNX's default domain ([`ops`], [`fused`], [`quant`]), so a graph
//! can be written after any pass. Sizes that are known at run time only are computed from the inputs' shapes
//! ([`sizes`]). bf16 values are f32 in the file, rounded to bf16 where the graph rounds them: few runtimes compute in
//! bf16 on a CPU. [`plan`] tells what becomes of 8-bit integers.

mod compare;
mod dynamic;
mod encode;
mod fused;
mod ops;
mod out;
mod plan;
mod quant;
mod sizes;
mod source;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use bertc_ir::{DType, Diag, Dim, Graph, Loc, Op, Port, Tensor, TensorType, ValueId};

use crate::import::onnx::proto::tensor_shape_proto::{Dimension, dimension};
use crate::import::onnx::proto::{
    GraphProto, ModelProto, OperatorSetIdProto, TensorShapeProto, TypeProto, ValueInfoProto, type_proto,
};
use out::{Out, number, stem};
use plan::{How, Plan};
use sizes::{Sizes, fixed};

pub use compare::{Difference, difference, read_back};
pub use encode::{Files, LIMIT};
pub use source::Source;

/// The operator set. The first that has all the ops: `LayerNormalization` came with 17, bitwise ones with 18, which ONNX
/// Runtime has from 1.14 on.
pub const OPSET: i64 = 18;

/// The version of the file format: the first for that operator set.
const IR_VERSION: i64 = 8;

/// The passes of an `-O` level, for a graph that is written for readers and not compiled: without those that save compiled
/// code work, by weights that are scaled or put side by side and by rows left out, which `skip_padding` asks for.
pub fn pipeline(opt_level: u8, skip_padding: bool) -> Vec<&'static str> {
    const FOR_COMPILED_CODE: [&str; 3] = ["fold-scale", "merge-qkv", "legalise"];
    let all = bertc_passes::pipeline(opt_level).into_iter();
    all.filter(|n| !FOR_COMPILED_CODE.contains(n) && (skip_padding || *n != "skip-padding")).collect()
}

/// A graph as a model.
#[derive(Debug)]
pub struct Model {
    /// All but the initializers.
    proto: ModelProto,
    /// Initializers by name; they share their memory with the graph's constants.
    tensors: Vec<(String, Tensor)>,
    /// The nodes of products whose left operands are integers in the graph and floats here.
    pub widened: Vec<String>,
}

/// Writes a graph; `source` is where its constants' names come from.
///
/// # Errors
/// Every value that can't be written, with its op and node.
pub fn model(g: &Graph, source: &Source) -> Result<Model, Vec<Diag>> {
    let mut w = Writer {
        g,
        source,
        out: Out::default(),
        sizes: Sizes::default(),
        values: HashMap::new(),
        known: HashSet::new(),
        plan: Plan::new(g),
        widened: Vec::new(),
    };
    for p in g.inputs().iter().chain(g.outputs()) {
        w.out.reserve(&p.name);
    }
    let errors = w.nodes();
    if !errors.is_empty() {
        return Err(errors);
    }
    w.outputs();
    let Writer { mut out, widened, .. } = w;
    out.remove_dead(g.outputs().iter().map(|p| p.name.as_str()));
    let info = |p: &Port| value_info(g, p);
    let graph = GraphProto {
        node: out.nodes,
        name: Some(g.name.clone()),
        input: g.inputs().iter().map(info).collect(),
        output: g.outputs().iter().map(info).collect(),
        ..GraphProto::default()
    };
    let opset = OperatorSetIdProto { domain: Some(String::new()), version: Some(OPSET) };
    let proto = ModelProto {
        ir_version: Some(IR_VERSION),
        opset_import: vec![opset],
        producer_name: Some("bertc".to_string()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_string()),
        graph: Some(graph),
        ..ModelProto::default()
    };
    Ok(Model { proto, tensors: out.tensors, widened })
}

fn value_info(g: &Graph, p: &Port) -> ValueInfoProto {
    let ty = g.ty(p.value);
    let dim = |d: &Dim| {
        let value = match fixed(g, d) {
            Some(c) => dimension::Value::DimValue(c),
            None => dimension::Value::DimParam(d.display(&g.symbols).to_string()),
        };
        Dimension { value: Some(value), ..Dimension::default() }
    };
    let shape = TensorShapeProto { dim: ty.shape.iter().map(dim).collect() };
    let tensor = type_proto::Tensor { elem_type: Some(number(ty.dtype)), shape: Some(shape) };
    let ty = TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(p.name.clone()), r#type: Some(ty), ..ValueInfoProto::default() }
}

/// A graph on its way into a model.
struct Writer<'a> {
    g: &'a Graph,
    source: &'a Source,
    out: Out,
    sizes: Sizes,
    /// The names of the values that were written. bf16 ones are f32.
    values: HashMap<ValueId, String>,
    /// Results of nodes that others may read already.
    known: HashSet<String>,
    plan: Plan,
    widened: Vec<String>,
}

/// The name of what was written, or why it can't be.
type Written = Result<String, String>;

impl Writer<'_> {
    fn nodes(&mut self) -> Vec<Diag> {
        let order = std::mem::take(&mut self.plan.order);
        let names = self.source_names(&order);
        let mut errors = Vec::new();
        for &v in &order {
            if self.values.contains_key(&v) {
                // A result of a node of several.
                continue;
            }
            let (start, loc) = (self.out.nodes.len(), self.g.node(v).loc.clone());
            self.out.begin(stem(&loc, self.g.op(v).name()));
            match self.value(v) {
                Ok(name) => {
                    let name = self.named(v, name, start, &names);
                    self.values.insert(v, name);
                }
                Err(m) => {
                    errors.push(Diag::new(format!("'{}' can't be written as ONNX: {m}", self.g.op(v).name())).at(loc));
                    // What depends on it is written all the same, for more errors.
                    self.values.insert(v, String::new());
                }
            }
        }
        errors
    }

    /// What the source called values: of several that one node became, the last has its output's name.
    fn source_names(&mut self, order: &[ValueId]) -> BTreeMap<ValueId, String> {
        let name = |v: &ValueId| Some((output_name(&self.g.node(*v).loc)?, *v));
        let last: BTreeMap<String, ValueId> = order.iter().filter_map(name).collect();
        let free: Vec<_> = last.into_iter().filter(|(name, _)| self.out.is_free(name)).collect();
        free.into_iter()
            .map(|(name, v)| {
                self.out.reserve(&name);
                (v, name)
            })
            .collect()
    }

    /// Gives what was just written the name of an output, or of the source's value.
    fn named(&mut self, v: ValueId, name: String, start: usize, names: &BTreeMap<ValueId, String>) -> String {
        let made = self.out.nodes.len() - start;
        if let (Loc::Node { name, .. }, 1) = (&self.g.node(v).loc, made) {
            self.out.rename_node(name);
        }
        let fresh = made > 0 && !self.known.contains(&name);
        let Some(n) = self.out.nodes.last_mut().filter(|n| fresh && n.output[0] == name) else { return name };
        let port = self.g.outputs().iter().find(|p| p.value == v).filter(|_| self.g.ty(v).dtype != DType::BF16);
        let wanted = port.map(|p| &p.name).or(names.get(&v));
        if let Some(wanted) = wanted {
            n.output[0].clone_from(wanted);
        }
        n.output[0].clone()
    }

    /// Outputs that are something else too.
    fn outputs(&mut self) {
        let mut done = BTreeSet::new();
        for p in self.g.outputs() {
            let from = self.operand(p.value, "output");
            if from == p.name && done.insert(p.name.as_str()) && !self.g.inputs().iter().any(|i| i.name == p.name) {
                continue;
            }
            self.out.begin(&p.name);
            let narrow = self.g.ty(p.value).dtype == DType::BF16;
            let (op, attributes) = match narrow {
                true => ("Cast", vec![out::int("to", number(DType::BF16).into())]),
                false => ("Identity", vec![]),
            };
            self.out.node(op, &[&from], attributes);
            if let Some(n) = self.out.nodes.last_mut() {
                n.output[0].clone_from(&p.name);
            }
        }
    }

    /// The name of a value; of a constant, which is written where it is first read, `role` becomes a part.
    fn operand(&mut self, v: ValueId, role: &str) -> String {
        if let Some(name) = self.values.get(&v) {
            return name.clone();
        }
        let Some(t) = self.g.as_const(v) else {
            // Operands come first, and all that are read are planned.
            unreachable!("an operand was not written")
        };
        let loc = &self.g.node(v).loc;
        let wanted = self.source.name_of(t, loc).unwrap_or_else(|| {
            let stem = stem(loc, self.out.stem());
            format!("{stem}.{role}")
        });
        let mut name = self.out.constant(t, &wanted);
        if t.dtype() == DType::BF16 {
            name = self.out.cast(&name, DType::F32);
            self.known.insert(name.clone());
        }
        self.values.insert(v, name.clone());
        name
    }

    /// A constant, rounded to bf16 here rather than when the model runs: the file is half the size.
    fn narrow_constant(&mut self, v: ValueId) -> String {
        let Some(t) = self.g.as_const(v) else { return self.operand(v, "weight") };
        let narrow = Tensor::from_scalars(DType::BF16, t.shape().to_vec(), t.iter());
        let loc = &self.g.node(v).loc;
        let wanted = self.source.name_of(t, loc).unwrap_or_else(|| format!("{}.weight", stem(loc, self.out.stem())));
        let name = self.out.constant(&narrow, &wanted);
        self.out.cast(&name, DType::F32)
    }

    /// All operands of `v`, each in its role.
    fn operands(&mut self, v: ValueId) -> Vec<String> {
        let g = self.g;
        let role = |i: usize| match (g.op(v), i) {
            (Op::MatMul { .. }, 1) => "weight",
            (Op::Gather { .. }, 0) => "table",
            (Op::LayerNorm { .. } | Op::RmsNorm { .. }, 1) => "gamma",
            (Op::LayerNorm { .. }, 2) => "beta",
            _ => "constant",
        };
        g.operands(v).iter().enumerate().map(|(i, &o)| self.operand(o, role(i))).collect()
    }

    fn value(&mut self, v: ValueId) -> Written {
        let g = self.g;
        let ty = g.ty(v);
        if let Some(how) = self.plan.how.get(&v).cloned() {
            return match (g.op(v), &how) {
                (Op::Linear(l), _) => self.linear(v, l, Some(&how)),
                (_, How::Dequantised { integers, scale, zero, axis }) => {
                    Ok(self.dequantised(*integers, scale, zero.as_ref(), *axis))
                }
                (_, How::Dynamic(d)) => Ok(self.dynamic(d)),
                _ => Err("it has no form".to_string()),
            };
        }
        let name = match g.op(v) {
            Op::Input { index } => {
                let name = g.inputs()[*index].name.clone();
                return Ok(if ty.dtype == DType::BF16 { self.out.cast(&name, DType::F32) } else { name });
            }
            Op::Linear(l) => return self.linear(v, l, None),
            Op::Attention(a) => return self.attention(v, a),
            Op::SumNorm(n) => return Ok(self.sum_norm(v, n)),
            Op::RowScale(q) => return Ok(self.row_scale(v, q)),
            Op::RowOffset(q) => return Ok(self.row_offset(v, q)),
            Op::QuantiseRows(q) => return Ok(self.quantise_rows(v, q)),
            Op::Quantise { to } => return Ok(self.quantise(v, *to)),
            Op::Cast(DType::BF16) if g.as_const(g.operands(v)[0]).is_some() => {
                return Ok(self.narrow_constant(g.operands(v)[0]));
            }
            _ => self.op(v)?,
        };
        let rounds = match g.op(v) {
            Op::Cast(_) => g.ty(g.operands(v)[0]).dtype != DType::BF16,
            op => !ops::moves(op),
        };
        Ok(if ty.dtype == DType::BF16 && rounds { self.out.rounded(&name) } else { name })
    }

    /// The type that a value has in the file.
    fn ty(&self, v: ValueId) -> TensorType {
        let mut ty = self.g.ty(v).clone();
        if ty.dtype == DType::BF16 {
            ty.dtype = DType::F32;
        }
        ty
    }

    fn shape(&mut self, shape: &[Dim]) -> Written {
        self.sizes.shape(self.g, &mut self.out, shape)
    }
}

/// What the source called a value.
fn output_name(loc: &Loc) -> Option<String> {
    match loc {
        Loc::Node { name, output, .. } => Some(output.as_deref().unwrap_or(name).to_string()),
        _ => None,
    }
}
