//! Compiles a graph for this machine, loads the code into this process and runs it, as `bertc run` does.

use std::fs::File;

use bertc::link;
use bertc::load::LoadedModel;
use bertc_backends::lower;
use bertc_backends::object::{EmitOptions, emit_object};
use bertc_backends::target::Target;
use bertc_ir::{Graph, Tensor};

use crate::targets::{check_diags, show};

/// What became of a graph.
#[derive(Debug)]
pub enum Native {
    /// The backend refused it, with a diagnostic.
    Refused,
    /// The code refused its inputs: an index out of range.
    Failed,
    /// The outputs.
    Ran(Vec<Tensor>),
}

/// Compiles an optimised, legal graph and loads it.
///
/// # Errors
/// A program that doesn't verify, an object that can't be written, linked or loaded.
pub fn load(graph: &Graph, target: &Target) -> Result<Option<LoadedModel>, String> {
    let mut graph = graph.clone();
    graph.name = "fuzzed".to_string();
    let program = match lower::lower(&graph, target) {
        Ok(p) => p,
        Err(d) => return check_diags(&d).map(|()| None),
    };
    program.verify().map_err(|d| format!("the program doesn't verify: {}", show(&d)))?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (object, library) = (dir.path().join("model.o"), dir.path().join("model.so"));
    let mut file = File::create(&object).map_err(|e| e.to_string())?;
    let emitted = emit_object(&program, target, &EmitOptions::default(), &mut file);
    emitted.map_err(|d| format!("the object can't be written: {}", show(&d)))?;
    drop(file);
    link::link_shared(target, &object, &library).map_err(|d| d.to_string())?;
    LoadedModel::open(&library, "fuzzed").map(Some).map_err(|d| d.to_string())
}

/// Runs an optimised, legal graph.
///
/// # Errors
/// As [`load`], and a run that fails for another reason than an index.
pub fn run(graph: &Graph, target: &Target, dims: &[i64], inputs: &[Tensor]) -> Result<Native, String> {
    let Some(loaded) = load(graph, target)? else { return Ok(Native::Refused) };
    let mut session = loaded.session(inputs, dims, None).map_err(|d| d.to_string())?;
    match session.run() {
        Ok(()) => Ok(Native::Ran(session.outputs())),
        Err(e) if e.code == bertc_rt::abi::status::INDEX_OUT_OF_RANGE => Ok(Native::Failed),
        Err(e) => Err(e.to_string()),
    }
}
