//! `Softmax` and `LogSoftmax`.

use bertc_ir::{BinaryOp, Op, ReduceOp, UnaryOp};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, V};

/// Along one axis from opset 13; over the flattened dims from the axis on before.
pub fn softmax(c: &mut Cx<'_>, log: bool) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axis = c.axis(if c.opset >= 13 { -1 } else { 1 }, x.rank())?;
    Ok(vec![of_version(c.b, &x, axis, c.opset, log)?])
}

/// That of the version of the standard.
pub fn of_version(b: &mut Builder, x: &V, axis: usize, opset: i64, log: bool) -> R<V> {
    if opset >= 13 || axis + 1 == x.rank() {
        return along(b, x, axis, log);
    }
    let (rows, columns) = (b.product(&x.shape[..axis])?, b.product(&x.shape[axis..])?);
    let flat = b.reshape(x, &[rows, columns])?;
    let r = along(b, &flat, 1, log)?;
    b.reshape(&r, &x.shape)
}

fn along(b: &mut Builder, x: &V, axis: usize, log: bool) -> R<V> {
    if !log {
        return b.op(Op::Softmax { axis }, &[x]);
    }
    // x - max - log(sum(exp(x - max))): the logarithm of a softmax would lose small probabilities.
    let max = b.op(Op::Reduce { op: ReduceOp::Max, axes: vec![axis], keep: true }, &[x])?;
    let d = b.binary(BinaryOp::Sub, x, &max)?;
    let e = b.unary(UnaryOp::Exp, &d)?;
    let sum = b.op(Op::Reduce { op: ReduceOp::Sum, axes: vec![axis], keep: true }, &[&e])?;
    let l = b.unary(UnaryOp::Log, &sum)?;
    b.binary(BinaryOp::Sub, &d, &l)
}
