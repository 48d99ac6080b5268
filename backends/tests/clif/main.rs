//! Kernels compiled through Cranelift and run, against values computed in Rust: on x86-64 with and without its optional
//! instructions, and on AArch64 under qemu. What this machine can't run is reported as skipped, by name.

mod arith;
mod control;
mod convert;
mod dot;
mod machine;
mod memory;
mod objects;
mod templates;
mod value;
mod vecmath;
