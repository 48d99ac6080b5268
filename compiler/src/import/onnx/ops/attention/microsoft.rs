//! com.microsoft `Attention` and `QAttention`: the projections are inside. What they share with `MultiHeadAttention`.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op};

use super::{Attended, Between, additive, attend, behind, join_heads, positions, scale_or, split_heads, sum};
use crate::import::onnx::build::{Builder, overflow};
use crate::import::onnx::cx::Cx;
use crate::import::onnx::ops::integer;
use crate::import::onnx::value::{R, Stop, V};

/// Attributes that all three have.
pub(super) struct Options {
    pub heads: i64,
    scale: f32,
    filter: f64,
    causal: bool,
}

/// The attributes; those of decoders' caches are refused.
pub(super) fn options(c: &Cx<'_>) -> R<Options> {
    for name in ["do_rotary", "past_present_share_buffer", "rotary_embedding_dim"] {
        if c.int(name, 0)? != 0 {
            return Err(format!("attribute '{name}' is not supported").into());
        }
    }
    Ok(Options {
        heads: c.int("num_heads", 0)?,
        scale: c.float("scale", 0.0)?,
        filter: c.float("mask_filter_value", -10000.0)?.into(),
        causal: c.flag("unidirectional", false)?,
    })
}

/// What is added to the scores, beside queries, keys and values.
#[derive(Default)]
pub(super) struct Extras {
    /// Of padding: 0 and 1, or lengths.
    pub mask: Option<V>,
    pub bias: Option<V>,
    pub past: Option<[V; 2]>,
}

/// The attention of `[batch, heads, length, size]` operands, joined, with what is on the way; keys and values with the past.
pub(super) fn over(b: &mut Builder, o: &Options, [q, k, v]: [V; 3], x: Extras) -> R<(V, Attended, [V; 2])> {
    let (k, v, before) = behind(b, x.past, k, v)?;
    let (batch, queries, keys) = (q.shape[0].clone(), q.shape[2].clone(), k.shape[2].clone());
    let mut mask = x.mask.map(|m| padding(b, &m, [&batch, &queries, &keys], o.filter, q.dtype)).transpose()?;
    if o.causal {
        // ONNX Runtime has no one rule for keys that no query stands at.
        b.require_equal(&sum(&before, &queries)?, &keys).map_err(|e| match e {
            Stop::Fail(_) => Stop::Fail(format!(
                "unidirectional attention of {} queries over {} keys is not supported",
                b.show(&queries),
                b.show(&keys)
            )),
            e => e,
        })?;
        let (at, key) = (positions(&before, &queries, true), positions(&Dim::constant(0), &keys, false));
        let seen = b.compare(CmpOp::Le, &key, &at)?;
        let kept = mask.unwrap_or_else(|| b.scalar(q.dtype, 0.0));
        let hidden = b.scalar(q.dtype, lowest(q.dtype));
        mask = Some(b.select(&seen, &kept, &hidden)?);
    }
    // One sum, as in ONNX Runtime: scores below -10000 have few digits left.
    let bias: Vec<V> = match (x.bias, mask) {
        (Some(x), Some(m)) => vec![b.binary(BinaryOp::Add, &x, &m)?],
        (x, m) => x.into_iter().chain(m).collect(),
    };
    let scale = scale_or(b, o.scale, &q.shape[3])?;
    let between = Between { scale, softcap: 0.0, bias: &bias, empty_is_zero: false, precision: None };
    let a = attend(b, [&q, &k, &v], &between)?;
    let y = join_heads(b, &a.y)?;
    Ok((y, a, [k, v]))
}

/// The lowest finite number of a float type, which hides later keys.
fn lowest(dtype: DType) -> f64 {
    match dtype {
        DType::F16 => -65504.0,
        // 8 bits of precision.
        DType::BF16 => -(2f64 - 2f64.powi(-7)) * 2f64.powi(127),
        DType::F64 => f64::MIN,
        _ => f32::MIN.into(),
    }
}

/// The additive mask of padding, from 0/1 of `[batch, keys]` or `[batch, queries, keys]`, from ends `[batch]`, ends and
/// starts `[2·batch]`, or the ends in front of offsets `[3·batch + 2]`.
fn padding(b: &mut Builder, m: &V, [batch, queries, keys]: [&Dim; 3], filter: f64, dtype: DType) -> R<V> {
    let one = Dim::constant(1);
    if !m.dtype.is_int() {
        return Err(format!("a mask of {} is not supported, expected integers", m.dtype).into());
    }
    let zero = b.scalar(m.dtype, 0.0);
    let not = |b: &Builder| Stop::Fail(format!("mask_index of shape {} is not supported", b.show_shape(&m.shape)));
    let keep = match m.shape.as_slice() {
        [n] => {
            let two = batch.mul(&Dim::constant(2)).ok_or_else(overflow)?;
            let three = batch.mul(&Dim::constant(3)).and_then(|d| d.add(&Dim::constant(2))).ok_or_else(overflow)?;
            if n != batch && *n != two && *n != three {
                return Err(not(b));
            }
            let key = b.cast(m.dtype, &positions(&Dim::constant(0), keys, false))?;
            let column = [batch.clone(), one.clone(), one.clone(), one];
            let ends = b.slice(m, 0, &Dim::constant(0), batch, 1)?;
            let ends = b.reshape(&ends, &column)?;
            let mut keep = b.compare(CmpOp::Lt, &key, &ends)?;
            if n != batch && *n == two {
                let starts = b.slice(m, 0, batch, batch, 1)?;
                let starts = b.reshape(&starts, &column)?;
                let begun = b.compare(CmpOp::Ge, &key, &starts)?;
                keep = b.binary(BinaryOp::And, &keep, &begun)?;
            }
            keep
        }
        [n, k] => {
            b.require_equal(k, keys)?;
            let m = b.reshape(m, &[n.clone(), one.clone(), one, k.clone()])?;
            b.compare(CmpOp::Gt, &m, &zero)?
        }
        [n, q, k] => {
            b.require_equal(q, queries)?;
            b.require_equal(k, keys)?;
            let m = b.reshape(m, &[n.clone(), one, q.clone(), k.clone()])?;
            b.compare(CmpOp::Gt, &m, &zero)?
        }
        _ => return Err(not(b)),
    };
    additive(b, &keep, dtype, filter)
}

/// Queries, keys and values, side by side in the last dim of `all`, with the heads split.
fn parts(b: &mut Builder, all: &V, sizes: &[Dim; 3], heads: i64) -> R<[V; 3]> {
    let (mut parts, mut at) = (Vec::new(), Dim::constant(0));
    for n in sizes {
        let p = b.slice(all, 2, &at, n, 1)?;
        parts.push(split_heads(b, &p, heads)?);
        at = sum(&at, n)?;
    }
    b.require_equal(&at, &all.shape[2])?;
    parts.try_into().map_err(|_| "three parts are needed".into())
}

/// Past keys and values from `[2, batch, heads, length, size]`.
fn unpacked(b: &mut Builder, past: &V) -> R<[V; 2]> {
    let wrong = format!("past of shape {}, expected [2, batch, heads, length, size]", b.show_shape(&past.shape));
    if past.rank() != 5 || past.shape[0].as_const() != Some(2) {
        return Err(wrong.into());
    }
    let mut half = |at: i64| {
        let x = b.slice(past, 0, &Dim::constant(at), &Dim::constant(1), 1)?;
        b.reshape(&x, &past.shape[1..])
    };
    Ok([half(0)?, half(1)?])
}

/// Keys and values as `[2, batch, heads, length, size]`.
fn packed(b: &mut Builder, present: &[V; 2]) -> R<V> {
    let mut parts = Vec::new();
    for p in present {
        let shape = [&[Dim::constant(1)][..], &p.shape[..]].concat();
        parts.push(b.reshape(p, &shape)?);
    }
    b.concat(&parts, 0)
}

/// The result, and the present keys and values where they are asked for.
fn outputs(c: &mut Cx<'_>, o: &Options, qkv: [V; 3], x: Extras) -> R<Vec<V>> {
    let (y, _, present) = over(c.b, o, qkv, x)?;
    let mut out = vec![y];
    if c.wants(1) {
        out.push(packed(c.b, &present)?);
    }
    Ok(out)
}

/// Whether the operands have the ranks that a projection needs.
fn check(o: &Options, x: &V, w: &V) -> R<()> {
    if o.heads < 1 || x.rank() != 3 || w.rank() != 2 {
        return Err("num_heads, input [batch, sequence, hidden] and weights [hidden, 3·hidden] are needed".into());
    }
    Ok(())
}

/// A third of the weights' columns each.
fn thirds(w: &V) -> R<[Dim; 3]> {
    let n = w.shape[1].div_exact(&Dim::constant(3)).ok_or("the weights' columns are not three parts")?;
    Ok([n.clone(), n.clone(), n])
}

/// `Attention`: self-attention of floats.
pub fn attention(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, w, bias) = (c.input(0)?, c.input(1)?, c.opt(2));
    let o = options(c)?;
    check(&o, &x, &w)?;
    if c.opt(6).is_some() {
        return Err("past_sequence_length, for buffers that past and present share, is not supported".into());
    }
    let sizes = match c.ints("qkv_hidden_sizes")? {
        Some(s) => match s[..] {
            [q, k, v] if q > 0 && k > 0 && v > 0 => [q, k, v].map(Dim::constant),
            _ => return Err(format!("qkv_hidden_sizes {s:?} are not three sizes").into()),
        },
        None => thirds(&w)?,
    };
    c.b.require_equal(&x.shape[2], &w.shape[0])?;
    let mut all = c.b.op(Op::MatMul { trans_b: false }, &[&x, &w])?;
    if let Some(bias) = bias {
        all = c.b.binary(BinaryOp::Add, &all, &bias)?;
    }
    let qkv = parts(c.b, &all, &sizes, o.heads)?;
    let past = c.opt(4).map(|p| unpacked(c.b, &p)).transpose()?;
    let extras = Extras { mask: c.opt(3), bias: c.opt(5), past };
    outputs(c, &o, qkv, extras)
}

/// `QAttention`: the projection is one of 8-bit integers, the attention one of floats.
pub fn quantised(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, w, bias) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let o = options(c)?;
    check(&o, &x, &w)?;
    let (sx, sw, zx, zw) = (c.input(3)?, c.input(4)?, c.opt(6), c.opt(7));
    let scale = integer::scales(c.b, &sx, &sw)?;
    let all = integer::product(c.b, [&x, &w], [zx.as_ref(), zw.as_ref()])?;
    let all = integer::scaled(c.b, &all, &scale, Some(&bias))?;
    let qkv = parts(c.b, &all, &thirds(&w)?, o.heads)?;
    let past = c.opt(8).map(|p| unpacked(c.b, &p)).transpose()?;
    let extras = Extras { mask: c.opt(5), bias: None, past };
    outputs(c, &o, qkv, extras)
}
