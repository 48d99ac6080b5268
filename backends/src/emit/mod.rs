//! Emitters: kernel IR to machine code.

pub mod clif;
