//! `bertc inspect`: what is in a model or in a compiled object.
//!
//! `docs/inspect.md` describes the JSON. Whoever changes what a key means, or removes one, raises [`SCHEMA_VERSION`].

use std::path::{Path, PathBuf};

use bertc_ir::Diag;
use serde_json::{Value, json};

use crate::options::CompileOptions;
use crate::output::{table, to_stdout};

mod binary;
mod descriptor;
mod kernels;
mod model;
mod sums;
mod weights;

/// Version of the JSON. Within one, keys are only added.
pub const SCHEMA_VERSION: u32 = 1;

/// What `inspect` was asked to do.
#[derive(Clone, Debug)]
pub struct InspectOptions {
    /// A model, IR text, an object or an archive of objects.
    pub file: PathBuf,
    /// How to compile a model, whose kernels are listed.
    pub compile: CompileOptions,
    /// JSON.
    pub json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A file that can't be read or is none of these, and options that no model can be compiled with.
pub fn run(o: &InspectOptions) -> Result<(), Vec<Diag>> {
    let file = o.file.as_path();
    let one = |e: &dyn std::fmt::Display| vec![Diag::new(format!("can't read '{}': {e}", file.display()))];
    let start = first_bytes(file).map_err(|e| one(&e))?;
    let archived = start.starts_with(b"!<arch>\n");
    let text = if archived || object::FileKind::parse(&*start).is_ok() {
        let data = std::fs::read(file).map_err(|e| one(&e))?;
        let found = if archived { binary::archive(&data) } else { binary::object(&data).map(|b| vec![b]) };
        let found = found.map_err(|e| one(&e))?;
        match (o.json, archived) {
            (false, _) => found.iter().map(binary::Binary::text).collect::<Vec<_>>().join("\n"),
            (true, true) => {
                let members: Vec<Value> = found.iter().map(binary::Binary::json).collect();
                document("archive", file, json!({"members": members}))
            }
            (true, false) => document("object", file, found.first().map(binary::Binary::json).unwrap_or_default()),
        }
    } else {
        let m = model::Model::read(o)?;
        let report = m.report(o);
        if o.json { document("model", file, report.json()) } else { report.text() }
    };
    to_stdout(text.as_bytes()).map_err(|d| vec![d])
}

/// A JSON document: `body` with what says how to read it.
fn document(kind: &str, file: &Path, mut body: Value) -> String {
    body["schema"] = json!("bertc-inspect");
    body["version"] = json!(SCHEMA_VERSION);
    body["kind"] = json!(kind);
    body["file"] = json!(file.file_name().map(|n| n.to_string_lossy().into_owned()));
    format!("{body:#}\n")
}

/// Enough of a file to tell its kind.
fn first_bytes(file: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut start = Vec::new();
    std::fs::File::open(file)?.take(4096).read_to_end(&mut start)?;
    Ok(start)
}

/// A table under a heading, with an empty line before; nothing without rows.
pub(crate) fn section(heading: &str, header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    if rows.is_empty() {
        return String::new();
    }
    format!("\n{heading}{}", table(header, rows, right))
}
