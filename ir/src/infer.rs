//! Result types: one function that checks an op's operands and attributes and gives its result's type.

use crate::dims::{Dim, Symbols};
use crate::op::{BinaryOp, Op, ReduceOp, UnaryOp};
use crate::types::{DType, TensorType};

mod fused;
mod quant;
mod scatter;

/// The largest rank of a tensor.
pub const MAX_RANK: usize = 8;

type Result<T> = std::result::Result<T, String>;

fn overflow() -> String {
    "a dim's size overflows 64 bits".to_string()
}

fn ensure(ok: bool, message: impl FnOnce() -> String) -> Result<()> {
    if ok { Ok(()) } else { Err(message()) }
}

fn ensure_axis(axis: usize, x: &TensorType) -> Result<()> {
    ensure(axis < x.rank(), || format!("axis {axis} is out of range for rank {}", x.rank()))
}

fn ensure_float(x: &TensorType) -> Result<()> {
    ensure(x.dtype.is_float(), || format!("expected a float operand, got {}", x.dtype))
}

fn ensure_index(x: &TensorType) -> Result<()> {
    ensure(matches!(x.dtype, DType::I32 | DType::I64), || format!("indices must be i32 or i64, got {}", x.dtype))
}

/// The shape that numpy broadcasting gives. Dims must be equal as polynomials, or one of them the constant 1.
pub fn broadcast_shapes(a: &[Dim], b: &[Dim], symbols: &Symbols) -> Result<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let one = Dim::constant(1);
    let at = |s: &[Dim], i: usize| (i + s.len()).checked_sub(rank).map_or_else(|| one.clone(), |j| s[j].clone());
    (0..rank)
        .map(|i| match (at(a, i), at(b, i)) {
            (x, y) if x == y => Ok(x),
            (x, y) if y == one => Ok(x),
            (x, y) if x == one => Ok(y),
            (x, y) => Err(format!("dims {} and {} don't broadcast", x.display(symbols), y.display(symbols))),
        })
        .collect()
}

/// The result type of `op` on operands of types `t`, or what is wrong with them.
pub fn infer(op: &Op, t: &[&TensorType], symbols: &Symbols) -> Result<TensorType> {
    match op.arity() {
        Some(n) => ensure(t.len() == n, || format!("'{}' takes {n} operands, got {}", op.name(), t.len()))?,
        None => ensure(!t.is_empty(), || format!("'{}' takes at least one operand", op.name()))?,
    }
    let ty = infer_type(op, t, symbols)?;
    check_type(&ty, symbols)?;
    Ok(ty)
}

/// What holds of every type: a small rank, dims that can be non-negative, a size in bytes that fits.
///
/// # Errors
/// What does not hold.
pub fn check_type(ty: &TensorType, symbols: &Symbols) -> Result<()> {
    ensure(ty.rank() <= MAX_RANK, || format!("rank {} is above the limit of {MAX_RANK}", ty.rank()))?;
    for d in &ty.shape {
        ensure(d.bounds(symbols).1 >= 0, || format!("dim {} is negative", d.display(symbols)))?;
    }
    // Sizes are evaluated in 64 bits at run time; the largest one must fit, in bytes.
    let bytes = ty.elements().ok_or_else(overflow)?.mul(&Dim::constant(ty.dtype.size() as i64)).ok_or_else(overflow)?;
    ensure(bytes.bounds(symbols).1 < 1 << 62, || {
        format!("the result can be as large as {} bytes: narrow the dims' ranges", bytes.bounds(symbols).1)
    })?;
    Ok(())
}

fn infer_type(op: &Op, t: &[&TensorType], symbols: &Symbols) -> Result<TensorType> {
    Ok(match op {
        Op::Input { .. } => return Err("inputs are added with their type".to_string()),
        Op::Constant(c) => TensorType::new(c.dtype(), c.shape().iter().map(|&d| Dim::constant(d as i64)).collect()),
        Op::Dim(_) => TensorType::new(DType::I64, Vec::new()),
        Op::Iota { len, .. } => TensorType::new(DType::I64, vec![len.clone()]),
        Op::Unary(u) => unary(*u, t[0])?,
        Op::Binary(b) => {
            let (x, y) = (t[0], t[1]);
            ensure(x.dtype == y.dtype, || format!("operand types {} and {} differ", x.dtype, y.dtype))?;
            let ok = match b {
                BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => !x.dtype.is_float(),
                BinaryOp::Shl | BinaryOp::Shr => x.dtype.is_int(),
                _ => x.dtype != DType::Bool,
            };
            ensure(ok, || format!("'{}' is not defined on {}", b.name(), x.dtype))?;
            TensorType::new(x.dtype, broadcast_shapes(&x.shape, &y.shape, symbols)?)
        }
        Op::Compare(_) => {
            let (x, y) = (t[0], t[1]);
            ensure(x.dtype == y.dtype, || format!("operand types {} and {} differ", x.dtype, y.dtype))?;
            TensorType::new(DType::Bool, broadcast_shapes(&x.shape, &y.shape, symbols)?)
        }
        Op::Select => {
            ensure(t[0].dtype == DType::Bool, || format!("the condition must be bool, got {}", t[0].dtype))?;
            ensure(t[1].dtype == t[2].dtype, || format!("operand types {} and {} differ", t[1].dtype, t[2].dtype))?;
            let s = broadcast_shapes(&t[1].shape, &t[2].shape, symbols)?;
            TensorType::new(t[1].dtype, broadcast_shapes(&t[0].shape, &s, symbols)?)
        }
        Op::Cast(d) => TensorType::new(*d, t[0].shape.clone()),
        Op::Reduce { op, axes, keep } => reduce(*op, axes, *keep, t[0])?,
        Op::ArgMax { axis, .. } => {
            ensure_axis(*axis, t[0])?;
            ensure(t[0].dtype != DType::Bool, || "not defined on bool".to_string())?;
            let mut shape = t[0].shape.clone();
            let d = shape.remove(*axis);
            ensure(d.bounds(symbols).0 >= 1, || "the axis may be empty".to_string())?;
            TensorType::new(DType::I64, shape)
        }
        Op::CumSum { axis, .. } => {
            ensure_axis(*axis, t[0])?;
            ensure(t[0].dtype != DType::Bool, || "not defined on bool".to_string())?;
            t[0].clone()
        }
        Op::Softmax { axis } => {
            ensure_axis(*axis, t[0])?;
            ensure_float(t[0])?;
            t[0].clone()
        }
        Op::LayerNorm { .. } | Op::RmsNorm { .. } => {
            ensure_float(t[0])?;
            let n = t[0].shape.last().ok_or_else(|| format!("{} needs rank 1 or more", op.name()))?;
            for (name, p) in ["gamma", "beta"].iter().zip(&t[1..]) {
                ensure(p.dtype == t[0].dtype && p.shape.len() == 1 && p.shape[0] == *n, || {
                    format!(
                        "{name} must be tensor<{} x {}>, got {}",
                        n.display(symbols),
                        t[0].dtype,
                        p.display(symbols)
                    )
                })?;
            }
            t[0].clone()
        }
        Op::MatMul { trans_b } => matmul(*trans_b, t[0], t[1], symbols)?,
        Op::Transpose { perm } => {
            let mut seen = vec![false; t[0].rank()];
            ensure(perm.len() == seen.len(), || format!("perm has {} entries for rank {}", perm.len(), seen.len()))?;
            for &p in perm {
                ensure(p < seen.len() && !seen[p], || format!("{perm:?} is not a permutation"))?;
                seen[p] = true;
            }
            TensorType::new(t[0].dtype, perm.iter().map(|&p| t[0].shape[p].clone()).collect())
        }
        Op::Reshape { shape } => {
            let r = TensorType::new(t[0].dtype, shape.clone());
            let (a, b) = (t[0].elements().ok_or_else(overflow)?, r.elements().ok_or_else(overflow)?);
            ensure(a == b, || format!("{} elements can't become {}", a.display(symbols), b.display(symbols)))?;
            r
        }
        Op::Broadcast { shape } => {
            let s = broadcast_shapes(&t[0].shape, shape, symbols)?;
            ensure(s == *shape, || format!("{} doesn't broadcast to the shape", t[0].display(symbols)))?;
            TensorType::new(t[0].dtype, s)
        }
        Op::Slice { axis, start, len, step } => slice(*axis, start, len, *step, t[0], symbols)?,
        Op::Concat { axis } => concat(*axis, t, symbols)?,
        Op::Gather { axis } => {
            ensure_axis(*axis, t[0])?;
            ensure_index(t[1])?;
            let mut s = t[0].shape[..*axis].to_vec();
            s.extend_from_slice(&t[1].shape);
            s.extend_from_slice(&t[0].shape[axis + 1..]);
            TensorType::new(t[0].dtype, s)
        }
        Op::GatherElements { axis } => {
            ensure_axis(*axis, t[0])?;
            ensure_index(t[1])?;
            ensure(t[0].rank() == t[1].rank(), || "data and indices must have one rank".to_string())?;
            for (i, (d, n)) in t[0].shape.iter().zip(&t[1].shape).enumerate() {
                ensure(i == *axis || d.proven_ge(n, symbols), || {
                    format!("indices' dim {i} ({}) may exceed data's ({})", n.display(symbols), d.display(symbols))
                })?;
            }
            TensorType::new(t[0].dtype, t[1].shape.clone())
        }
        Op::GatherNd { batch_dims } => gather_nd(*batch_dims, t[0], t[1])?,
        Op::ScatterElements { axis, combine } => scatter::elements(*axis, *combine, t, symbols)?,
        Op::ScatterNd { combine } => scatter::nd(*combine, t, symbols)?,
        Op::TopK { axis, k, .. } => scatter::top_k(*axis, k, t[0], symbols)?,
        Op::RowScale(q) | Op::RowOffset(q) => quant::row_unit(q, t, symbols)?,
        Op::QuantiseRows(q) => quant::quantise_rows(q, t, symbols)?,
        Op::Quantise { to } => quant::quantise(*to, t, symbols)?,
        Op::Linear(l) => fused::linear(l, t, symbols)?,
        Op::Attention(a) => fused::attention(a, t, symbols)?,
        Op::SumNorm(n) => fused::sum_norm(n, t, symbols)?,
    })
}

fn unary(u: UnaryOp, x: &TensorType) -> Result<TensorType> {
    use UnaryOp::{Abs, IsInf, IsNan, Neg, Not, Relu, Sign};
    let ok = match u {
        Not => !x.dtype.is_float(),
        Neg | Abs | Sign | Relu => x.dtype != DType::Bool,
        _ => x.dtype.is_float(),
    };
    ensure(ok, || format!("'{}' is not defined on {}", u.name(), x.dtype))?;
    let dtype = if matches!(u, IsNan | IsInf) { DType::Bool } else { x.dtype };
    Ok(TensorType::new(dtype, x.shape.clone()))
}

fn reduce(op: ReduceOp, axes: &[usize], keep: bool, x: &TensorType) -> Result<TensorType> {
    ensure(axes.is_sorted_by(|a, b| a < b), || "axes must be ascending and distinct".to_string())?;
    axes.iter().try_for_each(|&a| ensure_axis(a, x))?;
    ensure(x.dtype != DType::Bool, || "not defined on bool".to_string())?;
    ensure(op != ReduceOp::Mean || x.dtype.is_float(), || format!("the mean is not defined on {}", x.dtype))?;
    let shape = x.shape.iter().enumerate();
    let shape = if keep {
        shape.map(|(i, d)| if axes.contains(&i) { Dim::constant(1) } else { d.clone() }).collect()
    } else {
        shape.filter(|(i, _)| !axes.contains(i)).map(|(_, d)| d.clone()).collect()
    };
    Ok(TensorType::new(x.dtype, shape))
}

fn matmul(trans_b: bool, a: &TensorType, b: &TensorType, symbols: &Symbols) -> Result<TensorType> {
    ensure(a.rank() >= 2 && b.rank() >= 2, || "operands need rank 2 or more".to_string())?;
    ensure(a.dtype == b.dtype, || format!("operand types {} and {} differ", a.dtype, b.dtype))?;
    ensure(a.dtype.is_float() || a.dtype == DType::I32, || format!("not defined on {}", a.dtype))?;
    let (ab, am) = a.shape.split_at(a.rank() - 2);
    let (bb, bm) = b.shape.split_at(b.rank() - 2);
    let (k, n) = if trans_b { (&bm[1], &bm[0]) } else { (&bm[0], &bm[1]) };
    ensure(am[1] == *k, || format!("inner dims {} and {} differ", am[1].display(symbols), k.display(symbols)))?;
    let mut shape = broadcast_shapes(ab, bb, symbols)?;
    shape.extend([am[0].clone(), n.clone()]);
    Ok(TensorType::new(a.dtype, shape))
}

fn slice(axis: usize, start: &Dim, len: &Dim, step: i64, x: &TensorType, symbols: &Symbols) -> Result<TensorType> {
    ensure_axis(axis, x)?;
    ensure(step != 0, || "the step is 0".to_string())?;
    // First and last index, both in bounds. The one that lies farther inside may be anything where nothing is read.
    let last = len
        .sub(&Dim::constant(1))
        .and_then(|n| n.mul(&Dim::constant(step)))
        .and_then(|n| n.add(start))
        .ok_or_else(overflow)?;
    let end = x.shape[axis].sub(&Dim::constant(1)).ok_or_else(overflow)?;
    let zero = Dim::constant(0);
    let (least, most) = if step > 0 { (start, &last) } else { (&last, start) };
    let inside = least.proven_ge(&zero, symbols) && end.proven_ge(most, symbols) && len.proven_ge(&zero, symbols);
    ensure(*len == zero || inside, || {
        format!(
            "slice of {} elements from {} by {step} is not proven to lie inside dim {}",
            len.display(symbols),
            start.display(symbols),
            x.shape[axis].display(symbols)
        )
    })?;
    let mut shape = x.shape.clone();
    shape[axis] = len.clone();
    Ok(TensorType::new(x.dtype, shape))
}

fn concat(axis: usize, t: &[&TensorType], symbols: &Symbols) -> Result<TensorType> {
    ensure_axis(axis, t[0])?;
    let mut r = t[0].clone();
    for x in &t[1..] {
        ensure(x.dtype == r.dtype, || format!("operand types {} and {} differ", r.dtype, x.dtype))?;
        let same = x.rank() == r.rank() && (0..r.rank()).all(|i| i == axis || x.shape[i] == r.shape[i]);
        ensure(same, || format!("{} and {} differ beside axis {axis}", t[0].display(symbols), x.display(symbols)))?;
        r.shape[axis] = r.shape[axis].add(&x.shape[axis]).ok_or_else(overflow)?;
    }
    Ok(r)
}

fn gather_nd(batch_dims: usize, data: &TensorType, idx: &TensorType) -> Result<TensorType> {
    ensure_index(idx)?;
    ensure(data.rank() > 0 && idx.rank() > 0, || "operands need rank 1 or more".to_string())?;
    ensure(batch_dims < idx.rank() && batch_dims < data.rank(), || "batch_dims is out of range".to_string())?;
    ensure(data.shape[..batch_dims] == idx.shape[..batch_dims], || "batch dims differ".to_string())?;
    let k = idx.shape[idx.rank() - 1].as_const().ok_or("indices' last dim must be constant")?;
    let k = usize::try_from(k).map_err(|_| "indices' last dim is negative")?;
    ensure(k >= 1 && batch_dims + k <= data.rank(), || format!("index tuples of {k} don't fit data's rank"))?;
    let mut s = idx.shape[..idx.rank() - 1].to_vec();
    s.extend_from_slice(&data.shape[batch_dims + k..]);
    Ok(TensorType::new(data.dtype, s))
}
