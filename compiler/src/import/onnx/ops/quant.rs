//! Quantisation, decomposed into casts and float arithmetic with exact semantics.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, UnaryOp};

use crate::import::onnx::cx::Cx;
use crate::import::onnx::fold::int_range;
use crate::import::onnx::value::{R, Stop, V};

/// A per-tensor parameter as a scalar, a per-axis one as a column that broadcasts against `x`.
fn param(c: &mut Cx<'_>, p: &V, x: &V, axis: i64) -> R<V> {
    if p.rank() == 0 || (p.rank() == 1 && p.shape[0].as_const() == Some(1)) {
        return c.b.reshape(p, &[]);
    }
    if p.rank() != 1 {
        return Err("blocked quantisation is not supported".into());
    }
    let axis = c.axis_of(axis, x.rank())?;
    c.b.require_equal(&p.shape[0], &x.shape[axis])?;
    let mut s = vec![Dim::constant(1); x.rank()];
    s[axis] = p.shape[0].clone();
    c.b.reshape(p, &s)
}

/// The axis; blocked forms are refused.
fn axis(c: &Cx<'_>) -> R<i64> {
    if c.int("block_size", 0)? != 0 {
        return Err("blocked quantisation is not supported".into());
    }
    c.int("axis", 1)
}

/// round(v) + zero point, clamped to the type. The arithmetic is exact: the sum of an integer below 2^24 and a zero
/// point is one.
fn saturate(c: &mut Cx<'_>, v: &V, zero: Option<&V>, to: DType) -> R<V> {
    let mut r = c.b.unary(UnaryOp::Round, v)?;
    if let Some(z) = zero {
        let z = c.b.cast(r.dtype, z)?;
        r = c.b.binary(BinaryOp::Add, &r, &z)?;
    }
    let (lo, hi) = int_range(to);
    let (lo, hi) = (c.b.scalar(r.dtype, lo as f64), c.b.scalar(r.dtype, hi as f64));
    let r = c.b.binary(BinaryOp::Max, &r, &lo)?;
    let r = c.b.binary(BinaryOp::Min, &r, &hi)?;
    c.b.cast(to, &r)
}

/// `QuantizeLinear`: saturate(round(x / scale) + zero point), ties to even.
pub fn quantize(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, scale, zero) = (c.input(0)?, c.input(1)?, c.opt(2));
    let a = axis(c)?;
    // Speaks of 8-bit floats only.
    c.ignore("saturate");
    let precision = c.int("precision", 0)?;
    let named = c.int("output_dtype", 0)?;
    let to = match (&zero, named) {
        (Some(z), _) => z.dtype,
        (None, 0) => DType::U8,
        (None, n) => crate::import::onnx::tensor::dtype(i32::try_from(n).unwrap_or(0))?,
    };
    if !matches!(to, DType::U8 | DType::I8 | DType::U16 | DType::I16) {
        return Err(format!("quantising to {to} is not supported").into());
    }
    // The division happens in the wider of both types, f32 at least: f16 can't hold every 16-bit result.
    let wide = match precision {
        0 | 1 => DType::F32,
        p => return Err(Stop::Fail(format!("precision={p} is not supported"))),
    };
    let x32 = c.b.cast(wide, &x)?;
    let scale = c.b.cast(wide, &scale)?;
    let s = param(c, &scale, &x, a)?;
    let z = zero.map(|z| param(c, &z, &x, a)).transpose()?;
    let v = c.b.binary(BinaryOp::Div, &x32, &s)?;
    Ok(vec![saturate(c, &v, z.as_ref(), to)?])
}

/// `DequantizeLinear`: (x - zero point) · scale.
pub fn dequantize(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, scale, zero) = (c.input(0)?, c.input(1)?, c.opt(2));
    let a = axis(c)?;
    let to = match c.int("output_dtype", 0)? {
        0 => scale.dtype,
        n => crate::import::onnx::tensor::dtype(i32::try_from(n).unwrap_or(0))?,
    };
    let s = param(c, &scale, &x, a)?;
    let mut v = x.clone();
    if x.dtype != DType::I32 {
        v = c.b.widen(&v)?;
    }
    if let Some(z) = zero.filter(|z| z.as_splat().is_none_or(|s| s.to_int() != 0)) {
        let z = param(c, &z, &x, a)?;
        let z = c.b.cast(DType::I32, &z)?;
        v = c.b.binary(BinaryOp::Sub, &v, &z)?;
    }
    let v = c.b.cast(to, &v)?;
    let s = c.b.cast(to, &s)?;
    Ok(vec![c.b.binary(BinaryOp::Mul, &v, &s)?])
}

/// `DynamicQuantizeLinear`: u8 with scale and zero point from the range of the data, 0 included.
pub fn dynamic_quantize(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axes: Vec<usize> = (0..x.rank()).collect();
    let zero = c.b.scalar(x.dtype, 0.0);
    let mut ends = Vec::new();
    for (op, with) in [(ReduceOp::Min, BinaryOp::Min), (ReduceOp::Max, BinaryOp::Max)] {
        let r = c.b.op(Op::Reduce { op, axes: axes.clone(), keep: false }, &[&x])?;
        ends.push(c.b.binary(with, &r, &zero)?);
    }
    let span = c.b.binary(BinaryOp::Sub, &ends[1], &ends[0])?;
    let k = c.b.scalar(x.dtype, 255.0);
    let scale = c.b.binary(BinaryOp::Div, &span, &k)?;
    // All zeros: any scale will do, but 0/0 must not happen.
    let none = c.b.compare(CmpOp::Eq, &scale, &zero)?;
    let one = c.b.scalar(x.dtype, 1.0);
    let scale = c.b.select(&none, &one, &scale)?;
    let low = c.b.binary(BinaryOp::Div, &ends[0], &scale)?;
    let low = c.b.unary(UnaryOp::Neg, &low)?;
    let point = saturate(c, &low, None, DType::U8)?;
    let v = c.b.binary(BinaryOp::Div, &x, &scale)?;
    let y = saturate(c, &v, Some(&point), DType::U8)?;
    Ok(vec![y, scale, point])
}
