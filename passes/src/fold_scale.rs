//! `fold-scale`: arithmetic with constants moves to where it costs nothing.
//!
//! - A product or quotient of a `linear` with a number, or with one number a column, goes into its matrix and bias.
//! - The scale of an attention goes into the matrix and bias of the `linear` that makes its queries.
//!
//! A rewrite is taken where it removes an op (or a factor) from run time. Its price is a copy of the matrix in the
//! compiled model, shared by all products that scale it alike; it is not paid for a matrix that something else than
//! products reads, such as an embedding table. Results differ by rounding; none is taken that overflows.

use std::collections::BTreeMap;

use bertc_ir::{Attention, BinaryOp, DType, Diag, Graph, Op, Scalar, Tensor, ValueId};

use crate::linear::Parts;
use crate::pass::{Pass, PassContext};
use crate::pattern::{Rewrite, either, rewrite_as, scalar, single_user, vector};
use crate::reassociate::constants::constant;

/// The pass.
pub struct FoldScale;

impl Pass for FoldScale {
    fn name(&self) -> &'static str {
        "fold-scale"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut copies = Copies::default();
        rewrite_as(g, ctx, self.name(), "folded into", |g, v| match *g.op(v) {
            Op::Binary(op @ (BinaryOp::Mul | BinaryOp::Div)) => after_linear(g, &mut copies, v, op),
            Op::Attention(a) if a.scale != 1.0 => queries(g, &mut copies, v, a),
            _ => Ok(None),
        })
    }
}

/// Scaled constants by what they are made of, so that equal ones are one. Live as long as a user is.
#[derive(Default)]
struct Copies(BTreeMap<(ValueId, Vec<u8>, bool), ValueId>);

impl Copies {
    /// `c op factor`; the factor is a number or has one element a column, which are `c`'s rows where `rows` says so.
    fn get(&mut self, g: &mut Graph, c: ValueId, op: BinaryOp, factor: &Tensor, rows: bool) -> Option<ValueId> {
        let column = rows && factor.len() > 1;
        let factor = if column { factor.reshaped(vec![factor.len(), 1])? } else { factor.clone() };
        let key = (c, factor.bytes().to_vec(), op == BinaryOp::Div);
        if let Some(&v) = self.0.get(&key).filter(|v| g.contains(**v)) {
            return Some(v);
        }
        let t = constant(op, g.as_const(c)?, &factor)?;
        let loc = g.node(c).loc.clone();
        let v = g.add_const(t, &loc).ok()?;
        self.0.insert(key, v);
        Some(v)
    }

    /// `p` with matrix and bias scaled.
    fn scaled(&mut self, g: &mut Graph, p: &Parts, op: BinaryOp, factor: &Tensor) -> Result<Parts, String> {
        if g.as_const(p.b).is_none() || p.bias.is_some_and(|b| g.as_const(b).is_none()) {
            return Err("matrix or bias of the product are not constants".to_string());
        }
        if g.users(p.b).iter().any(|&u| !matches!(g.op(u), Op::Linear(_))) || g.is_output(p.b) {
            return Err("the matrix is used by more than products".to_string());
        }
        let fail = || "scaled by the factor, the matrix is not finite".to_string();
        let b = self.get(g, p.b, op, factor, p.trans_b).ok_or_else(fail)?;
        let bias = match p.bias {
            Some(bias) => Some(self.get(g, bias, op, factor, false).ok_or_else(fail)?),
            None => None,
        };
        Ok(Parts { b, bias, ..*p })
    }
}

fn number(v: f32) -> Tensor {
    Tensor::scalar(DType::F32, Scalar::Float(v.into()))
}

/// A `linear` times or divided by constants.
fn after_linear(g: &mut Graph, copies: &mut Copies, v: ValueId, op: BinaryOp) -> Rewrite {
    let pairs: Vec<_> = match op {
        BinaryOp::Div => vec![(g.operands(v)[0], g.operands(v)[1])],
        _ => either(g, v, BinaryOp::Mul).collect(),
    };
    for (y, c) in pairs {
        let Some(p) = Parts::of(g, y).filter(Parts::is_plain) else { continue };
        if single_user(g, y) != Some(v) || g.ty(v) != g.ty(y) {
            continue;
        }
        let factor = match scalar(g, c) {
            Some(c) => number(c as f32),
            None => {
                let n = g.ty(y).shape.last().cloned().ok_or("the product is a scalar")?;
                let Some(t) = vector(g, c, &n).and_then(|c| constant_of(g, c)) else { continue };
                t
            }
        };
        let loc = g.node(v).loc.clone();
        return copies.scaled(g, &p, op, &factor)?.build(g, &loc).map(Some).map_err(|d| d.message);
    }
    Ok(None)
}

/// The constant that `v` is under reshapes.
fn constant_of(g: &Graph, v: ValueId) -> Option<Tensor> {
    let x = if let Op::Reshape { .. } = g.op(v) { g.operands(v)[0] } else { v };
    let t = g.as_const(x)?;
    t.reshaped(vec![t.len()])
}

/// The scale of an attention into its queries.
fn queries(g: &mut Graph, copies: &mut Copies, v: ValueId, a: Attention) -> Rewrite {
    let node = g.node(v).clone();
    let q = node.operands[0];
    let p = Parts::of(g, q).ok_or("the queries are not a product of their own")?;
    if !p.is_plain() || single_user(g, q) != Some(v) {
        return Err("the queries have an activation, a residual, a layer norm or other uses".to_string());
    }
    let scaled = copies.scaled(g, &p, BinaryOp::Mul, &number(a.scale))?;
    let q = scaled.build(g, &g.node(q).loc.clone()).map_err(|d| d.message)?;
    let mut operands = node.operands.to_vec();
    operands[0] = q;
    let op = Op::Attention(Attention { scale: 1.0, ..a });
    g.add(op, &operands, &node.loc).map(Some).map_err(|d| d.message)
}
