//! Lowering, planning, code emission and object writing of the bertc compiler.
