//! What a model is checked on: small, but so that batches, masks and segments matter.

use std::path::Path;

use bertc_ir::eval::eval;
use bertc_ir::{Diag, Graph, Scalar, Tensor};

use crate::load::{Descriptor, Extent, PortInfo, SymbolInfo};
use crate::run::{self, RANDOM_IDS};

/// The dim of the first axis, where it is free.
const BATCH: i64 = 2;
/// The other free dims: no multiple of a vector's lanes or a tile's rows.
const LENGTH: i64 = 13;

/// Bounds of ids, and whether there are two segments. A second segment, or ids that fill no character table, are too much for
/// some models.
pub(crate) const KINDS: [(i128, bool); 3] = [(RANDOM_IDS, true), (RANDOM_IDS, false), (1, false)];

/// Inputs, and what the model makes of them.
#[derive(Debug)]
pub struct Inputs {
    /// Value of each symbol of the graph.
    pub dims: Vec<i64>,
    /// The inputs in order.
    pub tensors: Vec<Tensor>,
    /// The outputs in order, by the evaluator.
    pub outputs: Vec<Tensor>,
}

/// A graph as a compiled model describes itself.
pub(crate) fn descriptor(g: &Graph) -> Descriptor {
    let extent = |d: &bertc_ir::Dim| match (d.as_const(), d.as_symbol()) {
        (Some(c), _) => Extent::Const(c),
        (_, Some(s)) => Extent::Symbol(s.0 as usize),
        _ => Extent::Computed,
    };
    let port = |p: &bertc_ir::Port| {
        let ty = g.ty(p.value);
        PortInfo { name: p.name.clone(), dtype: ty.dtype, dims: ty.shape.iter().map(extent).collect() }
    };
    let symbol = |s: &bertc_ir::dims::Symbol| SymbolInfo { name: s.name.clone(), min: s.min, max: s.max };
    Descriptor {
        name: g.name.clone(),
        hash: String::new(),
        symbols: g.symbols.iter().map(|(_, s)| symbol(s)).collect(),
        inputs: g.inputs().iter().map(port).collect(),
        outputs: g.outputs().iter().map(port).collect(),
    }
}

/// Inputs for `g`: those in an `.npz`, or plausible ones, with or without padding.
///
/// # Errors
/// Inputs that don't fit the graph, or that the evaluator refuses.
pub fn inputs(g: &Graph, file: Option<&Path>, padding: bool) -> Result<Inputs, Vec<Diag>> {
    let d = descriptor(g);
    let evaluated = |dims: &[i64], tensors: Vec<Tensor>| {
        let outputs = eval(g, dims, &tensors).map_err(|d| vec![d.note("while evaluating the model as imported")])?;
        Ok(Inputs { dims: dims.to_vec(), tensors, outputs })
    };
    if let Some(file) = file {
        let arrays = run::read_inputs(file).map_err(|d| vec![d])?;
        let dims = run::unify(&d, &arrays)?;
        return evaluated(&dims, d.inputs.iter().map(|p| run::typed(p, &arrays[&p.name])).collect());
    }
    let dims = small_dims(&d, BATCH, LENGTH);
    let mut first = None;
    for (ids, segments) in KINDS {
        match evaluated(&dims, plausible(&d, &dims, ids, segments, padding)?) {
            Ok(inputs) => return Ok(inputs),
            Err(e) => first = first.or(Some(e)),
        }
    }
    Err(first.unwrap_or_default())
}

/// A batch and other dims of `length`, as far as the ranges allow.
pub(crate) fn small_dims(d: &Descriptor, batch: i64, length: i64) -> Vec<i64> {
    let leads = |s: usize| d.inputs.iter().any(|p| p.dims.len() > 1 && p.dims[0] == Extent::Symbol(s));
    let dims = d.symbols.iter().enumerate();
    dims.map(|(i, s)| if leads(i) { batch } else { length }.clamp(s.min, s.max.max(s.min))).collect()
}

/// What `bertc run` makes, with padding in all rows of masks but the first, and two segments.
pub(crate) fn plausible(
    d: &Descriptor,
    dims: &[i64],
    ids: i128,
    segments: bool,
    padding: bool,
) -> Result<Vec<Tensor>, Vec<Diag>> {
    let mut tensors = run::plausible_inputs(d, dims, ids)?;
    for (p, t) in d.inputs.iter().zip(&mut tensors) {
        let (name, shape) = (p.name.to_ascii_lowercase(), t.shape().to_vec());
        let &[rows, row] = shape.as_slice() else { continue };
        let mask = padding && name.contains("mask");
        let one = |i: usize| match () {
            // Of two rows the second is half padding.
            () if mask => i % row < (row * (rows - i / row) / rows).max(1),
            () => i % row >= row / 2,
        };
        let segment = segments && (name.contains("type") || name.contains("segment"));
        if mask || segment {
            let scalar = |i: usize| match (one(i), p.dtype.is_float()) {
                (b, true) => Scalar::Float(f64::from(u8::from(b))),
                (b, false) => Scalar::Int(b.into()),
            };
            *t = Tensor::from_scalars(p.dtype, shape, (0..rows * row).map(scalar));
        }
    }
    Ok(tensors)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::text::{no_resources, parse};

    #[test]
    fn masks_have_padding_and_segments_differ() {
        let g = parse(
            "dims b in 1..=8, s in 1..=64
func @f(%ids: tensor<b x s x i64>, %attention_mask: tensor<b x s x i64>, %token_type_ids: tensor<b x s x i64>) -> (y: tensor<b x s x i64>) {
  %0 = add %ids, %attention_mask
  return %0
}",
            &no_resources,
        )
        .unwrap();
        let i = inputs(&g, None, true).unwrap();
        assert_eq!(i.dims, [2, 13]);
        let mask = i.tensors[1].to_i64_vec();
        assert_eq!((mask[..13].iter().sum::<i64>(), mask[13..].iter().sum::<i64>()), (13, 6));
        assert!(mask[13..19].iter().all(|&m| m == 1), "{mask:?}");
        assert!(inputs(&g, None, false).unwrap().tensors[1].to_i64_vec().iter().all(|&m| m == 1));
        assert_eq!(i.tensors[2].to_i64_vec()[..13], [0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1]);
    }

    #[test]
    fn a_table_of_one_row_gets_its_only_id() {
        let g = parse(
            "dims b in 1..=8, s in 1..=64
func @f(%token_type_ids: tensor<b x s x i64>, %t: tensor<1 x 4 x f32>) -> (y: tensor<b x s x 4 x f32>) {
  %0 = gather %t, %token_type_ids {axis = 0}
  return %0
}",
            &no_resources,
        )
        .unwrap();
        let i = inputs(&g, None, true).unwrap();
        assert!(i.tensors[0].to_i64_vec().iter().all(|&x| x == 0));
    }
}
