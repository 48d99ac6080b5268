//! Parsing of the elements of constants.

use super::lex::Tok;
use super::literal::{Literal, read_element, read_hex};
use super::parse::Parser;
use crate::diag::{Diag, Loc};
use crate::dims::Symbols;
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// Bytes that one repeated element may fill.
const MAX_SPLAT: usize = 1 << 26;

/// The elements of a constant as written, before its type is known.
pub(super) enum Elements<'a> {
    Splat(Literal<'a>),
    List(Vec<Literal<'a>>),
    Hex(String),
    /// The key, and where it stands.
    Resource(String, Loc),
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
            "dense_resource" => {
                let at = self.peek().loc();
                Elements::Resource(self.string("the key of a resource")?, at)
            }
            _ => return Err(e),
        };
        self.expect(">")?;
        Ok(r)
    }

    /// The tensor; an error without a place concerns the whole statement.
    pub(super) fn constant(&self, e: &Elements<'_>, ty: &TensorType) -> Result<Tensor, Diag> {
        let shape = ty.const_shape().ok_or_else(|| Diag::new("the dims of a constant must be constants"))?;
        let data = match e {
            Elements::Resource(key, at) => self.resource(key, at)?,
            e => written(e, ty.dtype, &shape).map_err(Diag::new)?.into(),
        };
        let (bytes, n) = (data.len(), data.len() / ty.dtype.size());
        Tensor::new(ty.dtype, shape, data).ok_or_else(|| {
            let symbols = Symbols::default();
            let ty = ty.display(&symbols);
            match e {
                Elements::Resource(key, at) => {
                    Diag::new(format!("the {bytes} bytes of resource \"{key}\" don't fill {ty}")).at(at.clone())
                }
                _ => Diag::new(format!("{n} elements don't fill {ty}")),
            }
        })
    }

    /// The bytes of a resource: their type is the text's, as a key stands for bytes.
    fn resource(&self, key: &str, at: &Loc) -> Result<bytes::Bytes, Diag> {
        let missing = || Diag::new(format!("resource \"{key}\" is not available")).at(at.clone());
        (self.resources)(key).map(|t| t.bytes().clone()).ok_or_else(missing)
    }
}

/// The bytes of elements in the text.
fn written(e: &Elements<'_>, dtype: DType, shape: &[usize]) -> Result<Vec<u8>, String> {
    let mut data = Vec::new();
    match e {
        Elements::Splat(l) => {
            read_element(*l, dtype, &mut data)?;
            let n = shape.iter().try_fold(1usize, |a, &d| a.checked_mul(d));
            let n = n.filter(|n| n.saturating_mul(data.len()) <= MAX_SPLAT);
            data = data.repeat(n.ok_or("a repeated element fills too much")?);
        }
        Elements::List(v) => v.iter().try_for_each(|&l| read_element(l, dtype, &mut data))?,
        Elements::Hex(s) => data = read_hex(s).ok_or("expected an even number of hex digits")?,
        Elements::Resource(..) => {}
    }
    Ok(data)
}
