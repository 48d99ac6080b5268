//! `integer-linear`: products of quantised models become `linear` on their integers, with the model's scales.
//!
//! ```text
//! %a = mul (cast (sub (cast %q {to = i32}), %zero) {to = f32}), %scale         (%q of 8 bits, one scale, one zero point)
//! %b = mul (cast %w {to = f32}), %scales                                       (%w a constant of 8 bits)
//! %y = matmul %a, %b
//!   => linear %q, %w, %scale, %scales, %zero {int8 = true, zero = true}
//! %s = matmul (sub (cast %q {to = i32}), %zero), (cast %w {to = i32})
//! %y = mul (cast %s {to = f32}), %scales
//!   => linear %q, %w, 1.0, %scales, %zero {int8 = true, zero = true}
//! ```
//!
//! The sums are exact, so results change by rounding only. A matrix may have a zero point if its elements less it are i8: so
//! are all u8 with 128. Its scale is one number or one of each column; where the second form has a product of a number and a
//! constant as its scales, these are the operand's and the matrix's. What doesn't fit stays as it is, with a remark. Runs
//! before constants are folded, which would make floats of the matrices.

use bertc_ir::{BinaryOp, DType, Diag, Dim, Graph, Linear, Loc, MAX_INT8_K, Op, Scalar, Tensor, ValueId};

use crate::build;
use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, either, rewrite, vector};
use crate::quantised::{cast_of, centred, constant, dequantised, is_byte, single, zero_point};

/// The pass.
pub struct IntegerLinear;

/// A lane of the dot products takes so many rows of the matrix at a time.
const GROUP: i64 = 4;

impl Pass for IntegerLinear {
    fn name(&self) -> &'static str {
        "integer-linear"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        rewrite(g, ctx, self.name(), |g, v| match *g.op(v) {
            Op::MatMul { trans_b } if g.ty(v).dtype == DType::F32 => of_floats(g, v, trans_b),
            Op::Binary(BinaryOp::Mul) if g.ty(v).dtype == DType::F32 => scaled_sums(g, v),
            _ => Ok(None),
        })
    }
}

/// A product of dequantised operands.
fn of_floats(g: &mut Graph, v: ValueId, trans_b: bool) -> Rewrite {
    let (a, b) = (g.operands(v)[0], g.operands(v)[1]);
    let Some((b, trans_b)) = untransposed(g, b, trans_b) else { return Ok(None) };
    let Some(matrix) = dequantised(g, b) else { return Ok(None) };
    if constant(g, matrix.integers).is_none() {
        return Ok(None);
    }
    let Some(left) = dequantised(g, a) else {
        return Err("the matrix is quantised, its left operand is not".to_string());
    };
    let scale = single(g, left.scale).ok_or("the left operand has more than one scale")?;
    let weights = integers(g, matrix.integers, matrix.zero)?;
    let scales = columns(g, matrix.scale, &weights, trans_b)?;
    let scales = scales.ok_or("the matrix has other scales than one of all or one of each column")?;
    build(g, v, &Product { a: left.integers, zero: left.zero, weights, trans_b, scale, scales })
}

/// Sums of products of integers that become floats, times scales.
fn scaled_sums(g: &mut Graph, v: ValueId) -> Rewrite {
    let found = either(g, v, BinaryOp::Mul).find_map(|(x, s)| {
        let sums = cast_of(g, x, DType::F32).filter(|&p| g.ty(p).dtype == DType::I32)?;
        matches!(g.op(sums), Op::MatMul { .. }).then_some((sums, s))
    });
    let Some((sums, by)) = found else { return Ok(None) };
    let Op::MatMul { trans_b } = *g.op(sums) else { return Ok(None) };
    if g.ty(sums).shape != g.ty(v).shape {
        return Err("the scales broadcast the product".to_string());
    }
    let (a, b) = (g.operands(sums)[0], g.operands(sums)[1]);
    let Some((b, trans_b)) = untransposed(g, b, trans_b) else { return Ok(None) };
    let Some((matrix, matrix_zero)) = centred(g, b).filter(|&(m, _)| constant(g, m).is_some()) else { return Ok(None) };
    let (left, zero) = centred(g, a).ok_or("the left operand is not of 8-bit integers")?;
    let weights = integers(g, matrix, matrix_zero)?;
    let n = g.ty(v).shape.last().cloned().ok_or("the product is a number")?;
    let loc = g.node(v).loc.clone();
    // A product of the operand's scale and the matrix's.
    let pair = either(g, by, BinaryOp::Mul).find(|&(x, c)| g.as_const(x).is_none() && g.as_const(c).is_some());
    let pair = pair.and_then(|(x, c)| {
        let scale = single(g, x)?;
        Some((scale, of_columns(g, c, &n)?))
    });
    let (scale, scales) = match pair {
        Some(pair) => pair,
        None => {
            let scales = of_columns(g, by, &n).ok_or("the scales are not one of all or one of each column")?;
            let one = Tensor::scalar(DType::F32, Scalar::Float(1.0));
            (g.add_const(one, &loc).map_err(|d| d.message)?, scales)
        }
    };
    build(g, v, &Product { a: left, zero, weights, trans_b, scale, scales })
}

/// What a `linear` is made of.
struct Product {
    a: ValueId,
    zero: Option<ValueId>,
    weights: Tensor,
    trans_b: bool,
    /// Of the left operand, without dims.
    scale: ValueId,
    /// One of each column.
    scales: ValueId,
}

fn build(g: &mut Graph, v: ValueId, p: &Product) -> Rewrite {
    let node = g.node(v).clone();
    let k = p.weights.shape()[usize::from(p.trans_b)];
    match i64::try_from(k) {
        Ok(k) if k <= 0 || k % GROUP != 0 => return Err("the inner dim is not a multiple of 4".to_string()),
        Ok(k) if k <= MAX_INT8_K => {}
        _ => return Err("the inner dim is so large that sums may overflow".to_string()),
    }
    if g.ty(p.scale).dtype != DType::F32 || g.ty(p.scales).dtype != DType::F32 {
        return Err("the scales are not f32".to_string());
    }
    let zero = match p.zero {
        Some(z) => Some(zero_point(g, z).ok_or("the left operand's zero point is not one number of 8 bits")?),
        None => None,
    };
    let zero = zero.filter(|&z| g.as_const(z).is_none_or(|t| t.get(0).to_int() != 0));
    let b = g.add_const(p.weights.clone(), &node.loc).map_err(|d| d.message)?;
    let mut operands = vec![p.a, b, p.scale, p.scales];
    operands.extend(zero);
    let op = Op::Linear(Linear { int8: true, zero: zero.is_some(), trans_b: p.trans_b, ..Linear::default() });
    g.add(op, &operands, &node.loc).map(Some).map_err(|d| d.message)
}

/// A matrix without the transposition that it may have.
fn untransposed(g: &Graph, b: ValueId, trans_b: bool) -> Option<(ValueId, bool)> {
    if g.ty(b).rank() != 2 {
        return None;
    }
    match g.op(b) {
        Op::Transpose { perm } if perm[..] == [1, 0] => Some((g.operands(b)[0], !trans_b)),
        _ => Some((b, trans_b)),
    }
}

/// A constant matrix less its zero points, as i8.
fn integers(g: &Graph, matrix: ValueId, zero: Option<ValueId>) -> Result<Tensor, String> {
    let t = constant(g, matrix).filter(|t| is_byte(t.dtype())).ok_or("the matrix is not a constant of 8 bits")?;
    let &[rows, columns] = t.shape() else { return Err("the matrix is not of rank 2".to_string()) };
    let zeros = match zero {
        None => vec![0],
        Some(z) => g.as_const(z).ok_or("the matrix's zero point is not a constant")?.to_i64_vec(),
    };
    let shape = zero.map_or(&[][..], |z| &g.ty(z).shape);
    let one_each = |at: usize| shape.iter().rev().nth(at).is_some_and(|d| !build::is_one(d));
    if t.dtype() == DType::I8 && zeros.iter().all(|&z| z == 0) {
        return Ok(t);
    }
    // At one of both axes, or none.
    let (by_row, by_column) = (one_each(1), one_each(0));
    let at = |r: usize, c: usize| match (by_row, by_column) {
        (false, false) => 0,
        (true, false) => r,
        (false, true) => c,
        (true, true) => r * columns + c,
    };
    let signed = t.dtype() == DType::I8;
    let mut bytes = Vec::with_capacity(t.len());
    for r in 0..rows {
        for c in 0..columns {
            let byte = t.bytes()[r * columns + c];
            let q = if signed { i64::from(byte.cast_signed()) } else { i64::from(byte) };
            let q = i8::try_from(q - zeros.get(at(r, c)).copied().unwrap_or(0));
            bytes.push(q.map_err(|_| "the matrix less its zero point doesn't fit 8 bits")?.cast_unsigned());
        }
    }
    Tensor::new(DType::I8, vec![rows, columns], bytes.into()).ok_or_else(|| "the matrix has no elements".to_string())
}

/// The scales of a matrix as a vector with one of each column of the product.
fn columns(g: &mut Graph, scale: ValueId, weights: &Tensor, trans_b: bool) -> Result<Option<ValueId>, String> {
    let n = Dim::constant(i64::try_from(weights.shape()[usize::from(!trans_b)]).map_err(|e| e.to_string())?);
    let loc = g.node(scale).loc.clone();
    if trans_b && g.ty(scale).rank() == 2 {
        // The columns of the product are the rows of the matrix.
        let shape = &g.ty(scale).shape;
        if build::is_one(&shape[1]) && (shape[0] == n || build::is_one(&shape[0])) {
            let column = shape[0].clone();
            let row = build::reshape(g, scale, vec![column], &loc);
            return Ok(row.and_then(|row| of_columns(g, row, &n)));
        }
        return Ok(None);
    }
    if trans_b && single(g, scale).is_none() {
        return Ok(None);
    }
    Ok(of_columns(g, scale, &n))
}

/// A vector of `n` elements, of one number or of one for each column.
fn of_columns(g: &mut Graph, scale: ValueId, n: &Dim) -> Option<ValueId> {
    let loc: Loc = g.node(scale).loc.clone();
    match g.as_const(scale).is_none().then(|| single(g, scale)).flatten() {
        Some(one) => build::broadcast(g, one, vec![n.clone()], &loc),
        None => vector(g, scale, n),
    }
}

#[cfg(test)]
mod tests;
