//! `DynamicQuantizeLinear`, found in what the importer spells it out as: u8 with scale and zero point from the range of the
//! data, 0 included.

use bertc_ir::{BinaryOp, CmpOp, DType, Graph, Op, ReduceOp, UnaryOp, ValueId};

/// The values that the operator has as its results, and its operand.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dynamic {
    /// What is quantised, f32.
    pub rows: ValueId,
    /// The integers, u8.
    pub integers: ValueId,
    /// The scale, f32 `[]`.
    pub scale: ValueId,
    /// The zero point, u8 `[]`.
    pub point: ValueId,
}

/// The operator that `v`, a `quantise` to u8, is the first result of.
pub fn dynamic(g: &Graph, v: ValueId) -> Option<Dynamic> {
    let &[rows, scale, zero] = g.operands(v) else { return None };
    if *g.op(v) != (Op::Quantise { to: DType::U8 }) {
        return None;
    }
    let [point] = operands(g, zero, &Op::Cast(DType::I32))?;
    let [clipped] = operands(g, point, &Op::Cast(DType::U8))?;
    // The scale: 1 where the span is 0.
    let [none, one, unit] = operands(g, scale, &Op::Select)?;
    let [compared, zero] = operands(g, none, &Op::Compare(CmpOp::Eq))?;
    let [span, all] = binary(g, unit, BinaryOp::Div)?;
    let [high, low] = binary(g, span, BinaryOp::Sub)?;
    let end = |v: ValueId, with: BinaryOp, op: ReduceOp| {
        let [reduced, zero] = binary(g, v, with)?;
        let [of] = operands(g, reduced, &Op::Reduce { op, axes: (0..g.ty(rows).rank()).collect(), keep: false })?;
        (of == rows && is(g, zero, 0.0)).then_some(())
    };
    end(low, BinaryOp::Min, ReduceOp::Min)?;
    end(high, BinaryOp::Max, ReduceOp::Max)?;
    // The point: what 0 is, as far as 8 bits go.
    let [at_least, most] = binary(g, clipped, BinaryOp::Min)?;
    let [rounded, least] = binary(g, at_least, BinaryOp::Max)?;
    let [less] = operands(g, rounded, &Op::Unary(UnaryOp::Round))?;
    let [least_of] = operands(g, less, &Op::Unary(UnaryOp::Neg))?;
    let [from, by] = binary(g, least_of, BinaryOp::Div)?;
    let numbers = is(g, one, 1.0) && is(g, zero, 0.0) && is(g, all, 255.0) && is(g, most, 255.0) && is(g, least, 0.0);
    let fits = numbers && compared == unit && from == low && by == scale;
    (fits && g.ty(scale).rank() == 0).then_some(Dynamic { rows, integers: v, scale, point })
}

/// The operands of `v`, if it is `op` and has `N` of them.
fn operands<const N: usize>(g: &Graph, v: ValueId, op: &Op) -> Option<[ValueId; N]> {
    if g.op(v) == op { g.operands(v).try_into().ok() } else { None }
}

fn binary(g: &Graph, v: ValueId, op: BinaryOp) -> Option<[ValueId; 2]> {
    operands(g, v, &Op::Binary(op))
}

/// Whether `v` is this one number.
fn is(g: &Graph, v: ValueId, number: f64) -> bool {
    g.as_const(v).and_then(|t| t.single()).is_some_and(|s| s.to_f64() == number)
}
