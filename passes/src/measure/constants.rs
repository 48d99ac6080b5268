//! Constants of floats.

use bertc_ir::{DType, Graph, Op, Tensor, ValueId};

/// The constant that `v` is, or that it widens.
pub fn constant(g: &Graph, v: ValueId) -> Option<&Tensor> {
    let of = |v| g.as_const(v).filter(|t| matches!(t.dtype(), DType::F32 | DType::F16 | DType::BF16));
    match g.op(v) {
        Op::Cast(DType::F32) => of(g.operands(v)[0]),
        _ => of(v).filter(|t| t.dtype() == DType::F32),
    }
}

/// The elements of a float tensor.
pub fn floats(t: &Tensor) -> Vec<f32> {
    if t.dtype() != DType::F32 {
        return t.to_f32_vec();
    }
    t.bytes().as_chunks::<4>().0.iter().map(|&b| f32::from_le_bytes(b)).collect()
}
