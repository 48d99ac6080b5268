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
mod fold_scale;
mod fuse_attention;
mod fuse_embeddings;
mod fuse_gelu;
mod fuse_layer_norm;
mod fuse_linear;
mod fuse_quantise;
mod info;
mod integer_linear;
mod legalise;
mod linear;
mod manager;
mod measure;
mod merge_qkv;
mod pass;
mod pattern;
mod pipeline;
mod prune;
mod prune_structured;
mod quantised;
mod reassociate;
pub mod registry;
#[cfg(test)]
mod remarks_tests;
mod skip_padding;
mod slice_early;
mod step;
#[cfg(test)]
mod testing;
mod use_bf16;
mod use_int8;

pub use manager::{
    Failure, FailureKind, Instrument, Options, PassReport, Unwatched, panic_message, run, run_named, run_steps,
    run_steps_with, steps,
};
pub use measure::{Nearness, Sample};
pub use pass::{Counters, Pass, PassContext, PassOption, Remark, RemarkKind, Reports, Settings};
pub use pipeline::{fusion, pipeline};
pub use prune::{BLOCKS, Fate as PruneFate, Matrix as PrunedMatrix, PruneReport, PruneSettings};
pub use prune_structured::{StructuredReport, StructuredRow, StructuredSettings};
pub use step::{Step, parse, unknown};
pub use use_int8::{Decision, Int8Report, Int8Settings, MatrixRow};
