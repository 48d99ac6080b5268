//! Identities of elementwise ops and reductions.

use bertc_ir::{BinaryOp, CmpOp, DType, Graph, Op, ReduceOp, Scalar, UnaryOp, ValueId};

use crate::build::{add, broadcast, splat};
use crate::info::Infos;

pub fn rewrite(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    match g.op(v).clone() {
        Op::Unary(u) => unary(g, v, u),
        Op::Binary(b) => binary(g, infos, v, b),
        Op::Compare(c) => compare(g, v, c),
        Op::Select => select(g, infos, v),
        Op::Reduce { op, axes, .. } if axes.is_empty() => {
            // A float sum starts from 0, which turns a single -0 into 0.
            let exact = !g.ty(v).dtype.is_float() || !matches!(op, ReduceOp::Sum | ReduceOp::Mean);
            let x = g.operands(v)[0];
            (exact || infos.get(g, x).nonneg).then_some(x)
        }
        _ => None,
    }
}

fn unary(g: &mut Graph, v: ValueId, u: UnaryOp) -> Option<ValueId> {
    let (x, loc) = (g.operands(v)[0], g.node(v).loc.clone());
    match (u, g.op(x).clone()) {
        (UnaryOp::Not, Op::Unary(UnaryOp::Not)) | (UnaryOp::Neg, Op::Unary(UnaryOp::Neg)) => Some(g.operands(x)[0]),
        (UnaryOp::Abs | UnaryOp::Relu, Op::Unary(inner)) if inner == u => Some(x),
        (UnaryOp::Not, Op::Compare(c)) => {
            let operands = g.operands(x).to_vec();
            let float = g.ty(operands[0]).dtype.is_float();
            // The order comparisons are all false on NaN, so only the equalities have opposites there.
            let opposite = match c {
                CmpOp::Eq => CmpOp::Ne,
                CmpOp::Ne => CmpOp::Eq,
                _ if float => return None,
                CmpOp::Lt => CmpOp::Ge,
                CmpOp::Le => CmpOp::Gt,
                CmpOp::Gt => CmpOp::Le,
                CmpOp::Ge => CmpOp::Lt,
            };
            add(g, Op::Compare(opposite), &operands, &loc)
        }
        _ => None,
    }
}

fn binary(g: &mut Graph, infos: &mut Infos, v: ValueId, op: BinaryOp) -> Option<ValueId> {
    let node = g.node(v).clone();
    let (x, y, ty, loc) = (node.operands[0], node.operands[1], &node.ty, &node.loc);
    let (cx, cy) = (infos.get(g, x).splat, infos.get(g, y).splat);
    // The operand that is the result, broadcast to its shape.
    let keep = |g: &mut Graph, x: ValueId| broadcast(g, x, ty.shape.clone(), loc);
    let is = |c: Option<Scalar>, n: i128| match c {
        Some(Scalar::Int(i)) => i == n,
        Some(Scalar::Float(f)) => f == n as f64,
        None => false,
    };
    let zero_of_sign = |c: Option<Scalar>, negative: bool| match c {
        Some(Scalar::Int(i)) => i == 0,
        Some(Scalar::Float(f)) => f == 0.0 && f.is_sign_negative() == negative,
        None => false,
    };
    let (int, is_bool) = (ty.dtype.is_int(), ty.dtype == DType::Bool);
    match op {
        BinaryOp::Add if zero_of_sign(cy, true) => keep(g, x),
        BinaryOp::Add if zero_of_sign(cx, true) => keep(g, y),
        BinaryOp::Sub if zero_of_sign(cy, false) => keep(g, x),
        BinaryOp::Sub | BinaryOp::Xor if x == y && !ty.dtype.is_float() => splat(g, Scalar::Int(0), ty, loc),
        BinaryOp::Mul if is(cy, 1) => keep(g, x),
        BinaryOp::Mul if is(cx, 1) => keep(g, y),
        BinaryOp::Mul if int && (is(cx, 0) || is(cy, 0)) => splat(g, Scalar::Int(0), ty, loc),
        BinaryOp::Div if is(cy, 1) => keep(g, x),
        BinaryOp::Pow if is(cy, 1) => keep(g, x),
        BinaryOp::Pow if is(cy, 2) => {
            let square = add(g, Op::Binary(BinaryOp::Mul), &[x, x], loc)?;
            keep(g, square)
        }
        // The square root differs from the power on -0 and on -∞.
        BinaryOp::Pow if cy == Some(Scalar::Float(0.5)) && infos.get(g, x).nonneg => {
            let root = add(g, Op::Unary(UnaryOp::Sqrt), &[x], loc)?;
            keep(g, root)
        }
        BinaryOp::Min | BinaryOp::Max | BinaryOp::And | BinaryOp::Or if x == y => Some(x),
        BinaryOp::And if is_bool && is(cy, 1) => keep(g, x),
        BinaryOp::And if is_bool && is(cx, 1) => keep(g, y),
        BinaryOp::Or | BinaryOp::Xor if is(cy, 0) => keep(g, x),
        BinaryOp::Or | BinaryOp::Xor if is(cx, 0) => keep(g, y),
        BinaryOp::And if is(cx, 0) || is(cy, 0) => splat(g, Scalar::Int(0), ty, loc),
        BinaryOp::Or if is_bool && (is(cx, 1) || is(cy, 1)) => splat(g, Scalar::Int(1), ty, loc),
        BinaryOp::Min | BinaryOp::Max => {
            let ((a, b), (c, d)) = (infos.get(g, x).range.clone()?, infos.get(g, y).range.clone()?);
            let (x_above, y_above) = (a.proven_ge(&d, &g.symbols), c.proven_ge(&b, &g.symbols));
            let pick_x = if op == BinaryOp::Max { x_above } else { y_above };
            match (x_above || y_above, pick_x) {
                (false, _) => None,
                (true, true) => keep(g, x),
                (true, false) => keep(g, y),
            }
        }
        _ => None,
    }
}

fn compare(g: &mut Graph, v: ValueId, op: CmpOp) -> Option<ValueId> {
    let node = g.node(v).clone();
    let (x, y) = (node.operands[0], node.operands[1]);
    if x != y || g.ty(x).dtype.is_float() {
        return None;
    }
    let holds = matches!(op, CmpOp::Eq | CmpOp::Le | CmpOp::Ge);
    splat(g, Scalar::Int(holds.into()), &node.ty, &node.loc)
}

fn select(g: &mut Graph, infos: &mut Infos, v: ValueId) -> Option<ValueId> {
    let node = g.node(v).clone();
    let (c, x, y) = (node.operands[0], node.operands[1], node.operands[2]);
    let shape = node.ty.shape.clone();
    if x == y {
        return broadcast(g, x, shape, &node.loc);
    }
    if let Some(b) = infos.get(g, c).splat {
        return broadcast(g, if b.to_int() != 0 { x } else { y }, shape, &node.loc);
    }
    if let Op::Unary(UnaryOp::Not) = g.op(c) {
        let c = g.operands(c)[0];
        return add(g, Op::Select, &[c, y, x], &node.loc);
    }
    if node.ty.dtype == DType::Bool {
        let (cx, cy) = (infos.get(g, x).splat?.to_int(), infos.get(g, y).splat?.to_int());
        return match (cx, cy) {
            (1, 0) => broadcast(g, c, shape, &node.loc),
            (0, 1) => {
                let not = add(g, Op::Unary(UnaryOp::Not), &[c], &node.loc)?;
                broadcast(g, not, shape, &node.loc)
            }
            _ => None,
        };
    }
    None
}
