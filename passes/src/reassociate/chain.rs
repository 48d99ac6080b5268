//! Sums and products of many operands: taken apart, and put together in a cheaper order.

use bertc_ir::infer::broadcast_shapes;
use bertc_ir::{BinaryOp, DType, Dim, Graph, Loc, Op, Tensor, UnaryOp, ValueId};

use super::accept::Budget;
use super::constants::{all, constant, huge, movable};
use super::factor::{distribute, factor};
use crate::build::{add, is_one};
use crate::pattern::{Rewrite, single_user};

/// What joins the terms.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Terms are added or subtracted.
    Sum,
    /// Terms are factors, or constants that divide.
    Product,
}

impl Kind {
    fn ops(self) -> (BinaryOp, BinaryOp) {
        match self {
            Kind::Sum => (BinaryOp::Add, BinaryOp::Sub),
            Kind::Product => (BinaryOp::Mul, BinaryOp::Div),
        }
    }
}

/// An operand of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Term {
    /// The operand.
    pub v: ValueId,
    /// Whether it is subtracted, or divides.
    pub inverse: bool,
}

/// A bound on the terms of a chain; terms beyond it stay together.
const MAX_TERMS: usize = 16;

/// Whether `v` joins two terms of a chain: an op of that kind, whose constants may move.
fn joins(g: &Graph, v: ValueId, kind: Kind) -> bool {
    let (op, inverse) = kind.ops();
    let o = g.operands(v);
    let is_op = match *g.op(v) {
        Op::Binary(b) if b == op => true,
        Op::Binary(BinaryOp::Div) if kind == Kind::Product => {
            let nonzero = |t: &Tensor| t.dtype().is_float() && t.iter().all(|s| s.to_f64() != 0.0);
            g.as_const(o[1]).is_some_and(nonzero)
        }
        Op::Binary(b) => b == inverse && kind == Kind::Sum,
        _ => false,
    };
    is_op && o.iter().all(|&o| g.as_const(o).is_none_or(|t| movable(t, kind)))
}

/// The terms of `root`, in order. What has another use stays whole.
pub fn flatten(g: &Graph, root: ValueId, kind: Kind) -> Vec<Term> {
    let mut terms = Vec::new();
    let mut stack = vec![Term { v: root, inverse: false }];
    while let Some(t) = stack.pop() {
        let own = t.v == root || single_user(g, t.v).is_some();
        if own && terms.len() + stack.len() + 2 <= MAX_TERMS && joins(g, t.v, kind) {
            let o = g.operands(t.v);
            let inverts = matches!(g.op(t.v), Op::Binary(BinaryOp::Sub | BinaryOp::Div));
            stack.push(Term { v: o[1], inverse: t.inverse ^ inverts });
            stack.push(Term { v: o[0], inverse: t.inverse });
        } else {
            terms.push(t);
        }
    }
    terms
}

/// A cheaper form of the chain that ends in `v`.
pub fn rewrite(g: &mut Graph, budget: &mut Budget, v: ValueId, kind: Kind) -> Rewrite {
    let dtype = g.ty(v).dtype;
    let known = dtype == DType::F32 || dtype == DType::F64 || dtype.is_int();
    let inside = |u: ValueId| joins(g, u, kind);
    if !known || !joins(g, v, kind) || single_user(g, v).is_some_and(inside) {
        return Ok(None);
    }
    let terms = flatten(g, v, kind);
    let mut reason = None;
    for attempt in [Attempt::Law, Attempt::Order] {
        let Some(new) = attempt.build(g, v, &terms, kind) else { continue };
        match budget.gain(g, v, new) {
            Ok(Some(gain)) => {
                if in_layer_norm(g, v) && gain.ops <= 0 {
                    reason = Some("the layer norm behind it takes up the terms as they are".to_string());
                } else {
                    guard(g, v, &terms)?;
                    budget.pay(&gain);
                    return Ok(Some(new));
                }
            }
            Ok(None) => {}
            Err(why) => reason = Some(why),
        }
        // What an attempt leaves would look like other users to the next one.
        g.remove_dead();
    }
    reason.map_or(Ok(None), Err)
}

/// How to put terms together.
#[derive(Clone, Copy)]
enum Attempt {
    /// Sums by factoring, products by distributing.
    Law,
    /// By order alone.
    Order,
}

impl Attempt {
    fn build(self, g: &mut Graph, root: ValueId, terms: &[Term], kind: Kind) -> Option<ValueId> {
        let loc = g.node(root).loc.clone();
        let mut terms = terms.to_vec();
        fold(g, &mut terms, kind, &loc);
        match (self, kind) {
            (Attempt::Law, Kind::Sum) => factor(g, &mut terms, &loc).then_some(())?,
            (Attempt::Law, Kind::Product) => {
                terms = distribute(g, &terms, &loc)?;
                return combine(g, root, terms, Kind::Sum, &loc);
            }
            (Attempt::Order, _) if terms.len() < 2 => return None,
            (Attempt::Order, _) => {}
        }
        combine(g, root, terms, kind, &loc)
    }
}

/// What forbids to change the rounding of `v`.
fn guard(g: &Graph, v: ValueId, terms: &[Term]) -> Result<(), String> {
    if !g.ty(v).dtype.is_float() {
        return Ok(());
    }
    let rounds = |&u: &ValueId| match g.op(u) {
        Op::Unary(UnaryOp::Round | UnaryOp::Floor | UnaryOp::Ceil) => true,
        Op::Cast(d) => d.is_int(),
        _ => false,
    };
    if g.users(v).iter().any(rounds) {
        return Err("its result is rounded to whole numbers, so that a new last bit could move it by 1".to_string());
    }
    if terms.iter().any(|t| huge(g, t.v)) {
        return Err("a term is computed from a number of 1e30 or more, or not finite".to_string());
    }
    Ok(())
}

fn in_layer_norm(g: &Graph, v: ValueId) -> bool {
    single_user(g, v).is_some_and(|u| matches!(g.op(u), Op::LayerNorm { .. }))
}

/// Constants become one, as far as that doesn't need more memory than the larger of two.
fn fold(g: &mut Graph, terms: &mut Vec<Term>, kind: Kind, loc: &Loc) {
    let mut i = 0;
    while i < terms.len() {
        let found = (i + 1..terms.len()).find_map(|j| {
            let size = |t: &Term| g.as_const(t.v).map_or(0, |t| t.bytes().len());
            let limit = size(&terms[i]).max(size(&terms[j]));
            let both = folded(g, terms[i], terms[j], kind).filter(|(t, _)| t.bytes().len() <= limit);
            both.map(|b| (j, b))
        });
        let Some((j, (t, inverse))) = found else {
            i += 1;
            continue;
        };
        let Ok(v) = g.add_const(t, loc) else { return };
        terms[i] = Term { v, inverse };
        terms.remove(j);
    }
}

/// Two constant terms as one, if it may move.
fn folded(g: &Graph, a: Term, b: Term, kind: Kind) -> Option<(Tensor, bool)> {
    let (op, inverse) = kind.ops();
    let (x, y) = (g.as_const(a.v)?, g.as_const(b.v)?);
    if !movable(x, kind) || !movable(y, kind) {
        return None;
    }
    let (t, sign) = match (a.inverse, b.inverse) {
        (false, true) => (constant(inverse, x, y)?, false),
        (true, false) => (constant(inverse, y, x)?, false),
        (both, _) => (constant(op, x, y)?, both),
    };
    movable(&t, kind).then_some((t, sign))
}

/// Two terms as one; constants are computed.
pub fn join(g: &mut Graph, a: Term, b: Term, kind: Kind, loc: &Loc) -> Option<Term> {
    if let Some((t, inverse)) = folded(g, a, b, kind) {
        return g.add_const(t, loc).ok().map(|v| Term { v, inverse });
    }
    let (op, inverse) = kind.ops();
    let (op, x, y, inverse) = match (a.inverse, b.inverse) {
        (false, true) => (inverse, a.v, b.v, false),
        (true, false) => (inverse, b.v, a.v, false),
        (both, _) => (op, a.v, b.v, both),
    };
    add(g, Op::Binary(op), &[x, y], loc).map(|v| Term { v, inverse })
}

/// The value of all terms: those of the smallest result first, others in their order.
fn combine(g: &mut Graph, root: ValueId, mut terms: Vec<Term>, kind: Kind, loc: &Loc) -> Option<ValueId> {
    let ty = g.ty(root).clone();
    let neutral = i32::from(kind == Kind::Product);
    if terms.iter().any(|t| g.as_const(t.v).is_none() && *g.ty(t.v) == ty) {
        terms.retain(|t| g.as_const(t.v).is_none_or(|c| !all(c, neutral)));
    }
    if kind == Kind::Sum {
        join_bias(g, &mut terms, loc)?;
    }
    while terms.len() > 1 {
        let (_, i, j) = (0..terms.len())
            .flat_map(|i| (i + 1..terms.len()).map(move |j| (i, j)))
            .filter(|&(i, j)| !apart(g, terms[i], terms[j], kind))
            .filter_map(|(i, j)| Some((elements(g, terms[i].v, terms[j].v)?, i, j)))
            .min()?;
        terms[i] = join(g, terms[i], terms[j], kind, loc)?;
        terms.remove(j);
    }
    let last = *terms.first()?;
    let v = match (last.inverse, kind) {
        (false, _) => last.v,
        (true, Kind::Sum) => add(g, Op::Unary(UnaryOp::Neg), &[last.v], loc)?,
        (true, Kind::Product) => return None,
    };
    (*g.ty(v) == ty).then_some(v)
}

/// Whether two terms are constants that must not meet.
fn apart(g: &Graph, a: Term, b: Term, kind: Kind) -> bool {
    g.as_const(a.v).is_some() && g.as_const(b.v).is_some() && folded(g, a, b, kind).is_none()
}

/// A constant by column goes to a product that can take it up as its bias.
fn join_bias(g: &mut Graph, terms: &mut Vec<Term>, loc: &Loc) -> Option<()> {
    let product = |t: &Term| !t.inverse && matches!(g.op(t.v), Op::MatMul { .. } | Op::Linear(_));
    let bias = |t: &Term| {
        let shape = &g.ty(t.v).shape;
        g.as_const(t.v).is_some() && shape.iter().rev().skip(1).all(is_one)
    };
    let (Some(i), Some(j)) = (terms.iter().position(product), terms.iter().position(bias)) else { return Some(()) };
    let (a, b) = (terms[i], terms[j]);
    if elements(g, a.v, b.v) == elements(g, a.v, a.v) {
        terms[i] = join(g, a, b, Kind::Sum, loc)?;
        terms.remove(j);
    }
    Some(())
}

/// Elements of the broadcast of two values, for an order only: with every dim large.
fn elements(g: &Graph, a: ValueId, b: ValueId) -> Option<i64> {
    let shape = broadcast_shapes(&g.ty(a).shape, &g.ty(b).shape, &g.symbols).ok()?;
    let point: Vec<i64> = g.symbols.iter().map(|(_, s)| s.max.min(64)).collect();
    Dim::product(&shape)?.eval(&point)
}
