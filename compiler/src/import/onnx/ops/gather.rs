//! Gathers.

use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, V};

use bertc_ir::Op;

/// `Gather`.
pub fn gather(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (data, indices) = (c.input(0)?, c.input(1)?);
    let axis = c.axis(0, data.rank())?;
    Ok(vec![c.b.gather(&data, &indices, axis)?])
}

/// `GatherElements`.
pub fn elements(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (data, indices) = (c.input(0)?, c.input(1)?);
    let axis = c.axis(0, data.rank())?;
    if data.rank() != indices.rank() {
        return Err("data and indices must have one rank".into());
    }
    if let Some(s) = data.as_splat() {
        // Gathering from equal elements; the indices are taken as valid, as a constant table's would be.
        return Ok(vec![crate::import::onnx::value::Val::splat(data.dtype, indices.shape.clone(), s)]);
    }
    let indices = c.b.as_index(&indices)?;
    Ok(vec![c.b.op(Op::GatherElements { axis }, &[&data, &indices])?])
}

/// `GatherND`.
pub fn nd(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (data, indices) = (c.input(0)?, c.input(1)?);
    let batch = usize::try_from(c.int("batch_dims", 0)?).map_err(|_| "batch_dims is negative")?;
    if batch >= data.rank() || batch >= indices.rank() {
        return Err("batch_dims is out of range".into());
    }
    Ok(vec![c.b.gather_nd(&data, &indices, batch)?])
}
