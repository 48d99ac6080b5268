//! Lowering, planning, code emission and object writing of the bertc compiler.

pub mod emit;
pub mod plan;
pub mod target;
pub mod vecmath;
