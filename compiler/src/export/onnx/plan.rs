//! Which values of the graph are written, and how those that are about 8-bit integers are.
//!
//! Rows that are quantised while the model runs have no operator in ONNX: a product of such rows is written as one of
//! floats with the matrix that its integers stand for, which is what they come close to. Products of integers with
//! constant scales are the pairs of `QuantizeLinear` and `DequantizeLinear` that runtimes look for; all others are
//! written exactly, as integers.

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::{BinaryOp, DType, Graph, Linear, Op, RowQuant, Tensor, ValueId};

use super::dynamic::{Dynamic, dynamic};
use super::ops;

/// How a value is written that isn't just its op.
#[derive(Clone, Debug, PartialEq)]
pub enum How {
    /// A product of rows: of `rows`, times `factor` where there is one, in floats.
    Floats { rows: ValueId, factor: Option<ValueId> },
    /// A product between two `DequantizeLinear`.
    Static { scale: ValueId, zero: Option<ValueId> },
    /// `DequantizeLinear` of these integers, along the axis if the scale is a list.
    Dequantised { integers: ValueId, scale: Tensor, zero: Option<Tensor>, axis: Option<usize> },
    /// `DynamicQuantizeLinear`, of which this value, the scale, is the first that is read.
    Dynamic(Dynamic),
    /// Another of its results, written with this scale.
    With(ValueId),
}

/// What is to be written.
#[derive(Debug, Default)]
pub struct Plan {
    /// The values that outputs need, operands first, without constants.
    pub order: Vec<ValueId>,
    /// Those that are more than their op.
    pub how: BTreeMap<ValueId, How>,
}

impl Plan {
    /// Looks at a whole graph.
    pub fn new(g: &Graph) -> Plan {
        let mut how = BTreeMap::new();
        let mut needed: BTreeSet<ValueId> = g.outputs().iter().map(|o| o.value).collect();
        let mut order = Vec::new();
        for v in g.topo().into_iter().rev() {
            if !needed.contains(&v) || g.as_const(v).is_some() {
                continue;
            }
            order.push(v);
            if let Some(d) = dynamic(g, v).filter(|d| !how.contains_key(&d.scale)) {
                how.insert(d.scale, How::Dynamic(d));
                how.extend([d.integers, d.point].map(|v| (v, How::With(d.scale))));
            }
            let found = match g.op(v) {
                _ if how.contains_key(&v) => how.get(&v).cloned(),
                Op::Linear(l) if l.int8 => product(g, v, l),
                Op::Binary(BinaryOp::Mul) => dequantised(g, v),
                _ => None,
            };
            let operands = g.operands(v);
            match &found {
                Some(How::Floats { rows, factor }) => {
                    let more = 4 + usize::from(matches!(g.op(v), Op::Linear(l) if l.offset));
                    needed.extend([*rows, operands[1], operands[3]]);
                    needed.extend(factor.iter().chain(&operands[more..]));
                }
                Some(How::Dequantised { integers: v, .. } | How::Dynamic(Dynamic { rows: v, .. }) | How::With(v)) => {
                    needed.insert(*v);
                }
                Some(How::Static { .. }) | None => needed.extend(operands),
            }
            how.extend(found.map(|f| (v, f)));
        }
        order.reverse();
        Plan { order, how }
    }
}

fn product(g: &Graph, v: ValueId, l: &Linear) -> Option<How> {
    let x = g.operands(v);
    let at = l.scales_at()?;
    // Constant scales are those of any part of the integers.
    let mut from = x[0];
    while let (true, Some(&y)) = (ops::moves(g.op(from)), g.operands(from).first()) {
        if g.operands(from).len() > 1 && !matches!(g.op(from), Op::Gather { .. }) {
            break;
        }
        from = y;
    }
    let from = if matches!(g.op(from), Op::Quantise { .. }) { from } else { x[0] };
    match g.op(from) {
        Op::QuantiseRows(q) => {
            let of = |v: ValueId, op: fn(RowQuant) -> Op| *g.op(v) == op(*q) && g.operands(v) == g.operands(x[0]);
            let offset = l.offset_at().is_none_or(|at| of(x[at], Op::RowOffset));
            let fits = of(x[at], Op::RowScale) && offset && l.offset == q.offset && !l.zero;
            let rows = g.operands(x[0]);
            fits.then(|| How::Floats { rows: rows[0], factor: q.factor_at().map(|at| rows[at]) })
        }
        Op::Quantise { to } => {
            let [_, scale, zero] = *g.operands(from) else { return None };
            let same = |a: ValueId, b: ValueId| a == b || g.as_const(a).is_some_and(|t| g.as_const(b) == Some(t));
            let none = |z: ValueId| g.as_const(z).is_some_and(|t| t.iter().all(|s| s.to_int() == 0));
            let point = l.zero_at().map_or(none(zero), |at| same(x[at], zero));
            let constant = g.as_const(scale).is_some() && byte(g.as_const(zero)?, *to).is_some();
            let fits = constant && same(x[at], scale) && point && !l.offset;
            fits.then_some(How::Static { scale, zero: l.zero.then_some(zero) })
        }
        _ => None,
    }
}

/// A zero point or several in 8 bits, if they fit.
pub fn byte(t: &Tensor, to: DType) -> Option<Tensor> {
    let fits = |i: i128| if to == DType::I8 { i8::try_from(i).is_ok() } else { u8::try_from(i).is_ok() };
    let all = matches!(to, DType::I8 | DType::U8) && t.iter().all(|s| fits(s.to_int()));
    all.then(|| Tensor::from_scalars(to, t.shape().to_vec(), t.iter()))
}

/// (integers - zero) · scale, as importers spell `DequantizeLinear` out.
fn dequantised(g: &Graph, v: ValueId) -> Option<How> {
    let &[a, b] = g.operands(v) else { return None };
    let cast_of = |v: ValueId, to: DType| (*g.op(v) == Op::Cast(to)).then(|| g.operands(v)[0]);
    let (wide, scale) = [(a, b), (b, a)].into_iter().find_map(|(x, s)| {
        let s = g.as_const(s).filter(|t| t.dtype() == DType::F32)?;
        Some((cast_of(x, DType::F32)?, s))
    })?;
    let (wide, zero) = match (g.op(wide), g.operands(wide)) {
        (Op::Binary(BinaryOp::Sub), &[x, z]) => (x, Some(g.as_const(z)?)),
        _ => (wide, None),
    };
    let integers = cast_of(wide, DType::I32).or(zero.is_none().then_some(wide))?;
    let ty = g.ty(integers);
    if !matches!(ty.dtype, DType::I8 | DType::U8) || ty.shape != g.ty(v).shape {
        return None;
    }
    let zero = zero.map(|z| byte(z, ty.dtype)).map_or(Some(None), |z| z.map(Some))?;
    // Both are one number, or both are lists along one axis.
    let axis = long_axis(scale, ty.rank());
    let list = |t: &Tensor, n: Option<usize>| t.reshaped(n.into_iter().collect());
    let n = axis.map(|_| scale.len());
    let zero = match zero {
        Some(z) if z.len() == 1 && n.is_some() => {
            Some(Tensor::from_scalars(z.dtype(), vec![scale.len()], std::iter::repeat_n(z.get(0), scale.len())))
        }
        Some(z) if long_axis(&z, ty.rank()) == axis => Some(list(&z, n)?),
        Some(_) => return None,
        None => None,
    };
    Some(How::Dequantised { integers, scale: list(scale, n)?, zero, axis })
}

/// The one axis, of a result of `rank` dims, along which a constant has more than one element.
fn long_axis(t: &Tensor, rank: usize) -> Option<usize> {
    let more = rank.checked_sub(t.shape().len())?;
    let mut long = t.shape().iter().enumerate().filter(|d| *d.1 != 1).map(|d| d.0 + more);
    long.next().filter(|_| long.next().is_none())
}
