//! `merge-qkv`: products of one value with several constant matrices become one product, and slices of its result.
//!
//! ```text
//! %q = linear %x, %wq, %bq {bias = true}
//! %k = linear %x, %wk, %bk {bias = true}
//!   => %w = concat %wq, %wk {axis = 1}
//!      %b = concat %bq, %bk {axis = 0}
//!      %qk = linear %x, %w, %b {bias = true}
//!      %q = slice %qk {axis = last, start = 0, len = N}
//!      %k = slice %qk {axis = last, start = N, len = N}
//! ```
//!
//! Exact: every column is computed as before. The matrices are not copied: their concatenation stays an op, and the
//! backend packs it from its parts, for which each part has a multiple of 16 columns. Columns without a bias get 0.

use std::collections::BTreeMap;

use bertc_ir::{DType, Diag, Dim, Graph, Op, ValueId};

use crate::build;
use crate::linear::{Parts, Scaling};
use crate::pass::{Pass, PassContext};
use crate::pattern::{applied, remark, single_user, splat};

/// The pass.
pub struct MergeQkv;

/// Columns of a panel of packed weights.
const PANEL: i64 = 16;

impl Pass for MergeQkv {
    fn name(&self) -> &'static str {
        "merge-qkv"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut by_operand: BTreeMap<ValueId, Vec<(ValueId, Parts)>> = BTreeMap::new();
        for v in g.topo() {
            if let Some(p) = Parts::of_any(g, v) {
                by_operand.entry(p.a).or_default().push((v, p));
            }
        }
        let mut changed = false;
        for mut candidates in by_operand.into_values().filter(|c| c.len() > 1) {
            // Queries, keys, values: in attention's order.
            candidates.sort_by_key(|&(v, _)| attention_operand(g, v));
            candidates.retain(|(v, p)| match obstacle(g, *v, p) {
                None => true,
                Some(reason) => {
                    remark(g, ctx, self.name(), *v, reason);
                    false
                }
            });
            if candidates.len() < 2 {
                continue;
            }
            while let Some(&(first, p)) = candidates.first() {
                let left = |q: &Parts| q.scaling.map(|s| (s.scale, s.zero));
                let same = |q: &Parts| q.trans_b == p.trans_b && q.act == p.act && left(q) == left(&p);
                let (group, rest): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|(_, q)| same(q));
                if group.len() > 1 {
                    let what = format!("one of {} products of its operand that became one", group.len());
                    applied(g, ctx, self.name(), first, &what);
                    merge(g, &group).map_err(|d| d.at(g.node(first).loc.clone()))?;
                    changed = true;
                } else {
                    let reason =
                        "it differs in orientation, activation or scale from the other products of its operand";
                    remark(g, ctx, self.name(), first, reason);
                }
                candidates = rest;
            }
        }
        if changed {
            g.remove_dead();
        }
        Ok(changed)
    }
}

/// The position of `v` among the operands of the attention that uses it; last if there is none.
fn attention_operand(g: &Graph, v: ValueId) -> usize {
    let position = |u: ValueId| match g.op(u) {
        Op::Attention(_) => g.operands(u).iter().position(|&o| o == v),
        _ => None,
    };
    g.users(v).into_iter().filter_map(position).min().unwrap_or(usize::MAX)
}

/// What keeps a product from being merged.
fn obstacle(g: &Graph, v: ValueId, p: &Parts) -> Option<&'static str> {
    let columns = columns(g, p).and_then(|n| n.as_const());
    if p.residual.is_some() || p.norm.is_some() {
        Some("it has a residual or a layer norm")
    } else if single_user(g, v).is_some_and(|u| matches!(g.op(u), Op::Quantise { .. })) {
        Some("its result is quantised by itself, which its kernel does")
    } else if g.as_const(p.b).is_none() {
        Some("the matrix is not a constant")
    } else if p.bias.is_some_and(|b| g.as_const(b).is_none()) {
        Some("the bias is not a constant")
    } else if columns.is_none_or(|n| n % PANEL != 0 || n == 0) {
        Some("its columns are not a multiple of 16")
    } else {
        None
    }
}

fn columns(g: &Graph, p: &Parts) -> Option<Dim> {
    g.ty(p.b).shape.get(usize::from(!p.trans_b)).cloned()
}

fn merge(g: &mut Graph, group: &[(ValueId, Parts)]) -> Result<(), Diag> {
    let p = group[0].1;
    let loc = g.node(group[0].0).loc.clone();
    let matrices: Vec<ValueId> = group.iter().map(|(_, q)| q.b).collect();
    let b = g.add(Op::Concat { axis: usize::from(!p.trans_b) }, &matrices, &loc)?;
    let mut bias = None;
    if group.iter().any(|(_, q)| q.bias.is_some()) {
        let mut parts = Vec::new();
        for (_, q) in group {
            let zeros = |g: &mut Graph| {
                let n = columns(g, q)?;
                splat(g, DType::F32, &n, 0.0, &loc)
            };
            let some = q.bias.or_else(|| zeros(g));
            parts.push(some.ok_or_else(|| Diag::new("a bias of zeros can't be made"))?);
        }
        bias = Some(g.add(Op::Concat { axis: 0 }, &parts, &loc)?);
    }
    let scales: Vec<ValueId> = group.iter().filter_map(|(_, q)| q.scaling.map(|s| s.columns)).collect();
    let scaling = match p.scaling {
        Some(s) => Some(Scaling { columns: g.add(Op::Concat { axis: 0 }, &scales, &loc)?, ..s }),
        None => None,
    };
    let all = Parts { b, scaling, bias, ..p }.build(g, &loc)?;
    let axis = g.ty(all).rank() - 1;
    let mut start = Dim::constant(0);
    for (v, q) in group {
        let fail = || Diag::new("a slice of the merged product can't be made");
        let n = columns(g, q).ok_or_else(fail)?;
        let loc = g.node(*v).loc.clone();
        let y = build::slice(g, all, axis, start.clone(), n.clone(), 1, &loc).ok_or_else(fail)?;
        g.replace(*v, y)?;
        start = start.add(&n).ok_or_else(fail)?;
    }
    Ok(())
}
