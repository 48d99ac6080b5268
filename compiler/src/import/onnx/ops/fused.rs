//! Fused operators of com.microsoft, taken apart again: which fusions pay is decided for the target, later.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, Scalar, UnaryOp};

use super::activation::sigmoid_gate;
use super::norm::{layer_norm, root_mean_square, statistics};
use super::qlinear::number;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{Affine, R, V, Val};

/// `BiasGelu`: exact GELU of x + bias.
pub fn bias_gelu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, bias) = (c.input(0)?, c.input(1)?);
    let x = c.b.binary(BinaryOp::Add, &x, &bias)?;
    Ok(vec![c.b.unary(UnaryOp::Gelu, &x)?])
}

/// `FastGelu`: GELU by tanh, of x or of x + bias.
pub fn fast_gelu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let mut x = c.input(0)?;
    if let Some(bias) = c.opt(1) {
        x = c.b.binary(BinaryOp::Add, &x, &bias)?;
    }
    Ok(vec![c.b.unary(UnaryOp::GeluTanh, &x)?])
}

/// `QuickGelu`: x · sigmoid(alpha · x).
pub fn quick_gelu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let alpha = c.float("alpha", 1.702)?;
    sigmoid_gate(c, alpha.into())
}

/// input + skip + bias, of the input's shape.
fn with_skip(c: &mut Cx<'_>, bias: Option<V>) -> R<V> {
    let (x, skip) = (c.input(0)?, c.input(1)?);
    let mut sum = c.b.binary(BinaryOp::Add, &x, &skip)?;
    if let Some(bias) = bias {
        sum = c.b.binary(BinaryOp::Add, &sum, &bias)?;
    }
    if sum.shape != x.shape {
        return Err("skip or bias doesn't broadcast to the input's shape".into());
    }
    Ok(sum)
}

/// `SkipSimplifiedLayerNormalization`: the norm without mean of input + skip + bias; also 1/√(…) and the sum itself.
pub fn skip_rms(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (gamma, bias) = (c.input(2)?, c.opt(3));
    let eps = c.float("epsilon", 1e-12)?;
    if c.wants(1) {
        return Err("output 1, the mean, is not computed by this norm".into());
    }
    let sum = with_skip(c, bias)?;
    let axis = sum.rank().checked_sub(1).ok_or("the operand needs rank 1 or more")?;
    let (y, inv) = root_mean_square(c.b, &sum, &gamma, axis, eps)?;
    Ok(vec![y, inv.clone(), inv, sum])
}

/// `SkipLayerNormalization`: LayerNorm of input + skip + bias; also mean, 1/deviation and the sum itself.
pub fn skip_layer_norm(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (gamma, beta, bias) = (c.input(2)?, c.opt(3), c.opt(4));
    let eps = c.float("epsilon", 1e-12)?;
    let sum = with_skip(c, bias)?;
    let y = layer_norm(c.b, &sum, &gamma, beta.as_ref(), eps)?;
    if !c.wants(1) && !c.wants(2) {
        // Nobody reads the statistics; their places are filled to keep the fourth output's.
        return Ok(vec![y.clone(), y.clone(), y, sum]);
    }
    let axis = sum.rank().saturating_sub(1);
    let (mean, inv) = statistics(c.b, &sum, axis, eps)?;
    Ok(vec![y, mean, inv, sum])
}

/// `EmbedLayerNormalization`: LayerNorm of word + position + segment embeddings; also how many ones
/// each row of the mask has, and the sum of the embeddings.
pub fn embed_layer_norm(c: &mut Cx<'_>) -> R<Vec<V>> {
    let given = c.opt(8);
    embedded(c, given, |c, i, at| {
        let table = c.input(i)?;
        at.map_or_else(|| Ok(table.clone()), |at| c.b.gather(&table, at, 0))
    })
}

/// `QEmbedLayerNormalization`: the same of quantised tables, gamma and beta.
pub fn quantised_embed_layer_norm(c: &mut Cx<'_>) -> R<Vec<V>> {
    embedded(c, None, |c, i, at| {
        // Scales and zero points are in the order of what they are of, which begins at 2.
        let (table, scale, zero) = (c.input(i)?, c.input(i + 6)?, c.opt(i + 11));
        let rows = at.map_or_else(|| Ok(table.clone()), |at| c.b.gather(&table, at, 0))?;
        number(c.b, &rows, &scale, zero.as_ref())
    })
}

/// The norm of the embeddings, the number of ones, the sum. `read` gives input `i`, or its rows at indices.
fn embedded(c: &mut Cx<'_>, given: Option<V>, read: impl Fn(&mut Cx<'_>, usize, Option<&V>) -> R<V>) -> R<Vec<V>> {
    let (ids, segments, mask) = (c.input(0)?, c.opt(1), c.opt(7));
    if segments.is_none() && c.opt(4).is_some() {
        return Err("segment_embedding is given without segment_ids".into());
    }
    let eps = c.float("epsilon", 1e-12)?;
    // Which of two forms the second output has; ONNX Runtime computes one of them.
    if !matches!(c.int("mask_index_type", 0)?, 0 | 1) {
        return Err("mask_index_type must be 0 or 1".into());
    }
    let [batch, seq] = ids.shape.clone().try_into().map_err(|_| "input_ids must have rank 2")?;
    let at = match given {
        Some(p) => p,
        None => {
            let a = Affine { base: Dim::constant(0), coef: vec![Dim::constant(0), Dim::constant(1)] };
            Val::affine_of(DType::I64, vec![Dim::constant(1), seq], a)
        }
    };
    let (word, position) = (read(c, 2, Some(&ids))?, read(c, 3, Some(&at))?);
    let mut sum = c.b.binary(BinaryOp::Add, &word, &position)?;
    if let Some(s) = segments {
        let segment = read(c, 4, Some(&s))?;
        sum = c.b.binary(BinaryOp::Add, &sum, &segment)?;
    }
    let (gamma, beta) = (read(c, 5, None)?, read(c, 6, None)?);
    let y = layer_norm(c.b, &sum, &gamma, Some(&beta), eps)?;
    let index = match mask {
        Some(m) => {
            let one = c.b.scalar(m.dtype, 1.0);
            let m = c.b.compare(CmpOp::Eq, &m, &one)?;
            let m = c.b.cast(DType::I32, &m)?;
            c.b.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![1], keep: false }, &[&m])?
        }
        None => Val::splat(DType::I32, vec![batch], Scalar::Int(0)),
    };
    Ok(vec![y, index, sum])
}
