//! Elementwise operators.

use bertc_ir::{BinaryOp, CmpOp, DType, Scalar, UnaryOp};

use crate::import::onnx::cx::Cx;
use crate::import::onnx::small::{Conversion, Rounding};
use crate::import::onnx::tensor::Element;
use crate::import::onnx::value::{R, Stop, V, Val};

/// One operand.
pub fn unary(c: &mut Cx<'_>, op: UnaryOp) -> R<Vec<V>> {
    let x = c.input(0)?;
    Ok(vec![c.b.unary(op, &x)?])
}

/// Two operands.
pub fn binary(c: &mut Cx<'_>, op: BinaryOp) -> R<Vec<V>> {
    let (x, y) = (c.input(0)?, c.input(1)?);
    Ok(vec![c.b.binary(op, &x, &y)?])
}

/// A comparison.
pub fn compare(c: &mut Cx<'_>, op: CmpOp) -> R<Vec<V>> {
    let (x, y) = (c.input(0)?, c.input(1)?);
    Ok(vec![c.b.compare(op, &x, &y)?])
}

/// Any number of operands.
pub fn variadic(c: &mut Cx<'_>, op: BinaryOp) -> R<Vec<V>> {
    let mut r = c.input(0)?;
    for i in 1..c.ins.len() {
        let x = c.input(i)?;
        r = c.b.binary(op, &r, &x)?;
    }
    Ok(vec![r])
}

/// The arithmetic mean of the operands.
pub fn mean(c: &mut Cx<'_>) -> R<Vec<V>> {
    let sum = variadic(c, BinaryOp::Add)?.remove(0);
    let n = c.b.scalar(sum.dtype, c.ins.len() as f64);
    Ok(vec![c.b.binary(BinaryOp::Div, &sum, &n)?])
}

/// `Mod`: C's `fmod` or Python's `%`.
pub fn modulo(c: &mut Cx<'_>) -> R<Vec<V>> {
    let fmod = c.flag("fmod", false)?;
    if !fmod && c.input(0)?.dtype.is_float() && c.opset < 28 {
        return Err("floats need fmod=1".into());
    }
    binary(c, if fmod { BinaryOp::Rem } else { BinaryOp::Mod })
}

/// `BitShift`.
pub fn bit_shift(c: &mut Cx<'_>) -> R<Vec<V>> {
    match c.string("direction", "")?.as_str() {
        "LEFT" => binary(c, BinaryOp::Shl),
        "RIGHT" => binary(c, BinaryOp::Shr),
        d => Err(Stop::Fail(format!("direction='{d}' is neither LEFT nor RIGHT"))),
    }
}

/// `Pow`; the result has the base's type.
pub fn pow(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, y) = (c.input(0)?, c.input(1)?);
    if x.dtype.is_int() && y.dtype.is_float() {
        // The power is taken in floats; only then is it cut to an integer.
        let f = c.b.cast(DType::F64, &x)?;
        let y = c.b.cast(DType::F64, &y)?;
        let r = c.b.binary(BinaryOp::Pow, &f, &y)?;
        return Ok(vec![c.b.cast(x.dtype, &r)?]);
    }
    let y = c.b.cast(x.dtype, &y)?;
    Ok(vec![c.b.binary(BinaryOp::Pow, &x, &y)?])
}

/// `Cast`.
pub fn cast(c: &mut Cx<'_>) -> R<Vec<V>> {
    if !c.has("to") {
        return Err("attribute 'to' is missing".into());
    }
    let (to, x) = (Element::of_attribute(c.int("to", 0)?)?, c.input(0)?);
    converted(c, to, &x)
}

/// `x` in another type.
fn converted(c: &mut Cx<'_>, to: Element, x: &V) -> R<Vec<V>> {
    let rounding = match c.string("round_mode", "up")?.as_str() {
        "up" => Rounding::Up,
        "down" => Rounding::Down,
        "nearest" => Rounding::Away,
        other => return Err(format!("round_mode '{other}' is unknown").into()),
    };
    let how = Conversion { saturate: c.flag("saturate", true)?, rounding };
    let x = x.small.get().map_or_else(|| Ok(x.clone()), |s| s.decode(c.b, x))?;
    Ok(vec![match to.small {
        Some(s) => s.encode(c.b, &x, how)?,
        None => c.b.cast(to.dtype, &x)?,
    }])
}

/// `CastLike`.
pub fn cast_like(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, like) = (c.input(0)?, c.input(1)?);
    converted(c, Element::of_value(&like), &x)
}

/// `Identity`.
pub fn identity(c: &mut Cx<'_>) -> R<Vec<V>> {
    Ok(vec![c.input(0)?])
}

/// `Dropout` at inference: the identity, and a mask of `true`; in training too, where nothing is dropped.
pub fn dropout(c: &mut Cx<'_>) -> R<Vec<V>> {
    c.ignore("ratio");
    c.ignore("seed");
    let x = c.input(0)?;
    let none = c.opt(1).is_some_and(|r| r.as_splat().is_some_and(|s| s.to_f64() == 0.0));
    if let Some(t) = c.opt(2)
        && t.as_splat().is_none_or(|s| s.to_int() != 0)
        && !none
    {
        return Err("dropout in training mode".into());
    }
    // Before opset 10 the mask is of the data's type.
    let (dtype, one) = if c.opset < 10 { (x.dtype, Scalar::Float(1.0)) } else { (DType::Bool, Scalar::Int(1)) };
    let mask = Val::splat(dtype, x.shape.clone(), one);
    Ok(vec![x, mask])
}

/// `Clip`; the limits are attributes before opset 11.
pub fn clip(c: &mut Cx<'_>) -> R<Vec<V>> {
    let mut x = c.input(0)?;
    for (i, name, op) in [(1, "min", BinaryOp::Max), (2, "max", BinaryOp::Min)] {
        let limit = if c.opset < 11 {
            let given = c.has(name);
            let v = c.float(name, 0.0)?;
            given.then(|| c.b.scalar(x.dtype, v.into()))
        } else {
            c.opt(i)
        };
        if let Some(l) = limit {
            if l.rank() > 1 || l.as_const().is_some_and(|t| t.len() != 1) {
                return Err(format!("'{name}' must be a scalar").into());
            }
            let l = c.b.reshape(&l, &[])?;
            x = c.b.binary(op, &x, &l)?;
        }
    }
    Ok(vec![x])
}

/// `IsInf` of one or both signs.
pub fn is_inf(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let (neg, pos) = (c.flag("detect_negative", true)?, c.flag("detect_positive", true)?);
    let r = match (neg, pos) {
        (true, true) => c.b.unary(UnaryOp::IsInf, &x)?,
        (false, false) => Val::splat(DType::Bool, x.shape.clone(), Scalar::Int(0)),
        (neg, _) => {
            let inf = if neg { f64::NEG_INFINITY } else { f64::INFINITY };
            let inf = c.b.scalar(x.dtype, inf);
            c.b.compare(CmpOp::Eq, &x, &inf)?
        }
    };
    Ok(vec![r])
}

/// `Where`.
pub fn select(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (cond, x, y) = (c.input(0)?, c.input(1)?, c.input(2)?);
    Ok(vec![c.b.select(&cond, &x, &y)?])
}
