//! Types of the scatters, which change parts of a tensor, and of `top_k`, whose indices they and the gathers take.

use super::{Result, ensure, ensure_axis, ensure_index, gather_nd};
use crate::dims::{Dim, Symbols};
use crate::op::BinaryOp;
use crate::types::{DType, TensorType};

fn ensure_combine(combine: Option<BinaryOp>, data: &TensorType) -> Result<()> {
    let Some(op) = combine else { return Ok(()) };
    ensure(matches!(op, BinaryOp::Add | BinaryOp::Mul | BinaryOp::Min | BinaryOp::Max), || {
        format!("updates are combined by add, mul, min or max, not by '{}'", op.name())
    })?;
    ensure(data.dtype != DType::Bool, || format!("'{}' is not defined on bool", op.name()))
}

fn ensure_updates(updates: &TensorType, dtype: DType, shape: &[Dim], symbols: &Symbols) -> Result<()> {
    ensure(updates.dtype == dtype && updates.shape == shape, || {
        let want = TensorType::new(dtype, shape.to_vec());
        format!("updates must be {}, got {}", want.display(symbols), updates.display(symbols))
    })
}

/// Of data, indices and updates, each of which has its own place on every dim but the axis.
pub(super) fn elements(
    axis: usize,
    combine: Option<BinaryOp>,
    t: &[&TensorType],
    symbols: &Symbols,
) -> Result<TensorType> {
    let (data, idx) = (t[0], t[1]);
    ensure_axis(axis, data)?;
    ensure_index(idx)?;
    ensure_combine(combine, data)?;
    ensure(data.rank() == idx.rank(), || "data and indices must have one rank".to_string())?;
    for (i, (d, n)) in data.shape.iter().zip(&idx.shape).enumerate() {
        ensure(i == axis || d.proven_ge(n, symbols), || {
            format!("indices' dim {i} ({}) may exceed data's ({})", n.display(symbols), d.display(symbols))
        })?;
    }
    ensure_updates(t[2], data.dtype, &idx.shape, symbols)?;
    Ok(data.clone())
}

/// Of data, index tuples and updates.
pub(super) fn nd(combine: Option<BinaryOp>, t: &[&TensorType], symbols: &Symbols) -> Result<TensorType> {
    ensure_combine(combine, t[0])?;
    // What the tuples address is what a gather would take.
    let parts = gather_nd(0, t[0], t[1])?;
    ensure_updates(t[2], parts.dtype, &parts.shape, symbols)?;
    Ok(t[0].clone())
}

/// Of the operand.
pub(super) fn top_k(axis: usize, k: &Dim, x: &TensorType, symbols: &Symbols) -> Result<TensorType> {
    ensure_axis(axis, x)?;
    ensure(x.dtype != DType::Bool, || "not defined on bool".to_string())?;
    let n = &x.shape[axis];
    ensure(k.proven_ge(&1.into(), symbols) && n.proven_ge(k, symbols), || {
        format!("{} elements are not proven to be among 1..={}", k.display(symbols), n.display(symbols))
    })?;
    let mut shape = x.shape.clone();
    shape[axis] = k.clone();
    Ok(TensorType::new(DType::I64, shape))
}
