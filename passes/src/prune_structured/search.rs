//! Which heads or neurons matter least.
//!
//! What unit u adds to a product's result is Σ_c w_c x_c over its channels; G_uv = Σ w_cᵀw_d · x_c x_d, over channels c of u, d
//! of v and all samples, is what two of them do together. Without the units S the squared error is Σ_{u,v ∈ S} G_uv: the
//! off-diagonal terms tell that of two units that do the same only one can go cheaply. Kwon et al. (2022, A Fast
//! Post-Training Pruning Framework for Transformers) have the Fisher information of masks in the place of G, which takes labels and
//! gradients.

use super::sites::{Kind, Site};

/// Neurons go by so many: lanes of a product.
const STEP: usize = 16;

/// In which order the units of a site go.
pub struct Order {
    pub units: Vec<usize>,
    /// How many go at a time, and what that adds to the error, relative to the energy of all.
    pub steps: Vec<(usize, f64)>,
}

/// Greedy: each time what adds least to the error. `w` are the weights `[outputs, K]` of the product behind, `h` tells what two
/// channels do together. The last head, or the last neurons, never go.
pub fn greedy(site: &Site, w: &[f32], h: impl Fn(usize, usize) -> f64) -> Order {
    let (k, units) = (site.k, site.units);
    let width = k / units;
    // Rows of the matrix's columns, to be read in order.
    let columns = crate::prune::transposed(w, k);
    let n = site.n;
    let both = |c: usize, d: usize| -> f64 {
        let pairs = columns[c * n..(c + 1) * n].iter().zip(&columns[d * n..(d + 1) * n]);
        f64::from(pairs.map(|(a, b)| a * b).sum::<f32>()) * h(c, d)
    };
    let pair = |u: usize, v: usize| -> f64 {
        (u * width..(u + 1) * width).map(|c| (v * width..(v + 1) * width).map(|d| both(c, d)).sum::<f64>()).sum()
    };
    let mut adds: Vec<f64> = (0..units).map(|u| pair(u, u)).collect();
    let mut left: Vec<usize> = (0..units).collect();
    let mut whole: f64 = adds.iter().sum();
    whole = if whole > 0.0 && whole.is_finite() { whole } else { 1.0 };
    let sizes = sizes(site);
    let most: usize = sizes.iter().sum();
    let (mut order, mut costs) = (Vec::new(), Vec::new());
    while order.len() < most {
        let Some(at) = (0..left.len()).min_by(|&a, &b| adds[left[a]].total_cmp(&adds[left[b]])) else { break };
        let u = left.remove(at);
        costs.push(adds[u] / whole);
        order.push(u);
        left.iter().for_each(|&v| adds[v] += 2.0 * pair(u, v));
    }
    let mut start = 0;
    let steps = sizes.iter().map(|&size| {
        let cost = costs[start..start + size].iter().sum();
        start += size;
        (size, cost)
    });
    Order { units: order, steps: steps.collect() }
}

/// How many units go at a time, as long as some may.
fn sizes(site: &Site) -> Vec<usize> {
    if site.kind == Kind::Heads {
        return vec![1; site.units - 1];
    }
    // What is left is a multiple of the step.
    let steps = site.units.div_ceil(STEP) - 1;
    let mut sizes = vec![STEP; steps];
    if let (Some(first), rest @ 1..) = (sizes.first_mut(), site.units % STEP) {
        *first = rest;
    }
    sizes
}

/// How many units of each site go so that so many do in all, or as many as may: the cheapest step next, for each unit.
pub fn share(orders: &[&Order], target: usize) -> Vec<usize> {
    let mut next = vec![0; orders.len()];
    let mut gone = vec![0; orders.len()];
    let mut total = 0;
    loop {
        let cost = |i: usize| orders[i].steps.get(next[i]).map(|(size, cost)| cost / *size as f64);
        let candidates = (0..orders.len()).filter_map(|i| cost(i).map(|c| (i, c)));
        let Some((i, _)) = candidates.min_by(|a, b| a.1.total_cmp(&b.1)) else { return gone };
        let size = orders[i].steps[next[i]].0;
        // The last step only if that is nearer than without it.
        if 2 * total + size > 2 * target {
            return gone;
        }
        next[i] += 1;
        gone[i] += size;
        total += size;
    }
}
