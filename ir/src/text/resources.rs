//! The constants that a text elides.

use super::lex::{Tok, lex};
use crate::diag::Loc;

/// A `dense_resource<"key">` in a text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ResourceRef {
    /// What names the constant.
    pub key: String,
    /// Where the key stands.
    pub loc: Loc,
}

/// The references to constants that a text elides, in order; a key that occurs twice is there twice. The rest of the
/// text need not be right.
pub fn resource_refs(src: &str) -> Vec<ResourceRef> {
    let (tokens, _) = lex(src);
    let key = |w: &[super::lex::Token<'_>]| match (&w[0].tok, &w[1].tok, &w[2].tok) {
        (Tok::Ident("dense_resource"), Tok::Punct("<"), Tok::Str(key)) => {
            Some(ResourceRef { key: key.clone(), loc: w[2].loc() })
        }
        _ => None,
    };
    tokens.windows(3).filter_map(key).collect()
}
