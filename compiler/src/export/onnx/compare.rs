//! How far a written model is from the graph that it was written from.

use bertc_ir::eval::eval;
use bertc_ir::{Diag, Graph, SymbolId, Tensor};

use super::Model;
use crate::check::inputs::{KINDS, descriptor, plausible, small_dims};
use crate::import::onnx::{ImportOptions, import_proto};

/// A batch and a length that tell enough and don't take long.
const DIMS: (i64, i64) = (1, 8);

/// The output that differs most.
#[derive(Clone, PartialEq, Debug)]
pub struct Difference {
    /// Its name.
    pub output: String,
    /// The cosine of the angle between both.
    pub cosine: f64,
    /// The largest difference, relative to the largest value.
    pub largest: f64,
}

/// The model as the importer reads it, with the dims' ranges of the graph that it was written from.
///
/// # Errors
/// Those of the importer.
pub fn read_back(g: &Graph, model: &Model) -> Result<Graph, Vec<Diag>> {
    let told = |s: SymbolId| g.inputs().iter().any(|p| g.ty(p.value).shape.iter().any(|d| d.as_symbol() == Some(s)));
    let known = g.symbols.iter().filter(|(s, range)| told(*s) && range.min < range.max);
    let dims = known.map(|(_, s)| (s.name.clone(), s.min, s.max)).collect();
    Ok(import_proto(&model.proto(), None, &ImportOptions { dims, shapes: Vec::new() })?.graph)
}

/// Evaluates the graph, and the model as the importer reads it, on made-up inputs.
///
/// # Errors
/// The model can't be read back, or no made-up inputs suit it.
pub fn difference(g: &Graph, model: &Model) -> Result<Difference, Vec<Diag>> {
    let d = descriptor(g);
    let back = read_back(g, model)?;
    let dims = small_dims(&d, DIMS.0, DIMS.1);
    let mut refused = Vec::new();
    for (ids, segments) in KINDS {
        let inputs = plausible(&d, &dims, ids, segments, false)?;
        let want = match eval(g, &dims, &inputs) {
            Ok(want) => want,
            Err(e) => {
                refused.push(e);
                continue;
            }
        };
        let dims = bertc_ir::eval::solve_dims(&back, &inputs).map_err(|d| vec![d])?;
        let got = eval(&back, &dims, &inputs).map_err(|d| vec![d])?;
        let each = g.outputs().iter().zip(want.iter().zip(&got));
        let each = each.map(|(p, (want, got))| distance(&p.name, want, got));
        let worst = each.max_by(|a, b| a.largest.total_cmp(&b.largest));
        return worst.ok_or_else(|| vec![Diag::new("there is no output")]);
    }
    Err(refused)
}

fn distance(name: &str, want: &Tensor, got: &Tensor) -> Difference {
    let (x, y) = (want.to_f64_vec(), got.to_f64_vec());
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    let scale = x.iter().fold(0f64, |m, v| m.max(v.abs()));
    let worst = x.iter().zip(&y).fold(0f64, |m, (a, b)| m.max((a - b).abs()));
    let norms = (dot(&x, &x) * dot(&y, &y)).sqrt();
    Difference {
        output: name.to_string(),
        cosine: if norms == 0.0 { 1.0 } else { dot(&x, &y) / norms },
        largest: if worst == 0.0 { 0.0 } else { worst / scale },
    }
}
