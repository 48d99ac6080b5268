//! Linear of linear, and linear with a linear residual.

use bertc_ir::{BinaryOp, Graph, Op, Tensor, ValueId};

use super::accept::Budget;
use super::constants::constant;
use crate::build::add;
use crate::linear::Parts;
use crate::pattern::{Rewrite, single_user};

/// A bound on the multiply-adds of a constant product, which the compiler does.
const MAX_PRODUCT: usize = 1 << 28;

/// A cheaper form of the `linear` `v`.
pub fn rewrite(g: &mut Graph, budget: &mut Budget, v: ValueId) -> Rewrite {
    let Some(p) = Parts::of(g, v) else { return Ok(None) };
    if let Some(new) = residual(g, v, &p) {
        return take(g, budget, v, new);
    }
    let Some(inner) = Parts::of(g, p.a).filter(Parts::is_plain) else { return Ok(None) };
    match composed(g, v, &p, &inner)? {
        Some(new) => take(g, budget, v, new),
        None => Ok(None),
    }
}

fn take(g: &mut Graph, budget: &mut Budget, v: ValueId, new: ValueId) -> Rewrite {
    let Some(gain) = budget.gain(g, v, new)? else { return Ok(None) };
    budget.pay(&gain);
    Ok(Some(new))
}

/// `x·V + d + (x·U + c)` or `y·U + d + (x·U + c)` as one product.
fn residual(g: &mut Graph, v: ValueId, p: &Parts) -> Option<ValueId> {
    let loc = g.node(v).loc.clone();
    let r = p.residual?;
    let q = Parts::of(g, r)?;
    if p.act.is_some() || q.act.is_some() || q.norm.is_some() || single_user(g, r) != Some(v) || p.trans_b != q.trans_b
    {
        return None;
    }
    let bias = match (p.bias, q.bias) {
        (Some(a), Some(b)) => Some(sum(g, a, b, v)?),
        (a, b) => a.or(b),
    };
    let (a, b) = if p.a == q.a {
        (p.a, sum(g, q.b, p.b, v)?)
    } else if p.b == q.b && g.ty(p.a) == g.ty(q.a) {
        (add(g, Op::Binary(BinaryOp::Add), &[q.a, p.a], &loc)?, p.b)
    } else {
        return None;
    };
    Parts { a, b, bias, residual: q.residual, ..*p }.build(g, &loc).ok()
}

/// `x + y`; of constants at compile time, where it is finite.
fn sum(g: &mut Graph, x: ValueId, y: ValueId, at: ValueId) -> Option<ValueId> {
    let loc = g.node(at).loc.clone();
    match (g.as_const(x), g.as_const(y)) {
        (Some(a), Some(b)) => {
            let t = constant(BinaryOp::Add, a, b)?;
            g.add_const(t, &loc).ok()
        }
        _ => add(g, Op::Binary(BinaryOp::Add), &[x, y], &loc),
    }
}

/// `(x·U + c)·V + d` as `x·(U·V) + (c·V + d)`.
fn composed(g: &mut Graph, v: ValueId, p: &Parts, inner: &Parts) -> Rewrite {
    let constants = [Some(p.b), Some(inner.b), p.bias, inner.bias];
    if constants.into_iter().flatten().any(|c| g.as_const(c).is_none()) {
        return Ok(None);
    }
    let (Some((k, r)), Some((_, n))) = (sizes(g, inner), sizes(g, p)) else { return Ok(None) };
    let product = k.saturating_mul(n);
    let alone = single_user(g, p.a) == Some(v);
    let before = r.saturating_mul(n).saturating_add(if alone { k.saturating_mul(r) } else { 0 });
    if product >= before {
        let other = if alone { "" } else { ", as the inner one stays for its other uses" };
        return Err(format!("one {k}x{n} product costs no less than through {r}{other}"));
    }
    if product.saturating_mul(r) > MAX_PRODUCT {
        return Err(format!("the matrices of {k}x{r} and {r}x{n} are too large to multiply in the compiler"));
    }
    let (Some(first), Some(second)) = (Matrix::of(g, inner), Matrix::of(g, p)) else { return Ok(None) };
    let fail = || "the product of the matrices is not finite".to_string();
    let w = first.times(&second).and_then(|w| finite(vec![k, n], &w)).ok_or_else(fail)?;
    let bias = match inner.bias.and_then(|c| g.as_const(c)) {
        Some(c) => {
            let c = Matrix { rows: 1, columns: r, elements: c.to_f64_vec() };
            let mut sum = c.times(&second).ok_or_else(fail)?;
            if let Some(d) = p.bias.and_then(|d| g.as_const(d)) {
                sum.iter_mut().zip(d.to_f64_vec()).for_each(|(s, d)| *s += d);
            }
            Some(finite(vec![n], &sum).ok_or_else(fail)?)
        }
        None => None,
    };
    let loc = g.node(v).loc.clone();
    let b = g.add_const(w, &loc).map_err(|d| d.message)?;
    let bias = match bias {
        Some(t) => Some(g.add_const(t, &loc).map_err(|d| d.message)?),
        None => p.bias,
    };
    let new = Parts { a: inner.a, b, trans_b: false, bias, ..*p };
    new.build(g, &loc).map(Some).map_err(|d| d.message)
}

/// Rows and columns of the constant matrix of a `linear`, as its operand's rows see it.
fn sizes(g: &Graph, p: &Parts) -> Option<(usize, usize)> {
    match (g.as_const(p.b)?.shape(), p.trans_b) {
        (&[k, n], false) | (&[n, k], true) => Some((k, n)),
        _ => None,
    }
}

/// A matrix by rows.
struct Matrix {
    rows: usize,
    columns: usize,
    elements: Vec<f64>,
}

impl Matrix {
    /// That of [`sizes`].
    fn of(g: &Graph, p: &Parts) -> Option<Matrix> {
        let (rows, columns) = sizes(g, p)?;
        let e = g.as_const(p.b)?.to_f64_vec();
        if !p.trans_b {
            return Some(Matrix { rows, columns, elements: e });
        }
        let at = (0..rows).flat_map(|k| (0..columns).map(move |n| n * rows + k));
        Some(Matrix { rows, columns, elements: at.map(|i| e[i]).collect() })
    }

    fn times(&self, o: &Matrix) -> Option<Vec<f64>> {
        let mut all = vec![0.0; self.rows.checked_mul(o.columns)?];
        if o.columns == 0 || self.columns == 0 {
            return Some(all);
        }
        for (row, sums) in self.elements.chunks_exact(self.columns).zip(all.chunks_exact_mut(o.columns)) {
            for (&x, other) in row.iter().zip(o.elements.chunks_exact(o.columns)) {
                sums.iter_mut().zip(other).for_each(|(s, &y)| *s += x * y);
            }
        }
        Some(all)
    }
}

/// The f32 tensor of some elements, if they are finite in it.
fn finite(shape: Vec<usize>, elements: &[f64]) -> Option<Tensor> {
    let narrow: Vec<f32> = elements.iter().map(|&x| x as f32).collect();
    narrow.iter().all(|x| x.is_finite()).then(|| Tensor::from_f32(shape, &narrow))
}
