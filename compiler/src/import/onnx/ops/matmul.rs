//! Matrix products.

use bertc_ir::{BinaryOp, DType, Dim, Op, ReduceOp};

use crate::import::onnx::build::Builder;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, V};

/// How products of a type are computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Product {
    /// By the IR's matrix product; narrow integers in i32, whose low bits are theirs.
    Matrix,
    /// Elementwise and summed: 64-bit integers.
    Wide,
}

/// How products of `dtype` are computed.
pub fn kind(dtype: DType) -> Product {
    if matches!(dtype, DType::I64 | DType::U64) { Product::Wide } else { Product::Matrix }
}

/// The matrix product of any numbers, each operand of rank 2 or more; integers wrap.
pub fn multiply(b: &mut Builder, x: &V, y: &V, trans_b: bool) -> R<V> {
    let dtype = x.dtype;
    if dtype != y.dtype {
        return Err(format!("operand types {dtype} and {} differ", y.dtype).into());
    }
    if dtype == DType::Bool {
        return Err("a matrix product of bool is not supported".into());
    }
    if dtype.is_float() || dtype == DType::I32 {
        return b.op(Op::MatMul { trans_b }, &[x, y]);
    }
    if kind(dtype) == Product::Matrix {
        let (x, y) = (b.cast(DType::I32, x)?, b.cast(DType::I32, y)?);
        let r = b.op(Op::MatMul { trans_b }, &[&x, &y])?;
        return b.cast(dtype, &r);
    }
    // [..., M, 1, K] · [..., 1, N, K], summed over K.
    let (mut left, mut right) = (x.shape.clone(), y.shape.clone());
    left.insert(left.len() - 1, Dim::constant(1));
    let y = if trans_b {
        y.clone()
    } else {
        let mut perm: Vec<usize> = (0..y.rank()).collect();
        perm.swap(y.rank() - 1, y.rank() - 2);
        right.swap(y.rank() - 1, y.rank() - 2);
        b.transpose(y, &perm)?
    };
    right.insert(right.len() - 2, Dim::constant(1));
    let (x, y) = (b.reshape(x, &left)?, b.reshape(&y, &right)?);
    let p = b.binary(BinaryOp::Mul, &x, &y)?;
    let axes = vec![p.rank() - 1];
    b.op(Op::Reduce { op: ReduceOp::Sum, axes, keep: false }, &[&p])
}

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
    let r = multiply(b, &x, &y, false)?;
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
    Ok(vec![product(c.b, &x, &y)?])
}

/// com.microsoft `FusedMatMul`: alpha · A' · B', the last two dims of an operand swapped where an attribute says so.
pub fn fused(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (mut x, mut y) = (c.input(0)?, c.input(1)?);
    for name in ["transBatchA", "transBatchB"] {
        if c.flag(name, false)? {
            return Err(format!("{name} is not supported").into());
        }
    }
    for (v, name) in [(&mut x, "transA"), (&mut y, "transB")] {
        if c.flag(name, false)? && v.rank() > 1 {
            let mut perm: Vec<usize> = (0..v.rank()).collect();
            perm.swap(v.rank() - 2, v.rank() - 1);
            *v = c.b.transpose(v, &perm)?;
        }
    }
    let r = product(c.b, &x, &y)?;
    let alpha = c.float("alpha", 1.0)?;
    if alpha == 1.0 {
        return Ok(vec![r]);
    }
    let alpha = c.b.scalar(r.dtype, alpha.into());
    Ok(vec![c.b.binary(BinaryOp::Mul, &r, &alpha)?])
}

/// `Gemm`: alpha · A' · B' + beta · C.
pub fn gemm(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (mut x, y) = (c.input(0)?, c.input(1)?);
    let (alpha, beta) = (c.float("alpha", 1.0)?, c.float("beta", 1.0)?);
    let (trans_a, trans_b) = (c.flag("transA", false)?, c.flag("transB", false)?);
    if x.rank() != 2 || y.rank() != 2 {
        return Err("operands must be matrices".into());
    }
    if !x.dtype.is_float() && [alpha, beta].iter().any(|k| k.fract() != 0.0) {
        return Err(format!("alpha = {alpha} and beta = {beta} are no factors of {}", x.dtype).into());
    }
    if trans_a {
        x = c.b.transpose(&x, &[1, 0])?;
    }
    c.b.require_equal(&x.shape[1], &y.shape[usize::from(trans_b)])?;
    let mut r = multiply(c.b, &x, &y, trans_b)?;
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
