//! Parsing of sizes and types.

use super::lex::Tok;
use super::parse::Parser;
use crate::diag::Diag;
use crate::dims::Dim;
use crate::infer::check_type;
use crate::types::{DType, TensorType};

/// Nesting of parentheses in a size.
const MAX_DEPTH: usize = 32;
/// Terms of a size, so that text can't make the sizes of types explode.
const MAX_TERMS: usize = 256;

impl Parser<'_> {
    pub(super) fn signed(&mut self) -> Result<i64, Diag> {
        let negative = self.eat("-");
        let e = self.expected("an integer");
        let Tok::Number(s) = self.next().tok else { return Err(e) };
        let v = s.parse::<i128>().map_err(|_| e.clone())?;
        i64::try_from(if negative { -v } else { v }).map_err(|_| e)
    }

    pub(super) fn index(&mut self) -> Result<usize, Diag> {
        let e = self.expected("a non-negative integer");
        let Tok::Number(s) = self.next().tok else { return Err(e) };
        s.parse().map_err(|_| e)
    }

    /// A polynomial over the symbols.
    pub(super) fn dim(&mut self, depth: usize) -> Result<Dim, Diag> {
        let start = self.peek().start;
        let overflow = |p: &Self| Diag::new("a size is too large").at(p.span(start));
        let mut sum = Dim::constant(0);
        let mut negative = self.eat("-");
        loop {
            // The one constant whose absolute value has no 64-bit form.
            let min = negative && matches!(self.peek().tok, Tok::Number("9223372036854775808"));
            let mut term = if min {
                self.at += 1;
                negative = false;
                Dim::constant(i64::MIN)
            } else {
                self.factor(depth)?
            };
            while self.eat("*") {
                let f = self.factor(depth)?;
                let fits = term.terms().saturating_mul(f.terms()) <= MAX_TERMS;
                term = fits.then(|| term.mul(&f)).flatten().ok_or_else(|| overflow(self))?;
            }
            let next = if negative { sum.sub(&term) } else { sum.add(&term) };
            sum = next.filter(|d| d.terms() <= MAX_TERMS).ok_or_else(|| overflow(self))?;
            negative = if self.eat("+") {
                false
            } else if self.eat("-") {
                true
            } else {
                return Ok(sum);
            };
        }
    }

    fn factor(&mut self, depth: usize) -> Result<Dim, Diag> {
        match self.peek().tok {
            Tok::Number(s) => {
                let v = s.parse().map_err(|_| self.expected("an integer"))?;
                self.at += 1;
                Ok(Dim::constant(v))
            }
            Tok::Ident(s) => {
                let unknown = || {
                    self.error(format!("dim '{s}' is not declared"))
                        .note(format!("declare it above the function, for example 'dims {s} in 1..=512'"))
                };
                let base = Dim::symbol(self.graph.symbols.find(s).ok_or_else(unknown)?);
                self.at += 1;
                let mut d = base.clone();
                if self.eat("^") {
                    let e = self.error("a power must be from 1 to 64");
                    let power = self.index().ok().filter(|p| (1..=64).contains(p)).ok_or_else(|| e.clone())?;
                    for _ in 1..power {
                        d = d.mul(&base).ok_or_else(|| e.clone())?;
                    }
                }
                Ok(d)
            }
            Tok::Punct("(") if depth < MAX_DEPTH => {
                self.at += 1;
                let d = self.dim(depth + 1)?;
                self.expect(")")?;
                Ok(d)
            }
            Tok::Punct("(") => Err(self.error("a size is nested too deeply")),
            _ => Err(self.expected("a size")),
        }
    }

    pub(super) fn ty(&mut self) -> Result<TensorType, Diag> {
        let start = self.peek().start;
        self.expect_word("tensor")?;
        self.expect("<")?;
        let mut shape = Vec::new();
        // What a `x` follows is a dim, the last one the element type.
        loop {
            let dtype = match self.peek().tok {
                Tok::Ident(s) if matches!(self.tokens[self.at + 1].tok, Tok::Punct(">")) => DType::from_name(s),
                _ => None,
            };
            if let Some(dtype) = dtype {
                self.at += 1;
                self.expect(">")?;
                let ty = TensorType::new(dtype, shape);
                check_type(&ty, &self.graph.symbols).map_err(|m| Diag::new(m).at(self.span(start)))?;
                return Ok(ty);
            }
            shape.push(self.dim(0)?);
            if !self.eat_word("x") {
                return Err(self.expected("'x' and an element type"));
            }
        }
    }
}
