//! Tests and benchmarks of the bertc compiler.
