//! The distributive law, in both directions.

use bertc_ir::{BinaryOp, Graph, Loc, Op, ValueId};

use super::chain::{Kind, Term, flatten, join};
use crate::build::add;
use crate::pattern::single_user;

/// A term read as `common · rest`.
#[derive(Clone, Copy)]
struct Split {
    common: ValueId,
    rest: ValueId,
    by: By,
}

/// What multiplies them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    Elements,
    /// A matrix product with the common operand on its left.
    Left {
        trans_b: bool,
    },
    /// A matrix product with the common operand on its right.
    Right {
        trans_b: bool,
    },
}

fn splits(g: &Graph, v: ValueId) -> Vec<Split> {
    let o = g.operands(v);
    match *g.op(v) {
        Op::Binary(BinaryOp::Mul) => {
            let by = By::Elements;
            vec![Split { common: o[0], rest: o[1], by }, Split { common: o[1], rest: o[0], by }]
        }
        Op::MatMul { trans_b } => vec![
            Split { common: o[0], rest: o[1], by: By::Left { trans_b } },
            Split { common: o[1], rest: o[0], by: By::Right { trans_b } },
        ],
        _ => Vec::new(),
    }
}

/// Terms with a common factor become one: `a·b + a·c => a·(b + c)`. Tells whether there were any.
pub fn factor(g: &mut Graph, terms: &mut Vec<Term>, loc: &Loc) -> bool {
    let mut any = false;
    'again: loop {
        for i in 0..terms.len() {
            for j in i + 1..terms.len() {
                if let Some(t) = factored(g, terms[i], terms[j], loc) {
                    terms[i] = t;
                    terms.remove(j);
                    any = true;
                    continue 'again;
                }
            }
        }
        return any;
    }
}

fn factored(g: &mut Graph, a: Term, b: Term, loc: &Loc) -> Option<Term> {
    let (left, right) = (splits(g, a.v), splits(g, b.v));
    for x in left {
        let Some(y) = right.iter().find(|y| y.common == x.common && y.by == x.by) else { continue };
        let first = Term { v: x.rest, inverse: false };
        let rest = join(g, first, Term { v: y.rest, inverse: a.inverse != b.inverse }, Kind::Sum, loc)?.v;
        let (op, operands) = match x.by {
            By::Elements => (Op::Binary(BinaryOp::Mul), [x.common, rest]),
            By::Left { trans_b } => (Op::MatMul { trans_b }, [x.common, rest]),
            By::Right { trans_b } => (Op::MatMul { trans_b }, [rest, x.common]),
        };
        return add(g, op, &operands, loc).map(|v| Term { v, inverse: a.inverse });
    }
    None
}

/// The terms of a sum times or divided by a constant, where each has a constant of its own to take it up.
pub fn distribute(g: &mut Graph, product: &[Term], loc: &Loc) -> Option<Vec<Term>> {
    let (sum, c) = match product {
        [a, c] if g.as_const(c.v).is_some() => (*a, *c),
        [c, a] if g.as_const(c.v).is_some() => (*a, *c),
        _ => return None,
    };
    single_user(g, sum.v)?;
    let terms = flatten(g, sum.v, Kind::Sum);
    if terms.len() < 2 {
        return None;
    }
    let mut scaled = Vec::new();
    for t in terms {
        let mut factors = flatten(g, t.v, Kind::Product);
        let at = factors.iter().position(|f| g.as_const(f.v).is_some())?;
        factors[at] = join(g, factors[at], c, Kind::Product, loc)?;
        // A product with the constant could not be folded.
        g.as_const(factors[at].v)?;
        let mut all = factors.into_iter();
        let first = all.next()?;
        let joined = all.try_fold(first, |a, b| join(g, a, b, Kind::Product, loc))?;
        if joined.inverse {
            return None;
        }
        scaled.push(Term { v: joined.v, inverse: t.inverse });
    }
    Some(scaled)
}
