//! The text form of the tensor IR: [`print`](print()) and [`parse`](parse()) are inverses up to value ids and
//! locations. `docs/ir.md` describes the language.

mod attr;
mod equal;
pub(crate) mod lex;
mod literal;
mod names;
mod parse;
mod parse_const;
mod parse_type;
mod print;
mod reader;
mod resources;

pub use equal::structurally_equal;
pub(crate) use lex::is_ident;
pub use lex::quote;
pub use names::op_names;
pub use parse::parse;
pub use print::{PrintOptions, elided, name, print, print_constant, resource_key};
pub use reader::{Constant, Reader};
pub use resources::{ResourceRef, resource_refs};

/// A resource lookup for [`parse`](parse()) that knows no resources.
pub fn no_resources(_key: &str) -> Option<crate::tensor::Tensor> {
    None
}

/// Line and column (both from 1, the column in characters) of a byte offset, for showing a `Loc::Text`.
pub fn line_col(src: &str, offset: usize) -> (usize, usize) {
    let before = &src.as_bytes()[..offset.min(src.len())];
    let start = before.iter().rposition(|&b| b == b'\n').map_or(0, |i| i + 1);
    // Bytes that continue a character are not counted.
    let chars = before[start..].iter().filter(|&&b| b & 0xc0 != 0x80).count();
    (before.iter().filter(|&&b| b == b'\n').count() + 1, chars + 1)
}

#[cfg(test)]
mod tests;
