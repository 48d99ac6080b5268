//! Bytes of an ONNX model: what the importer accepts is a valid graph, and the passes and the lowering take it or
//! refuse it with a diagnostic.

use bertc::import::onnx::{INVALID, ImportOptions, import_bytes};
use bertc_backends::target::Target;
use bytes::Bytes;

use super::{check_diags, optimise, show};
use crate::Outcome;

/// Checks one model.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let mut graph = match import_bytes(Bytes::copy_from_slice(data), None, &ImportOptions::default()) {
        Ok(i) => i.graph,
        Err(d) if d.iter().any(|d| d.notes.iter().any(|n| n == INVALID)) => return Err(show(&d)),
        Err(d) => return check_diags(&d).map(|()| "refused"),
    };
    if !optimise(&mut graph, &bertc_passes::pipeline(3))? {
        return Ok("refused by a pass");
    }
    let target = Target::parse("x86_64", "x86-64-v4").map_err(|d| d.to_string())?;
    match bertc_backends::lower::lower(&graph, &target) {
        Ok(p) => p.verify().map(|()| "lowered").map_err(|d| format!("the program doesn't verify: {}", show(&d))),
        Err(d) => check_diags(&d).map(|()| "refused by the lowering"),
    }
}
