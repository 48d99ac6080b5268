//! Passes over the tensor IR of the bertc compiler.
//!
//! A pass is one file, named like its flag; [`registry`] lists them, [`pipeline`] orders them for an optimisation
//! level, [`run`] runs a list. Architecture invariants: a pass depends on nothing but the IR; it never adds a
//! run-time error and never changes a result beyond the rounding that its documentation states. It may remove a
//! run-time error whose operation no output needs any more.

mod affine;
mod build;
mod canonicalise;
mod cse;
mod dce;
mod fold_constants;
mod info;
mod legalise;
mod manager;
mod pass;
mod pipeline;
pub mod registry;
#[cfg(test)]
mod testing;

pub use manager::{Options, PassReport, run, run_named};
pub use pass::{Pass, PassContext};
pub use pipeline::pipeline;
