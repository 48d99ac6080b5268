//! What pruning and fewer bits cost, layer by layer: the transformed graph against one whose weights are all there and whose
//! numbers stay f32, both evaluated.

use std::collections::BTreeMap;

use bertc_ir::eval::eval_all;
use bertc_ir::{Diag, Graph, Op, Tensor, ValueId};
use bertc_passes::{Nearness, Step, run_steps};

use super::inputs::Inputs;
use super::ops::node_name;
use crate::layers::Layers;
use crate::passes::PRUNES;

/// How near the last value of a layer is to what it is in f32.
#[derive(Clone, PartialEq, Debug)]
pub struct LayerRow {
    /// The layer.
    pub title: String,
    /// The model's node.
    pub node: String,
    /// Signal to noise in dB; infinite where there is no noise.
    pub snr: f64,
    /// The cosine of the angle between both.
    pub cosine: f64,
}

/// The passes that round to fewer bits; others leave weights out.
const INEXACT: [&str; 2] = ["use-int8", "use-bf16"];

/// A row for each layer whose last value is in both graphs. `values` are those of `g`, which `steps` made of `imported`.
///
/// # Errors
/// A pass that fails.
pub fn layers(
    imported: &Graph,
    steps: &[Step],
    inputs: &Inputs,
    g: &Graph,
    values: &BTreeMap<ValueId, Tensor>,
) -> Result<Vec<LayerRow>, Vec<Diag>> {
    let mut exact = imported.clone();
    let steps: Vec<Step> =
        steps.iter().filter(|s| !INEXACT.iter().chain(PRUNES).any(|n| *n == s.pass.name())).cloned().collect();
    run_steps(&mut exact, &steps, &bertc_passes::Options::default(), &mut bertc_passes::Unwatched)
        .map_err(|f| vec![f.diag])?;
    let reference = eval_all(&exact, &inputs.dims, &inputs.tensors).map_err(|d| vec![d])?;
    let groups = Layers::of(&exact);
    let all = exact.topo();
    let mut rows = Vec::new();
    for group in 0..groups.groups() {
        let last = all.iter().rev().find(|&&v| groups.group(v) == group && is_fused(exact.op(v)));
        let Some((&v, node)) = last.and_then(|v| Some((v, node_name(&exact, *v)?))) else { continue };
        let same = |w: &ValueId| {
            is_fused(g.op(*w)) && node_name(g, *w).as_ref() == Some(&node) && values[w].shape() == reference[&v].shape()
        };
        if let Some(w) = g.topo().into_iter().rev().find(same) {
            let n = Nearness::of(&reference[&v], &values[&w]);
            rows.push(LayerRow { title: groups.title(group), node, snr: n.snr(), cosine: n.cosine() });
        }
    }
    Ok(rows)
}

/// Whether an op is one that a layer may end with.
fn is_fused(op: &Op) -> bool {
    let norm = matches!(op, Op::SumNorm(_) | Op::LayerNorm { .. } | Op::RmsNorm { .. });
    norm || matches!(op, Op::Linear(_) | Op::MatMul { .. } | Op::Attention(_))
}
