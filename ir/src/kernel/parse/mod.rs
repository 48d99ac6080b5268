//! Reads the text form of kernels; `docs/kernel-ir.md` describes it. What is read is verified, and messages call
//! registers by their names in the text.

mod inst;

use std::collections::BTreeMap;
use std::fmt;

use super::print::sigiled;
use super::verify::violations;
use super::{Elem, Kernel, Param, Reg, RegType};
use crate::diag::{Diag, Loc};
use crate::text::lex::{Tok, Token, lex};
use crate::types::DType;

/// The kernels of `src`, in order. Registers are numbered as in [`Kernel::canonical`].
///
/// # Errors
/// Unreadable text (at most one diagnostic a kernel), two kernels of one name, or broken invariants of a kernel that
/// could be read. Each diagnostic has a [`Loc::Text`].
pub fn parse(src: &str) -> Result<Vec<Kernel>, Vec<Diag>> {
    let (tokens, mut diags) = lex(src);
    let mut p = Parser::new(&tokens);
    let mut kernels: Vec<Kernel> = Vec::new();
    while !p.done() {
        let start = p.token().start;
        match p.kernel() {
            Ok(k) => {
                let end = p.head_end;
                if kernels.iter().any(|other| other.name == k.name) {
                    diags.push(Diag::new(format!("two kernels are named '{}'", k.name)).at(Loc::Text { start, end }));
                }
                for v in violations(&k, &|r| p.written(r)) {
                    let place = v.inst.and_then(|(n, _)| p.spans.get(n).copied());
                    let (start, end) = place.unwrap_or((start, end));
                    diags.push(Diag::new(v.message).at(Loc::Text { start, end }));
                }
                kernels.push(k);
            }
            Err(d) => {
                diags.push(d);
                p.skip_to_kernel();
            }
        }
    }
    if diags.is_empty() { Ok(kernels) } else { Err(diags) }
}

/// What a name in the text stands for.
#[derive(Clone, Copy)]
enum Entity {
    Pointer(usize),
    Register(Reg),
    /// A register whose block has ended.
    Gone,
}

/// A name in the text and its token's number.
#[derive(Clone, Copy)]
struct Name<'a> {
    text: &'a str,
    token: usize,
}

impl fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&sigiled('%', self.text))
    }
}

type Parsed<T> = Result<T, Diag>;

const I64: RegType = RegType::scalar(Elem::I64);

struct Parser<'a> {
    /// Ends in [`Tok::End`], which is never consumed.
    tokens: &'a [Token<'a>],
    at: usize,
    params: Vec<Param>,
    regs: Vec<RegType>,
    /// A name for each of `regs`.
    reg_names: Vec<String>,
    names: BTreeMap<String, Entity>,
    /// Names to forget at the end of a block, innermost block last.
    scope: Vec<String>,
    /// Bytes of every instruction in program order, without nested blocks.
    spans: Vec<(usize, usize)>,
    /// Where the kernel's head ends.
    head_end: usize,
}

impl<'a> Parser<'a> {
    fn new(tokens: &'a [Token<'a>]) -> Self {
        Parser {
            tokens,
            at: 0,
            params: Vec::new(),
            regs: Vec::new(),
            reg_names: Vec::new(),
            names: BTreeMap::new(),
            scope: Vec::new(),
            spans: Vec::new(),
            head_end: 0,
        }
    }

    // Tokens.

    fn token(&self) -> &'a Token<'a> {
        &self.tokens[self.at]
    }

    fn done(&self) -> bool {
        self.token().tok == Tok::End
    }

    fn skip_to_kernel(&mut self) {
        while !(self.done() || self.is("kernel") && self.token().first) {
            self.at += 1;
        }
    }

    fn unexpected(&self, wanted: &str) -> Diag {
        let t = self.token();
        Diag::new(format!("expected {wanted}, found {}", t.tok)).at(Loc::Text { start: t.start, end: t.end })
    }

    /// Whether the next token is this punctuation or word.
    fn is(&self, s: &str) -> bool {
        matches!(self.token().tok, Tok::Punct(p) if p == s) || matches!(self.token().tok, Tok::Ident(i) if i == s)
    }

    fn eat(&mut self, s: &str) -> bool {
        let found = self.is(s);
        if found {
            self.at += 1;
        }
        found
    }

    fn expect(&mut self, s: &str) -> Parsed<()> {
        if self.eat(s) { Ok(()) } else { Err(self.unexpected(&format!("'{s}'"))) }
    }

    fn word(&mut self, wanted: &str) -> Parsed<&'a str> {
        let Tok::Ident(s) = self.token().tok else { return Err(self.unexpected(wanted)) };
        self.at += 1;
        Ok(s)
    }

    /// A name after a percent sign.
    fn value(&mut self) -> Parsed<Name<'a>> {
        let Tok::Value(text) = &self.token().tok else { return Err(self.unexpected("a register")) };
        self.at += 1;
        Ok(Name { text, token: self.at - 1 })
    }

    /// Items up to and including `close`, separated by commas.
    fn list<T>(&mut self, close: &str, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.eat(close) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    /// An error about the token before the next one.
    fn about_last(&self, message: impl Into<String>) -> Diag {
        self.about(self.at.saturating_sub(1), message)
    }

    fn about(&self, token: usize, message: impl Into<String>) -> Diag {
        let t = &self.tokens[token];
        Diag::new(message).at(Loc::Text { start: t.start, end: t.end })
    }

    fn int(&mut self) -> Parsed<i64> {
        let negative = self.eat("-");
        let Tok::Number(s) = self.token().tok else { return Err(self.unexpected("an integer")) };
        let magnitude: i128 = s.parse().map_err(|_| self.unexpected("a decimal integer"))?;
        self.at += 1;
        let v = if negative { -magnitude } else { magnitude };
        i64::try_from(v).map_err(|_| self.about_last(format!("{v} doesn't fit 64 bits")))
    }

    fn float(&mut self) -> Parsed<f64> {
        let negative = self.eat("-");
        let v = match self.token().tok {
            Tok::Ident("inf") => f64::INFINITY,
            Tok::Ident("nan") => f64::NAN,
            Tok::Number(s) => match s.strip_prefix("0x") {
                Some(hex) => u64::from_str_radix(hex, 16).map(f64::from_bits).ok(),
                None => s.parse().ok(),
            }
            .ok_or_else(|| self.unexpected("a float"))?,
            _ => return Err(self.unexpected("a float")),
        };
        self.at += 1;
        Ok(if negative { -v } else { v })
    }

    // Names.

    /// How the text calls a register.
    fn written(&self, r: Reg) -> String {
        self.reg_names.get(r.0 as usize).map_or_else(|| format!("%{}", r.0), |n| sigiled('%', n))
    }

    fn bind(&mut self, name: Name<'_>, entity: Entity) -> Parsed<()> {
        if self.names.insert(name.text.to_owned(), entity).is_some() {
            return Err(self.about(name.token, format!("{name} is defined twice")));
        }
        self.scope.push(name.text.to_owned());
        Ok(())
    }

    fn define(&mut self, name: Name<'_>, ty: RegType) -> Parsed<Reg> {
        let r = Reg(self.regs.len() as u32);
        self.bind(name, Entity::Register(r))?;
        self.regs.push(ty);
        self.reg_names.push(name.text.to_owned());
        Ok(r)
    }

    fn reg(&mut self) -> Parsed<Reg> {
        let name = self.value()?;
        match self.names.get(name.text) {
            Some(Entity::Register(r)) => Ok(*r),
            Some(Entity::Pointer(_)) => Err(self.about_last(format!("{name} is a pointer, expected a register"))),
            Some(Entity::Gone) => Err(self
                .about_last(format!("{name} is defined in a block that has ended"))
                .note("yield it from that block to use it afterwards")),
            None => Err(self.about_last(format!("{name} is not defined"))),
        }
    }

    fn ty(&mut self) -> Parsed<RegType> {
        self.expect(":")?;
        let name = self.word("a register type")?;
        RegType::from_name(name).filter(|t| t.exists()).ok_or_else(|| {
            self.about_last(format!("'{name}' is not a register type"))
                .note("types are f32, f64, i32, i64 and mask; f32, i32 and mask also with x2, x4, x8 or x16 lanes")
        })
    }

    // Structure.

    fn kernel(&mut self) -> Parsed<Kernel> {
        *self = Parser { at: self.at, ..Parser::new(self.tokens) };
        self.expect("kernel")?;
        let Tok::Func(name) = &self.token().tok else { return Err(self.unexpected("a kernel's name, like @name")) };
        self.at += 1;
        self.expect("(")?;
        // The task is register 0, ahead of the integer parameters, though it stands after them.
        let task = Reg(0);
        self.regs.push(I64);
        self.reg_names.push(String::new());
        self.list(")", Self::param)?;
        self.expect("task")?;
        let task_name = self.value()?;
        self.bind(task_name, Entity::Register(task))?;
        task_name.text.clone_into(&mut self.reg_names[0]);
        let worker = if self.eat("worker") {
            let name = self.value()?;
            Some(self.define(name, I64)?)
        } else {
            None
        };
        let ordered = self.eat("ordered");
        self.head_end = self.tokens[self.at - 1].end;
        self.expect("{")?;
        let body = self.block(0)?;
        Ok(Kernel {
            name: name.clone(),
            params: std::mem::take(&mut self.params),
            regs: std::mem::take(&mut self.regs),
            task,
            worker,
            ordered,
            body,
        })
    }

    fn param(&mut self) -> Parsed<()> {
        let id = self.value()?;
        let name = id.text.to_owned();
        self.expect(":")?;
        let write = self.eat("mut");
        let param = if self.eat("ptr") {
            self.bind(id, Entity::Pointer(self.params.len()))?;
            self.expect("<")?;
            let dtype = self.word("an element type")?;
            let dtype =
                DType::from_name(dtype).ok_or_else(|| self.about_last(format!("'{dtype}' is not an element type")))?;
            self.expect(">")?;
            Param::Ptr { name, dtype, write }
        } else if !write && self.eat("i64") {
            Param::Int { name, reg: self.define(id, I64)? }
        } else {
            return Err(self.unexpected(if write { "'ptr'" } else { "'ptr', 'mut ptr' or 'i64'" }));
        };
        self.params.push(param);
        Ok(())
    }
}
