//! The nodes and initializers of the model that is being written, and their names.

use std::collections::{HashMap, HashSet};

use bertc_ir::{DType, Loc, Scalar, Tensor};
use bytes::Bytes;

use crate::import::onnx::proto::attribute_proto::AttributeType;
use crate::import::onnx::proto::tensor_proto::DataType;
use crate::import::onnx::proto::{AttributeProto, NodeProto};

/// Names that are taken, each once.
#[derive(Default)]
struct Taken(HashSet<String>);

impl Taken {
    /// `want`, or with a number behind it where that is taken.
    fn unique(&mut self, want: &str) -> String {
        let mut name = want.to_string();
        let mut n = 0;
        while name.is_empty() || !self.0.insert(name.clone()) {
            n += 1;
            name = format!("{want}_{n}");
        }
        name
    }
}

/// What identifies a small constant: equal ones are written once.
type Small = (DType, Vec<usize>, Bytes);
/// What identifies the memory of a large one.
type Memory = (DType, Vec<usize>, *const u8, usize);

/// What was written so far.
#[derive(Default)]
pub struct Out {
    /// In an order in which operands come first.
    pub nodes: Vec<NodeProto>,
    /// Initializers by name.
    pub tensors: Vec<(String, Tensor)>,
    value_names: Taken,
    node_names: Taken,
    small: HashMap<Small, String>,
    large: HashMap<Memory, String>,
    /// The beginning of nodes' names.
    stem: String,
}

impl Out {
    /// Takes a name that must be kept as it is, of an input or output.
    pub fn reserve(&mut self, name: &str) {
        self.value_names.0.insert(name.to_string());
    }

    /// Whether a value may still be called so.
    pub fn is_free(&self, name: &str) -> bool {
        !self.value_names.0.contains(name)
    }

    /// Gives the last node another name, or one like it.
    pub fn rename_node(&mut self, want: &str) {
        let Some(n) = self.nodes.last_mut() else { return };
        if let Some(old) = &n.name {
            self.node_names.0.remove(old);
        }
        n.name = Some(self.node_names.unique(want));
    }

    /// What names of the nodes to come begin with. Returns what it was.
    pub fn begin(&mut self, stem: impl Into<String>) -> String {
        std::mem::replace(&mut self.stem, stem.into())
    }

    /// What names of nodes begin with.
    pub fn stem(&self) -> &str {
        &self.stem
    }

    /// Adds a node of one output and returns that output's name.
    pub fn node(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let name = self.node_names.unique(&format!("{}/{op}", self.stem));
        let output = self.value_names.unique(&format!("{name}_output_0"));
        self.nodes.push(NodeProto {
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.clone()],
            name: Some(name),
            op_type: Some(op.to_string()),
            attribute,
            ..NodeProto::default()
        });
        output
    }

    /// Adds a node of which the second output is wanted alone, and returns that.
    pub fn second(&mut self, op: &str, inputs: &[&str], attribute: Vec<AttributeProto>) -> String {
        let first = self.node(op, inputs, attribute);
        let second = self.value_names.unique(&format!("{}1", first.strip_suffix('0').unwrap_or(&first)));
        if let Some(n) = self.nodes.last_mut() {
            n.output.push(second.clone());
        }
        second
    }

    /// `DynamicQuantizeLinear`: the integers, their scale and their zero point.
    pub fn dynamic_quantise(&mut self, x: &str) -> (String, String, String) {
        let integers = self.node("DynamicQuantizeLinear", &[x], vec![]);
        let [scale, point] = ["scale", "zero_point"].map(|what| self.value_names.unique(&format!("{integers}_{what}")));
        if let Some(n) = self.nodes.last_mut() {
            n.output.extend([scale.clone(), point.clone()]);
        }
        (integers, scale, point)
    }

    /// A constant of the model, under a name like `want`. The same memory is written once.
    pub fn constant(&mut self, t: &Tensor, want: &str) -> String {
        let memory = (t.dtype(), t.shape().to_vec(), t.bytes().as_ptr(), t.bytes().len());
        if let Some(name) = self.large.get(&memory) {
            return name.clone();
        }
        let name = self.value_names.unique(want);
        self.tensors.push((name.clone(), t.clone()));
        // The clone above keeps the memory, so that no other tensor gets its address.
        self.large.insert(memory, name.clone());
        name
    }

    /// A small constant that this module makes up; equal ones share a name.
    pub fn small(&mut self, t: Tensor) -> String {
        let key = (t.dtype(), t.shape().to_vec(), t.bytes().clone());
        if let Some(name) = self.small.get(&key) {
            return name.clone();
        }
        let elements: Vec<String> = t.iter().take(8).map(show).collect();
        let what = if t.shape().is_empty() { "scalar" } else { "list" };
        let name = self.value_names.unique(&format!("{what}.{}.{}", t.dtype(), elements.join("_")));
        self.tensors.push((name.clone(), t));
        self.small.insert(key, name.clone());
        name
    }

    /// Leaves out what no output needs: a value that had a better spelling than its op, for its only reader.
    pub fn remove_dead<'a>(&mut self, outputs: impl Iterator<Item = &'a str>) {
        let mut read: HashSet<String> = outputs.map(str::to_string).collect();
        let mut kept: Vec<NodeProto> = Vec::with_capacity(self.nodes.len());
        for n in std::mem::take(&mut self.nodes).into_iter().rev() {
            if n.output.iter().any(|o| read.contains(o)) {
                read.extend(n.input.iter().cloned());
                kept.push(n);
            }
        }
        kept.reverse();
        self.nodes = kept;
        self.tensors.retain(|(name, _)| read.contains(name));
    }

    /// A list of integers.
    pub fn ints(&mut self, v: &[i64]) -> String {
        self.small(Tensor::from_i64(vec![v.len()], v))
    }

    /// A number as a scalar.
    pub fn scalar(&mut self, dtype: DType, v: f64) -> String {
        let s = if dtype.is_float() { Scalar::Float(v) } else { Scalar::Int(v as i128) };
        self.small(Tensor::scalar(dtype, s))
    }

    /// `Cast`.
    pub fn cast(&mut self, x: &str, to: DType) -> String {
        self.node("Cast", &[x], vec![int("to", i64::from(number(to)))])
    }

    /// Rounds f32 to bf16 and back.
    pub fn rounded(&mut self, x: &str) -> String {
        let narrow = self.cast(x, DType::BF16);
        self.cast(&narrow, DType::F32)
    }

    /// `Transpose`.
    pub fn transpose(&mut self, x: &str, perm: &[usize]) -> String {
        self.node("Transpose", &[x], vec![ints("perm", perm.iter().map(|&p| p as i64))])
    }
}

fn show(s: Scalar) -> String {
    match s {
        Scalar::Int(i) => i.to_string(),
        Scalar::Float(f) => format!("{}", f as f32),
    }
}

/// The part of a node's name that those beside it share: without the operator at its end.
pub fn stem(loc: &Loc, otherwise: &str) -> String {
    let Loc::Node { name, op, .. } = loc else { return otherwise.to_string() };
    let op = op.rsplit('.').next().unwrap_or(op);
    match name.rsplit_once('/') {
        Some((stem, last)) if last.starts_with(op) && !stem.is_empty() => stem.to_string(),
        _ => name.clone(),
    }
}

/// ONNX's number of an element type.
pub fn number(d: DType) -> i32 {
    let t = match d {
        DType::F32 => DataType::Float,
        DType::F64 => DataType::Double,
        DType::F16 => DataType::Float16,
        DType::BF16 => DataType::Bfloat16,
        DType::I8 => DataType::Int8,
        DType::I16 => DataType::Int16,
        DType::I32 => DataType::Int32,
        DType::I64 => DataType::Int64,
        DType::U8 => DataType::Uint8,
        DType::U16 => DataType::Uint16,
        DType::U32 => DataType::Uint32,
        DType::U64 => DataType::Uint64,
        DType::Bool => DataType::Bool,
    };
    t.into()
}

fn attribute(name: &str, kind: AttributeType) -> AttributeProto {
    AttributeProto { name: Some(name.to_string()), r#type: Some(kind.into()), ..AttributeProto::default() }
}

/// An attribute of one integer.
pub fn int(name: &str, v: i64) -> AttributeProto {
    AttributeProto { i: Some(v), ..attribute(name, AttributeType::Int) }
}

/// An attribute of integers.
pub fn ints(name: &str, v: impl IntoIterator<Item = i64>) -> AttributeProto {
    AttributeProto { ints: v.into_iter().collect(), ..attribute(name, AttributeType::Ints) }
}

/// An attribute of text.
pub fn string(name: &str, v: &str) -> AttributeProto {
    AttributeProto { s: Some(Bytes::copy_from_slice(v.as_bytes())), ..attribute(name, AttributeType::String) }
}

/// An attribute of one float.
pub fn float(name: &str, v: f32) -> AttributeProto {
    AttributeProto { f: Some(v), ..attribute(name, AttributeType::Float) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_apart_and_equal_constants_together() {
        let mut out = Out::default();
        out.reserve("y");
        assert!(!out.is_free("y") && out.is_free("y_1"));
        let t = Tensor::from_f32(vec![2], &[1.0, 3.0]);
        assert_eq!(out.constant(&t, "y"), "y_1");
        assert_eq!(out.ints(&[1, -1]), out.ints(&[1, -1]));
        assert_ne!(out.ints(&[1]), out.ints(&[2]));
        let t = Tensor::from_f32(vec![2], &[1.0, 2.0]);
        assert_eq!(out.constant(&t, "w"), out.constant(&t.clone(), "v"));
        out.begin("/a");
        assert_eq!(out.node("Neg", &["x"], vec![]), "/a/Neg_output_0");
        out.rename_node("/a/Neg");
        assert_eq!(out.nodes[0].name(), "/a/Neg");
    }

    #[test]
    fn stems_lose_the_operator() {
        assert_eq!(stem(&Loc::node("/m/query/MatMul", "MatMul"), "x"), "/m/query");
        assert_eq!(stem(&Loc::node("/m/Mul_1", "Mul"), "x"), "/m");
        assert_eq!(stem(&Loc::node("node_linear", "Gemm"), "x"), "node_linear");
        assert_eq!(stem(&Loc::Unknown, "x"), "x");
    }
}
