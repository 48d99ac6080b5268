//! Rotary embeddings: pairs of elements turned by angles that grow with the position.

use bertc_ir::{BinaryOp, DType, Dim};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{Affine, R, Stop, V, Val};

/// Cosines and sines with as many rows as the operand has positions: `[batch or 1, length, size / 2]`.
struct Angles {
    cos: V,
    sin: V,
}

/// How an operand lies, and what of it turns.
struct Layout {
    /// Of a 3-D operand `[batch, length, heads·size]`.
    heads: Option<Dim>,
    /// How many elements of each head turn: all of them where it is 0.
    rotary: i64,
    /// Pairs are neighbours, not elements of both halves.
    interleaved: bool,
}

/// ONNX `RotaryEmbedding`, opset 23.
pub fn standard(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, cos, sin) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let heads = c.int("num_heads", 0)?;
    if x.rank() == 3 && heads < 1 {
        return Err("a 3-D operand needs num_heads".into());
    }
    let layout = Layout {
        heads: (x.rank() == 3).then(|| Dim::constant(heads)),
        rotary: c.int("rotary_embedding_dim", 0)?,
        interleaved: c.flag("interleaved", false)?,
    };
    let angles = match c.opt(3) {
        Some(at) if at.rank() == 2 => rows(c.b, &cos, &sin, &at)?,
        Some(at) => return Err(format!("position_ids of rank {}, expected [batch, length]", at.rank()).into()),
        None if cos.rank() == 3 && sin.rank() == 3 => Angles { cos, sin },
        None => return Err("without position_ids, cosines and sines need rank 3".into()),
    };
    Ok(vec![rotate(c.b, &x, &angles, &layout)?])
}

/// com.microsoft `RotaryEmbedding`.
pub fn microsoft(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, at, cos, sin) = (c.input(0)?, c.input(1)?, c.input(2)?, c.input(3)?);
    let (heads, rotary) = (c.int("num_heads", 0)?, c.int("rotary_embedding_dim", 0)?);
    if c.flag("is_packed_batching", false)? {
        return Err("is_packed_batching is not supported".into());
    }
    // No kernel of ONNX Runtime looks at it.
    c.ignore("scale");
    let one = Dim::constant(1);
    let heads = match x.shape.as_slice() {
        [_, _, hidden] if heads == 0 && rotary == 0 && cos.rank() == 2 => {
            // The tables tell the size of a head.
            let size = cos.shape[1].mul(&Dim::constant(2)).ok_or("a size overflows")?;
            Some(hidden.div_exact(&size).ok_or("the hidden size is not a multiple of the tables' rows")?)
        }
        [_, _, _] if heads < 1 => return Err("a 3-D operand with rotary_embedding_dim needs num_heads".into()),
        [_, _, _] => Some(Dim::constant(heads)),
        _ => None,
    };
    let layout = Layout { heads, rotary, interleaved: c.flag("interleaved", false)? };
    let at = match at.shape.as_slice() {
        [n] if *n == one => {
            let length = match x.rank() {
                3 => x.shape[1].clone(),
                4 => x.shape[2].clone(),
                r => return Err(format!("an operand of rank {r}, expected 3 or 4").into()),
            };
            let first = c.b.reshape(&at, &[one.clone(), one.clone()])?;
            let coef = vec![Dim::constant(0), one.clone()];
            let places = Val::affine_of(DType::I64, vec![one, length], Affine { base: Dim::constant(0), coef });
            let first = c.b.cast(DType::I64, &first)?;
            c.b.binary(BinaryOp::Add, &first, &places)?
        }
        [_, _] => at,
        s => {
            return Err(Stop::Fail(format!(
                "position_ids of shape {}, expected [1] or [batch, length]",
                c.b.show_shape(s)
            )));
        }
    };
    let angles = rows(c.b, &cos, &sin, &at)?;
    Ok(vec![rotate(c.b, &x, &angles, &layout)?])
}

/// The tables' rows at the positions.
fn rows(b: &mut Builder, cos: &V, sin: &V, at: &V) -> R<Angles> {
    if cos.rank() != 2 || sin.rank() != 2 {
        return Err("cosines and sines for position_ids need rank 2".into());
    }
    Ok(Angles { cos: b.gather(cos, at, 0)?, sin: b.gather(sin, at, 0)? })
}

/// The operand with its heads apart: `[batch, heads, length, size]`, or `[batch, length, heads, size]` if it was 3-D.
fn apart(b: &mut Builder, x: &V, heads: Option<&Dim>) -> R<V> {
    match (x.shape.as_slice(), heads) {
        ([_, _, _, _], _) => Ok(x.clone()),
        ([batch, length, hidden], Some(heads)) => {
            let size = hidden.div_exact(heads);
            let wrong = || format!("a hidden size of {} for {} heads", b.show(hidden), b.show(heads));
            let size = size.ok_or_else(|| Stop::Fail(wrong()))?;
            b.reshape(x, &[batch.clone(), length.clone(), heads.clone(), size])
        }
        (s, _) => Err(format!("an operand of rank {}, expected 3 or 4", s.len()).into()),
    }
}

fn rotate(b: &mut Builder, x: &V, angles: &Angles, layout: &Layout) -> R<V> {
    let whole = apart(b, x, layout.heads.as_ref())?;
    let size = whole.shape[3].clone();
    let turned = if layout.rotary == 0 { size.clone() } else { Dim::constant(layout.rotary) };
    let half = turned.div_exact(&Dim::constant(2)).filter(|_| layout.rotary >= 0);
    let half = half.ok_or_else(|| Stop::Fail(format!("{} elements can't turn in pairs", b.show(&turned))))?;
    let rest = size.sub(&turned).filter(|r| b.ge(r, &Dim::constant(0)));
    let rest = rest.ok_or_else(|| {
        Stop::Fail(format!("rotary_embedding_dim {} for heads of {}", b.show(&turned), b.show(&size)))
    })?;
    let mut tables = Vec::new();
    for t in [&angles.cos, &angles.sin] {
        b.require_equal(&t.shape[2], &half)?;
        let (batch, length, one) = (t.shape[0].clone(), t.shape[1].clone(), Dim::constant(1));
        let column =
            if x.rank() == 3 { [batch, length, one, half.clone()] } else { [batch, one, length, half.clone()] };
        let t = b.reshape(t, &column)?;
        tables.push(b.cast(x.dtype, &t)?);
    }
    let (cos, sin) = (&tables[0], &tables[1]);
    let (second, step) = if layout.interleaved { (Dim::constant(1), 2) } else { (half.clone(), 1) };
    let real = b.slice(&whole, 3, &Dim::constant(0), &half, step)?;
    let imaginary = b.slice(&whole, 3, &second, &half, step)?;
    let product = |b: &mut Builder, x: &V, y: &V| b.binary(BinaryOp::Mul, x, y);
    let (rc, is) = (product(b, &real, cos)?, product(b, &imaginary, sin)?);
    let (rs, ic) = (product(b, &real, sin)?, product(b, &imaginary, cos)?);
    let new = [b.binary(BinaryOp::Sub, &rc, &is)?, b.binary(BinaryOp::Add, &rs, &ic)?];
    if new[0].shape != real.shape {
        return Err("cosines and sines don't broadcast to the operand's positions".into());
    }
    let mut y = if layout.interleaved { interleave(b, &new)? } else { b.concat(&new, 3)? };
    if rest != Dim::constant(0) {
        let rest = b.slice(&whole, 3, &turned, &rest, 1)?;
        y = b.concat(&[y, rest], 3)?;
    }
    b.reshape(&y, &x.shape)
}

/// Elements of both in turns along the last dim.
fn interleave(b: &mut Builder, parts: &[V; 2]) -> R<V> {
    let mut column = parts[0].shape.clone();
    column.push(Dim::constant(1));
    let pairs = [b.reshape(&parts[0], &column)?, b.reshape(&parts[1], &column)?];
    let pairs = b.concat(&pairs, column.len() - 1)?;
    let mut shape = parts[0].shape.clone();
    let last = b.product(&pairs.shape[pairs.rank() - 2..])?;
    if let Some(d) = shape.last_mut() {
        *d = last;
    }
    b.reshape(&pairs, &shape)
}
