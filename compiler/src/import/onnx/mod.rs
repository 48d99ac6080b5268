//! The ONNX importer: `.onnx` file → tensor IR.
//!
//! The file is memory-mapped and decoded by prost; weights stay slices of the map. Nodes are lowered one by one
//! ([`ops`]) onto values that may be symbolic ([`value`]), so shape arithmetic vanishes on the way. Everything that
//! can't be imported is collected and reported at once.
//!
//! Two symbolic dims that meet in an elementwise op must be one: the import then starts again with the second one
//! replaced, which is why everything below is a function of the decoded model.

mod build;
mod cx;
mod elementwise;
mod fold;
pub(crate) mod load;
mod movement;
mod ops;
pub(crate) mod proto;
mod run;
mod small;
pub(crate) mod tensor;
mod unsupported;
mod value;
mod widen;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::Path;

use bertc_ir::{Diag, Graph};
use bytes::Bytes;
use prost::Message;

use proto::{ModelProto, OperatorSetIdProto};

/// What the user says about the model's dims.
#[derive(Clone, Debug, Default)]
pub struct ImportOptions {
    /// Ranges of symbolic dims: name, smallest and largest value (`--dim seq=1..512`).
    pub dims: Vec<(String, i64, i64)>,
    /// Fixed shapes of inputs (`--shape input_ids=1x128`).
    pub shapes: Vec<(String, Vec<i64>)>,
}

/// An imported model.
#[derive(Clone, Debug)]
pub struct Imported {
    /// The graph. Every node carries the ONNX node it comes from.
    pub graph: Graph,
    /// Version of the default operator set.
    pub opset: i64,
    /// Name and version of the tool that wrote the file.
    pub producer: String,
    /// Remarks: dims that were limited or taken as equal.
    pub notes: Vec<String>,
}

/// Oldest and newest version of the default operator set that is understood.
pub const OPSETS: std::ops::RangeInclusive<i64> = 7..=28;

pub use unsupported::NOT_TAKEN;

/// The operators that can be imported: domains, each with its operators by name.
pub fn operators() -> Vec<(&'static str, Vec<&'static str>)> {
    let names = |(domain, all): (&'static str, &[(&'static str, _)])| {
        // Of nodes with bodies the walk over the model takes care.
        let more = Some("If").filter(|_| domain.is_empty());
        let mut names: Vec<&str> = all.iter().map(|(name, _)| *name).chain(more).collect();
        names.sort_unstable();
        (domain, names)
    };
    ops::OPERATORS.into_iter().map(names).collect()
}

/// The note of a diagnostic that should have been a better one.
pub const INVALID: &str =
    "what was imported is not valid tensor IR: the importer should have told more; please report it";

/// Imports a model file. External data is read from its folder.
///
/// # Errors
/// Every reason why the model can't be imported.
pub fn import(path: &Path, opts: &ImportOptions) -> Result<Imported, Vec<Diag>> {
    let bytes = load::map_file(path).map_err(|e| vec![Diag::new(format!("can't read '{}': {e}", path.display()))])?;
    let base = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
    import_bytes(bytes, base, opts)
}

/// Imports a model from memory. `base_dir` is the folder of its external data, if it may have any.
///
/// # Errors
/// As [`import`].
pub fn import_bytes(bytes: Bytes, base_dir: Option<&Path>, opts: &ImportOptions) -> Result<Imported, Vec<Diag>> {
    // prost refuses nesting beyond 100 levels, and lengths beyond the buffer.
    let model = ModelProto::decode(bytes).map_err(|e| vec![Diag::new(format!("not an ONNX model: {e}"))])?;
    import_proto(&model, base_dir, opts)
}

/// Imports a decoded model.
///
/// # Errors
/// As [`import`].
pub(crate) fn import_proto(
    model: &ModelProto,
    base_dir: Option<&Path>,
    opts: &ImportOptions,
) -> Result<Imported, Vec<Diag>> {
    let one = |m: String| vec![Diag::new(m)];
    let graph = model.graph.as_ref().ok_or_else(|| one("not an ONNX model: it has no graph".to_string()))?;
    let opset = versions(&model.opset_import).map_err(one)?;
    let Some(&version) = opset.get("") else {
        return Err(one("the model names no version of the default operator set".to_string()));
    };

    let mut subst = BTreeMap::new();
    let mut notes = Vec::new();
    // Each round removes a symbol, so the number of rounds is limited by the number of symbols.
    let limit = 2 + graph.input.iter().map(run::rank).sum::<usize>();
    for _ in 0..limit {
        match run::run(model, graph, &opset, base_dir, opts, &subst) {
            Ok((graph, mut more)) => {
                let graph = widen::widen(graph).map_err(|d| vec![d])?;
                if let Err(d) = bertc_ir::verify::verify(&graph) {
                    return Err(d.into_iter().map(|d| d.note(INVALID)).collect());
                }
                notes.append(&mut more);
                let producer = format!("{} {}", model.producer_name(), model.producer_version()).trim().to_string();
                return Ok(Imported { graph, opset: version, producer, notes });
            }
            Err(run::Failure::Equate { from, to, note }) => {
                notes.push(note);
                subst.insert(from, to);
            }
            Err(run::Failure::Diags(d)) => return Err(d),
        }
    }
    Err(one("the model's dims can't be told apart".to_string()))
}

/// The versions of the operator sets, the default one under the empty name.
fn versions(imports: &[OperatorSetIdProto]) -> Result<BTreeMap<String, i64>, String> {
    let plain = |domain: &str| if domain == "ai.onnx" { String::new() } else { domain.to_string() };
    let all: BTreeMap<String, i64> = imports.iter().map(|o| (plain(o.domain()), o.version())).collect();
    match all.get("") {
        Some(v) if !OPSETS.contains(v) => {
            Err(format!("opset {v} is not supported: expected {} to {}", OPSETS.start(), OPSETS.end()))
        }
        _ => Ok(all),
    }
}
