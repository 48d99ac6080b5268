//! `fuse-gelu`: `x/2·(1 + erf(x/√2))` becomes `gelu`, `x/2·(1 + tanh(√(2/π)(x + 0.044715x³)))` becomes `gelu_tanh`.
//!
//! The factors may come in any order and the sums in any form: what goes into erf or tanh is compared as a polynomial in
//! x, and what comes out of it as a polynomial in that. Constants may differ by 1 in 4,000, because models converted to
//! f16 hold rounded ones (√2 is 1.4140625 there); the result then moves by at most 8e-5.

use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use bertc_ir::{BinaryOp, Diag, Graph, Op, UnaryOp, ValueId};

use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, binary, rewrite, scalar, single_user};

/// The pass.
pub struct FuseGelu;

impl Pass for FuseGelu {
    fn name(&self) -> &'static str {
        "fuse-gelu"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        rewrite(g, ctx, self.name(), rule)
    }
}

/// Coefficients of a polynomial, constant first.
type Poly = [f64; 4];

/// How deep an expression is followed.
const DEPTH: usize = 8;

fn times(a: &Poly, b: &Poly) -> Option<Poly> {
    let mut r = [0.0; 4];
    for (i, x) in a.iter().enumerate() {
        for (j, y) in b.iter().enumerate() {
            match r.get_mut(i + j) {
                Some(c) => *c += x * y,
                None if x * y == 0.0 => {}
                None => return None,
            }
        }
    }
    Some(r)
}

/// `v` as a polynomial in `x` of degree at most 3.
fn poly(g: &Graph, v: ValueId, x: ValueId, depth: usize) -> Option<Poly> {
    if v == x {
        return Some([0.0, 1.0, 0.0, 0.0]);
    }
    if let Some(c) = scalar(g, v) {
        return Some([c, 0.0, 0.0, 0.0]);
    }
    let depth = depth.checked_sub(1)?;
    let of = |i: usize| poly(g, g.operands(v)[i], x, depth);
    let combine = |f: fn(f64, f64) -> f64| {
        let (a, b) = (of(0)?, of(1)?);
        Some(std::array::from_fn(|i| f(a[i], b[i])))
    };
    match g.op(v) {
        Op::Binary(BinaryOp::Add) => combine(|a, b| a + b),
        Op::Binary(BinaryOp::Sub) => combine(|a, b| a - b),
        Op::Binary(BinaryOp::Mul) => times(&of(0)?, &of(1)?),
        Op::Binary(BinaryOp::Div) => {
            let c = scalar(g, g.operands(v)[1])?;
            of(0).map(|p| p.map(|a| a / c))
        }
        Op::Binary(BinaryOp::Pow) => {
            let (p, n) = (of(0)?, scalar(g, g.operands(v)[1])?);
            match n {
                2.0 => times(&p, &p),
                3.0 => times(&times(&p, &p)?, &p),
                _ => None,
            }
        }
        Op::Unary(UnaryOp::Neg) => of(0).map(|p| p.map(|a| -a)),
        _ => None,
    }
}

fn close(a: &Poly, b: &Poly) -> bool {
    a.iter().zip(b).all(|(x, y)| (x - y).abs() <= 2.5e-4 * y.abs())
}

/// Operands of the arithmetic that [`poly`] knows, and theirs.
fn below(g: &Graph, v: ValueId, depth: usize, found: &mut Vec<ValueId>) {
    if found.contains(&v) {
        return;
    }
    found.push(v);
    use BinaryOp::{Add, Div, Mul, Pow, Sub};
    if depth > 0 && matches!(g.op(v), Op::Binary(Add | Sub | Mul | Div | Pow) | Op::Unary(UnaryOp::Neg)) {
        g.operands(v).iter().for_each(|&o| below(g, o, depth - 1, found));
    }
}

/// The factors of a product, with `stop` undivided, and the product of the constants among them.
fn factors(g: &Graph, v: ValueId, stop: ValueId, depth: usize, found: &mut Vec<ValueId>) -> f64 {
    if let Some(c) = scalar(g, v) {
        return c;
    }
    if v != stop && depth > 0 {
        if let Some((a, b)) = binary(g, v, BinaryOp::Mul) {
            return factors(g, a, stop, depth - 1, found) * factors(g, b, stop, depth - 1, found);
        }
        if let Some((a, c)) = binary(g, v, BinaryOp::Div).and_then(|(a, b)| Some((a, scalar(g, b)?))) {
            return factors(g, a, stop, depth - 1, found) / c;
        }
    }
    found.push(v);
    1.0
}

fn rule(g: &mut Graph, v: ValueId) -> Rewrite {
    if !matches!(g.op(v), Op::Binary(BinaryOp::Mul | BinaryOp::Div)) {
        return Ok(None);
    }
    let mut nodes = Vec::new();
    below(g, v, DEPTH, &mut nodes);
    let function = |v: &ValueId| matches!(g.op(*v), Op::Unary(UnaryOp::Erf | UnaryOp::Tanh));
    let mut found = None;
    for &e in nodes.iter().filter(|v| function(v)) {
        let (what, want) = match g.op(e) {
            Op::Unary(UnaryOp::Erf) => (UnaryOp::Gelu, [0.0, FRAC_1_SQRT_2, 0.0, 0.0]),
            _ => {
                let k = FRAC_2_PI.sqrt();
                (UnaryOp::GeluTanh, [0.0, k, 0.0, 0.044_715 * k])
            }
        };
        let argument = g.operands(e)[0];
        let mut inside = Vec::new();
        below(g, argument, DEPTH, &mut inside);
        for &x in inside.iter().filter(|&&x| nodes.contains(&x) && scalar(g, x).is_none()) {
            if !poly(g, argument, x, DEPTH).is_some_and(|p| close(&p, &want)) {
                continue;
            }
            let mut rest = Vec::new();
            let c = factors(g, v, x, DEPTH, &mut rest);
            let Some(at) = rest.iter().position(|&r| r == x) else { continue };
            rest.swap_remove(at);
            let [other] = rest[..] else { continue };
            let half = poly(g, other, e, DEPTH).is_some_and(|p| close(&p.map(|a| a * c), &[0.5, 0.5, 0.0, 0.0]));
            if half && g.ty(v) == g.ty(x) {
                found = Some((what, x));
            }
        }
    }
    if let Some((what, x)) = found {
        let loc = g.node(v).loc.clone();
        return g.add(Op::Unary(what), &[x], &loc).map(Some).map_err(|d| d.message);
    }
    reason(g, v)
}

/// Why a product with `1 + erf` or `1 + tanh` among its factors was not matched.
fn reason(g: &Graph, v: ValueId) -> Rewrite {
    // A factor may be missing that comes further down.
    let grows = single_user(g, v).is_some_and(|u| matches!(g.op(u), Op::Binary(BinaryOp::Mul | BinaryOp::Div)));
    let mut parts = Vec::new();
    for &o in g.operands(v) {
        factors(g, o, v, DEPTH, &mut parts);
    }
    let gate = |v: &ValueId| {
        let e = binary(g, *v, BinaryOp::Add).and_then(|(a, b)| match (scalar(g, a), scalar(g, b)) {
            (None, Some(_)) => Some(a),
            (Some(_), None) => Some(b),
            _ => None,
        });
        e.is_some_and(|e| matches!(g.op(e), Op::Unary(UnaryOp::Erf | UnaryOp::Tanh)))
    };
    if !grows && parts.iter().any(gate) {
        return Err("the arguments, factors or constants are not those of gelu".to_string());
    }
    Ok(None)
}
