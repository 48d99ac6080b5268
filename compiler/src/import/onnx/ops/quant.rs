//! Quantisation, decomposed into casts and float arithmetic with exact semantics.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, UnaryOp};

use crate::import::onnx::build::{Builder, overflow};
use crate::import::onnx::cx::Cx;
use crate::import::onnx::fold::int_range;
use crate::import::onnx::small::{Conversion, Small};
use crate::import::onnx::tensor::Element;
use crate::import::onnx::value::{R, Stop, V};

/// Along which axis scales and zero points lie, and how many elements share one: 0 if each has its own.
struct Blocks {
    axis: i64,
    size: i64,
}

fn blocks(c: &Cx<'_>) -> R<Blocks> {
    let size = c.int("block_size", 0)?;
    if size < 0 {
        return Err(format!("block_size is {size}, expected a positive number").into());
    }
    Ok(Blocks { axis: c.int("axis", 1)?, size })
}

/// A parameter as it broadcasts against `x`: of the tensor a scalar, of an axis a column, of blocks one for each element.
fn param(c: &mut Cx<'_>, p: &V, x: &V, at: &Blocks) -> R<V> {
    if p.rank() == 0 || (p.rank() == 1 && p.shape[0].as_const() == Some(1)) {
        return c.b.reshape(p, &[]);
    }
    let axis = c.axis_of(at.axis, x.rank())?;
    if at.size > 0 && p.rank() == x.rank() {
        return of_blocks(c.b, p, x, axis, at.size);
    }
    if p.rank() != 1 || at.size > 0 {
        let (p, x) = (c.b.show_shape(&p.shape), c.b.show_shape(&x.shape));
        return Err(Stop::Fail(format!("scales of shape {p} with block_size {} for shape {x}", at.size)));
    }
    c.b.require_equal(&p.shape[0], &x.shape[axis])?;
    let mut s = vec![Dim::constant(1); x.rank()];
    s[axis] = p.shape[0].clone();
    c.b.reshape(p, &s)
}

/// Each element along `axis` `size` times, as many as `x` has.
pub fn of_blocks(b: &mut Builder, p: &V, x: &V, axis: usize, size: i64) -> R<V> {
    let (n, one) = (x.shape[axis].clone(), Dim::constant(1));
    let padded = p.shape[axis].mul(&Dim::constant(size)).ok_or_else(overflow)?;
    let spare = padded.sub(&n).ok_or_else(overflow)?;
    if !b.ge(&spare, &Dim::constant(0)) || !b.ge(&Dim::constant(size - 1), &spare) {
        let (blocks, n) = (b.show(&p.shape[axis]), b.show(&n));
        return Err(Stop::Fail(format!("{blocks} blocks of {size} for {n} elements of axis {axis}")));
    }
    for i in (0..x.rank()).filter(|&i| i != axis) {
        b.require_equal(&p.shape[i], &x.shape[i])?;
    }
    let mut shape = p.shape.clone();
    shape.insert(axis + 1, one);
    let y = b.reshape(p, &shape)?;
    shape[axis + 1] = Dim::constant(size);
    let y = b.expand(&y, &shape)?;
    let mut shape = p.shape.clone();
    shape[axis] = padded;
    let y = b.reshape(&y, &shape)?;
    b.slice(&y, axis, &Dim::constant(0), &n, 1)
}

/// round(v) + zero point, clamped to the bounds. The arithmetic is exact: the sum of an integer below 2^24 and a zero
/// point is one.
pub fn saturate(b: &mut Builder, v: &V, zero: Option<&V>, to: DType, (lo, hi): (i128, i128)) -> R<V> {
    let mut r = b.unary(UnaryOp::Round, v)?;
    if let Some(z) = zero {
        let z = b.cast(r.dtype, z)?;
        r = b.binary(BinaryOp::Add, &r, &z)?;
    }
    let (lo, hi) = (b.scalar(r.dtype, lo as f64), b.scalar(r.dtype, hi as f64));
    let r = b.binary(BinaryOp::Max, &r, &lo)?;
    let r = b.binary(BinaryOp::Min, &r, &hi)?;
    b.cast(to, &r)
}

/// What codes mean; integers of 16 bits and fewer as i32.
fn plain(b: &mut Builder, v: &V) -> R<V> {
    match v.small.get() {
        Some(s) if s.is_float() => s.decode(b, v),
        _ if v.dtype.is_int() && v.dtype != DType::I32 => b.widen(v),
        _ => Ok(v.clone()),
    }
}

/// Whether a value is known to be 0 everywhere.
fn is_zero(v: &V) -> bool {
    v.as_splat().is_some_and(|s| s.to_f64() == 0.0)
}

/// The type that `QuantizeLinear` makes: the zero point's, a named one, or u8.
fn target(c: &Cx<'_>, zero: Option<&V>) -> R<Element> {
    let named = match c.int("output_dtype", 0)? {
        0 => None,
        n => Some(Element::of_attribute(n)?),
    };
    let own = zero.map(Element::of_value);
    let to = match (own, named) {
        (Some(z), Some(n)) if z != n => return Err("output_dtype is not the zero point's type".into()),
        (Some(z), _) => z,
        (None, n) => n.unwrap_or(Element { dtype: DType::U8, small: None }),
    };
    if !matches!(to.dtype, DType::U8 | DType::I8 | DType::U16 | DType::I16) {
        return Err(format!("quantising to {to} is not supported").into());
    }
    Ok(to)
}

/// x / scale, in the precision that is asked for, as f32 or f64.
fn quotient(c: &mut Cx<'_>, x: &V, scale: &V, at: &Blocks) -> R<V> {
    let named = match c.int("precision", 0)? {
        0 => None,
        n => Some(Element::of_attribute(n)?),
    };
    let named = match named {
        Some(Element { dtype, small: None }) if dtype.is_float() => Some(dtype),
        None => None,
        Some(e) => return Err(format!("a division in {e} is not supported").into()),
    };
    // f32 at least: f16 can't hold every 16-bit result.
    let wide = match named {
        Some(DType::F64) => DType::F64,
        None if scale.dtype == DType::I32 => DType::F64,
        _ => DType::F32,
    };
    let rounded = named.filter(|d| matches!(d, DType::F16 | DType::BF16));
    let round = |b: &mut Builder, v: &V| {
        let v = rounded.map_or_else(|| Ok(v.clone()), |d| b.cast(d, v))?;
        b.cast(wide, &v)
    };
    let (x32, scale) = (round(c.b, x)?, round(c.b, scale)?);
    let s = param(c, &scale, x, at)?;
    let v = c.b.binary(BinaryOp::Div, &x32, &s)?;
    if rounded.is_some() { round(c.b, &v) } else { Ok(v) }
}

/// `QuantizeLinear`: saturate(round(x / scale) + zero point), ties to even.
pub fn quantize(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, scale, zero) = (c.input(0)?, c.input(1)?, c.opt(2));
    let at = blocks(c)?;
    let (saturated, scale) = (c.flag("saturate", true)?, plain(c.b, &scale)?);
    let to = target(c, zero.as_ref())?;
    if !x.dtype.is_float() && x.dtype != DType::I32 {
        return Err(format!("quantising {} is not supported", Element::of_value(&x)).into());
    }
    let z = zero.map(|z| param(c, &z, &x, &at)).transpose()?;
    let v = quotient(c, &x, &scale, &at)?;
    if let Some(s) = to.small.filter(Small::is_float) {
        let v = match z.map(|z| s.decode(c.b, &z)).transpose()?.filter(|z| !is_zero(z)) {
            Some(z) => c.b.binary(BinaryOp::Add, &v, &z)?,
            None => v,
        };
        return Ok(vec![s.encode(c.b, &v, Conversion { saturate: saturated, ..Conversion::default() })?]);
    }
    let y = saturate(c.b, &v, z.as_ref(), to.dtype, to.range())?;
    y.small.set(to.small);
    Ok(vec![y])
}

/// `DequantizeLinear`: (x - zero point) · scale.
pub fn dequantize(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, scale, zero) = (c.input(0)?, c.input(1)?, c.opt(2));
    let (at, scale) = (blocks(c)?, plain(c.b, &scale)?);
    let to = match c.int("output_dtype", 0)? {
        0 => Element::of_value(&scale),
        n => Element::of_attribute(n)?,
    };
    if to.small.is_some() || !to.dtype.is_float() || !scale.dtype.is_float() {
        return Err(format!("dequantising to {to} by scales of {} is not supported", scale.dtype).into());
    }
    if !matches!(x.dtype, DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32) {
        return Err(format!("dequantising {} is not supported", x.dtype).into());
    }
    let [own, other] = [Some(&x), zero.as_ref()].map(|v| v.map(Element::of_value));
    if let (Some(x), Some(z)) = (own, other.filter(|z| Some(*z) != own)) {
        return Err(format!("a zero point of {z} for an operand of {x}").into());
    }
    let mut v = plain(c.b, &x)?;
    if let Some(z) = zero {
        let z = plain(c.b, &z)?;
        if !is_zero(&z) {
            let z = param(c, &z, &x, &at)?;
            v = c.b.binary(BinaryOp::Sub, &v, &z)?;
        }
    }
    let to = to.dtype;
    // f16 can't hold every difference: the product is rounded, not its factors.
    let wide = if to == DType::F64 { DType::F64 } else { DType::F32 };
    let s = c.b.cast(wide, &scale)?;
    let s = param(c, &s, &x, &at)?;
    let v = c.b.cast(wide, &v)?;
    let y = c.b.binary(BinaryOp::Mul, &v, &s)?;
    Ok(vec![c.b.cast(to, &y)?])
}

/// u8 by the range of the data, 0 included; its scale and zero point.
pub fn dynamically(b: &mut Builder, x: &V) -> R<[V; 3]> {
    let axes: Vec<usize> = (0..x.rank()).collect();
    let x = &b.cast(DType::F32, x)?;
    let zero = b.scalar(x.dtype, 0.0);
    let mut ends = Vec::new();
    for (op, with) in [(ReduceOp::Min, BinaryOp::Min), (ReduceOp::Max, BinaryOp::Max)] {
        let r = b.op(Op::Reduce { op, axes: axes.clone(), keep: false }, &[x])?;
        ends.push(b.binary(with, &r, &zero)?);
    }
    let span = b.binary(BinaryOp::Sub, &ends[1], &ends[0])?;
    let k = b.scalar(x.dtype, 255.0);
    let scale = b.binary(BinaryOp::Div, &span, &k)?;
    // All zeros: any scale will do, but 0/0 must not happen.
    let none = b.compare(CmpOp::Eq, &scale, &zero)?;
    let one = b.scalar(x.dtype, 1.0);
    let scale = b.select(&none, &one, &scale)?;
    let low = b.binary(BinaryOp::Div, &ends[0], &scale)?;
    let low = b.unary(UnaryOp::Neg, &low)?;
    let point = saturate(b, &low, None, DType::U8, int_range(DType::U8))?;
    let v = b.binary(BinaryOp::Div, x, &scale)?;
    let y = saturate(b, &v, Some(&point), DType::U8, int_range(DType::U8))?;
    Ok([y, scale, point])
}

/// `DynamicQuantizeLinear`.
pub fn dynamic_quantize(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    if x.dtype != DType::F32 {
        return Err(format!("quantising {} dynamically is not supported", x.dtype).into());
    }
    Ok(dynamically(c.b, &x)?.to_vec())
}
