//! Parsing. A statement that is wrong is reported and skipped to the end of its line, so one run reports many errors;
//! uses of its result are then not reported again.

use std::collections::{BTreeMap, HashMap};

use super::attr::{Attr, Attrs, Kind, build, kind};
use super::lex::{Tok, Token, lex};
use super::literal::read_element;

use crate::diag::{Diag, Loc};
use crate::graph::{Graph, ValueId};
use crate::op::{Op, UnaryOp};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// Errors after which parsing ends.
const MAX_ERRORS: usize = 100;

/// Parses one function. `resources` gives the large constants that the text elides, by
/// [`resource_key`](super::resource_key).
///
/// # Errors
/// Everything that is wrong with the text, each with the bytes it concerns (`Loc::Text`).
pub fn parse(src: &str, resources: &dyn Fn(&str) -> Option<Tensor>) -> Result<Graph, Vec<Diag>> {
    let mut p = Parser::new(src, resources);
    if let Err(d) = p.file() {
        p.report(d);
    }
    if p.diags.is_empty() {
        return Ok(p.graph);
    }
    let start = |d: &Diag| if let Loc::Text { start, .. } = d.loc { start } else { 0 };
    p.diags.sort_by_key(start);
    Err(p.diags)
}

/// What stops a statement.
enum Stop {
    /// An error to report.
    Error(Diag),
    /// The result of a statement that was reported already.
    Reported,
}

impl From<Diag> for Stop {
    fn from(d: Diag) -> Self {
        Stop::Error(d)
    }
}

type Parsed<T> = Result<T, Stop>;

/// The state; `parse_type` and `parse_const` hold more of its methods.
pub(super) struct Parser<'a> {
    pub(super) tokens: Vec<Token<'a>>,
    pub(super) at: usize,
    pub(super) diags: Vec<Diag>,
    pub(super) graph: Graph,
    /// Values by name; `None` for the result of a statement with an error.
    values: HashMap<String, Option<ValueId>>,
    pub(super) resources: &'a dyn Fn(&str) -> Option<Tensor>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(src: &'a str, resources: &'a dyn Fn(&str) -> Option<Tensor>) -> Self {
        let (tokens, diags) = lex(src);
        Parser { tokens, at: 0, diags, graph: Graph::new(""), values: HashMap::new(), resources }
    }

    // Tokens

    pub(super) fn peek(&self) -> &Token<'a> {
        // The last token is the end, which nothing consumes.
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    pub(super) fn next(&mut self) -> Token<'a> {
        let t = self.peek().clone();
        if t.tok != Tok::End {
            self.at += 1;
        }
        t
    }

    pub(super) fn is(&self, p: &str) -> bool {
        matches!(self.peek().tok, Tok::Punct(q) if q == p)
    }

    pub(super) fn is_word(&self, w: &str) -> bool {
        matches!(self.peek().tok, Tok::Ident(s) if s == w)
    }

    pub(super) fn eat(&mut self, p: &str) -> bool {
        let yes = self.is(p);
        self.at += usize::from(yes);
        yes
    }

    pub(super) fn eat_word(&mut self, w: &str) -> bool {
        let yes = self.is_word(w);
        self.at += usize::from(yes);
        yes
    }

    pub(super) fn error(&self, message: impl Into<String>) -> Diag {
        let t = self.peek();
        Diag::new(message).at(Loc::Text { start: t.start, end: t.end })
    }

    pub(super) fn expected(&self, what: &str) -> Diag {
        self.error(format!("expected {what}, got {}", self.peek().tok))
    }

    pub(super) fn expect(&mut self, p: &str) -> Result<(), Diag> {
        if self.eat(p) { Ok(()) } else { Err(self.expected(&format!("'{p}'"))) }
    }

    pub(super) fn expect_word(&mut self, w: &str) -> Result<(), Diag> {
        if self.eat_word(w) { Ok(()) } else { Err(self.expected(&format!("'{w}'"))) }
    }

    pub(super) fn ident(&mut self, what: &str) -> Result<&'a str, Diag> {
        match self.peek().tok {
            Tok::Ident(s) => {
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.expected(what)),
        }
    }

    pub(super) fn string(&mut self, what: &str) -> Result<String, Diag> {
        match self.peek().tok.clone() {
            Tok::Str(s) => {
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.expected(what)),
        }
    }

    /// The place from byte `start` to the last consumed token.
    pub(super) fn span(&self, start: usize) -> Loc {
        let end = self.at.checked_sub(1).map_or(start, |i| self.tokens[i].end);
        Loc::Text { start, end: end.max(start) }
    }

    fn report(&mut self, d: Diag) {
        self.diags.push(d);
    }

    /// Goes to the first token of a line that follows token `from`.
    pub(super) fn skip_line(&mut self, from: usize) {
        while self.peek().tok != Tok::End && !(self.at > from && self.peek().first) {
            self.at += 1;
        }
    }

    /// Items between commas up to `close`, which is consumed.
    pub(super) fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Result<T, Diag>,
    ) -> Result<Vec<T>, Diag> {
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

    // Structure

    fn file(&mut self) -> Result<(), Diag> {
        while self.is_word("dims") {
            let from = self.at;
            let r = self.dims();
            self.recover(r, from);
        }
        self.expect_word("func")?;
        let Tok::Func(name) = self.peek().tok.clone() else { return Err(self.expected("'@' and a name")) };
        self.at += 1;
        self.graph.name = name;
        self.expect("(")?;
        self.list(")", Self::input)?;
        self.expect("->")?;
        let results = if self.eat("(") { self.list(")", Self::result)? } else { vec![self.unnamed_result()?] };
        self.expect("{")?;
        while !self.is_word("return") {
            if self.is("}") || self.peek().tok == Tok::End || self.diags.len() >= MAX_ERRORS {
                return Err(self.expected("a statement or 'return'"));
            }
            let from = self.at;
            let r = self.statement();
            self.recover_statement(r, from);
        }
        let from = self.at;
        self.at += 1;
        let r = self.returns(&results);
        self.recover_statement(r, from);
        self.expect("}")?;
        if self.peek().tok == Tok::End { Ok(()) } else { Err(self.expected("the end: a file holds one function")) }
    }

    fn recover(&mut self, r: Result<(), Diag>, from: usize) {
        if let Err(d) = r {
            self.report(d);
            self.skip_line(from);
        }
    }

    fn recover_statement(&mut self, r: Parsed<()>, from: usize) {
        match r {
            Ok(()) => {}
            Err(Stop::Error(d)) => self.recover(Err(d), from),
            Err(Stop::Reported) => self.skip_line(from),
        }
    }

    pub(super) fn dims(&mut self) -> Result<(), Diag> {
        self.expect_word("dims")?;
        loop {
            let e = self.error("the dim is declared twice");
            let name = self.ident("the name of a dim")?;
            self.expect_word("in")?;
            let start = self.peek().start;
            let min = self.signed()?;
            self.expect("..=")?;
            let max = self.signed()?;
            if min < 0 || max < min {
                return Err(Diag::new(format!("{min}..={max} is not a range of sizes")).at(self.span(start)));
            }
            if self.graph.symbols.find(name).is_some() {
                return Err(e);
            }
            self.graph.symbols.intern(name, min, max);
            if !self.eat(",") {
                return Ok(());
            }
        }
    }

    fn define(&mut self, name: String, value: Option<ValueId>, at: &Token<'a>) -> Result<(), Diag> {
        if self.values.contains_key(&name) {
            let loc = Loc::Text { start: at.start, end: at.end };
            return Err(Diag::new(format!("'%{name}' is defined twice")).at(loc));
        }
        self.values.insert(name, value);
        Ok(())
    }

    fn input(&mut self) -> Result<(), Diag> {
        let at = self.peek().clone();
        let Tok::Value(name) = at.tok.clone() else { return Err(self.expected("'%' and a name")) };
        self.at += 1;
        self.expect(":")?;
        let ty = self.ty()?;
        let v = self.graph.add_input(name.clone(), ty);
        self.define(name, Some(v), &at)
    }

    fn result(&mut self) -> Result<(String, TensorType), Diag> {
        let name = match self.peek().tok.clone() {
            Tok::Ident(s) => s.to_string(),
            Tok::Str(s) => s,
            _ => return Err(self.expected("the name of a result")),
        };
        self.at += 1;
        self.expect(":")?;
        Ok((name, self.ty()?))
    }

    fn unnamed_result(&mut self) -> Result<(String, TensorType), Diag> {
        Ok(("out".to_string(), self.ty()?))
    }

    fn operand(&mut self) -> Parsed<ValueId> {
        let Tok::Value(name) = &self.peek().tok else { return Err(self.expected("a value").into()) };
        let v = match self.values.get(name) {
            Some(Some(v)) => *v,
            Some(None) => return Err(Stop::Reported),
            None => return Err(self.error(format!("'%{name}' is not defined")).into()),
        };
        self.at += 1;
        Ok(v)
    }

    fn returns(&mut self, results: &[(String, TensorType)]) -> Parsed<()> {
        for (i, (name, ty)) in results.iter().enumerate() {
            if i > 0 {
                self.expect(",")?;
            }
            let at = self.peek().clone();
            let v = self.operand()?;
            if self.graph.ty(v) != ty {
                let s = &self.graph.symbols;
                let m = format!("the value is {}, declared {}", self.graph.ty(v).display(s), ty.display(s));
                return Err(Diag::new(m).at(Loc::Text { start: at.start, end: at.end }).into());
            }
            self.graph.add_output(name.clone(), v);
        }
        Ok(())
    }

    fn statement(&mut self) -> Parsed<()> {
        let at = self.peek().clone();
        let Tok::Value(name) = at.tok.clone() else {
            return Err(self.expected("a statement: '%', a name and '='").into());
        };
        self.at += 1;
        let r = self.definition(at.start);
        // The name counts as defined either way, so that its uses don't fail again.
        self.define(name, r.as_ref().ok().copied(), &at)?;
        r.map(|_| ())
    }

    fn definition(&mut self, start: usize) -> Parsed<ValueId> {
        self.expect("=")?;
        let name_at = self.peek().clone();
        let name = self.ident("an op")?;
        let elements = if name == "constant" { Some(self.elements()?) } else { None };
        let mut operands = Vec::new();
        if matches!(self.peek().tok, Tok::Value(_)) && !self.peek().first {
            operands.push(self.operand()?);
            while self.eat(",") {
                operands.push(self.operand()?);
            }
        }
        let mut attrs = Attrs(BTreeMap::new());
        if self.eat("{") {
            let pairs = self.list("}", Self::attribute)?;
            for (k, v) in pairs {
                if attrs.0.insert(k.to_string(), v).is_some() {
                    return Err(Diag::new(format!("attribute '{k}' is given twice")).at(self.span(start)).into());
                }
            }
        }
        let ty = if self.eat(":") { Some(self.ty()?) } else { None };
        let source = self.location()?;
        let span = self.span(start);
        if !self.peek().first {
            return Err(self.expected("the end of the line").into());
        }
        let at_name = |m: String| Diag::new(m).at(Loc::Text { start: name_at.start, end: name_at.end });
        let op = match elements {
            Some(e) => {
                let ty = ty.as_ref().ok_or_else(|| at_name("a constant needs its type".to_string()))?;
                Op::Constant(self.constant(&e, ty).map_err(|m| Diag::new(m).at(span.clone()))?)
            }
            None => build(name, &mut attrs).map_err(at_name)?,
        };
        let loc = source.unwrap_or_else(|| span.clone());
        let v = self.graph.add(op, &operands, &loc).map_err(|d| d.at(span.clone()))?;
        let real = self.graph.ty(v);
        if let Some(ty) = ty.filter(|t| t != real) {
            let s = &self.graph.symbols;
            let m = format!("the result is {}, written {}", real.display(s), ty.display(s));
            return Err(Diag::new(m).at(span).into());
        }
        Ok(v)
    }

    fn location(&mut self) -> Result<Option<Loc>, Diag> {
        if !self.eat_word("loc") {
            return Ok(None);
        }
        self.expect("(")?;
        let name = self.string("the name of a node")?;
        self.expect(",")?;
        let op = self.string("the operator of a node")?;
        let output = if self.eat(",") { self.string("the name of an output")? } else { String::new() };
        self.expect(")")?;
        Ok(Some(Loc::node(name, op).output(&output)))
    }

    fn attribute(&mut self) -> Result<(&'a str, Attr), Diag> {
        let unknown = self.error(format!("unknown attribute {}", self.peek().tok));
        let name = self.ident("the name of an attribute")?;
        let kind = kind(name).ok_or(unknown)?;
        self.expect("=")?;
        let value = match kind {
            Kind::Int => Attr::Int(self.index()?),
            Kind::Ints => {
                self.expect("[")?;
                Attr::Ints(self.list("]", Self::index)?)
            }
            Kind::Bool if self.eat_word("true") => Attr::Bool(true),
            Kind::Bool if self.eat_word("false") => Attr::Bool(false),
            Kind::Bool => return Err(self.expected("'true' or 'false'")),
            Kind::Float => {
                let e = self.expected("a float");
                let l = self.literal()?;
                let mut b = Vec::new();
                read_element(l, DType::F32, &mut b).map_err(|m| Diag::new(m).at(e.loc.clone()))?;
                Attr::Float(f32::from_le_bytes(b.try_into().map_err(|_| e)?))
            }
            Kind::Dim => Attr::Dim(self.dim(0)?),
            Kind::Dims => {
                self.expect("[")?;
                Attr::Dims(self.list("]", |p| p.dim(0))?)
            }
            Kind::Unary => {
                let e = self.expected("an elementwise op");
                Attr::Unary(UnaryOp::from_name(self.ident("an elementwise op")?).ok_or(e)?)
            }
            Kind::Type => {
                let e = self.expected("an element type");
                Attr::Type(DType::from_name(self.ident("an element type")?).ok_or(e)?)
            }
        };
        Ok((name, value))
    }
}
