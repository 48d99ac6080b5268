//! The targets, a file each.

#[cfg(feature = "compiler")]
pub mod compile;
#[cfg(feature = "compiler")]
pub mod export;
#[cfg(feature = "compiler")]
pub mod import;
#[cfg(feature = "compiler")]
pub mod int8;
pub mod kernel_text;
pub mod passes;
pub mod text;

use bertc_ir::{DType, Diag, Graph, Scalar, Tensor};
use bertc_passes::FailureKind;

use crate::random::Random;

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

/// Runs passes on a verified graph and verifies after each; whether they went through.
///
/// # Errors
/// A pass panicked, or left a graph that doesn't verify.
pub fn optimise(g: &mut Graph, names: &[&str]) -> Result<bool, String> {
    let steps = bertc_passes::steps(names).map_err(|d| d.to_string())?;
    let options = bertc_passes::Options { verify_each: true };
    match bertc_passes::run_steps(g, &steps, &options, &mut bertc_passes::Unwatched) {
        Ok(()) => Ok(true),
        // A size that overflows, for example: no other verdict is asked for.
        Err(f) if f.kind == FailureKind::Pass => check_diags(&[f.diag]).map(|()| false),
        Err(f) => Err(format!("passes broke the graph: {f}")),
    }
}

/// Random inputs for some dims; integers are below `ints`. `None` where they would be large.
pub fn inputs(graph: &Graph, dims: &[i64], ints: usize, r: &mut Random) -> Option<Vec<Tensor>> {
    let input = |p: &bertc_ir::Port| {
        let ty = graph.ty(p.value);
        let shape: Option<Vec<usize>> = ty.shape.iter().map(|d| usize::try_from(d.eval(dims)?).ok()).collect();
        let shape = shape?;
        let n = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d)).filter(|&n| n <= 1 << 20)?;
        let elements = (0..n).map(|_| match ty.dtype {
            d if d.is_float() => Scalar::Float((r.below(4001) as f64 - 2000.0) / 1000.0),
            DType::Bool => Scalar::Int(i128::from(r.one_in(2))),
            _ => Scalar::Int(r.below(ints) as i128),
        });
        Some(Tensor::from_scalars(ty.dtype, shape, elements.collect::<Vec<_>>()))
    };
    graph.inputs().iter().map(input).collect()
}

/// A number that is a function of bytes, to seed what they don't choose.
pub fn seed_of(data: &[u8]) -> u64 {
    // FNV-1a.
    data.iter().fold(0xcbf2_9ce4_8422_2325, |h, &b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3))
}

/// A graph as text, for findings.
pub fn text_of(g: &Graph) -> String {
    let options = bertc_ir::text::PrintOptions { inline_constants: true, locations: false };
    bertc_ir::text::print(g, &options)
}
