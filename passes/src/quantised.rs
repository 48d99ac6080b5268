//! Tensors of 8-bit integers with scale and zero point, as importers spell them out: (integer - zero point) · scale.

use bertc_ir::eval::eval_op;
use bertc_ir::{BinaryOp, DType, Graph, Loc, Op, Scalar, Tensor, ValueId};

use crate::build;
use crate::pattern::{binary, either};

/// A value that is (integers - zero) · scale.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Dequantised {
    /// i8 or u8, of the value's shape.
    pub integers: ValueId,
    /// f32, broadcasts to the value's shape.
    pub scale: ValueId,
    /// i32, broadcasts to the value's shape; 0 if there is none.
    pub zero: Option<ValueId>,
}

/// The operands of the dequantisation that `v` is, if it is one.
pub fn dequantised(g: &Graph, v: ValueId) -> Option<Dequantised> {
    if g.ty(v).dtype != DType::F32 {
        return None;
    }
    either(g, v, BinaryOp::Mul).find_map(|(x, scale)| {
        let (integers, zero) = centred(g, cast_of(g, x, DType::F32)?)?;
        (g.ty(integers).shape == g.ty(v).shape).then_some(Dequantised { integers, scale, zero })
    })
}

/// The 8-bit integers and the zero point that `v` is the difference of, if it is one; it may be the integers themselves.
pub fn centred(g: &Graph, v: ValueId) -> Option<(ValueId, Option<ValueId>)> {
    let (wide, zero) = binary(g, v, BinaryOp::Sub).map_or((v, None), |(x, z)| (x, Some(z)));
    let integers = match cast_of(g, wide, DType::I32) {
        Some(x) => x,
        None if zero.is_none() => wide,
        None => return None,
    };
    (is_byte(g.ty(integers).dtype) && g.ty(integers).shape == g.ty(v).shape).then_some((integers, zero))
}

/// The operand of a cast.
pub fn cast_of(g: &Graph, v: ValueId, to: DType) -> Option<ValueId> {
    (*g.op(v) == Op::Cast(to)).then(|| g.operands(v)[0])
}

/// Whether a type has 8-bit integers.
pub fn is_byte(dtype: DType) -> bool {
    matches!(dtype, DType::I8 | DType::U8)
}

/// `v` without dims, if it has one element.
pub fn single(g: &mut Graph, v: ValueId) -> Option<ValueId> {
    if g.ty(v).rank() == 0 {
        return Some(v);
    }
    // Its only element may be repeated.
    let mut x = v;
    while let Op::Broadcast { .. } | Op::Reshape { .. } = g.op(x) {
        x = g.operands(x)[0];
    }
    let loc = g.node(x).loc.clone();
    if g.ty(x).shape.iter().all(build::is_one) {
        return build::reshape(g, x, Vec::new(), &loc);
    }
    let t = g.as_const(x).filter(|t| is_repeated(t))?;
    let one = Tensor::scalar(t.dtype(), t.get(0));
    g.add_const(one, &loc).ok()
}

/// Whether a tensor has elements, and all of them the same bits.
fn is_repeated(t: &Tensor) -> bool {
    let size = t.dtype().size();
    !t.is_empty() && t.bytes().chunks_exact(size).all(|c| *c == t.bytes()[..size])
}

/// A zero point as i32 without dims: a constant that 8 bits hold, or a number computed in 8 bits.
pub fn zero_point(g: &mut Graph, v: ValueId) -> Option<ValueId> {
    let v = single(g, v)?;
    let loc = g.node(v).loc.clone();
    if let Some(t) = g.as_const(v) {
        let z = t.get(0).to_f64();
        if z.fract() != 0.0 || !(-128.0..=255.0).contains(&z) {
            return None;
        }
        return number(g, z as i128, &loc);
    }
    let mut x = v;
    while let Op::Cast(DType::I32 | DType::F32) | Op::Reshape { .. } = g.op(x) {
        x = g.operands(x)[0];
    }
    if !is_byte(g.ty(x).dtype) {
        return None;
    }
    let x = single(g, x)?;
    build::cast(g, x, DType::I32, &loc)
}

/// The zero point 0, or another one.
pub fn number(g: &mut Graph, value: i128, loc: &Loc) -> Option<ValueId> {
    g.add_const(Tensor::scalar(DType::I32, Scalar::Int(value)), loc).ok()
}

/// The integers of a constant, or of one that is quantised.
pub fn constant(g: &Graph, v: ValueId) -> Option<Tensor> {
    let node = g.node(v);
    if let Op::Quantise { .. } = node.op {
        let operands = node.operands.iter().map(|&o| g.as_const(o)).collect::<Option<Vec<_>>>()?;
        return eval_op(&node.op, &node.ty, &[], &operands).ok();
    }
    g.as_const(v).cloned()
}

/// Whether two values are one constant, or are the same.
pub fn same(g: &Graph, a: ValueId, b: ValueId) -> bool {
    a == b || g.as_const(a).zip(g.as_const(b)).is_some_and(|(a, b)| a.dtype() == b.dtype() && a.bytes() == b.bytes())
}
