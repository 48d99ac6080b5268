//! What other text forms share with the tensor IR's: names, sizes, types, constants. The parser of the scheduled IR
//! (in the backends) is built on it.

use super::lex::Tok;
use super::parse::Parser;
use super::parse_const::Elements;
use crate::diag::{Diag, Loc};
use crate::dims::{Dim, Symbols};
use crate::tensor::Tensor;
use crate::types::TensorType;

/// A constant as read.
#[derive(Clone, Debug)]
pub enum Constant {
    /// With its bytes.
    Tensor(Tensor),
    /// The key and the type of a resource that is not at hand.
    Missing(String, TensorType),
}

/// A cursor over tokens. Every method that returns an error leaves the cursor at or before the token it is about.
pub struct Reader<'a>(Parser<'a>);

impl<'a> Reader<'a> {
    /// Reads `src` from byte `start` on; spans count from the begin of `src`. `resources` gives elided constants by
    /// their keys.
    pub fn new(src: &'a str, start: usize, resources: &'a dyn Fn(&str) -> Option<Tensor>) -> Self {
        let mut p = Parser::new(src, resources);
        p.tokens.retain(|t| t.start >= start || t.tok == Tok::End);
        p.diags.retain(|d| !matches!(d.loc, Loc::Text { start: s, .. } if s < start));
        Reader(p)
    }

    /// Characters that are no tokens.
    pub fn unreadable(&mut self) -> Vec<Diag> {
        std::mem::take(&mut self.0.diags)
    }

    /// The dims declared so far.
    pub fn symbols(&self) -> &Symbols {
        &self.0.graph.symbols
    }

    /// Whether the text has ended.
    pub fn at_end(&self) -> bool {
        self.0.peek().tok == Tok::End
    }

    /// Byte offset of the next token.
    pub fn start(&self) -> usize {
        self.0.peek().start
    }

    /// The place from byte `start` to the last consumed token.
    pub fn span(&self, start: usize) -> Loc {
        self.0.span(start)
    }

    /// Whether the next token is this punctuation.
    pub fn is(&self, punctuation: &str) -> bool {
        self.0.is(punctuation)
    }

    /// Whether the next token is this word.
    pub fn is_word(&self, word: &str) -> bool {
        self.0.is_word(word)
    }

    /// Whether the next tokens are this word and this punctuation.
    pub fn is_call(&self, word: &str, open: &str) -> bool {
        let second = self.0.tokens.get(self.0.at + 1).map(|t| &t.tok);
        self.0.is_word(word) && matches!(second, Some(Tok::Punct(p)) if *p == open)
    }

    /// Whether the next token is a number.
    pub fn is_number(&self) -> bool {
        matches!(self.0.peek().tok, Tok::Number(_))
    }

    /// Whether the next token is a `%` with its name.
    pub fn is_value(&self) -> bool {
        matches!(self.0.peek().tok, Tok::Value(_))
    }

    /// Whether the next token is a string.
    pub fn is_string(&self) -> bool {
        matches!(self.0.peek().tok, Tok::Str(_))
    }

    /// Consumes this punctuation if it is next.
    pub fn eat(&mut self, punctuation: &str) -> bool {
        self.0.eat(punctuation)
    }

    /// Consumes this word if it is next.
    pub fn eat_word(&mut self, word: &str) -> bool {
        self.0.eat_word(word)
    }

    /// An error about the next token.
    pub fn error(&self, message: impl Into<String>) -> Diag {
        self.0.error(message)
    }

    /// An error about the next token, which should have been `what`.
    pub fn expected(&self, what: &str) -> Diag {
        self.0.expected(what)
    }

    /// Consumes this punctuation.
    ///
    /// # Errors
    /// It isn't next.
    pub fn expect(&mut self, punctuation: &str) -> Result<(), Diag> {
        self.0.expect(punctuation)
    }

    /// Consumes this word.
    ///
    /// # Errors
    /// It isn't next.
    pub fn expect_word(&mut self, word: &str) -> Result<(), Diag> {
        self.0.expect_word(word)
    }

    /// A string's contents.
    ///
    /// # Errors
    /// The next token is no string; it should have been `what`.
    pub fn string(&mut self, what: &str) -> Result<String, Diag> {
        self.0.string(what)
    }

    /// The name after a `%`, if that is next.
    pub fn value(&mut self) -> Option<String> {
        let Tok::Value(name) = self.0.peek().tok.clone() else { return None };
        self.0.at += 1;
        Some(name)
    }

    /// The name after an `@`.
    ///
    /// # Errors
    /// None is next.
    pub fn func(&mut self) -> Result<String, Diag> {
        let Tok::Func(name) = self.0.peek().tok.clone() else { return Err(self.0.expected("'@' and a name")) };
        self.0.at += 1;
        Ok(name)
    }

    /// A non-negative integer.
    ///
    /// # Errors
    /// None is next, or it is too large.
    pub fn index(&mut self) -> Result<usize, Diag> {
        let at = self.0.at;
        self.0.index().inspect_err(|_| self.0.at = at)
    }

    /// An integer.
    ///
    /// # Errors
    /// None is next, or it is too large.
    pub fn integer(&mut self) -> Result<i64, Diag> {
        let at = self.0.at;
        self.0.signed().inspect_err(|_| self.0.at = at)
    }

    /// A line of `dims`, whose symbols are declared from here on.
    ///
    /// # Errors
    /// Anything wrong with it.
    pub fn dims(&mut self) -> Result<(), Diag> {
        self.0.dims()
    }

    /// A size.
    ///
    /// # Errors
    /// Anything wrong with it.
    pub fn dim(&mut self) -> Result<Dim, Diag> {
        self.0.dim(0)
    }

    /// A tensor type.
    ///
    /// # Errors
    /// Anything wrong with it.
    pub fn ty(&mut self) -> Result<TensorType, Diag> {
        self.0.ty()
    }

    /// The elements of a constant of type `ty`; without one, a colon and a type follow them.
    ///
    /// # Errors
    /// Anything wrong with it, and a resource of another type; not a resource that isn't there.
    pub fn constant(&mut self, ty: Option<&TensorType>) -> Result<Constant, Diag> {
        let start = self.start();
        let elements = self.0.elements()?;
        let ty = match ty {
            Some(ty) => ty.clone(),
            None => {
                self.0.expect(":")?;
                self.0.ty()?
            }
        };
        let at = self.span(start);
        if let Elements::Resource(key, _) = &elements
            && (self.0.resources)(key).is_none()
        {
            return match ty.const_shape() {
                Some(_) => Ok(Constant::Missing(key.clone(), ty)),
                None => Err(Diag::new("the dims of a constant must be constants").at(at)),
            };
        }
        self.0.constant(&elements, &ty).map(Constant::Tensor).map_err(|d| d.or_at(at))
    }

    /// Items between commas up to `close`, which is consumed.
    ///
    /// # Errors
    /// An item's, or neither a comma nor `close` follows one.
    pub fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Result<T, Diag>) -> Result<Vec<T>, Diag> {
        let mut v = Vec::new();
        if self.eat(close) {
            return Ok(v);
        }
        loop {
            v.push(item(self)?);
            if self.eat(close) {
                return Ok(v);
            }
            if !self.eat(",") {
                return Err(self.expected(&format!("',' or '{close}'")));
            }
        }
    }

    /// A mark of the present place, for [`skip_line`](Self::skip_line).
    pub fn mark(&self) -> usize {
        self.0.at
    }

    /// Goes on at the first line that begins behind a mark.
    pub fn skip_line(&mut self, mark: usize) {
        self.0.skip_line(mark);
    }
}
