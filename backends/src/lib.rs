//! Lowering, planning, code emission and object writing of the bertc compiler.

pub mod arena;
pub mod bandwidth;
pub mod emit;
pub mod header;
pub mod lower;
pub mod object;
pub mod pack;
pub mod peak;
pub mod plan;
pub mod schedule;
pub mod sparse;
pub mod target;
pub mod tuning;
pub mod vecmath;
