//! Random graphs: written as ONNX and imported again they compute the same.

use bertc::export::onnx::{Files, Source, model, read_back};
use bertc::import::onnx::{ImportOptions, import_bytes};
use bertc_ir::eval::{eval, solve_dims};
use bertc_ir::{Diag, Graph};

use super::passes::{BF16, INT8};
use super::{check_diags, inputs, optimise, seed_of, show, text_of};
use crate::Outcome;
use crate::graph::{generate, generate_bytes};
use crate::oracle::expect;
use crate::random::Random;

/// Pipelines behind those of `-O`.
const MORE: [&[&str]; 4] = [&[], &[INT8], &[BF16], &[INT8, BF16]];

/// Whether the importer may say so of a valid graph: symbols that are parts of an input's dims have no name in ONNX, and it
/// proves less of what is computed from shapes than was known where the shapes come from.
fn unprovable(d: &Diag) -> bool {
    ["may be negative", "not proven", "computable at compile time", "not a polynomial", "must be equal", "limit"]
        .iter()
        .any(|m| d.message.contains(m))
}

/// Checks the graph that `data` stands for. The first byte chooses the passes.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let (&how, rest) = data.split_first().unwrap_or((&0, &[]));
    let how = usize::from(how);
    let (before, dims) = if how.is_multiple_of(3) { generate_bytes(rest) } else { generate(rest) };
    let mut r = Random::new(seed_of(data), 0);
    let mut names = bertc_passes::pipeline((how / 3 % 4) as u8);
    names.extend(MORE[how / 12 % MORE.len()]);
    let mut g = before.clone();
    let context = |m: String, g: &Graph| format!("{m}\npasses: {}\ndims: {dims:?}\n{}", names.join(","), text_of(g));
    if !optimise(&mut g, &names).map_err(|m| context(m, &before))? {
        return Ok("refused by a pass");
    }
    let x = inputs(&g, &dims, 5, &mut r).ok_or("inputs are too large")?;
    let Some(mut expected) = expect(&g, &dims, &x, &mut r) else { return Ok("an index is out of range") };
    let written = match model(&g, &Source::default()) {
        Ok(m) => m,
        Err(d) if d.iter().all(|d| d.message.contains("no input's shape tells")) => return Ok("a dim is not told"),
        Err(d) => return Err(context(format!("can't be written: {}", show(&d)), &g)),
    };
    let back = match read_back(&g, &written) {
        Ok(back) => back,
        Err(d) if d.iter().any(unprovable) => return Ok("not proven"),
        Err(d) => return Err(context(format!("can't be read back: {}", show(&d)), &g)),
    };
    // The bytes say the same.
    let mut bytes = Vec::new();
    written.write(&Files::One, &mut bytes).map_err(|e| e.to_string())?;
    if let Err(d) = import_bytes(bytes.into(), None, &ImportOptions::default()) {
        check_diags(&d)?;
    }
    let own = solve_dims(&back, &x).map_err(|d| context(format!("dims are not solved: {d}"), &g))?;
    let got = eval(&back, &own, &x).map_err(|d| context(format!("fails as ONNX: {d}\n{}", text_of(&back)), &g))?;
    if !written.widened.is_empty() {
        return Ok("rows are floats");
    }
    expected.allow(&back, &own, &x, &mut r);
    expected.compare(&got).map_err(|m| context(format!("{m}\nread back:\n{}", text_of(&back)), &g))?;
    Ok(if expected.overflows() { "overflows" } else { "equal" })
}
