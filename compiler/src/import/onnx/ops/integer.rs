//! Products of 8-bit integers: sums in i32, exact, and what operators make of them.
//!
//! Sums times scales are written as the `integer-linear` pass reads them.

use bertc_ir::{BinaryOp, DType, Dim};

use super::matmul;
use super::quant::{dynamically, saturate};
use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::fold::int_range;
use crate::import::onnx::value::{R, Stop, V};

/// Whether a parameter is one number.
pub fn is_single(v: &V) -> bool {
    v.shape.iter().all(|d| d.as_const() == Some(1))
}

/// One number without dims; one of each row as a column; others as they are.
fn of_rows(b: &mut Builder, v: &V) -> R<V> {
    match v.shape.as_slice() {
        _ if is_single(v) => b.reshape(v, &[]),
        [n] => b.reshape(v, &[n.clone(), Dim::constant(1)]),
        _ => Ok(v.clone()),
    }
}

/// One number without dims, others as they are: along the columns.
fn of_columns(b: &mut Builder, v: &V) -> R<V> {
    if is_single(v) { b.reshape(v, &[]) } else { Ok(v.clone()) }
}

/// An 8-bit operand less its zero point, in i32.
pub fn centred(b: &mut Builder, x: &V, zero: Option<V>) -> R<V> {
    if !matches!(x.dtype, DType::I8 | DType::U8) {
        return Err(format!("an operand of {}, expected 8-bit integers", x.dtype).into());
    }
    let wide = b.widen(x)?;
    let Some(z) = zero else { return Ok(wide) };
    if z.dtype != x.dtype {
        return Err(format!("a zero point of {} for an operand of {}", z.dtype, x.dtype).into());
    }
    let z = b.cast(DType::I32, &z)?;
    if z.as_splat().is_some_and(|s| s.to_int() == 0) {
        return Ok(wide);
    }
    let r = b.binary(BinaryOp::Sub, &wide, &z)?;
    if r.shape != x.shape {
        let (z, x) = (b.show_shape(&z.shape), b.show_shape(&x.shape));
        return Err(Stop::Fail(format!("a zero point of shape {z} for an operand of shape {x}")));
    }
    Ok(r)
}

/// (x - zero)·(y - zero) in i32. x's zero points go with its rows, y's with its columns.
pub fn product(b: &mut Builder, [x, y]: [&V; 2], [zx, zy]: [Option<&V>; 2]) -> R<V> {
    let zx = zx.map(|z| of_rows(b, z)).transpose()?;
    let zy = zy.map(|z| of_columns(b, z)).transpose()?;
    let (x, y) = (centred(b, x, zx)?, centred(b, y, zy)?);
    matmul::product(b, &x, &y)
}

/// The scale of sums: one number for the left operand times one, or one of each column, for the right one. In f32.
pub fn scales(b: &mut Builder, x: &V, y: &V) -> R<V> {
    if !is_single(x) {
        let s = b.show_shape(&x.shape);
        return Err(Stop::Fail(format!(
            "a left operand with scales of shape {s} is not supported, expected one number"
        )));
    }
    let (x, y) = (of_columns(b, x)?, of_columns(b, y)?);
    let (x, y) = (b.cast(DType::F32, &x)?, b.cast(DType::F32, &y)?);
    b.binary(BinaryOp::Mul, &x, &y)
}

/// Sums times their scales, in f32, plus a bias.
pub fn scaled(b: &mut Builder, sums: &V, scale: &V, bias: Option<&V>) -> R<V> {
    let x = b.cast(DType::F32, sums)?;
    let mut y = b.binary(BinaryOp::Mul, &x, scale)?;
    if let Some(bias) = bias {
        let bias = b.cast(DType::F32, bias)?;
        y = b.binary(BinaryOp::Add, &y, &bias)?;
    }
    if y.shape != sums.shape {
        let s = b.show_shape(&sums.shape);
        return Err(Stop::Fail(format!("scales or bias don't broadcast to the product's shape {s}")));
    }
    Ok(y)
}

/// `MatMulInteger`: the sums.
pub fn matmul_integer(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, y, zx, zy) = (c.input(0)?, c.input(1)?, c.opt(2), c.opt(3));
    Ok(vec![product(c.b, [&x, &y], [zx.as_ref(), zy.as_ref()])?])
}

/// com.microsoft `MatMulIntegerToFloat`: sums times both scales, plus a bias.
pub fn to_float(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, y, sx, sy) = (c.input(0)?, c.input(1)?, c.input(2)?, c.input(3)?);
    let (zx, zy, bias) = (c.opt(4), c.opt(5), c.opt(6));
    if zx.as_ref().is_some_and(|z| !is_single(z)) {
        return Err("a left operand with more than one zero point is not supported".into());
    }
    let scale = scales(c.b, &sx, &sy)?;
    let sums = product(c.b, [&x, &y], [zx.as_ref(), zy.as_ref()])?;
    let y = scaled(c.b, &sums, &scale, bias.as_ref())?;
    Ok(vec![c.b.cast(sx.dtype, &y)?])
}

/// com.microsoft `DynamicQuantizeMatMul`: the left operand becomes u8 by its own range.
pub fn dynamic(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, y, sy) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let (zy, bias) = (c.opt(3), c.opt(4));
    let [q, sx, zx] = dynamically(c.b, &x)?;
    let scale = scales(c.b, &sx, &sy)?;
    let sums = product(c.b, [&q, &y], [Some(&zx), zy.as_ref()])?;
    let y = scaled(c.b, &sums, &scale, bias.as_ref())?;
    Ok(vec![c.b.cast(x.dtype, &y)?])
}

/// round(sums · (scale of sums / scale of the result)) + zero point, saturated. The quotient of the scales is rounded before
/// the product, as in ONNX Runtime.
pub fn requantised(b: &mut Builder, sums: &V, scale: &V, sr: &V, zr: &V) -> R<V> {
    if !is_single(sr) || !is_single(zr) {
        return Err("a result with more than one scale or zero point is not supported".into());
    }
    if !matches!(zr.dtype, DType::I8 | DType::U8) {
        return Err(format!("a result of {}, expected 8-bit integers", zr.dtype).into());
    }
    let (sr, zr) = (b.reshape(sr, &[])?, b.reshape(zr, &[])?);
    let sr = b.cast(DType::F32, &sr)?;
    let scale = b.binary(BinaryOp::Div, scale, &sr)?;
    let v = scaled(b, sums, &scale, None)?;
    // The quotient of `QuantizeLinear`, exact: one kernel rounds and saturates.
    let one = b.scalar(DType::F32, 1.0);
    let v = b.binary(BinaryOp::Div, &v, &one)?;
    saturate(b, &v, Some(&zr), zr.dtype, int_range(zr.dtype))
}

/// `QLinearMatMul`: sums times the scales of both operands, quantised.
pub fn qlinear(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, sx, zx, y, sy, zy) = (c.input(0)?, c.input(1)?, c.input(2)?, c.input(3)?, c.input(4)?, c.input(5)?);
    let (sr, zr) = (c.input(6)?, c.input(7)?);
    let (sx, sy) = (of_rows(c.b, &sx)?, of_columns(c.b, &sy)?);
    let (sx, sy) = (c.b.cast(DType::F32, &sx)?, c.b.cast(DType::F32, &sy)?);
    let scale = c.b.binary(BinaryOp::Mul, &sx, &sy)?;
    let sums = product(c.b, [&x, &y], [Some(&zx), Some(&zy)])?;
    Ok(vec![requantised(c.b, &sums, &scale, &sr, &zr)?])
}
