//! Lowering, planning, code emission and object writing of the bertc compiler.

pub mod plan;
pub mod vecmath;
