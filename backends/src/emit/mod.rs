//! Emitters: kernel IR to machine code, and the glue around the kernels.

pub mod bytes;
pub mod clif;
pub(crate) mod driver;
pub mod x86;
