//! Matrix products.

use bertc_ir::{BinaryOp, DType, Dim, Op};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, V};

/// numpy's `matmul`: a rank-1 operand is a row (first) or a column (second), and that dim is dropped again.
pub fn product(b: &mut Builder, x: &V, y: &V) -> R<V> {
    let one = Dim::constant(1);
    let (mut x, mut y) = (x.clone(), y.clone());
    let (row, column) = (x.rank() == 1, y.rank() == 1);
    if x.rank() == 0 || y.rank() == 0 {
        return Err("operands need rank 1 or more".into());
    }
    if row {
        let s = [one.clone(), x.shape[0].clone()];
        x = b.reshape(&x, &s)?;
    }
    if column {
        let s = [y.shape[0].clone(), one];
        y = b.reshape(&y, &s)?;
    }
    b.require_equal(&x.shape[x.rank() - 1], &y.shape[y.rank() - 2])?;
    // Batch dims of different symbols must be equal; this asks for it where the IR would only refuse.
    b.broadcast(&[&x.shape[..x.rank() - 2], &y.shape[..y.rank() - 2]])?;
    let r = b.op(Op::MatMul { trans_b: false }, &[&x, &y])?;
    let mut shape = r.shape.clone();
    if column {
        shape.pop();
    }
    if row {
        shape.remove(shape.len() - if column { 1 } else { 2 });
    }
    b.reshape(&r, &shape)
}

/// `MatMul`.
pub fn matmul(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, y) = (c.input(0)?, c.input(1)?);
    if matches!(x.dtype, DType::I64 | DType::U32 | DType::U64) {
        return Err(format!("a matrix product of {} is not supported", x.dtype).into());
    }
    Ok(vec![product(c.b, &x, &y)?])
}

/// `Gemm`: alpha · A' · B' + beta · C.
pub fn gemm(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (mut x, y) = (c.input(0)?, c.input(1)?);
    let (alpha, beta) = (c.float("alpha", 1.0)?, c.float("beta", 1.0)?);
    let (trans_a, trans_b) = (c.flag("transA", false)?, c.flag("transB", false)?);
    if x.rank() != 2 || y.rank() != 2 {
        return Err("operands must be matrices".into());
    }
    if !x.dtype.is_float() {
        return Err(format!("a product of {} is not supported", x.dtype).into());
    }
    if trans_a {
        x = c.b.transpose(&x, &[1, 0])?;
    }
    c.b.require_equal(&x.shape[1], &y.shape[usize::from(trans_b)])?;
    let mut r = c.b.op(Op::MatMul { trans_b }, &[&x, &y])?;
    if alpha != 1.0 {
        let k = c.b.scalar(r.dtype, alpha.into());
        r = c.b.binary(BinaryOp::Mul, &r, &k)?;
    }
    if let Some(mut add) = c.opt(2).filter(|_| beta != 0.0) {
        if beta != 1.0 {
            let k = c.b.scalar(add.dtype, beta.into());
            add = c.b.binary(BinaryOp::Mul, &add, &k)?;
        }
        let shape = r.shape.clone();
        r = c.b.binary(BinaryOp::Add, &r, &add)?;
        if r.shape != shape {
            return Err("C doesn't broadcast to the product's shape".into());
        }
    }
    Ok(vec![r])
}
