//! Printing. The order is the graph's topological one, so equal graphs give equal text.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::attr::{Attr, attrs};
use super::lex::{is_ident, quote};
use super::literal::{write_element, write_hex};
use super::names::is_listed;
use crate::diag::Loc;
use crate::graph::{Graph, ValueId};
use crate::op::Op;
use crate::tensor::Tensor;
use crate::types::DType;

/// Constants of at most this many elements are always printed in full.
const SMALL: usize = 16;

/// A constant whose elements are all equal is printed as one element up to this many; the parser's own limit is above.
const SPLAT: usize = 1 << 20;

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub struct PrintOptions {
    /// Print large constants as hex bytes instead of eliding them, so that the text stands on its own.
    pub inline_constants: bool,
    /// Print the source node of every value.
    pub locations: bool,
}

/// The name that stands for a large constant in the text: the first 16 hex digits of the BLAKE3 hash of its bytes.
pub fn resource_key(t: &Tensor) -> String {
    blake3::hash(t.bytes()).to_hex()[..16].to_string()
}

/// Whether [`print`](print()) writes a constant as a reference, unless told to inline it.
pub fn elided(t: &Tensor) -> bool {
    t.len() > SMALL && !repeated(t)
}

/// Whether a constant is written as one element.
fn repeated(t: &Tensor) -> bool {
    let (size, n) = (t.dtype().size(), t.len());
    let equal = || t.bytes().chunks_exact(size).all(|c| *c == t.bytes()[..size]);
    t.shape().is_empty() || (2..=SPLAT).contains(&n) && equal()
}

/// `s`, in quotes where it isn't an identifier.
pub fn name(s: &str) -> String {
    if is_ident(s) { s.to_string() } else { quote(s) }
}

/// The text of a graph.
pub fn print(graph: &Graph, options: &PrintOptions) -> String {
    let mut p = Printer { graph, options, out: String::new(), names: BTreeMap::new() };
    // Writing to a string does not fail.
    let result = p.graph();
    debug_assert!(result.is_ok());
    p.out
}

/// The elements of a constant as they stand in text.
pub fn print_constant(t: &Tensor, options: &PrintOptions) -> String {
    let mut p = Printer { graph: &Graph::new(""), options, out: String::new(), names: BTreeMap::new() };
    p.constant(t);
    p.out
}

struct Printer<'a> {
    graph: &'a Graph,
    options: &'a PrintOptions,
    out: String,
    names: BTreeMap<ValueId, String>,
}

impl Printer<'_> {
    fn graph(&mut self) -> std::fmt::Result {
        let g = self.graph;
        for (i, (_, s)) in g.symbols.iter().enumerate() {
            let lead = if i == 0 { "dims " } else { ", " };
            write!(self.out, "{lead}{} in {}..={}", s.name, s.min, s.max)?;
        }
        if !g.symbols.is_empty() {
            self.out.push_str("\n\n");
        }
        write!(self.out, "func @{}(", name(&g.name))?;
        for (i, p) in g.inputs().iter().enumerate() {
            let n = format!("%{}", name(&p.name));
            write!(self.out, "{}{n}: {}", if i > 0 { ", " } else { "" }, g.ty(p.value).display(&g.symbols))?;
            self.names.insert(p.value, n);
        }
        self.out.push_str(") -> (");
        for (i, p) in g.outputs().iter().enumerate() {
            let ty = g.ty(p.value).display(&g.symbols);
            write!(self.out, "{}{}: {ty}", if i > 0 { ", " } else { "" }, name(&p.name))?;
        }
        self.out.push_str(") {\n");
        let body = g.topo().into_iter().filter(|&v| !matches!(g.op(v), Op::Input { .. }));
        // An input may be called like a number; that one is left out.
        let taken: BTreeSet<&str> = g.inputs().iter().map(|p| p.name.as_str()).collect();
        let mut numbers = (0u64..).map(|i| i.to_string()).filter(|n| !taken.contains(n.as_str()));
        for v in body {
            let n = format!("%{}", numbers.next().unwrap_or_default());
            self.value(v, &n)?;
            self.names.insert(v, n);
        }
        self.out.push_str("  return");
        for (i, p) in g.outputs().iter().enumerate() {
            self.out.push_str(if i > 0 { ", " } else { " " });
            self.out.push_str(&self.names[&p.value]);
        }
        self.out.push_str("\n}\n");
        Ok(())
    }

    fn value(&mut self, v: ValueId, n: &str) -> std::fmt::Result {
        let node = self.graph.node(v);
        debug_assert!(is_listed(&node.op), "the list of names lacks '{}'", node.op.name());
        write!(self.out, "  {n} = {}", node.op.name())?;
        for (i, o) in node.operands.iter().enumerate() {
            self.out.push_str(if i > 0 { ", " } else { " " });
            self.out.push_str(&self.names[o]);
        }
        if let Op::Constant(t) = &node.op {
            self.out.push(' ');
            self.constant(t);
        }
        let mut first = true;
        for (key, a) in attrs(&node.op) {
            if a == Attr::Bool(false) {
                continue;
            }
            write!(self.out, "{}{key} = ", if first { " {" } else { ", " })?;
            first = false;
            self.attr(&a)?;
        }
        if !first {
            self.out.push('}');
        }
        write!(self.out, " : {}", node.ty.display(&self.graph.symbols))?;
        if let (true, Loc::Node { name, op, output }) = (self.options.locations, &node.loc) {
            write!(self.out, " loc({}, {}", quote(name), quote(op))?;
            if let Some(o) = output {
                write!(self.out, ", {}", quote(o))?;
            }
            self.out.push(')');
        }
        self.out.push('\n');
        Ok(())
    }

    fn attr(&mut self, a: &Attr) -> std::fmt::Result {
        match a {
            Attr::Int(v) => write!(self.out, "{v}"),
            Attr::Ints(v) => write!(self.out, "{v:?}"),
            Attr::Bool(v) => write!(self.out, "{v}"),
            Attr::Float(v) => {
                let bits = v.to_bits().to_le_bytes().to_vec();
                if let Some(t) = Tensor::new(DType::F32, Vec::new(), bits.into()) {
                    write_element(&t, 0, &mut self.out);
                }
                Ok(())
            }
            Attr::Dim(d) => write!(self.out, "{}", d.display(&self.graph.symbols)),
            Attr::Dims(v) => {
                self.out.push('[');
                for (i, d) in v.iter().enumerate() {
                    write!(self.out, "{}{}", if i > 0 { ", " } else { "" }, d.display(&self.graph.symbols))?;
                }
                self.out.push(']');
                Ok(())
            }
            Attr::Type(d) => write!(self.out, "{d}"),
            Attr::Unary(u) => write!(self.out, "{}", u.name()),
            Attr::Binary(b) => write!(self.out, "{}", b.name()),
        }
    }

    fn constant(&mut self, t: &Tensor) {
        let n = t.len();
        if repeated(t) {
            self.out.push_str("dense<");
            write_element(t, 0, &mut self.out);
            self.out.push('>');
        } else if n <= SMALL {
            self.out.push_str("dense<[");
            for i in 0..n {
                self.out.push_str(if i > 0 { ", " } else { "" });
                write_element(t, i, &mut self.out);
            }
            self.out.push_str("]>");
        } else if self.options.inline_constants {
            self.out.push_str("dense_hex<\"");
            write_hex(t.bytes(), &mut self.out);
            self.out.push_str("\">");
        } else {
            self.out.push_str("dense_resource<\"");
            self.out.push_str(&resource_key(t));
            self.out.push_str("\">");
        }
    }
}
