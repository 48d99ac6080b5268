//! Attention operators, taken apart.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, Scalar, Tensor};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{Affine, R, Stop, V, Val};

/// softmax(scale · q·kᵀ + bias…) · v on [batch, heads, length, size] operands. With `empty_is_zero`, a query that no
/// key is left for gives zeros.
fn attend(b: &mut Builder, [q, k, v]: [&V; 3], scale: f64, bias: &[V], empty_is_zero: bool) -> R<V> {
    b.require_equal(&q.shape[3], &k.shape[3])?;
    let s = b.op(Op::MatMul { trans_b: true }, &[q, k])?;
    let scale = b.scalar(s.dtype, scale);
    let mut s = b.binary(BinaryOp::Mul, &s, &scale)?;
    for x in bias {
        let shape = s.shape.clone();
        s = b.binary(BinaryOp::Add, &s, x)?;
        if s.shape != shape {
            return Err("the mask doesn't broadcast to the scores' shape".into());
        }
    }
    let axis = s.rank() - 1;
    let mut p = b.op(Op::Softmax { axis }, &[&s])?;
    if empty_is_zero {
        // A row without a key: -inf everywhere, of which the softmax is NaN.
        let max = b.op(Op::Reduce { op: ReduceOp::Max, axes: vec![axis], keep: true }, &[&s])?;
        let (inf, zero) = (b.scalar(s.dtype, f64::NEG_INFINITY), b.scalar(s.dtype, 0.0));
        let none = b.compare(CmpOp::Eq, &max, &inf)?;
        p = b.select(&none, &zero, &p)?;
    }
    b.require_equal(&p.shape[3], &v.shape[2])?;
    b.op(Op::MatMul { trans_b: false }, &[&p, v])
}

/// [batch, length, heads·size] → [batch, heads, length, size].
fn split_heads(b: &mut Builder, x: &V, heads: i64) -> R<V> {
    let size = x.shape[2].div_exact(&Dim::constant(heads));
    let size = size.ok_or_else(|| Stop::Fail(format!("a hidden size of {} for {heads} heads", b.show(&x.shape[2]))))?;
    let x = b.reshape(x, &[x.shape[0].clone(), x.shape[1].clone(), Dim::constant(heads), size])?;
    b.transpose(&x, &[0, 2, 1, 3])
}

/// [batch, heads, length, size] → [batch, length, heads·size].
fn join_heads(b: &mut Builder, x: &V) -> R<V> {
    let x = b.transpose(x, &[0, 2, 1, 3])?;
    let hidden = b.product(&x.shape[2..])?;
    b.reshape(&x, &[x.shape[0].clone(), x.shape[1].clone(), hidden])
}

/// `filter` where `keep` (bool) is false, 0 elsewhere.
fn additive(b: &mut Builder, keep: &V, dtype: DType, filter: f64) -> R<V> {
    let (zero, f) = (b.scalar(dtype, 0.0), b.scalar(dtype, filter));
    b.select(keep, &zero, &f)
}

/// com.microsoft `Attention`: self-attention with the projections inside.
pub fn microsoft(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, w, bias) = (c.input(0)?, c.input(1)?, c.opt(2));
    let heads = c.int("num_heads", 0)?;
    if heads < 1 || x.rank() != 3 || w.rank() != 2 {
        return Err("num_heads, input [batch, sequence, hidden] and weights [hidden, 3·hidden] are needed".into());
    }
    if c.opt(4).is_some() || c.opt(6).is_some() || c.wants(1) {
        return Err("attention over past keys and values is not supported".into());
    }
    for name in ["unidirectional", "do_rotary", "past_present_share_buffer", "rotary_embedding_dim"] {
        if c.int(name, 0)? != 0 {
            return Err(format!("attribute '{name}' is not supported").into());
        }
    }
    let filter = f64::from(c.float("mask_filter_value", -10000.0)?);
    let given_scale = f64::from(c.float("scale", 0.0)?);
    let sizes = match c.ints("qkv_hidden_sizes")? {
        Some(s) if s.len() == 3 && s.iter().all(|&s| s > 0) => s.into_iter().map(Dim::constant).collect(),
        Some(s) => return Err(format!("qkv_hidden_sizes {s:?} are not three sizes").into()),
        None => vec![w.shape[1].div_exact(&Dim::constant(3)).ok_or("the weights' columns are not three parts")?; 3],
    };
    c.b.require_equal(&x.shape[2], &w.shape[0])?;
    let mut all = c.b.op(Op::MatMul { trans_b: false }, &[&x, &w])?;
    if let Some(bias) = bias {
        all = c.b.binary(BinaryOp::Add, &all, &bias)?;
    }
    let (mut parts, mut at) = (Vec::new(), Dim::constant(0));
    for n in &sizes {
        let p = c.b.slice(&all, 2, &at, n, 1)?;
        parts.push(split_heads(c.b, &p, heads)?);
        at = at.add(n).ok_or("a size overflows")?;
    }
    c.b.require_equal(&at, &all.shape[2])?;
    let size = parts[0].shape[3].as_const().ok_or("the head size is not constant")?;
    let scale = if given_scale == 0.0 { 1.0 / (size as f64).sqrt() } else { given_scale };
    let mut bias = Vec::new();
    if let Some(m) = c.opt(3) {
        bias.push(microsoft_mask(c, &m, &x, filter)?);
    }
    bias.extend(c.opt(5));
    let y = attend(c.b, [&parts[0], &parts[1], &parts[2]], scale, &bias, false)?;
    Ok(vec![join_heads(c.b, &y)?])
}

/// The additive mask from `mask_index`: [batch] lengths, or 0/1 of [batch, keys] or [batch, queries, keys].
fn microsoft_mask(c: &mut Cx<'_>, m: &V, x: &V, filter: f64) -> R<V> {
    let (batch, seq, one) = (x.shape[0].clone(), x.shape[1].clone(), Dim::constant(1));
    let zero = c.b.scalar(m.dtype, 0.0);
    let keep = match m.shape.as_slice() {
        [n] if *n == batch => {
            let a = Affine { base: Dim::constant(0), coef: vec![Dim::constant(1)] };
            let keys = Val::affine_of(DType::I64, vec![seq], a);
            let keys = c.b.cast(m.dtype, &keys)?;
            let ends = c.b.reshape(m, &[batch, one.clone(), one.clone(), one])?;
            c.b.compare(CmpOp::Lt, &keys, &ends)?
        }
        [b, s] => {
            let s = [b.clone(), one.clone(), one, s.clone()];
            let m = c.b.reshape(m, &s)?;
            c.b.compare(CmpOp::Gt, &m, &zero)?
        }
        [b, q, k] => {
            let s = [b.clone(), one, q.clone(), k.clone()];
            let m = c.b.reshape(m, &s)?;
            c.b.compare(CmpOp::Gt, &m, &zero)?
        }
        s => {
            let m = format!("mask_index of shape {} is not supported", c.b.show_shape(s));
            return Err(Stop::Fail(m));
        }
    };
    additive(c.b, &keep, x.dtype, filter)
}

/// ONNX `Attention` (opset 23) without a cache.
pub fn standard(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (q, k, v, mask) = (c.input(0)?, c.input(1)?, c.input(2)?, c.opt(3));
    if c.opt(4).is_some() || c.opt(5).is_some() || c.opt(6).is_some() || (1..4).any(|i| c.wants(i)) {
        return Err("past and present keys, and the scores as an output, are not supported".into());
    }
    if c.flag("is_causal", false)? || c.float("softcap", 0.0)? != 0.0 {
        return Err("is_causal and softcap are not supported".into());
    }
    c.ignore("qk_matmul_output_mode");
    if !matches!(c.int("softmax_precision", 0)?, 0 | 1) {
        return Err("softmax_precision is not supported".into());
    }
    let (qh, kh) = (c.int("q_num_heads", 0)?, c.int("kv_num_heads", 0)?);
    let packed = q.rank() == 3;
    let [q, k, v] = if packed {
        if qh < 1 || kh != qh || k.rank() != 3 || v.rank() != 3 {
            return Err("3-D operands need q_num_heads = kv_num_heads".into());
        }
        [split_heads(c.b, &q, qh)?, split_heads(c.b, &k, kh)?, split_heads(c.b, &v, kh)?]
    } else {
        [q, k, v]
    };
    if q.rank() != 4 || k.rank() != 4 || v.rank() != 4 {
        return Err("operands must have rank 3 or 4".into());
    }
    c.b.require_equal(&q.shape[1], &k.shape[1])?;
    let size = q.shape[3].as_const().ok_or("the head size is not constant")?;
    let given = c.float("scale", 0.0)?;
    let scale = if given == 0.0 { 1.0 / (size as f64).sqrt() } else { given.into() };
    let mut bias = Vec::new();
    if let Some(m) = mask {
        bias.push(if m.dtype == DType::Bool {
            let (zero, inf) = (c.b.scalar(q.dtype, 0.0), f64::NEG_INFINITY);
            let inf = Val::constant(Tensor::scalar(q.dtype, Scalar::Float(inf)));
            c.b.select(&m, &zero, &inf)?
        } else {
            m
        });
    }
    let y = attend(c.b, [&q, &k, &v], scale, &bias, !bias.is_empty())?;
    Ok(vec![if packed { join_heads(c.b, &y)? } else { y }])
}
