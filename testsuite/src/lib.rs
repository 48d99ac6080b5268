//! Tests of the bertc compiler: models with golden outputs, compiled, linked with a C driver, and run natively or
//! under emulation.

pub mod conformance;
pub mod end_to_end;
pub mod filetest;
pub mod golden;
pub mod machine;
pub mod subtest;

use std::path::{Path, PathBuf};

/// The folder of the test models.
pub fn zoo_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("models/zoo")
}
