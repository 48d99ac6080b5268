//! Result types of quantisation.

use super::fused::ensure_vector;
use super::{Result, ensure};
use crate::dims::Symbols;
use crate::op::RowQuant;
use crate::types::{DType, TensorType};

fn ensure_rows(q: &RowQuant, t: &[&TensorType], s: &Symbols) -> Result<()> {
    let x = t[0];
    ensure(matches!(x.dtype, DType::F32 | DType::BF16), || format!("x must be f32 or bf16, got {}", x.dtype))?;
    let n = x.shape.last().ok_or("x must have rank 1 or more")?;
    q.factor_at().map_or(Ok(()), |at| ensure_vector("the factor", t[at], n, s))
}

pub(super) fn row_unit(q: &RowQuant, t: &[&TensorType], s: &Symbols) -> Result<TensorType> {
    ensure_rows(q, t, s)?;
    let shape = [&t[0].shape[..t[0].rank() - 1], &[1.into()]].concat();
    Ok(TensorType::new(DType::F32, shape))
}

pub(super) fn quantise_rows(q: &RowQuant, t: &[&TensorType], s: &Symbols) -> Result<TensorType> {
    ensure_rows(q, t, s)?;
    Ok(TensorType::new(DType::I8, t[0].shape.clone()))
}

pub(super) fn quantise(to: DType, t: &[&TensorType], s: &Symbols) -> Result<TensorType> {
    ensure(matches!(to, DType::I8 | DType::U8), || format!("'to' must be i8 or u8, got {to}"))?;
    ensure(t[0].dtype == DType::F32, || format!("x must be f32, got {}", t[0].dtype))?;
    let scalar = t[1].dtype == DType::F32 && t[1].shape.is_empty();
    ensure(scalar, || format!("the scale must be tensor<f32>, got {}", t[1].display(s)))?;
    ensure_zero(t[2], s)?;
    Ok(TensorType::new(to, t[0].shape.clone()))
}

/// A zero point.
pub(super) fn ensure_zero(t: &TensorType, s: &Symbols) -> Result<()> {
    let scalar = t.dtype == DType::I32 && t.shape.is_empty();
    ensure(scalar, || format!("the zero point must be tensor<i32>, got {}", t.display(s)))
}
