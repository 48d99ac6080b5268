//! The targets, a file each.

#[cfg(feature = "compiler")]
pub mod import;
pub mod kernel_text;
pub mod text;

use bertc_ir::{Diag, Graph};

/// Diagnostics as text.
pub fn show(diags: &[Diag]) -> String {
    diags.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// What holds of every list of errors: there is one, and each one says something.
///
/// # Errors
/// It doesn't hold.
pub fn check_diags(diags: &[Diag]) -> Result<(), String> {
    if diags.is_empty() {
        return Err("refused without a diagnostic".to_string());
    }
    match diags.iter().find(|d| d.message.trim().is_empty()) {
        Some(d) => Err(format!("a diagnostic without a message: {d:?}")),
        None => Ok(()),
    }
}

/// Runs the passes of `-O3` on a verified graph and verifies after each; whether they went through.
///
/// # Errors
/// A pass left a graph that doesn't verify.
pub fn passes(g: &mut Graph, names: &[&str]) -> Result<bool, String> {
    let options = bertc_passes::Options { verify_each: true };
    match bertc_passes::run(g, names, &options, &mut |_| {}) {
        Ok(()) => Ok(true),
        Err(d) if d.notes.iter().any(|n| n.contains("found after") || n.contains("found before")) => {
            Err(format!("passes broke the graph: {d}"))
        }
        // A size that overflows, for example: no other verdict is asked for.
        Err(d) => check_diags(&[d]).map(|()| false),
    }
}
