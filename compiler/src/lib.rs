//! An ahead-of-time compiler for BERT-class ONNX models.
//!
//! ```no_run
//! use std::path::Path;
//!
//! let options = bertc::CompileOptions { name: "bert".into(), ..Default::default() };
//! let compiled = bertc::compile(Path::new("model.onnx"), &options).map_err(|e| e[0].clone())?;
//! let mut object = std::fs::File::create("bert.o")?;
//! compiled.write_object(&mut object).map_err(|e| e[0].clone())?;
//! std::fs::write("bert.h", compiled.header())?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::path::Path;

pub mod bench;
pub mod calibration;
pub mod check;
pub mod cli;
pub mod demo;
pub mod driver;
pub mod emit;
pub mod export;
pub mod import;
pub mod inspect;
pub mod instrument;
pub mod internal;
pub mod layers;
pub mod link;
pub mod load;
pub mod npz;
pub mod opt;
#[cfg(test)]
mod opt_tests;
pub mod options;
pub mod output;
pub mod passes;
pub mod picture;
pub mod progress;
pub mod pruning;
pub mod report;
pub mod reproducer;
pub mod run;
pub mod sparse;
pub mod stub;
pub mod tir;
pub mod tune;
pub mod tuning;

pub use bertc_backends::plan::Program;
pub use bertc_ir::Diag;
pub use driver::Compiled;
pub use options::CompileOptions;

/// Compiles a model file.
///
/// # Errors
/// Everything that is wrong with options or model, all at once.
pub fn compile(path: &Path, options: &CompileOptions) -> Result<Compiled, Vec<Diag>> {
    driver::compile_with(path, options, &mut progress::Progress::hidden())
}
