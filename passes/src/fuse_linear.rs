//! `fuse-linear`: a product with a matrix becomes `linear`, and takes up what follows it: bias, activation, residual,
//! layer norm.
//!
//! ```text
//! %0 = matmul %x, %w
//! %1 = add %bias, %0
//! %2 = add %1, %y                        (of the same type)
//! %3 = layer_norm %2, %gamma, %beta
//!   => linear %x, %w, %bias, %y, %gamma, %beta {bias, residual, norm}
//! ```
//!
//! Each step takes up the only user of a value that is no output. A reshape that keeps the last dim goes before the
//! product. The results differ by rounding where a bias follows the residual: the sum is taken in the op's order.

use bertc_ir::op::ACTIVATIONS;
use bertc_ir::{BinaryOp, DType, Diag, Dim, Graph, Op, ValueId};

use crate::build::is_one;
use crate::linear::Parts;
use crate::pass::{Pass, PassContext};
use crate::pattern::{applied, remark, reshape, single_user, vector};

/// The pass.
pub struct FuseLinear;

impl Pass for FuseLinear {
    fn name(&self) -> &'static str {
        "fuse-linear"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut changed = g.remove_dead() > 0;
        for v in g.topo() {
            if !g.contains(v) {
                continue;
            }
            let mut at = v;
            match g.op(v) {
                Op::MatMul { trans_b } => match product(g, v, *trans_b) {
                    Ok(Some(new)) => {
                        g.replace(v, new)?;
                        g.remove_dead();
                        (at, changed) = (new, true);
                    }
                    Ok(None) => continue,
                    Err(reason) => {
                        remark(g, ctx, self.name(), v, &reason);
                        continue;
                    }
                },
                Op::Linear(_) => {}
                _ => continue,
            }
            let before = Parts::of_any(g, at).filter(|_| at == v);
            loop {
                match grow(g, at) {
                    Ok(Some((user, new))) => {
                        g.replace(user, new)?;
                        (at, changed) = (new, true);
                    }
                    Ok(None) => break,
                    Err(reason) => {
                        remark(g, ctx, self.name(), at, &reason);
                        break;
                    }
                }
                g.remove_dead();
            }
            if let Some(p) = Parts::of_any(g, at)
                && at != v
            {
                applied(g, ctx, self.name(), at, &taken_up(&p, before.as_ref()));
            }
            g.remove_dead();
        }
        Ok(changed)
    }
}

/// What a product is now, in words, and what of it is new.
fn taken_up(p: &Parts, before: Option<&Parts>) -> String {
    let parts = |p: &Parts| {
        let act = p.act.map(|a| Op::Unary(a).name());
        let residual = p.residual.map(|_| "residual");
        [p.bias.map(|_| "bias"), act, residual, p.norm.map(|_| "layer norm")]
    };
    let old = before.map_or([None; 4], parts);
    let new: Vec<_> = parts(p).into_iter().zip(old).filter_map(|(n, o)| n.filter(|_| o.is_none())).collect();
    match new.is_empty() {
        true if before.is_some() => "moved behind a reshape".to_string(),
        true => "a product alone".to_string(),
        false => format!("fused with {}", new.join(", ")),
    }
}

/// The `linear` that a `matmul` is.
fn product(g: &mut Graph, v: ValueId, trans_b: bool) -> Result<Option<ValueId>, String> {
    let (a, mut b) = (g.operands(v)[0], g.operands(v)[1]);
    let loc = g.node(v).loc.clone();
    let shape = g.ty(b).shape.clone();
    let (batch, matrix) = shape.split_at(shape.len() - 2);
    if !batch.is_empty() {
        // Products of computed matrices are attention's, even where there is one of each.
        if !batch.iter().all(is_one) || g.as_const(b).is_none() || batch.len() + 2 > g.ty(a).rank() {
            return Ok(None);
        }
        b = reshape(g, b, matrix.to_vec(), &loc).ok_or("the matrix can't be reshaped")?;
    }
    if g.ty(v).dtype != DType::F32 {
        return Err(format!("the operands are {}, not f32", g.ty(v).dtype));
    }
    let p = Parts { a, b, trans_b, scaling: None, bias: None, act: None, residual: None, norm: None };
    p.build(g, &loc).map(Some).map_err(|d| d.message)
}

/// The user of the `linear` `v` and what replaces both.
fn grow(g: &mut Graph, v: ValueId) -> Result<Option<(ValueId, ValueId)>, String> {
    let Some(p) = Parts::of_any(g, v) else { return Ok(None) };
    let Some(u) = single_user(g, v) else { return stopped(g, v, &p) };
    let node = g.node(u).clone();
    let same_type = node.ty == *g.ty(v);
    let n = last(g, v);
    let new = match &node.op {
        Op::Reshape { shape } => {
            if shape.len() < 2 || shape.last() != Some(&n) {
                return Ok(None);
            }
            return moved(g, &p, shape, &node.loc).map(|new| Some((u, new)));
        }
        Op::Binary(BinaryOp::Add) if p.norm.is_none() => {
            let other = if node.operands[0] == v { node.operands[1] } else { node.operands[0] };
            let bias = if same_type && p.bias.is_none() && p.act.is_none() { vector(g, other, &n) } else { None };
            if bias.is_some() {
                Parts { bias, ..p }
            } else if p.residual.is_some() {
                return Err("a second residual is added".to_string());
            } else if g.ty(other) != g.ty(v) {
                return Err("what is added broadcasts, so it is no residual".to_string());
            } else {
                Parts { residual: Some(other), ..p }
            }
        }
        Op::Unary(act) if p.is_plain() && ACTIVATIONS.contains(act) => Parts { act: Some(*act), ..p },
        Op::LayerNorm { eps } if p.norm.is_none() && node.operands[0] == v => {
            Parts { norm: Some((*eps, node.operands[1], node.operands[2])), ..p }
        }
        _ => return Ok(None),
    };
    let new = new.build(g, &node.loc).map_err(|d| d.message)?;
    Ok(Some((u, new)))
}

fn last(g: &Graph, v: ValueId) -> Dim {
    let shape = &g.ty(v).shape;
    shape[shape.len() - 1].clone()
}

/// The same product on reshaped rows.
fn moved(g: &mut Graph, p: &Parts, shape: &[Dim], loc: &bertc_ir::Loc) -> Result<ValueId, String> {
    let fail = || "the rows can't be reshaped".to_string();
    let mut rows = shape.to_vec();
    rows[shape.len() - 1] = last(g, p.a);
    let a = reshape(g, p.a, rows, loc).ok_or_else(fail)?;
    let residual = match p.residual {
        Some(r) => Some(reshape(g, r, shape.to_vec(), loc).ok_or_else(fail)?),
        None => None,
    };
    Parts { a, residual, ..*p }.build(g, loc).map_err(|d| d.message)
}

/// A `linear` with other users than one: worth a remark where one of them could have been taken up.
fn stopped(g: &Graph, v: ValueId, p: &Parts) -> Result<Option<(ValueId, ValueId)>, String> {
    let fits = |u: &ValueId| match g.op(*u) {
        Op::Unary(act) => p.is_plain() && ACTIVATIONS.contains(act),
        Op::LayerNorm { .. } => p.norm.is_none() && g.operands(*u)[0] == v,
        _ => false,
    };
    if g.users(v).iter().any(fits) { Err("its result has other uses".to_string()) } else { Ok(None) }
}
