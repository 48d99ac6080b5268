//! Parsing. A statement that is wrong is reported and skipped to the end of its line, so one run reports many errors;
//! uses of its result are then not reported again.

use std::collections::{BTreeMap, HashMap};

use super::attr::{Attr, Attrs, KINDS, Kind, build, kind};
use super::lex::{Tok, Token, lex};
use super::literal::read_element;
use super::names::{is_op, op_names};
use crate::diag::{Diag, Loc, closest, did_you_mean};
use crate::graph::{Graph, ValueId};
use crate::op::{BinaryOp, Op, UnaryOp};
use crate::tensor::Tensor;
use crate::types::{DType, TensorType};

/// Errors after which parsing ends.
const MAX_ERRORS: usize = 100;
/// Operands of which an error tells the types.
const MAX_LABELS: usize = 6;

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
    /// Where each name is defined.
    defined: HashMap<String, Loc>,
    pub(super) resources: &'a dyn Fn(&str) -> Option<Tensor>,
}

/// In a fixed order, for messages.
fn sorted<'n>(names: impl Iterator<Item = &'n str>) -> Vec<&'n str> {
    let mut v: Vec<&str> = names.collect();
    v.sort_unstable();
    v
}

impl<'a> Parser<'a> {
    pub(super) fn new(src: &'a str, resources: &'a dyn Fn(&str) -> Option<Tensor>) -> Self {
        let (tokens, diags) = lex(src);
        Parser {
            tokens,
            at: 0,
            diags,
            graph: Graph::new(""),
            values: HashMap::new(),
            defined: HashMap::new(),
            resources,
        }
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
        Diag::new(message).at(t.loc())
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
            let d = Diag::new(format!("'%{name}' is defined twice")).at(at.loc());
            let first = self.defined.get(&name).cloned().unwrap_or_default();
            return Err(d.label(&first, "first defined here"));
        }
        self.defined.insert(name.clone(), at.loc());
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

    /// A value, and its name.
    fn operand(&mut self) -> Parsed<(ValueId, String)> {
        let Tok::Value(name) = &self.peek().tok else { return Err(self.expected("a value").into()) };
        let name = name.clone();
        let v = match self.values.get(&name) {
            Some(Some(v)) => *v,
            Some(None) => return Err(Stop::Reported),
            None => {
                let known = self.values.keys().map(String::as_str);
                let near = closest(&name, sorted(known)).map(|k| format!("did you mean '%{k}'?"));
                return Err(self.error(format!("'%{name}' is not defined")).maybe_help(near).into());
            }
        };
        self.at += 1;
        Ok((v, name))
    }

    fn returns(&mut self, results: &[(String, TensorType)]) -> Parsed<()> {
        for (i, (name, ty)) in results.iter().enumerate() {
            if i > 0 {
                self.expect(",")?;
            }
            let at = self.peek().loc();
            let (v, operand) = self.operand()?;
            if self.graph.ty(v) != ty {
                let s = &self.graph.symbols;
                let m = format!("the value is {}, declared {}", self.graph.ty(v).display(s), ty.display(s));
                return Err(self.types_of(Diag::new(m).at(at), &[(v, operand)]).into());
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
        let mut named = Vec::new();
        if matches!(self.peek().tok, Tok::Value(_)) && !self.peek().first {
            named.push(self.operand()?);
            while self.eat(",") {
                named.push(self.operand()?);
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
        let ty_start = self.tokens.get(self.at + 1).map_or(start, |t| t.start);
        let ty = if self.eat(":") { Some(self.ty()?) } else { None };
        let ty_at = self.span(ty_start);
        let source = self.location()?;
        let span = self.span(start);
        if !self.peek().first {
            return Err(self.expected("the end of the line").into());
        }
        let at_name = |m: String| Diag::new(m).at(name_at.loc());
        let op = match elements {
            Some(e) => {
                let ty = ty.as_ref().ok_or_else(|| at_name("a constant needs its type".to_string()))?;
                Op::Constant(self.constant(&e, ty).map_err(|d| d.or_at(span.clone()))?)
            }
            None => {
                let near = |d: Diag| if is_op(name) { d } else { d.maybe_help(did_you_mean(name, op_names())) };
                build(name, &mut attrs).map_err(|m| near(at_name(m)))?
            }
        };
        let loc = source.unwrap_or_else(|| span.clone());
        let operands: Vec<ValueId> = named.iter().map(|o| o.0).collect();
        let v = self.graph.add(op, &operands, &loc).map_err(|d| self.types_of(d.at(span.clone()), &named))?;
        let real = self.graph.ty(v);
        if let Some(ty) = ty.filter(|t| t != real) {
            let s = &self.graph.symbols;
            let m = format!("the result is {}, written {}", real.display(s), ty.display(s));
            return Err(self.types_of(Diag::new(m).at(ty_at), &named).into());
        }
        Ok(v)
    }

    /// Tells of each operand where it is defined and which type it has.
    fn types_of(&self, mut d: Diag, operands: &[(ValueId, String)]) -> Diag {
        for (i, (v, name)) in operands.iter().enumerate().take(MAX_LABELS) {
            let Some(at) = self.defined.get(name).filter(|_| operands[..i].iter().all(|o| o.0 != *v)) else { continue };
            let ty = self.graph.ty(*v).display(&self.graph.symbols).to_string();
            d = d.label(at, format!("defined here with type {ty}"));
        }
        d
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
        let at = self.peek().loc();
        let name = self.ident("the name of an attribute")?;
        let unknown = || {
            let known = KINDS.iter().map(|k| k.0);
            Diag::new(format!("unknown attribute '{name}'")).at(at).maybe_help(did_you_mean(name, known))
        };
        let kind = kind(name).ok_or_else(unknown)?;
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
                let name = self.ident("an elementwise op")?;
                let known = || did_you_mean(name, UnaryOp::ALL.iter().map(|u| u.name()));
                Attr::Unary(UnaryOp::from_name(name).ok_or_else(|| e.maybe_help(known()))?)
            }
            Kind::Binary => {
                let e = self.expected("an elementwise op of two operands");
                let name = self.ident("an elementwise op of two operands")?;
                let known = || did_you_mean(name, BinaryOp::ALL.iter().map(|b| b.name()));
                Attr::Binary(BinaryOp::from_name(name).ok_or_else(|| e.maybe_help(known()))?)
            }
            Kind::Type => {
                let e = self.expected("an element type");
                let name = self.ident("an element type")?;
                let known = || did_you_mean(name, DType::ALL.map(DType::name));
                Attr::Type(DType::from_name(name).ok_or_else(|| e.maybe_help(known()))?)
            }
        };
        Ok((name, value))
    }
}
