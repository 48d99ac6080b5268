//! The parser of ONNX's text form.

use std::collections::BTreeMap;

use bertc_ir::{DType, Scalar, Tensor};

use super::proto::attribute_type as kind;
use super::proto::{self, Attribute, Dimension, Graph, Model, Node, OperatorSet, Shape, Type, ValueInfo};

type Parsed<T> = Result<T, String>;

/// Element types: name, ONNX's number, and the type where this compiler has it.
const ELEMENTS: [(&str, i32, Option<DType>); 15] = [
    ("float", 1, Some(DType::F32)),
    ("uint8", 2, Some(DType::U8)),
    ("int8", 3, Some(DType::I8)),
    ("uint16", 4, Some(DType::U16)),
    ("int16", 5, Some(DType::I16)),
    ("int32", 6, Some(DType::I32)),
    ("int64", 7, Some(DType::I64)),
    ("string", 8, None),
    ("bool", 9, Some(DType::Bool)),
    ("float16", 10, Some(DType::F16)),
    ("double", 11, Some(DType::F64)),
    ("uint32", 12, Some(DType::U32)),
    ("uint64", 13, Some(DType::U64)),
    ("complex64", 14, None),
    ("bfloat16", 16, Some(DType::BF16)),
];

/// ONNX's number of an element type.
fn element(name: &str) -> Option<i32> {
    ELEMENTS.iter().find(|e| e.0 == name).map(|e| e.1)
}

#[derive(Clone, PartialEq, Debug)]
enum Tok {
    Ident(String),
    Number(String),
    Str(String),
    Punct(char),
    Arrow,
    End,
}

impl std::fmt::Display for Tok {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Tok::Ident(s) | Tok::Number(s) => write!(f, "'{s}'"),
            Tok::Str(s) => write!(f, "\"{s}\""),
            Tok::Punct(c) => write!(f, "'{c}'"),
            Tok::Arrow => f.write_str("'=>'"),
            Tok::End => f.write_str("the end"),
        }
    }
}

/// Tokens with their lines, from 1.
fn lex(source: &str) -> Parsed<Vec<(Tok, usize)>> {
    let mut out = Vec::new();
    for (i, line) in source.lines().enumerate() {
        let mut rest = line;
        while let Some(c) = rest.chars().next() {
            let ident = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/');
            let number = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '+' | '-');
            let (tok, n) = match c {
                '#' => break,
                c if c.is_whitespace() => {
                    rest = &rest[c.len_utf8()..];
                    continue;
                }
                '"' => {
                    let end = rest[1..].find('"').ok_or_else(|| format!("line {}: a string has no end", i + 1))?;
                    (Tok::Str(rest[1..=end].to_string()), end + 2)
                }
                '=' if rest.starts_with("=>") => (Tok::Arrow, 2),
                c if c.is_ascii_alphabetic() || matches!(c, '_' | '/') => {
                    let n = rest.find(|c| !ident(c)).unwrap_or(rest.len());
                    (Tok::Ident(rest[..n].to_string()), n)
                }
                c if c.is_ascii_digit() || c == '-' => {
                    let n = 1 + rest[1..].find(|c| !number(c)).unwrap_or(rest.len() - 1);
                    (Tok::Number(rest[..n].to_string()), n)
                }
                '<' | '>' | '(' | ')' | '[' | ']' | '{' | '}' | ',' | ':' | '=' | '?' => (Tok::Punct(c), 1),
                c => return Err(format!("line {}: unexpected '{c}'", i + 1)),
            };
            out.push((tok, i + 1));
            rest = &rest[n..];
        }
    }
    let last = source.lines().count().max(1);
    out.push((Tok::End, last));
    Ok(out)
}

struct Parser {
    tokens: Vec<(Tok, usize)>,
    at: usize,
    lines: BTreeMap<String, usize>,
}

/// Reads a model, and the line of every node.
pub(super) fn model(source: &str) -> Parsed<(Model, BTreeMap<String, usize>)> {
    let mut p = Parser { tokens: lex(source)?, at: 0, lines: BTreeMap::new() };
    let mut m = Model::default();
    if p.eat('<') {
        p.list('>', |p| p.field(&mut m))?;
    }
    m.graph = Some(p.graph()?);
    if *p.peek() == Tok::End { Ok((m, p.lines)) } else { Err(p.expected("the end")) }
}

impl Parser {
    fn peek(&self) -> &Tok {
        // The last token is the end, which nothing consumes.
        &self.tokens[self.at.min(self.tokens.len() - 1)].0
    }

    fn line(&self) -> usize {
        self.tokens[self.at.min(self.tokens.len() - 1)].1
    }

    fn next_is(&self, c: char) -> bool {
        self.tokens.get(self.at + 1).is_some_and(|t| t.0 == Tok::Punct(c))
    }

    fn is(&self, c: char) -> bool {
        *self.peek() == Tok::Punct(c)
    }

    fn eat(&mut self, c: char) -> bool {
        let yes = self.is(c);
        self.at += usize::from(yes);
        yes
    }

    fn error(&self, message: &str) -> String {
        format!("line {}: {message}", self.line())
    }

    fn expected(&self, what: &str) -> String {
        self.error(&format!("expected {what}, got {}", self.peek()))
    }

    fn expect(&mut self, c: char) -> Parsed<()> {
        if self.eat(c) { Ok(()) } else { Err(self.expected(&format!("'{c}'"))) }
    }

    fn ident(&mut self, what: &str) -> Parsed<String> {
        match self.peek().clone() {
            Tok::Ident(s) | Tok::Str(s) => {
                self.at += 1;
                Ok(s)
            }
            _ => Err(self.expected(what)),
        }
    }

    fn number<T: std::str::FromStr>(&mut self) -> Parsed<T> {
        let (Tok::Number(s) | Tok::Ident(s)) = self.peek() else { return Err(self.expected("a number")) };
        let v = s.parse().map_err(|_| self.expected("a number"))?;
        self.at += 1;
        Ok(v)
    }

    /// Items between commas up to `close`, which is consumed.
    fn list<T>(&mut self, close: char, mut item: impl FnMut(&mut Self) -> Parsed<T>) -> Parsed<Vec<T>> {
        let mut v = Vec::new();
        if self.eat(close) {
            return Ok(v);
        }
        loop {
            v.push(item(self)?);
            if !self.eat(',') {
                self.expect(close)?;
                return Ok(v);
            }
        }
    }

    fn field(&mut self, m: &mut Model) -> Parsed<()> {
        let unknown = self.error(&format!("unknown field {}", self.peek()));
        let name = self.ident("a field")?;
        self.expect(':')?;
        match name.as_str() {
            "ir_version" => m.ir_version = Some(self.number()?),
            "producer_name" => m.producer_name = Some(self.ident("a string")?),
            "producer_version" => m.producer_version = Some(self.ident("a string")?),
            "opset_import" => {
                self.expect('[')?;
                m.opset_import = self.list(']', |p| {
                    let domain = p.ident("a domain")?;
                    p.expect(':')?;
                    Ok(OperatorSet { domain: Some(domain), version: Some(p.number()?) })
                })?;
            }
            _ => return Err(unknown),
        }
        Ok(())
    }

    fn graph(&mut self) -> Parsed<Graph> {
        let name = Some(self.ident("a graph's name")?);
        self.expect('(')?;
        let input = self.list(')', Self::value_info)?;
        if *self.peek() != Tok::Arrow {
            return Err(self.expected("'=>'"));
        }
        self.at += 1;
        self.expect('(')?;
        let output = self.list(')', Self::value_info)?;
        let mut initializer = Vec::new();
        if self.eat('<') {
            initializer = self.list('>', |p| {
                let (elem, shape) = p.ty()?;
                let name = p.ident("an initializer's name")?;
                p.expect('=')?;
                Ok(proto::Tensor { name: Some(name), ..p.elements(elem, shape)? })
            })?;
        }
        self.expect('{')?;
        let mut node = Vec::new();
        while !self.eat('}') {
            node.push(self.node()?);
        }
        Ok(Graph { node, name, initializer, input, output })
    }

    /// A name, with a type before it where there is another word.
    fn value_info(&mut self) -> Parsed<ValueInfo> {
        let typed = self.next_is('[') || matches!(self.tokens.get(self.at + 1), Some((Tok::Ident(_), _)));
        let r#type = if typed {
            let (elem_type, shape) = self.ty()?;
            let tensor = proto::TensorType { elem_type: Some(elem_type), shape };
            Some(Type { tensor_type: Some(tensor) })
        } else {
            None
        };
        Ok(ValueInfo { name: Some(self.ident("a value's name")?), r#type })
    }

    fn ty(&mut self) -> Parsed<(i32, Option<Shape>)> {
        let unknown = self.error(&format!("{} is not an element type", self.peek()));
        let elem = element(&self.ident("an element type")?).ok_or(unknown)?;
        if !self.eat('[') {
            return Ok((elem, Some(Shape::default())));
        }
        if self.eat(']') {
            return Ok((elem, None));
        }
        let dim = self.list(']', |p| {
            Ok(match p.peek().clone() {
                Tok::Ident(s) | Tok::Str(s) => {
                    p.at += 1;
                    Dimension { dim_param: Some(s), dim_value: None }
                }
                Tok::Punct('?') => {
                    p.at += 1;
                    Dimension::default()
                }
                _ => Dimension { dim_value: Some(p.number()?), dim_param: None },
            })
        })?;
        Ok((elem, Some(Shape { dim })))
    }

    /// `{1, 2}`: the elements of a tensor, as many as are written.
    fn elements(&mut self, elem: i32, shape: Option<Shape>) -> Parsed<proto::Tensor> {
        let dims = shape.unwrap_or_default().dim.iter().map(|d| d.dim_value.unwrap_or(-1)).collect();
        let mut t = proto::Tensor { dims, data_type: Some(elem), ..Default::default() };
        self.expect('{')?;
        let dtype = ELEMENTS.iter().find(|e| e.1 == elem).and_then(|e| e.2);
        match dtype {
            // Half floats are written as their bits.
            Some(DType::F16 | DType::BF16) => {
                let v: Vec<u16> = self.list('}', Self::number)?;
                t.raw_data = Some(v.into_iter().flat_map(u16::to_le_bytes).collect());
            }
            Some(d) if d.is_float() => {
                let v: Vec<f64> = self.list('}', Self::number)?;
                t.raw_data = Some(raw(d, v.into_iter().map(Scalar::Float).collect()));
            }
            Some(d) => {
                let v: Vec<i128> = self.list('}', Self::number)?;
                t.raw_data = Some(raw(d, v.into_iter().map(Scalar::Int).collect()));
            }
            None => t.string_data = self.list('}', |p| Ok(p.ident("a string")?.into_bytes()))?,
        }
        Ok(t)
    }

    fn node(&mut self) -> Parsed<Node> {
        let line = self.line();
        let mut n = Node::default();
        if self.eat('[') {
            // Any words up to the bracket.
            let mut words = Vec::new();
            while !self.eat(']') {
                words.push(self.ident("a node's name or ']'")?);
            }
            n.name = Some(words.join(" "));
        }
        loop {
            n.output.push(self.ident("an output")?);
            if !self.eat(',') {
                break;
            }
        }
        self.expect('=')?;
        let op = self.ident("an operator")?;
        let (domain, op) = op.rsplit_once('.').unwrap_or(("", op.as_str()));
        n.op_type = Some(op.to_string());
        n.domain = Some(domain.to_string());
        if self.eat('<') {
            n.attribute = self.list('>', Self::attribute)?;
        }
        self.expect('(')?;
        // An optional input that is left out is empty.
        n.input = self.list(')', |p| if p.is(',') || p.is(')') { Ok(String::new()) } else { p.ident("an input") })?;
        let name = n.name.clone().or_else(|| n.output.first().cloned()).unwrap_or_default();
        self.lines.entry(name).or_insert(line);
        Ok(n)
    }

    fn attribute(&mut self) -> Parsed<Attribute> {
        let name = Some(self.ident("an attribute's name")?);
        self.expect('=')?;
        let mut a = Attribute { name, ..Attribute::default() };
        let ty = match self.peek().clone() {
            Tok::Number(s) if is_float(&s) => {
                a.f = Some(self.number()?);
                kind::FLOAT
            }
            Tok::Number(_) => {
                a.i = Some(self.number()?);
                kind::INT
            }
            Tok::Str(s) => {
                self.at += 1;
                a.s = Some(s.into_bytes());
                kind::STRING
            }
            Tok::Punct('[') => {
                self.at += 1;
                self.attribute_list(&mut a)?
            }
            Tok::Ident(word) if element(&word).is_some() => {
                let (elem, shape) = self.ty()?;
                // A tensor may have a name of its own, which means nothing here.
                if matches!(self.peek(), Tok::Ident(_)) {
                    self.at += 1;
                }
                a.t = Some(self.elements(elem, shape)?);
                kind::TENSOR
            }
            Tok::Ident(_) => {
                a.g = Some(self.graph()?);
                kind::GRAPH
            }
            _ => return Err(self.expected("the value of an attribute")),
        };
        a.r#type = Some(ty);
        Ok(a)
    }

    fn attribute_list(&mut self, a: &mut Attribute) -> Parsed<i32> {
        Ok(match self.peek().clone() {
            Tok::Str(_) => {
                a.strings = self.list(']', |p| Ok(p.ident("a string")?.into_bytes()))?;
                kind::STRINGS
            }
            Tok::Number(s) if is_float(&s) => {
                a.floats = self.list(']', Self::number)?;
                kind::FLOATS
            }
            _ => {
                a.ints = self.list(']', Self::number)?;
                kind::INTS
            }
        })
    }
}

fn is_float(number: &str) -> bool {
    number.contains(['.', 'e', 'E'])
}

/// Little-endian bytes of elements.
fn raw(d: DType, v: Vec<Scalar>) -> Vec<u8> {
    Tensor::from_scalars(d, vec![v.len()], v).bytes().to_vec()
}
