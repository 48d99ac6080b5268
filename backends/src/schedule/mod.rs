//! The scheduled IR: the text form of a [`Program`](crate::plan::Program) and what makes one valid.
//! `docs/scheduled-ir.md` describes the language. [`parse`] reads what [`Program::print`](crate::plan::Program::print)
//! writes: everything but the elements of large constants.

mod parse;
mod print;
mod verify;

pub use parse::parse;

#[cfg(test)]
mod tests;
