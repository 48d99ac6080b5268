//! An op, chosen by its name, with operands that fit it.

use super::graph::Gen;
use crate::dims::Dim;
use crate::graph::ValueId;
use crate::op::{ACTIVATIONS, Attention, BinaryOp, CmpOp, Linear, Op, ReduceOp, RowQuant, SumNorm, UnaryOp};
use crate::text::op_names;
use crate::types::{DType, TensorType};

const FLOATS: [DType; 4] = [DType::F32, DType::F16, DType::BF16, DType::F64];
const BYTES: [DType; 2] = [DType::I8, DType::U8];
const INDICES: [DType; 2] = [DType::I64, DType::I32];

fn f32(shape: Vec<Dim>) -> TensorType {
    TensorType::new(DType::F32, shape)
}

/// An op and its operands. In rare cases they don't fit after all (an axis that may be empty), which inference tells.
pub(super) fn fitting(g: &mut Gen<'_, '_>) -> (Op, Vec<ValueId>) {
    let name = g.source.of(&op_names());
    if let Some(u) = UnaryOp::from_name(name) {
        let x = match u {
            UnaryOp::Not => value(g, |t| !t.dtype.is_float(), DType::Bool),
            UnaryOp::Neg | UnaryOp::Abs | UnaryOp::Sign | UnaryOp::Relu => number(g),
            _ => float(g),
        };
        return (Op::Unary(u), vec![x]);
    }
    if let Some(b) = BinaryOp::from_name(name) {
        let x = match b {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => value(g, |t| !t.dtype.is_float(), DType::Bool),
            BinaryOp::Shl | BinaryOp::Shr => value(g, |t| t.dtype.is_int(), DType::U8),
            _ => number(g),
        };
        return (Op::Binary(b), vec![x, partner(g, x)]);
    }
    if let Some(c) = CmpOp::from_name(name) {
        let x = value(g, |_| true, DType::I64);
        return (Op::Compare(c), vec![x, partner(g, x)]);
    }
    if let Some(op) = name.strip_prefix("reduce_").and_then(ReduceOp::from_name) {
        let x = if op == ReduceOp::Mean { float(g) } else { number(g) };
        let axes = (0..g.graph.ty(x).rank()).filter(|_| g.source.flag()).collect();
        return (Op::Reduce { op, axes, keep: g.source.flag() }, vec![x]);
    }
    match name {
        "linear" => linear(g),
        "attention" => attention(g),
        "sum_norm" => sum_norm(g),
        "row_scale" => row_quant(g, Op::RowScale),
        "row_offset" => row_quant(g, Op::RowOffset),
        "quantise_rows" => row_quant(g, Op::QuantiseRows),
        "quantise" => {
            let x = g.any(|t| t.dtype == DType::F32, f32(vec![2.into(), 3.into()]));
            let zero = g.of_type(&TensorType::new(DType::I32, Vec::new()));
            (Op::Quantise { to: g.source.of(&BYTES) }, vec![x, g.of_type(&f32(Vec::new())), zero])
        }
        "layer_norm" => {
            let x = ranked(g, |t| t.dtype.is_float(), DType::F32);
            let ty = g.graph.ty(x).clone();
            let vector = TensorType::new(ty.dtype, ty.shape[ty.rank() - 1..].to_vec());
            (Op::LayerNorm { eps: g.source.of(&[1e-12, 0.0, 1e-5]) }, vec![x, g.of_type(&vector), g.of_type(&vector)])
        }
        "rms_norm" => {
            let x = ranked(g, |t| t.dtype.is_float(), DType::F32);
            let ty = g.graph.ty(x).clone();
            let vector = TensorType::new(ty.dtype, ty.shape[ty.rank() - 1..].to_vec());
            (Op::RmsNorm { eps: g.source.of(&[1e-12, 0.0, 1e-5]) }, vec![x, g.of_type(&vector)])
        }
        "matmul" => {
            let x = g
                .any(|t| t.rank() >= 2 && (t.dtype.is_float() || t.dtype == DType::I32), f32(vec![2.into(), 3.into()]));
            let (ty, n, trans_b) = (g.graph.ty(x).clone(), g.dim(), g.source.flag());
            let (batch, k) = (ty.rank() - 2, ty.shape[ty.rank() - 1].clone());
            let kept = if g.source.flag() { ty.shape[..batch].to_vec() } else { Vec::new() };
            let last = if trans_b { [n, k] } else { [k, n] };
            let other = TensorType::new(ty.dtype, [kept, last.to_vec()].concat());
            (Op::MatMul { trans_b }, vec![x, g.of_type(&other)])
        }
        "gather" | "gather_elements" | "gather_nd" => gathers(g, name),
        "scatter_elements" | "scatter_nd" => scatters(g, name),
        "concat" => {
            let x = ranked(g, |_| true, DType::F32);
            let (axis, ty) = (g.source.below(g.graph.ty(x).rank()), g.graph.ty(x).clone());
            let mut operands = vec![x];
            for _ in 0..g.source.below(3) {
                let mut other = ty.clone();
                other.shape[axis] = g.dim();
                operands.push(g.of_type(&other));
            }
            (Op::Concat { axis }, operands)
        }
        "select" => {
            let x = value(g, |_| true, DType::F32);
            let c = TensorType::new(DType::Bool, g.graph.ty(x).shape.clone());
            (Op::Select, vec![g.of_type(&c), x, partner(g, x)])
        }
        _ => simple(g, name),
    }
}

/// The ops of no or one operand that are left.
fn simple(g: &mut Gen<'_, '_>, name: &str) -> (Op, Vec<ValueId>) {
    let step = |g: &mut Gen<'_, '_>| Dim::constant(g.source.of(&[1, 2, -1, 0, i64::MIN]));
    match name {
        "dim" => return (Op::Dim(g.dim()), Vec::new()),
        "iota" => return (Op::Iota { len: g.dim(), start: g.dim(), step: step(g) }, Vec::new()),
        "constant" => {
            let shape = (0..g.source.below(3)).map(|_| g.source.of(&[1, 2, 5, 20, 0])).collect();
            let dtype = g.source.of(&DType::ALL);
            let v = g.constant(dtype, shape);
            return (Op::Constant(g.graph.as_const(v).expect("just made").clone()), Vec::new());
        }
        _ => {}
    }
    let x = match name {
        "softmax" => ranked(g, |t| t.dtype.is_float(), DType::F32),
        "arg_max" | "arg_min" | "cum_sum" | "top_k" => ranked(g, |t| t.dtype != DType::Bool, DType::I32),
        "slice" => ranked(g, |_| true, DType::I64),
        _ => value(g, |_| true, DType::F32),
    };
    let ty = g.graph.ty(x).clone();
    let axis = g.source.below(ty.rank());
    let op = match name {
        "cast" => Op::Cast(g.source.of(&DType::ALL)),
        "softmax" => Op::Softmax { axis },
        "arg_max" => Op::ArgMax { axis, min: false },
        "arg_min" => Op::ArgMax { axis, min: true },
        "cum_sum" => Op::CumSum { axis, exclusive: g.source.flag(), reverse: g.source.flag() },
        "top_k" => {
            let k = if g.source.flag() { 1.into() } else { ty.shape[axis].clone() };
            Op::TopK { axis, k, smallest: g.source.flag() }
        }
        "transpose" => {
            let mut perm: Vec<usize> = (0..ty.rank()).collect();
            for i in (1..perm.len()).rev() {
                perm.swap(i, g.source.below(i + 1));
            }
            Op::Transpose { perm }
        }
        "slice" => {
            let d = ty.shape[axis].clone();
            let back = d.sub(&1.into()).unwrap_or_default();
            match g.source.below(3) {
                0 => Op::Slice { axis, start: 0.into(), len: d, step: 1 },
                1 => Op::Slice { axis, start: back, len: d, step: -1 },
                _ => Op::Slice { axis, start: 0.into(), len: g.source.of(&[1.into(), 0.into()]), step: 3 },
            }
        }
        "broadcast" => Op::Broadcast { shape: [vec![g.dim()], ty.shape].concat() },
        // A reshape: all in one, a dim of one more, or the first two together.
        _ => {
            let all = ty.elements().unwrap_or_default();
            let shape = match g.source.below(3) {
                0 => vec![all],
                1 => [vec![1.into()], ty.shape].concat(),
                _ => match ty.shape.as_slice() {
                    [a, b, rest @ ..] => [&[a.mul(b).unwrap_or_default()], rest].concat(),
                    short => short.to_vec(),
                },
            };
            Op::Reshape { shape }
        }
    };
    (op, vec![x])
}

fn value(g: &mut Gen<'_, '_>, property: impl Fn(&TensorType) -> bool, dtype: DType) -> ValueId {
    let shape = vec![g.dim(), g.dim()];
    g.any(property, TensorType::new(dtype, shape))
}

/// A value with an axis.
fn ranked(g: &mut Gen<'_, '_>, property: impl Fn(&TensorType) -> bool, dtype: DType) -> ValueId {
    value(g, |t| t.rank() > 0 && property(t), dtype)
}

fn number(g: &mut Gen<'_, '_>) -> ValueId {
    value(g, |t| t.dtype != DType::Bool, DType::I32)
}

fn float(g: &mut Gen<'_, '_>) -> ValueId {
    let dtype = g.dtype(&FLOATS);
    value(g, |t| t.dtype.is_float(), dtype)
}

/// A value of the same dtype that broadcasts with `x`.
fn partner(g: &mut Gen<'_, '_>, x: ValueId) -> ValueId {
    let mut ty = g.graph.ty(x).clone();
    match g.source.below(4) {
        0 => ty.shape = Vec::new(),
        1 if ty.rank() > 0 => {
            let axis = g.source.below(ty.rank());
            ty.shape[axis] = 1.into();
        }
        _ => {}
    }
    g.of_type(&ty)
}

fn gathers(g: &mut Gen<'_, '_>, name: &str) -> (Op, Vec<ValueId>) {
    let x = ranked(g, |_| true, DType::F32);
    let ty = g.graph.ty(x).clone();
    let (axis, dtype) = (g.source.below(ty.rank()), g.source.of(&INDICES));
    let shape = match name {
        "gather" => (0..g.source.below(3)).map(|_| g.dim()).collect(),
        "gather_elements" => {
            let mut s = ty.shape.clone();
            s[axis] = g.dim();
            s
        }
        _ => vec![g.dim(), Dim::constant(1 + g.source.below(ty.rank()) as i64)],
    };
    let indices = g.of_type(&TensorType::new(dtype, shape));
    let op = match name {
        "gather" => Op::Gather { axis },
        "gather_elements" => Op::GatherElements { axis },
        _ => Op::GatherNd { batch_dims: 0 },
    };
    (op, vec![x, indices])
}

fn scatters(g: &mut Gen<'_, '_>, name: &str) -> (Op, Vec<ValueId>) {
    let x = ranked(g, |_| true, DType::F32);
    let ty = g.graph.ty(x).clone();
    let (axis, dtype) = (g.source.below(ty.rank()), g.source.of(&INDICES));
    let ways = [BinaryOp::Add, BinaryOp::Mul, BinaryOp::Min, BinaryOp::Max];
    let combine = (ty.dtype != DType::Bool && g.source.flag()).then(|| g.source.of(&ways));
    let (op, shape, parts) = if name == "scatter_elements" {
        let mut s = ty.shape.clone();
        s[axis] = g.dim();
        (Op::ScatterElements { axis, combine }, s.clone(), s)
    } else {
        let (n, k) = (g.dim(), 1 + axis);
        let parts = [std::slice::from_ref(&n), &ty.shape[k..]].concat();
        (Op::ScatterNd { combine }, vec![n, Dim::constant(k as i64)], parts)
    };
    let indices = g.of_type(&TensorType::new(dtype, shape));
    let updates = g.of_type(&TensorType::new(ty.dtype, parts));
    (op, vec![x, indices, updates])
}

fn eps(g: &mut Gen<'_, '_>) -> Option<f32> {
    g.source.flag().then(|| g.source.of(&[1e-12, 0.5, 0.0]))
}

/// A type that fused ops take: f32, or now and then bf16.
fn f32_or_bf16(g: &mut Gen<'_, '_>, shape: Vec<Dim>) -> TensorType {
    TensorType::new(g.source.of(&[DType::F32, DType::F32, DType::BF16]), shape)
}

fn linear(g: &mut Gen<'_, '_>) -> (Op, Vec<ValueId>) {
    let dtype = g.source.of(&[DType::F32, DType::F32, DType::BF16, DType::I8, DType::U8]);
    let fresh = TensorType::new(dtype, vec![2.into(), 3.into()]);
    let x = g.any(|t| t.rank() >= 2 && t.dtype == fresh.dtype, fresh.clone());
    let (ty, n) = (g.graph.ty(x).clone(), Dim::constant(1 + g.source.below(6) as i64));
    let k = ty.shape[ty.rank() - 1].clone();
    let l = Linear {
        trans_b: g.source.flag(),
        int8: matches!(fresh.dtype, DType::I8 | DType::U8),
        zero: fresh.dtype == DType::U8,
        offset: matches!(fresh.dtype, DType::I8 | DType::U8) && g.source.flag(),
        bias: g.source.flag(),
        act: g.source.flag().then(|| g.source.of(&ACTIVATIONS)),
        residual: g.source.flag(),
        norm: eps(g),
        lengths: g.source.flag(),
        bf16: g.source.flag(),
    };
    let vector = f32(vec![n.clone()]);
    let matrix = if l.trans_b { vec![n.clone(), k] } else { vec![k, n.clone()] };
    let b = if l.int8 { DType::I8 } else { ty.dtype };
    let mut operands = vec![x, g.of_type(&TensorType::new(b, matrix))];
    let rows = [&ty.shape[..ty.rank() - 1], &[1.into()]].concat();
    if l.int8 {
        let scale = if g.source.flag() { Vec::new() } else { rows.clone() };
        operands.extend([g.of_type(&f32(scale)), g.of_type(&vector)]);
    }
    if l.zero {
        operands.push(g.of_type(&TensorType::new(DType::I32, Vec::new())));
    }
    if l.offset {
        operands.push(g.of_type(&f32(rows)));
    }
    if l.bias {
        operands.push(g.of_type(&vector));
    }
    if l.residual {
        let mut shape = ty.shape.clone();
        shape.pop();
        shape.push(n);
        let residual = f32_or_bf16(g, shape);
        operands.push(g.of_type(&residual));
    }
    if l.norm.is_some() {
        operands.extend([g.of_type(&vector), g.of_type(&vector)]);
    }
    if l.lengths {
        operands.push(g.of_type(&TensorType::new(DType::I64, ty.shape[..ty.rank() - 2].to_vec())));
    }
    (Op::Linear(l), operands)
}

fn row_quant(g: &mut Gen<'_, '_>, op: fn(RowQuant) -> Op) -> (Op, Vec<ValueId>) {
    let fresh = f32_or_bf16(g, vec![2.into(), 3.into()]);
    let x = g.any(|t| t.rank() > 0 && t.dtype == fresh.dtype, fresh.clone());
    let vector = f32(g.graph.ty(x).shape.last().cloned().into_iter().collect());
    let q = RowQuant { offset: g.source.flag(), factor: g.source.flag() };
    let mut operands = vec![x];
    for _ in 1..q.arity() {
        operands.push(g.of_type(&vector));
    }
    (op(q), operands)
}

fn attention(g: &mut Gen<'_, '_>) -> (Op, Vec<ValueId>) {
    let heads = 1 + g.source.below(3);
    let width = |g: &mut Gen<'_, '_>| Dim::constant((heads * (1 + g.source.below(3))) as i64);
    let (b, s, t, d, e) = (g.dim(), g.dim(), g.dim(), width(g), width(g));
    let shapes = [[&b, &s, &d], [&b, &t, &d], [&b, &t, &e]];
    let dtype = f32_or_bf16(g, Vec::new()).dtype;
    let of = |x: [&Dim; 3]| g.of_type(&TensorType::new(dtype, x.map(Clone::clone).to_vec()));
    let mut operands: Vec<ValueId> = shapes.map(of).to_vec();
    let mask = g.source.flag();
    if mask {
        let one = Dim::constant(1);
        let h = g.source.of(&[one.clone(), Dim::constant(heads as i64)]);
        let rows = g.source.of(&[one, s]);
        operands.push(g.of_type(&f32(vec![b.clone(), h, rows, t])));
    }
    let lengths = g.source.flag();
    if lengths {
        operands.push(g.of_type(&TensorType::new(DType::I64, vec![b])));
    }
    let scale = g.source.of(&[0.125, 1.0, -0.0]);
    let (nan_to_zero, bf16) = (g.source.flag(), g.source.flag());
    (Op::Attention(Attention { heads, scale, mask, nan_to_zero, lengths, bf16 }), operands)
}

fn sum_norm(g: &mut Gen<'_, '_>) -> (Op, Vec<ValueId>) {
    let (rows, n) = (vec![g.dim(), g.dim()], Dim::constant(1 + g.source.below(6) as i64));
    let (tables, int8) = (g.source.below(3), g.source.flag());
    let addends = g.source.below(3) + usize::from(tables == 0);
    let sum = [rows.clone(), vec![n.clone()]].concat();
    let mut operands = Vec::new();
    for _ in 0..tables {
        let (entries, dtype) = (Dim::constant(1 + g.source.below(9) as i64), g.source.of(&INDICES));
        let shape = vec![entries.clone(), n.clone()];
        let table = if int8 { TensorType::new(DType::I8, shape) } else { f32_or_bf16(g, shape) };
        operands.push(g.of_type(&table));
        operands.push(g.of_type(&TensorType::new(dtype, rows.clone())));
        if int8 {
            operands.push(g.of_type(&f32(vec![entries])));
        }
    }
    for _ in 0..addends {
        let shape = if g.source.flag() { vec![n.clone()] } else { sum.clone() };
        operands.push(g.of_type(&f32(shape)));
    }
    let norm = eps(g);
    if norm.is_some() {
        let vector = f32(vec![n]);
        operands.extend([g.of_type(&vector), g.of_type(&vector)]);
    }
    (Op::SumNorm(SumNorm { tables, int8, addends, norm, bf16: g.source.flag() }), operands)
}
