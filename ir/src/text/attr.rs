//! Attributes: between an [`Op`] and its `{name = value, …}` list.

use std::collections::BTreeMap;

use crate::dims::Dim;
use crate::op::{Attention, BinaryOp, CmpOp, Linear, Op, ReduceOp, RowQuant, SumNorm, UnaryOp};
use crate::types::DType;

/// The value of an attribute.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Attr {
    /// A non-negative integer.
    Int(usize),
    /// A list of them.
    Ints(Vec<usize>),
    /// A flag; false when left out.
    Bool(bool),
    /// A float.
    Float(f32),
    /// A size.
    Dim(Dim),
    /// A shape.
    Dims(Vec<Dim>),
    /// An element type.
    Type(DType),
    /// An elementwise op.
    Unary(UnaryOp),
    /// An elementwise op of two operands.
    Binary(BinaryOp),
}

/// The form of an attribute's value; an attribute's name has one form in every op.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    Int,
    Ints,
    Bool,
    Float,
    Dim,
    Dims,
    Type,
    Unary,
    Binary,
}

/// Every attribute's name with its form.
pub(super) const KINDS: [(&str, Kind); 33] = [
    ("axis", Kind::Int),
    ("batch_dims", Kind::Int),
    ("heads", Kind::Int),
    ("tables", Kind::Int),
    ("addends", Kind::Int),
    ("axes", Kind::Ints),
    ("perm", Kind::Ints),
    ("keep", Kind::Bool),
    ("exclusive", Kind::Bool),
    ("reverse", Kind::Bool),
    ("smallest", Kind::Bool),
    ("trans_b", Kind::Bool),
    ("int8", Kind::Bool),
    ("zero", Kind::Bool),
    ("offset", Kind::Bool),
    ("factor", Kind::Bool),
    ("bias", Kind::Bool),
    ("residual", Kind::Bool),
    ("mask", Kind::Bool),
    ("nan_to_zero", Kind::Bool),
    ("lengths", Kind::Bool),
    ("eps", Kind::Float),
    ("norm", Kind::Float),
    ("scale", Kind::Float),
    ("k", Kind::Dim),
    ("value", Kind::Dim),
    ("start", Kind::Dim),
    ("len", Kind::Dim),
    ("step", Kind::Dim),
    ("shape", Kind::Dims),
    ("to", Kind::Type),
    ("act", Kind::Unary),
    ("combine", Kind::Binary),
];

/// The form of the attribute `name`.
pub(super) fn kind(name: &str) -> Option<Kind> {
    KINDS.iter().find(|k| k.0 == name).map(|k| k.1)
}

/// The attributes of an op in printing order. A constant's elements are not among them.
pub(super) fn attrs(op: &Op) -> Vec<(&'static str, Attr)> {
    let dim = |d: &Dim| Attr::Dim(d.clone());
    match op {
        Op::Input { .. } | Op::Constant(_) | Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select => Vec::new(),
        Op::Dim(d) => vec![("value", dim(d))],
        Op::Iota { len, start, step } => vec![("len", dim(len)), ("start", dim(start)), ("step", dim(step))],
        Op::RowScale(q) | Op::RowOffset(q) | Op::QuantiseRows(q) => {
            vec![("offset", Attr::Bool(q.offset)), ("factor", Attr::Bool(q.factor))]
        }
        Op::Cast(d) | Op::Quantise { to: d } => vec![("to", Attr::Type(*d))],
        Op::Reduce { axes, keep, .. } => vec![("axes", Attr::Ints(axes.clone())), ("keep", Attr::Bool(*keep))],
        Op::CumSum { axis, exclusive, reverse } => {
            vec![("axis", Attr::Int(*axis)), ("exclusive", Attr::Bool(*exclusive)), ("reverse", Attr::Bool(*reverse))]
        }
        Op::LayerNorm { eps } | Op::RmsNorm { eps } => vec![("eps", Attr::Float(*eps))],
        Op::MatMul { trans_b } => vec![("trans_b", Attr::Bool(*trans_b))],
        Op::Transpose { perm } => vec![("perm", Attr::Ints(perm.clone()))],
        Op::Reshape { shape } | Op::Broadcast { shape } => vec![("shape", Attr::Dims(shape.clone()))],
        Op::Slice { axis, start, len, step } => vec![
            ("axis", Attr::Int(*axis)),
            ("start", dim(start)),
            ("len", dim(len)),
            ("step", Attr::Dim(Dim::constant(*step))),
        ],
        Op::ArgMax { axis, .. }
        | Op::Softmax { axis }
        | Op::Concat { axis }
        | Op::Gather { axis }
        | Op::GatherElements { axis } => vec![("axis", Attr::Int(*axis))],
        Op::GatherNd { batch_dims } => vec![("batch_dims", Attr::Int(*batch_dims))],
        Op::ScatterElements { axis, combine } => {
            let mut v = vec![("axis", Attr::Int(*axis))];
            v.extend(combine.map(|c| ("combine", Attr::Binary(c))));
            v
        }
        Op::ScatterNd { combine } => combine.map(|c| ("combine", Attr::Binary(c))).into_iter().collect(),
        Op::TopK { axis, k, smallest } => {
            vec![("axis", Attr::Int(*axis)), ("k", dim(k)), ("smallest", Attr::Bool(*smallest))]
        }
        Op::Linear(l) => {
            let flags = [("trans_b", l.trans_b), ("int8", l.int8), ("zero", l.zero), ("offset", l.offset)];
            let mut v: Vec<_> = flags.map(|(name, on)| (name, Attr::Bool(on))).to_vec();
            v.push(("bias", Attr::Bool(l.bias)));
            v.extend(l.act.map(|a| ("act", Attr::Unary(a))));
            v.push(("residual", Attr::Bool(l.residual)));
            v.extend(l.norm.map(|e| ("norm", Attr::Float(e))));
            v.push(("lengths", Attr::Bool(l.lengths)));
            v.extend(result(l.bf16));
            v
        }
        Op::Attention(a) => [
            ("heads", Attr::Int(a.heads)),
            ("scale", Attr::Float(a.scale)),
            ("mask", Attr::Bool(a.mask)),
            ("nan_to_zero", Attr::Bool(a.nan_to_zero)),
            ("lengths", Attr::Bool(a.lengths)),
        ]
        .into_iter()
        .chain(result(a.bf16))
        .collect(),
        Op::SumNorm(n) => {
            let mut v = vec![("tables", Attr::Int(n.tables))];
            v.extend([("int8", Attr::Bool(n.int8)), ("addends", Attr::Int(n.addends))]);
            v.extend(n.norm.map(|e| ("norm", Attr::Float(e))));
            v.extend(result(n.bf16));
            v
        }
    }
}

/// The dtype of a fused op's result, where it is not f32.
fn result(bf16: bool) -> Option<(&'static str, Attr)> {
    bf16.then_some(("to", Attr::Type(DType::BF16)))
}

/// Attributes as parsed; each is taken once.
pub(super) struct Attrs(pub BTreeMap<String, Attr>);

impl Attrs {
    fn take(&mut self, name: &'static str) -> Result<Attr, String> {
        self.0.remove(name).ok_or_else(|| format!("attribute '{name}' is missing"))
    }

    fn int(&mut self, name: &'static str) -> Result<usize, String> {
        match self.take(name)? {
            Attr::Int(v) => Ok(v),
            _ => Err(format!("attribute '{name}' must be an integer")),
        }
    }

    fn ints(&mut self, name: &'static str) -> Result<Vec<usize>, String> {
        match self.take(name)? {
            Attr::Ints(v) => Ok(v),
            _ => Err(format!("attribute '{name}' must be a list of integers")),
        }
    }

    fn float(&mut self, name: &'static str) -> Result<f32, String> {
        match self.take(name)? {
            Attr::Float(v) => Ok(v),
            _ => Err(format!("attribute '{name}' must be a float")),
        }
    }

    /// A float that may be left out.
    fn norm(&mut self) -> Result<Option<f32>, String> {
        if self.0.contains_key("norm") { self.float("norm").map(Some) } else { Ok(None) }
    }

    /// Whether a fused op's result is bf16: f32 is the other one.
    fn bf16(&mut self) -> Result<bool, String> {
        match self.0.remove("to") {
            None | Some(Attr::Type(DType::F32)) => Ok(false),
            Some(Attr::Type(DType::BF16)) => Ok(true),
            Some(_) => Err("attribute 'to' must be f32 or bf16".to_string()),
        }
    }

    /// The element type that something becomes.
    fn to(&mut self) -> Result<DType, String> {
        match self.take("to")? {
            Attr::Type(d) => Ok(d),
            _ => Err("attribute 'to' must be an element type".to_string()),
        }
    }

    /// How a scatter joins an update with what is there.
    fn combine(&mut self) -> Result<Option<BinaryOp>, String> {
        match self.0.remove("combine") {
            None => Ok(None),
            Some(Attr::Binary(b)) => Ok(Some(b)),
            Some(_) => Err("attribute 'combine' must be an elementwise op of two operands".to_string()),
        }
    }

    fn row_quant(&mut self) -> RowQuant {
        RowQuant { offset: self.flag("offset"), factor: self.flag("factor") }
    }

    fn flag(&mut self, name: &str) -> bool {
        matches!(self.0.remove(name), Some(Attr::Bool(true)))
    }

    fn dim(&mut self, name: &'static str) -> Result<Dim, String> {
        match self.take(name)? {
            Attr::Dim(v) => Ok(v),
            _ => Err(format!("attribute '{name}' must be a size")),
        }
    }

    fn dims(&mut self, name: &'static str) -> Result<Vec<Dim>, String> {
        match self.take(name)? {
            Attr::Dims(v) => Ok(v),
            _ => Err(format!("attribute '{name}' must be a shape")),
        }
    }
}

/// The op called `name` with the attributes `a`. `constant` and `input` are not made here.
pub(super) fn build(name: &str, a: &mut Attrs) -> Result<Op, String> {
    let op = match name {
        "dim" => Op::Dim(a.dim("value")?),
        "iota" => Op::Iota { len: a.dim("len")?, start: a.dim("start")?, step: a.dim("step")? },
        "select" => Op::Select,
        "cast" => Op::Cast(a.to()?),
        "row_scale" => Op::RowScale(a.row_quant()),
        "row_offset" => Op::RowOffset(a.row_quant()),
        "quantise_rows" => Op::QuantiseRows(a.row_quant()),
        "quantise" => Op::Quantise { to: a.to()? },
        "arg_max" => Op::ArgMax { axis: a.int("axis")?, min: false },
        "arg_min" => Op::ArgMax { axis: a.int("axis")?, min: true },
        "cum_sum" => Op::CumSum { axis: a.int("axis")?, exclusive: a.flag("exclusive"), reverse: a.flag("reverse") },
        "softmax" => Op::Softmax { axis: a.int("axis")? },
        "layer_norm" => Op::LayerNorm { eps: a.float("eps")? },
        "rms_norm" => Op::RmsNorm { eps: a.float("eps")? },
        "matmul" => Op::MatMul { trans_b: a.flag("trans_b") },
        "transpose" => Op::Transpose { perm: a.ints("perm")? },
        "reshape" => Op::Reshape { shape: a.dims("shape")? },
        "broadcast" => Op::Broadcast { shape: a.dims("shape")? },
        "slice" => {
            let step = a.dim("step")?.as_const().ok_or("the step of a slice must be a constant")?;
            Op::Slice { axis: a.int("axis")?, start: a.dim("start")?, len: a.dim("len")?, step }
        }
        "concat" => Op::Concat { axis: a.int("axis")? },
        "gather" => Op::Gather { axis: a.int("axis")? },
        "gather_elements" => Op::GatherElements { axis: a.int("axis")? },
        "gather_nd" => Op::GatherNd { batch_dims: a.int("batch_dims")? },
        "scatter_elements" => Op::ScatterElements { axis: a.int("axis")?, combine: a.combine()? },
        "scatter_nd" => Op::ScatterNd { combine: a.combine()? },
        "top_k" => Op::TopK { axis: a.int("axis")?, k: a.dim("k")?, smallest: a.flag("smallest") },
        "linear" => {
            let act = match a.0.remove("act") {
                None => None,
                Some(Attr::Unary(u)) => Some(u),
                Some(_) => return Err("attribute 'act' must be an elementwise op".to_string()),
            };
            let (trans_b, bias, residual) = (a.flag("trans_b"), a.flag("bias"), a.flag("residual"));
            let (int8, zero, offset) = (a.flag("int8"), a.flag("zero"), a.flag("offset"));
            let (norm, lengths, bf16) = (a.norm()?, a.flag("lengths"), a.bf16()?);
            Op::Linear(Linear { trans_b, int8, zero, offset, bias, act, residual, norm, lengths, bf16 })
        }
        "attention" => Op::Attention(Attention {
            heads: a.int("heads")?,
            scale: a.float("scale")?,
            mask: a.flag("mask"),
            nan_to_zero: a.flag("nan_to_zero"),
            lengths: a.flag("lengths"),
            bf16: a.bf16()?,
        }),
        "sum_norm" => Op::SumNorm(SumNorm {
            tables: a.int("tables")?,
            int8: a.flag("int8"),
            addends: a.int("addends")?,
            norm: a.norm()?,
            bf16: a.bf16()?,
        }),
        _ => {
            if let Some(op) = name.strip_prefix("reduce_").and_then(ReduceOp::from_name) {
                Op::Reduce { op, axes: a.ints("axes")?, keep: a.flag("keep") }
            } else if let Some(u) = UnaryOp::from_name(name) {
                Op::Unary(u)
            } else if let Some(b) = BinaryOp::from_name(name) {
                Op::Binary(b)
            } else if let Some(c) = CmpOp::from_name(name) {
                Op::Compare(c)
            } else {
                return Err(format!("unknown op '{name}'"));
            }
        }
    };
    match a.0.keys().next() {
        Some(k) => Err(format!("'{name}' has no attribute '{k}'")),
        None => Ok(op),
    }
}
