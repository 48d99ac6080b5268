//! Parsing of the elements of constants.

use super::lex::Tok;
use super::literal::{Literal, read_element, read_hex};
use super::parse::Parser;
use crate::diag::Diag;
use crate::dims::Symbols;
use crate::tensor::Tensor;
use crate::types::TensorType;

/// Bytes that one repeated element may fill.
const MAX_SPLAT: usize = 1 << 26;

/// The elements of a constant as written, before its type is known.
pub(super) enum Elements<'a> {
    Splat(Literal<'a>),
    List(Vec<Literal<'a>>),
    Hex(String),
    Resource(String),
}

impl<'a> Parser<'a> {
    pub(super) fn literal(&mut self) -> Result<Literal<'a>, Diag> {
        let negative = self.eat("-");
        match self.peek().tok {
            Tok::Number(text) | Tok::Ident(text @ ("inf" | "nan" | "true" | "false")) => {
                self.at += 1;
                Ok(Literal { negative, text })
            }
            _ => Err(self.expected("an element")),
        }
    }

    pub(super) fn elements(&mut self) -> Result<Elements<'a>, Diag> {
        let e = self.expected("'dense', 'dense_hex' or 'dense_resource'");
        let form = self.ident("'dense', 'dense_hex' or 'dense_resource'")?;
        self.expect("<")?;
        let r = match form {
            "dense" if self.eat("[") => Elements::List(self.list("]", Self::literal)?),
            "dense" => Elements::Splat(self.literal()?),
            "dense_hex" => Elements::Hex(self.string("hex digits")?),
            "dense_resource" => Elements::Resource(self.string("the key of a resource")?),
            _ => return Err(e),
        };
        self.expect(">")?;
        Ok(r)
    }

    pub(super) fn constant(&self, e: &Elements<'_>, ty: &TensorType) -> Result<Tensor, String> {
        let shape = ty.const_shape().ok_or("the dims of a constant must be constants")?;
        let mut data = Vec::new();
        match e {
            Elements::Splat(l) => {
                read_element(*l, ty.dtype, &mut data)?;
                let n = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
                let n = n.filter(|n| n.saturating_mul(data.len()) <= MAX_SPLAT);
                data = data.repeat(n.ok_or("a repeated element fills too much")?);
            }
            Elements::List(v) => v.iter().try_for_each(|&l| read_element(l, ty.dtype, &mut data))?,
            Elements::Hex(s) => data = read_hex(s).ok_or("expected an even number of hex digits")?,
            Elements::Resource(key) => {
                let t = (self.resources)(key).ok_or_else(|| format!("resource \"{key}\" is not available"))?;
                if t.dtype() != ty.dtype || t.shape() != shape {
                    return Err(format!("resource \"{key}\" is {} {:?}", t.dtype(), t.shape()));
                }
                return Ok(t);
            }
        }
        let n = data.len() / ty.dtype.size();
        let wrong = || format!("{n} elements don't fill {}", ty.display(&Symbols::default()));
        Tensor::new(ty.dtype, shape.clone(), data.into()).ok_or_else(wrong)
    }
}
