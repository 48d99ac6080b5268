//! ONNX `Attention`, opset 23 and later.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Scalar};

use super::{Attended, Between, additive, attend, behind, join_heads, positions, scale_or, split_heads};
use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V, Val};

/// Which keys a query sees by their places.
struct Window {
    causal: bool,
    /// How many places back, if that is limited.
    left: Option<i64>,
    /// How many places ahead.
    right: Option<i64>,
}

fn window(c: &Cx<'_>) -> R<Window> {
    let side = |n: i64| match n {
        -1 => Ok(None),
        n if n >= 0 => Ok(Some(n)),
        n => Err(Stop::Fail(format!("a window of {n}, expected -1 or more"))),
    };
    // Opset 25 brought the windows; `Cx::finish` refuses them before.
    let (left, right) = match c.opset {
        ..25 => (None, None),
        _ => (side(c.int("left_window_size", -1)?)?, side(c.int("right_window_size", -1)?)?),
    };
    Ok(Window { causal: c.flag("is_causal", false)?, left, right })
}

/// The attention's dims.
struct Sizes {
    batch: Dim,
    queries: Dim,
    /// With those of the past.
    keys: Dim,
    /// Keys of the past.
    before: Dim,
}

/// `Attention`.
pub fn attention(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (q, k, v, past) = operands(c)?;
    let packed = c.input(0)?.rank() == 3;
    let (k, v, before) = behind(c.b, past, k, v)?;
    let s = Sizes { batch: q.shape[0].clone(), queries: q.shape[2].clone(), keys: k.shape[2].clone(), before };
    let scale = scale_or(c.b, c.float("scale", 0.0)?, &q.shape[3])?;
    let softcap = f64::from(c.float("softcap", 0.0)?);
    if !(softcap >= 0.0 && softcap.is_finite()) {
        return Err(format!("softcap is {softcap}, expected a finite value of at least 0").into());
    }
    let precision = precision(c, q.dtype)?;
    let bias = masks(c, &s, q.dtype)?;
    let (repeated_k, repeated_v) = (repeat_heads(c.b, &k, &q)?, repeat_heads(c.b, &v, &q)?);
    let between = Between { scale, softcap, bias: &bias, empty_is_zero: !bias.is_empty(), precision };
    let a = attend(c.b, [&q, &repeated_k, &repeated_v], &between)?;
    let scores = chosen(c, &a)?;
    let y = if packed { join_heads(c.b, &a.y)? } else { a.y };
    Ok(vec![y, k, v, scores])
}

/// Queries, keys and values as `[batch, heads, length, size]`, and keys and values of the past.
fn operands(c: &mut Cx<'_>) -> R<(V, V, V, Option<[V; 2]>)> {
    let (q, k, v) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let past = match (c.opt(4), c.opt(5)) {
        (Some(k), Some(v)) => Some([k, v]),
        (None, None) => None,
        _ => return Err("past_key and past_value are needed together".into()),
    };
    let (qh, kh) = (c.int("q_num_heads", 0)?, c.int("kv_num_heads", 0)?);
    let ranks = [q.rank(), k.rank(), v.rank()];
    let [q, k, v] = match ranks {
        [3, 3, 3] if qh < 1 || kh < 1 => return Err("3-D operands need q_num_heads and kv_num_heads".into()),
        [3, 3, 3] => [split_heads(c.b, &q, qh)?, split_heads(c.b, &k, kh)?, split_heads(c.b, &v, kh)?],
        [4, 4, 4] => {
            for (x, heads) in [(&q, qh), (&k, kh)] {
                if heads != 0 && x.shape[1].as_const() != Some(heads) {
                    return Err(format!("an operand of {} heads, named {heads}", c.b.show(&x.shape[1])).into());
                }
            }
            [q, k, v]
        }
        _ => return Err(format!("operands of ranks {ranks:?}, expected all 3 or all 4").into()),
    };
    if q.dtype != k.dtype {
        return Err(format!("queries of {} and keys of {}", q.dtype, k.dtype).into());
    }
    Ok((q, k, v, past))
}

/// The softmax's type, where it is a named one. Floats of 16 bits compute in f32 in any case.
fn precision(c: &Cx<'_>, dtype: DType) -> R<Option<DType>> {
    let n = c.int("softmax_precision", 0)?;
    if n == 0 {
        return Ok(None);
    }
    let named = crate::import::onnx::tensor::dtype(i32::try_from(n).unwrap_or(0))?;
    if !named.is_float() {
        return Err(format!("a softmax of {named} is not supported").into());
    }
    let half = |d: DType| matches!(d, DType::F16 | DType::BF16);
    Ok(Some(named).filter(|&n| n != dtype && !(half(dtype) && n == DType::F32)))
}

/// Each head as often as queries share it.
fn repeat_heads(b: &mut Builder, x: &V, q: &V) -> R<V> {
    let [batch, heads, length, size] = &x.shape[..] else { return Err("operands must have rank 4".into()) };
    if *heads == q.shape[1] {
        return Ok(x.clone());
    }
    let times = q.shape[1].div_exact(heads).ok_or_else(|| {
        Stop::Fail(format!("{} heads of queries for {} of keys and values", b.show(&q.shape[1]), b.show(heads)))
    })?;
    let one = [batch.clone(), heads.clone(), Dim::constant(1), length.clone(), size.clone()];
    let all = [batch.clone(), heads.clone(), times, length.clone(), size.clone()];
    let x = b.reshape(x, &one)?;
    let x = b.expand(&x, &all)?;
    b.reshape(&x, &[batch.clone(), q.shape[1].clone(), length.clone(), size.clone()])
}

/// What is added to the scores: a float mask, and -∞ for keys that are not seen.
fn masks(c: &mut Cx<'_>, s: &Sizes, dtype: DType) -> R<Vec<V>> {
    let mut keep = seen(c, s)?;
    let mut bias = Vec::new();
    if let Some(m) = c.opt(3) {
        let m = whole(c, &m, &s.keys)?;
        if m.dtype == DType::Bool {
            keep.push(m);
        } else if m.dtype.is_float() {
            bias.push(c.b.cast(dtype, &m)?);
        } else {
            return Err(format!("a mask of {} is not supported, expected bool or floats", m.dtype).into());
        }
    }
    let mut all: Option<V> = None;
    for k in keep {
        all = Some(match all {
            Some(a) => c.b.binary(BinaryOp::And, &a, &k)?,
            None => k,
        });
    }
    if let Some(keep) = all {
        bias.push(additive(c.b, &keep, dtype, f64::NEG_INFINITY)?);
    }
    Ok(bias)
}

/// A mask for all keys: one that ends before hides the rest, from opset 24 on.
fn whole(c: &mut Cx<'_>, m: &V, keys: &Dim) -> R<V> {
    let Some(last) = m.shape.last().filter(|&d| c.opset >= 24 && d != keys) else { return Ok(m.clone()) };
    let Some(missing) = keys.sub(last).filter(|d| c.b.ge(d, &Dim::constant(0))) else { return Ok(m.clone()) };
    let mut shape = m.shape.clone();
    let axis = shape.len() - 1;
    shape[axis] = missing;
    let hidden = if m.dtype == DType::Bool { Scalar::Int(0) } else { Scalar::Float(f64::NEG_INFINITY) };
    let rest = Val::splat(m.dtype, shape, hidden);
    c.b.concat(&[m.clone(), rest], axis)
}

/// Conditions under which a key is seen, by its place and the lengths: bool, broadcast to the scores.
fn seen(c: &mut Cx<'_>, s: &Sizes) -> R<Vec<V>> {
    let w = window(c)?;
    let one = Dim::constant(1);
    let key = positions(&Dim::constant(0), &s.keys, false);
    let mut conditions = Vec::new();
    let lengths = match c.opt(6) {
        Some(_) if c.opset < 24 => return Err("nonpad_kv_seqlen is an input from opset 24 on".into()),
        Some(_) if c.opt(4).is_some() => return Err("nonpad_kv_seqlen is not for past keys".into()),
        Some(n) if n.rank() == 1 && n.dtype == DType::I64 => {
            c.b.require_equal(&n.shape[0], &s.batch)?;
            Some(c.b.reshape(&n, &[s.batch.clone(), one.clone(), one.clone(), one])?)
        }
        Some(n) => {
            let shape = c.b.show_shape(&n.shape);
            return Err(format!("nonpad_kv_seqlen is {} of shape {shape}, expected i64 [batch]", n.dtype).into());
        }
        None => None,
    };
    if let Some(n) = &lengths {
        conditions.push(c.b.compare(CmpOp::Lt, &key, n)?);
    }
    if !w.causal && w.left.is_none() && w.right.is_none() {
        return Ok(conditions);
    }
    // The place of a query among the keys: the last one stands at the last key.
    let mut at = positions(&s.before, &s.queries, true);
    if let Some(n) = &lengths {
        let back = c.b.dims_value(&[s.queries.mul(&Dim::constant(-1)).ok_or("a size overflows")?]);
        let first = c.b.binary(BinaryOp::Add, n, &back)?;
        at = c.b.binary(BinaryOp::Add, &at, &first)?;
    }
    if w.causal {
        conditions.push(c.b.compare(CmpOp::Le, &key, &at)?);
    }
    for (limit, sign, op) in [(w.left, -1, CmpOp::Ge), (w.right, 1, CmpOp::Le)] {
        // A window wider than any tensor is none.
        let Some(n) = limit.filter(|&n| n <= 1 << 31) else { continue };
        let n = Val::sym(DType::I64, vec![Dim::constant(1)], vec![Dim::constant(sign * n)]);
        let end = c.b.binary(BinaryOp::Add, &at, &n)?;
        conditions.push(c.b.compare(op, &key, &end)?);
    }
    Ok(conditions)
}

/// The scores that the fourth output asks for.
fn chosen(c: &Cx<'_>, a: &Attended) -> R<V> {
    match c.int("qk_matmul_output_mode", 0)? {
        0 => Ok(a.scores.clone()),
        1 => Ok(a.capped.clone()),
        2 => Ok(a.biased.clone()),
        3 => Ok(a.probabilities.clone()),
        n => Err(format!("qk_matmul_output_mode={n} is not supported, expected 0 to 3").into()),
    }
}
