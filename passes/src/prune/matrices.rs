//! The matrices that can be pruned.

use std::collections::BTreeMap;

use bertc_ir::{DType, Graph, Linear, Op, Tensor, ValueId};

use crate::measure::{constants, names};

/// Matrices of fewer outputs stay as they are.
const MIN_OUTPUTS: i64 = 16;

/// A constant matrix, as products read it.
#[derive(Clone, Debug)]
pub struct Found {
    /// The constant, or what widens it.
    pub value: ValueId,
    /// The axis of the constant that the outputs lie along.
    pub axis: usize,
    /// Outputs.
    pub n: usize,
    /// Inputs.
    pub k: usize,
    /// The products that read it.
    pub products: Vec<ValueId>,
    /// What the model calls it; at least one.
    pub names: Vec<String>,
}

impl Found {
    /// Its first name.
    pub fn name(&self) -> &str {
        self.names.first().map_or("", String::as_str)
    }
}

/// A product and why its matrix is left as it is.
pub type Missed = (ValueId, &'static str);

/// The matrix, or the matrices side by side, that a product in floats reads, and the axis of its outputs.
pub fn parts(g: &Graph, v: ValueId) -> Result<(Vec<ValueId>, usize), &'static str> {
    let trans_b = match *g.op(v) {
        Op::Linear(Linear { int8: false, trans_b, .. }) | Op::MatMul { trans_b } => trans_b,
        _ => return Err("its operands are integers"),
    };
    let b = g.operands(v)[1];
    let axis = usize::from(!trans_b);
    if g.operands(v)[..2].iter().any(|&o| g.ty(o).dtype != DType::F32) {
        return Err("its operands are not f32");
    }
    if g.ty(b).rank() != 2 {
        return Err("the matrix is not of rank 2");
    }
    let parts = match g.op(b) {
        Op::Concat { axis: along } if *along != axis => return Err("the matrix is put together along its inputs"),
        Op::Concat { .. } => g.operands(b).to_vec(),
        _ => vec![b],
    };
    if parts.iter().any(|&p| constants::constant(g, p).is_none()) {
        return Err("the matrix is not an f32 constant");
    }
    if g.ty(b).shape[axis].as_const().is_none_or(|n| n < MIN_OUTPUTS) {
        return Err("it has few outputs");
    }
    if reads_otherwise(g, b, axis) || parts.iter().any(|&p| p != b && reads_otherwise(g, p, axis)) {
        return Err("something else reads the matrix");
    }
    Ok((parts, axis))
}

/// Whether anything reads `b` that is no product with it whose outputs lie along `axis`.
fn reads_otherwise(g: &Graph, b: ValueId, axis: usize) -> bool {
    let as_matrix = |u: ValueId| match *g.op(u) {
        Op::Linear(Linear { int8: false, trans_b, .. }) | Op::MatMul { trans_b } => {
            let o = g.operands(u);
            usize::from(!trans_b) == axis && o.iter().enumerate().all(|(i, &o)| (i == 1) == (o == b))
        }
        Op::Concat { axis: along } => along == axis && !reads_otherwise(g, u, axis),
        _ => false,
    };
    g.is_output(b) || !g.users(b).into_iter().all(as_matrix)
}

/// All matrices in the order of their first products, and what is left as it is.
pub fn find(g: &Graph, known: &[(Tensor, String)]) -> (Vec<Found>, Vec<Missed>) {
    let (mut all, mut missed) = (Vec::<Found>::new(), Vec::new());
    let mut at: BTreeMap<ValueId, usize> = BTreeMap::new();
    for v in g.topo() {
        if !matches!(g.op(v), Op::Linear(_) | Op::MatMul { .. }) {
            continue;
        }
        let (parts, axis) = match parts(g, v) {
            Ok(found) => found,
            Err(reason) => {
                missed.push((v, reason));
                continue;
            }
        };
        let merged = parts.len() > 1;
        let mut start = 0;
        for part in parts {
            let Some(t) = constants::constant(g, part) else { continue };
            let &[x, y] = t.shape() else { continue };
            let (n, k) = if axis == 0 { (x, y) } else { (y, x) };
            // What the model calls products that were merged stands at the slices of the merged one.
            let own = if merged { sliced(g, v, start) } else { Some(v) };
            start += n;
            let names = names::of(g, known, &[t], own.into_iter(), false);
            let i = *at.entry(part).or_insert_with(|| {
                all.push(Found { value: part, axis, n, k, products: Vec::new(), names: Vec::new() });
                all.len() - 1
            });
            if !all[i].products.contains(&v) {
                all[i].products.push(v);
            }
            for name in names {
                if !all[i].names.contains(&name) {
                    all[i].names.push(name);
                }
            }
        }
    }
    for m in all.iter_mut().filter(|m| m.names.is_empty()) {
        m.names.push(format!("%{}", m.value.0));
    }
    (all, missed)
}

/// The slice of a product's last axis that starts at a column.
fn sliced(g: &Graph, v: ValueId, start: usize) -> Option<ValueId> {
    let last = g.ty(v).rank().checked_sub(1)?;
    g.users(v).into_iter().find(|&u| match g.op(u) {
        Op::Slice { axis, start: at, .. } => *axis == last && at.as_const() == i64::try_from(start).ok(),
        _ => false,
    })
}
