//! `bertc opt`: runs passes on a file of tensor IR or on a model, and prints what they made of it.

use std::path::PathBuf;

use bertc_ir::{Diag, Graph};
use bertc_passes::registry::{Entry, PASSES};

use crate::import::onnx::{self, ImportOptions};
use crate::options::{CompileOptions, StopAfter};
use crate::output::{Staged, check_target, to_stdout};
use crate::progress::{Phase, Progress};
use crate::tir::{self, Constants};
use crate::{driver, passes};

/// What `opt` was asked to do.
#[derive(Clone, Debug)]
pub struct OptOptions {
    /// A model, or text.
    pub file: PathBuf,
    /// Where to write the result; `None` is standard output.
    pub output: Option<PathBuf>,
    /// Print large constants too.
    pub inline_constants: bool,
    /// Print each value's source node.
    pub locations: bool,
    /// Large constants of the text.
    pub resources: Option<PathBuf>,
    /// Which passes run, and what they show.
    pub compile: CompileOptions,
}

/// Runs the subcommand.
///
/// # Errors
/// Everything that is wrong with the flags or the file, and a pass that failed.
pub fn run(o: &OptOptions) -> Result<(), Vec<Diag>> {
    let text = transformed(o, PASSES)?;
    let one = |d: Diag| vec![d];
    let Some(out) = &o.output else { return to_stdout(text.as_bytes()).map_err(one) };
    let mut staged = Staged::default();
    staged.add(out, |w| w.write_all(text.as_bytes()).map_err(|e| vec![Diag::new(format!("can't write: {e}"))]))?;
    staged.commit().map(|_| ()).map_err(one)
}

/// The text that `opt` prints, with the passes of `table`.
///
/// # Errors
/// As [`run`].
pub fn transformed(o: &OptOptions, table: &'static [Entry]) -> Result<String, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    if let Some(out) = &o.output {
        driver::refuse_overwrite(out, &[Some(&o.file), o.resources.as_ref()]).map_err(one)?;
        check_target(out).map_err(one)?;
    }
    let steps = passes::steps(&o.compile, table, false)?;
    let mut progress = Progress::hidden();
    progress.print_timing(o.compile.watch.timing);
    let mut g = progress.phase(Phase::Import, || load(o))?;
    if o.compile.watch.stop_after != Some(StopAfter::Import) {
        let err = &mut std::io::stderr();
        progress.nested(Phase::Passes, |p| passes::run(&mut g, &steps, &o.compile, p, err))?;
    }
    let constants = if o.inline_constants { Constants::Inline } else { Constants::Elide };
    Ok(tir::text(&g, constants, o.locations))
}

/// The graph in a file, verified.
pub(crate) fn load(o: &OptOptions) -> Result<Graph, Vec<Diag>> {
    let file = o.file.as_path();
    driver::check_file(file).map_err(|d| vec![d])?;
    if !tir::is_text(file).map_err(|d| vec![d])? {
        let import = ImportOptions { dims: o.compile.dims.clone(), shapes: o.compile.shapes.clone() };
        return Ok(onnx::import(file, &import)?.graph);
    }
    if !(o.compile.dims.is_empty() && o.compile.shapes.is_empty()) {
        return Err(vec![Diag::new("--dim and --shape are for models; IR text states its dims itself")]);
    }
    tir::load(file, o.resources.as_deref())
}

/// The table of passes that `--list-passes` prints.
pub fn list() -> String {
    let mut rows = Vec::new();
    for e in PASSES {
        rows.push(vec![e.pass.name().to_string(), e.doc.to_string()]);
        for o in e.pass.options() {
            rows.push(vec![format!("  {{{}=N}}", o.name), format!("  {} [default: {}]", o.doc, o.default)]);
        }
    }
    crate::output::table(&["pass", "what it does"], rows, &[])
}
