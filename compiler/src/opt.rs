//! `bertc opt`: runs passes on a file of tensor IR or on a model, and prints what they made of it.

use std::path::{Path, PathBuf};

use bertc_ir::text::{PrintOptions, parse, print};
use bertc_ir::{Diag, Graph, Loc, Tensor};
use bertc_passes::registry::{Entry, PASSES};

use crate::import::onnx::{self, ImportOptions};
use crate::options::{CompileOptions, StopAfter};
use crate::output::{Staged, check_target, to_stdout};
use crate::progress::{Phase, Progress};
use crate::{driver, npz, passes};

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
    Ok(print(&g, &PrintOptions { inline_constants: o.inline_constants, locations: o.locations }))
}

/// The graph in a file, verified.
fn load(o: &OptOptions) -> Result<Graph, Vec<Diag>> {
    let file = o.file.as_path();
    driver::check_file(file).map_err(|d| vec![d])?;
    let Some(src) = text_of(file)? else {
        let import = ImportOptions { dims: o.compile.dims.clone(), shapes: o.compile.shapes.clone() };
        return Ok(onnx::import(file, &import)?.graph);
    };
    if !(o.compile.dims.is_empty() && o.compile.shapes.is_empty()) {
        return Err(vec![Diag::new("--dim and --shape are for models; IR text states its dims itself")]);
    }
    let resources = match &o.resources {
        Some(path) => {
            let wrong = |e: &dyn std::fmt::Display| vec![Diag::new(format!("can't read '{}': {e}", path.display()))];
            npz::read(std::fs::File::open(path).map_err(|e| wrong(&e))?).map_err(|e| wrong(&e))?
        }
        None => std::collections::BTreeMap::new(),
    };
    let find = |key: &str| -> Option<Tensor> { resources.get(key).cloned() };
    let located = |all: Vec<Diag>| all.into_iter().map(|d| in_text(d, file, &src)).collect::<Vec<_>>();
    let g = parse(&src, &find).map_err(located)?;
    bertc_ir::verify::verify(&g).map_err(located)?;
    Ok(g)
}

/// What the file says, if it is text; protobuf has bytes that no text has.
fn text_of(file: &Path) -> Result<Option<String>, Vec<Diag>> {
    if file.extension().is_some_and(|e| e == "onnx") {
        return Ok(None);
    }
    let wrong = |e: std::io::Error| vec![Diag::new(format!("can't read '{}': {e}", file.display()))];
    let bytes = std::fs::read(file).map_err(wrong)?;
    let is_tir = file.extension().is_some_and(|e| e == "tir");
    match String::from_utf8(bytes) {
        Ok(text) if is_tir || !text.contains('\0') => Ok(Some(text)),
        Err(_) if is_tir => Err(vec![Diag::new(format!("'{}' is not UTF-8 text", file.display()))]),
        _ => Ok(None),
    }
}

/// A diagnostic with line and column in place of bytes, and the line.
fn in_text(d: Diag, file: &Path, src: &str) -> Diag {
    let Loc::Text { start, .. } = d.loc else { return d };
    let (line, column) = bertc_ir::text::line_col(src, start);
    let shown = Diag::new(format!("{}:{line}:{column}: {}", file.display(), d.message));
    d.notes.into_iter().fold(shown, Diag::note)
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
