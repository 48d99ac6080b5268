//! Operators of com.microsoft on quantised tensors, which ONNX Runtime's quantisers write: what the operator computes on
//! floats, between numbers that 8-bit integers stand for.

use bertc_ir::{BinaryOp, DType};

use super::quant::saturate;
use super::{Lower, integer, softmax};
use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::fold::int_range;
use crate::import::onnx::value::{R, Stop, V};

/// A parameter, which must be one number, without dims.
fn single(b: &mut Builder, v: &V) -> R<V> {
    if !integer::is_single(v) {
        let s = b.show_shape(&v.shape);
        return Err(Stop::Fail(format!("a scale or zero point of shape {s} is not supported, expected one number")));
    }
    b.reshape(v, &[])
}

/// (x - zero) · scale in f32.
pub fn number(b: &mut Builder, x: &V, scale: &V, zero: Option<&V>) -> R<V> {
    let (scale, zero) = (single(b, scale)?, zero.map(|z| single(b, z)).transpose()?);
    let (v, scale) = (integer::centred(b, x, zero)?, b.cast(DType::F32, &scale)?);
    let v = b.cast(DType::F32, &v)?;
    b.binary(BinaryOp::Mul, &v, &scale)
}

/// The numbers of input `i`, whose scale and zero point follow it.
fn operand(c: &mut Cx<'_>, i: usize) -> R<V> {
    let (x, scale, zero) = (c.input(i)?, c.input(i + 1)?, c.opt(i + 2));
    number(c.b, &x, &scale, zero.as_ref())
}

/// `f` on the numbers of these inputs, behind those in `first` as they are. The result is quantised as `dtype` with the scale
/// and the zero point that are inputs `result` and the next.
fn through(
    c: &mut Cx<'_>,
    first: &[usize],
    operands: &[usize],
    result: usize,
    f: impl FnOnce(&mut Cx<'_>) -> R<Vec<V>>,
) -> R<Vec<V>> {
    let (scale, zero) = (c.input(result)?, c.opt(result + 1));
    let dtype = match (&zero, operands.first()) {
        (Some(z), _) => z.dtype,
        (None, Some(&i)) => c.input(i)?.dtype,
        (None, None) => DType::U8,
    };
    if !matches!(dtype, DType::I8 | DType::U8) {
        return Err(format!("a result of {dtype}, expected 8-bit integers").into());
    }
    let mut ins = first.iter().map(|&i| c.input(i)).collect::<R<Vec<_>>>()?;
    for &i in operands {
        ins.push(operand(c, i)?);
    }
    c.ins = ins.into_iter().map(Some).collect();
    let y = f(c)?.into_iter().next().ok_or("no result")?;
    let (scale, zero) = (single(c.b, &scale)?, zero.map(|z| single(c.b, &z)).transpose()?);
    let scale = c.b.cast(DType::F32, &scale)?;
    let v = c.b.binary(BinaryOp::Div, &y, &scale)?;
    Ok(vec![saturate(c.b, &v, zero.as_ref(), dtype, int_range(dtype))?])
}

/// `QLinearSigmoid`, `QLinearLeakyRelu`: an operand, then the result's scale and zero point.
pub fn unary(c: &mut Cx<'_>, f: Lower) -> R<Vec<V>> {
    through(c, &[], &[0], 3, f)
}

/// `QLinearAdd`, `QLinearMul`: two operands, then the result's scale and zero point.
pub fn binary(c: &mut Cx<'_>, f: Lower) -> R<Vec<V>> {
    through(c, &[], &[0, 3], 6, f)
}

/// `QLinearWhere`: a condition, two operands, then the result's scale and zero point.
pub fn select(c: &mut Cx<'_>, f: Lower) -> R<Vec<V>> {
    through(c, &[0], &[1, 4], 7, f)
}

/// `QLinearConcat`: the result's scale and zero point, then the operands.
pub fn concat(c: &mut Cx<'_>, f: Lower) -> R<Vec<V>> {
    if c.ins.len() % 3 != 2 {
        return Err("each operand has a scale and a zero point".into());
    }
    let operands: Vec<usize> = (2..c.ins.len()).step_by(3).collect();
    through(c, &[], &operands, 0, f)
}

/// `QLinearSoftmax`, which names the version of `Softmax` that it is; the axis is the last one in all of them.
pub fn softmax(c: &mut Cx<'_>) -> R<Vec<V>> {
    if !c.has("opset") {
        return Err("attribute 'opset' is missing".into());
    }
    let opset = c.int("opset", 13)?;
    through(c, &[], &[0], 3, |c| {
        let x = c.input(0)?;
        let axis = c.axis(-1, x.rank())?;
        Ok(vec![softmax::of_version(c.b, &x, axis, opset, false)?])
    })
}

/// `QGemm`: alpha · (A' · B' + C) of integers times the operands' scales; quantised if the result has a scale.
pub fn gemm(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (mut x, sx, zx) = (c.input(0)?, c.input(1)?, c.opt(2));
    let (mut y, sy, zy) = (c.input(3)?, c.input(4)?, c.opt(5));
    let (bias, scale, zero) = (c.opt(6), c.opt(7), c.opt(8));
    let alpha = c.float("alpha", 1.0)?;
    if x.rank() != 2 || y.rank() != 2 {
        return Err("operands must be matrices".into());
    }
    for (v, name) in [(&mut x, "transA"), (&mut y, "transB")] {
        if c.flag(name, false)? {
            *v = c.b.transpose(v, &[1, 0])?;
        }
    }
    let mut sums = integer::product(c.b, [&x, &y], [zx.as_ref(), zy.as_ref()])?;
    if let Some(bias) = bias {
        let shape = sums.shape.clone();
        sums = c.b.binary(BinaryOp::Add, &sums, &bias)?;
        if sums.shape != shape {
            return Err("C doesn't broadcast to the product's shape".into());
        }
    }
    let mut s = integer::scales(c.b, &sx, &sy)?;
    if alpha != 1.0 {
        let alpha = c.b.scalar(DType::F32, alpha.into());
        s = c.b.binary(BinaryOp::Mul, &s, &alpha)?;
    }
    match (scale, zero) {
        (Some(scale), Some(zero)) => Ok(vec![integer::requantised(c.b, &sums, &s, &scale, &zero)?]),
        (None, None) => Ok(vec![integer::scaled(c.b, &sums, &s, None)?]),
        _ => Err("y_scale and y_zero_point come together".into()),
    }
}
