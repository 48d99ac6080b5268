//! What becomes of each matrix, and what samples tell of channels: factors that even them out, and outliers.

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::{Graph, Op, Tensor, ValueId};

use super::{candidate, splits, weights};
use crate::measure::product::wide;

/// What becomes of each candidate.
#[derive(Clone, Default)]
pub struct Plan {
    /// They stay as they are.
    pub kept: BTreeSet<ValueId>,
    /// What the channels of a product's left operand are multiplied by before they become integers, and the matrix's divided,
    /// with that operand: it is another value once the product that makes it is rewritten.
    pub factors: BTreeMap<ValueId, (ValueId, Vec<f32>)>,
    /// Channels of a product's left operand that stay floats.
    pub outliers: BTreeMap<ValueId, Vec<usize>>,
    /// What is added to each column of a product: what rounding takes from it in the mean.
    pub shifts: BTreeMap<ValueId, Vec<f32>>,
}

/// Tells factors of one graph apart: the left operand, and the product if its factors are its own.
pub type Key = (ValueId, Option<ValueId>);

/// What the channels of a product's left operand are multiplied by; 0 where they are not in its integers.
pub struct Channels {
    pub key: Key,
    pub factor: Vec<f32>,
}

impl Plan {
    /// The factors of the product `v`, if it has any.
    pub fn channels(&self, g: &Graph, v: ValueId) -> Option<Channels> {
        let factors = self.factors.get(&v);
        let Some(outliers) = self.outliers.get(&v) else {
            return factors.map(|(x, f)| Channels { key: (*x, None), factor: f.clone() });
        };
        let x = g.operands(v)[0];
        let count = || g.ty(x).shape.last().and_then(|k| usize::try_from(k.as_const()?).ok());
        let mut factor = factors.map(|f| f.1.clone()).or_else(|| Some(vec![1.0; count()?]))?;
        for &c in outliers {
            *factor.get_mut(c)? = 0.0;
        }
        Some(Channels { key: (v, Some(v)), factor })
    }
}

/// Magnitudes that are less than this part of the mean count as it: samples are few, and a channel that is quiet in them
/// need not stay so.
const QUIET: f32 = 0.1;

/// The largest magnitude of each channel of `x`, `[…, K]`, taken into `top`.
pub fn magnitudes(x: &Tensor, top: &mut Vec<f32>) {
    let k = x.shape().last().copied().unwrap_or(0).max(1);
    top.resize(k, 0.0);
    for row in wide(x).chunks_exact(k) {
        // What is not finite leaves no measure; the budget will tell.
        top.iter_mut().zip(row).for_each(|(t, x)| *t = t.max(if x.is_finite() { x.abs() } else { 0.0 }));
    }
}

/// Whether nothing but the product `v` reads its matrix: others would need another one.
fn owns_matrix(g: &Graph, v: ValueId) -> bool {
    let mut all = vec![g.operands(v)[1]];
    while let Some(b) = all.pop() {
        if g.users(b).len() != 1 {
            return false;
        }
        if let Op::Concat { .. } | Op::Cast(_) = g.op(b) {
            all.extend(g.operands(b));
        }
    }
    true
}

/// The factors for `x`, whose channels have those magnitudes, of all products that read it: sqrt(largest weight / largest
/// element), as in SmoothQuant (Xiao et al. 2023, equation 4 with α = 1/2). Nothing where a matrix has other readers or there
/// is nothing to even out.
pub fn smooth(g: &Graph, products: &[ValueId], magnitudes: &[f32]) -> Option<Vec<f32>> {
    let mut top = vec![0f32; magnitudes.len()];
    for &v in products {
        let (_, axis) = candidate(g, v).ok()?;
        let b = g.operands(v)[1];
        let parts = if let Op::Concat { .. } = g.op(b) { g.operands(b) } else { &[b][..] };
        if !owns_matrix(g, v) {
            return None;
        }
        for &part in parts {
            let t = weights::constant(g, part)?;
            for (i, w) in weights::floats(t).into_iter().enumerate() {
                let k = if axis == 1 { i / t.shape()[1] } else { i % t.shape()[1] };
                top[k] = top[k].max(w.abs());
            }
        }
    }
    let usual = |all: &[f32]| {
        let least = all.iter().sum::<f32>() / all.len() as f32 * QUIET;
        (least > 0.0 && least.is_finite()).then(|| all.iter().map(|x| x.max(least)).collect::<Vec<_>>())
    };
    let (x, w) = (usual(magnitudes)?, usual(&top)?);
    let factors: Vec<f32> = x.iter().zip(&w).map(|(x, w)| (w / x).sqrt()).collect();
    factors.iter().all(|f| f.is_normal()).then_some(factors)
}

/// Channels that stay floats where there are outliers: that many make up for nearly all that 8 bits lose by them.
const OUTLIERS: usize = 8;

/// The channels of the product `v` that stick out most, behind their factors, in order; nothing where it can't be split or
/// has few channels.
pub fn outliers(g: &Graph, v: ValueId, magnitudes: &[f32], factors: Option<&[f32]>) -> Option<Vec<usize>> {
    let (linear, _) = candidate(g, v).ok()?;
    if !splits(&linear) || !owns_matrix(g, v) || magnitudes.len() < 8 * OUTLIERS {
        return None;
    }
    let mut order: Vec<(f32, usize)> =
        magnitudes.iter().enumerate().map(|(c, m)| (m * factors.map_or(1.0, |f| f[c]), c)).collect();
    order.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
    let mut channels: Vec<usize> = order[..OUTLIERS].iter().map(|o| o.1).collect();
    channels.sort_unstable();
    Some(channels)
}
