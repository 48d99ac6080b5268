//! com.microsoft `MultiHeadAttention`: projected queries, keys and values, apart or packed.

use bertc_ir::{BinaryOp, Dim};

use super::microsoft::{Extras, options, over};
use super::split_heads;
use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V};

/// `x` plus `len` elements of the bias from `at`, if there is one: `x`'s last dims, from `axis` on, hold as many.
fn biased(b: &mut Builder, x: &V, bias: Option<&V>, at: &Dim, axis: usize) -> R<V> {
    let Some(bias) = bias else { return Ok(x.clone()) };
    let len = b.product(&x.shape[axis..])?;
    let part = b.slice(bias, 0, at, &len, 1)?;
    let part = b.reshape(&part, &x.shape[axis..])?;
    b.binary(BinaryOp::Add, x, &part)
}

/// Part `i` of `[batch, length, heads, parts, size]`, with its part of the bias, as `[batch, heads, length, size]`.
fn part(b: &mut Builder, x: &V, i: i64, bias: Option<&V>, at: &Dim) -> R<V> {
    let one = b.slice(x, 3, &Dim::constant(i), &Dim::constant(1), 1)?;
    let mut shape = x.shape.clone();
    shape.remove(3);
    let one = b.reshape(&one, &shape)?;
    let one = biased(b, &one, bias, at, 2)?;
    b.transpose(&one, &[0, 2, 1, 3])
}

/// Fails unless `x` is `[batch, length, heads, parts, size]`.
fn check_packed(b: &Builder, x: &V, heads: i64, parts: i64) -> R<()> {
    if x.rank() != 5 || x.shape[2].as_const() != Some(heads) || x.shape[3].as_const() != Some(parts) {
        let s = b.show_shape(&x.shape);
        return Err(Stop::Fail(format!("an operand of shape {s}, expected [batch, length, {heads}, {parts}, size]")));
    }
    Ok(())
}

/// Hidden sizes of queries and values.
fn hidden(b: &Builder, x: &V) -> R<Dim> {
    match x.rank() {
        3 => Ok(x.shape[2].clone()),
        // [batch, heads, length, size].
        4 => b.product(&[x.shape[1].clone(), x.shape[3].clone()]),
        // [batch, length, heads, parts, size].
        _ => b.product(&[x.shape[2].clone(), x.shape[4].clone()]),
    }
}

/// The operands as `[batch, heads, length, size]`, with the bias.
fn operands(c: &mut Cx<'_>, heads: i64) -> R<[V; 3]> {
    let (q, k, v, bias) = (c.input(0)?, c.opt(1), c.opt(2), c.opt(3));
    let zero = Dim::constant(0);
    if q.rank() == 5 && k.is_none() && v.is_none() {
        check_packed(c.b, &q, heads, 3)?;
    } else if q.rank() != 3 {
        return Err("a query needs rank 3, or 5 with keys and values packed into it".into());
    }
    let n = hidden(c.b, &q)?;
    let two = n.mul(&Dim::constant(2)).ok_or("a size overflows")?;
    if let Some(x) = &bias {
        let values = match (&k, &v) {
            (_, Some(v)) if matches!(v.rank(), 3 | 4) => hidden(c.b, v)?,
            _ => n.clone(),
        };
        let all = two.add(&values).ok_or("a size overflows")?;
        if x.rank() != 1 {
            return Err(format!("a bias of rank {}, expected 1", x.rank()).into());
        }
        c.b.require_equal(&x.shape[0], &all)?;
    }
    let bias = bias.as_ref();
    if q.rank() == 5 {
        return Ok([part(c.b, &q, 0, bias, &zero)?, part(c.b, &q, 1, bias, &n)?, part(c.b, &q, 2, bias, &two)?]);
    }
    let q = biased(c.b, &q, bias, &zero, 2)?;
    let q = split_heads(c.b, &q, heads)?;
    let (k, v) = match (k, v) {
        (Some(kv), None) => {
            check_packed(c.b, &kv, heads, 2)?;
            (part(c.b, &kv, 0, bias, &n)?, part(c.b, &kv, 1, bias, &two)?)
        }
        (Some(k), Some(v)) if k.rank() == 3 && v.rank() == 3 => {
            let (k, v) = (biased(c.b, &k, bias, &n, 2)?, biased(c.b, &v, bias, &two, 2)?);
            (split_heads(c.b, &k, heads)?, split_heads(c.b, &v, heads)?)
        }
        // Of an encoder, projected once: the bias is in them.
        (Some(k), Some(v)) if k.rank() == 4 && v.rank() == 4 && c.opt(6).is_none() => (k, v),
        (None, _) => return Err("keys are missing".into()),
        _ => return Err("keys and values need rank 3, or 4 without past ones".into()),
    };
    Ok([q, k, v])
}

/// `MultiHeadAttention`; outputs: the result, present keys and values, and the scores before the softmax.
pub fn multi_head(c: &mut Cx<'_>) -> R<Vec<V>> {
    let o = options(c)?;
    if o.heads < 1 {
        return Err(format!("num_heads is {}, expected at least 1", o.heads).into());
    }
    if c.opt(8).is_some() || c.opt(9).is_some() {
        return Err("past_sequence_length and cache_indirection, of decoders' buffers, are not supported".into());
    }
    let past = match (c.opt(6), c.opt(7)) {
        (Some(k), Some(v)) => Some([k, v]),
        (None, None) => None,
        _ => return Err("past keys and past values are needed together".into()),
    };
    let qkv = operands(c, o.heads)?;
    let extras = Extras { mask: c.opt(4), bias: c.opt(5), past };
    let (y, a, [k, v]) = over(c.b, &o, qkv, extras)?;
    Ok(vec![y, k, v, a.biased])
}
