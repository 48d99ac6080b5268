//! Printing: the kernels, the dims, and the program that calls the kernels.

use std::collections::BTreeSet;
use std::fmt::{self, Write};

use bertc_ir::text::{PrintOptions, name, print_constant, quote};
use bertc_ir::{DType, Dim, TensorType};

use crate::pack::matrix;
use crate::plan::{Arg, Chunk, ConstData, ConstLayout, Lane, Part, PortSpec, Program, Step};

impl Program {
    /// The text of the whole program. Constants above 16 elements are references.
    pub fn print(&self) -> String {
        let mut p = Printer::new(self);
        // Writing to a string can't fail.
        let result = p.program();
        debug_assert!(result.is_ok());
        p.out
    }

    /// The same program with its kernels' registers numbered as the parser numbers them.
    #[must_use]
    pub fn canonical(&self) -> Program {
        let mut p = self.clone();
        p.kernels.iter_mut().for_each(|k| *k = k.canonical());
        p
    }
}

impl ConstData {
    /// The type of its bytes: `tensor<…>` where they are row-major, else the name of the layout, then the sizes, then
    /// the type that the kernels load. `None` if the parts don't go together.
    pub(super) fn layout_type(&self) -> Option<String> {
        match (self.layout, &self.parts[..]) {
            (ConstLayout::Plain, [part]) => Some(tensor_type(part)),
            (ConstLayout::Rounded, [part]) => Some(rounded_type(part.shape())),
            (ConstLayout::Plain | ConstLayout::Rounded, _) => None,
            (ConstLayout::Sums { trans }, parts) => {
                let (k, n) = side_by_side(parts, trans)?;
                Some(format!("sums<{k} x {n}>"))
            }
            (ConstLayout::Packed { trans, lane }, parts) => {
                let (k, n) = side_by_side(parts, trans)?;
                let elem = match lane {
                    Lane::Bf16x2 => DType::BF16,
                    Lane::I8x4 => DType::I8,
                    Lane::One if parts[0].dtype() == DType::I32 => DType::I32,
                    Lane::One => DType::F32,
                };
                Some(format!("packed<{k} x {n} x {elem}>"))
            }
            (ConstLayout::Sparse { trans, lane, blocks, count, array }, parts) => {
                let (k, n) = side_by_side(parts, trans)?;
                Some(format!("sparse<{k} x {n} x {}, {count} of {blocks}, {}>", lane.dtype(), array.name()))
            }
        }
    }
}

/// K and N of matrices side by side.
fn side_by_side(parts: &[Part], trans: bool) -> Option<(usize, usize)> {
    let sizes: Vec<(usize, usize)> = parts.iter().map(|p| matrix(p, trans).ok()).collect::<Option<_>>()?;
    let n = sizes.iter().try_fold(0usize, |n, s| n.checked_add(s.1))?;
    Some((sizes.first()?.0, n))
}

fn tensor_type(p: &Part) -> String {
    format!("tensor<{}{}>", dims(p.shape()), p.dtype())
}

/// The type of a tensor rounded to bf16.
pub(super) fn rounded_type(shape: &[usize]) -> String {
    format!("rounded<{}bf16>", dims(shape))
}

fn dims(shape: &[usize]) -> String {
    shape.iter().map(|d| format!("{d} x ")).collect()
}

/// The elements, or what stands for them.
fn elements(p: &Part) -> String {
    match p {
        Part::Tensor(t) => print_constant(t, &PrintOptions::default()),
        Part::Elided { key, .. } => format!("dense_resource<{}>", quote(key)),
    }
}

struct Printer<'a> {
    program: &'a Program,
    out: String,
    /// How each input and output is called, with its sigil.
    inputs: Vec<String>,
    outputs: Vec<String>,
    /// Names that consts, slots and buffers must not have.
    taken: BTreeSet<String>,
}

impl<'a> Printer<'a> {
    fn new(program: &'a Program) -> Self {
        let mut p =
            Printer { program, out: String::new(), inputs: Vec::new(), outputs: Vec::new(), taken: BTreeSet::new() };
        p.inputs = program.inputs.iter().map(|i| p.claim(&i.name)).collect();
        p.outputs = program.outputs.iter().map(|o| p.claim(&o.name)).collect();
        p
    }

    /// A name like `stem` that nothing has yet.
    fn claim(&mut self, stem: &str) -> String {
        let mut free = stem.to_string();
        while free.is_empty() || !self.taken.insert(free.clone()) {
            free.push('_');
        }
        free
    }

    /// `letter` and `i`, the way consts, slots and buffers are called.
    fn numbered(&self, letter: char, i: usize) -> String {
        let mut free = format!("{letter}{i}");
        while self.taken.contains(&free) {
            free.push('_');
        }
        format!("%{free}")
    }

    fn dim(&self, d: &'a Dim) -> impl fmt::Display + use<'a> {
        d.display(&self.program.symbols)
    }

    fn program(&mut self) -> fmt::Result {
        let p = self.program;
        for k in &p.kernels {
            writeln!(self.out, "{}", bertc_ir::kernel::print(k))?;
        }
        for (i, (_, s)) in p.symbols.iter().enumerate() {
            let lead = if i == 0 { "dims " } else { ", " };
            write!(self.out, "{lead}{} in {}..={}", s.name, s.min, s.max)?;
        }
        if !p.symbols.is_empty() {
            self.out.push_str("\n\n");
        }
        write!(self.out, "program @{}(", name(&p.name))?;
        self.ports(&p.inputs, &self.inputs.clone())?;
        self.out.push_str(") -> (");
        self.ports(&p.outputs, &self.outputs.clone())?;
        self.out.push_str(") {\n");
        for (i, c) in p.consts.iter().enumerate() {
            self.constant(i, c)?;
        }
        for (i, slot) in p.slots.iter().enumerate() {
            let sizes: Vec<String> = slot.sizes.iter().map(|d| self.dim(d).to_string()).collect();
            let sizes = if let [one] = &sizes[..] { one.clone() } else { format!("max({})", sizes.join(", ")) };
            let id = self.numbered('s', i);
            writeln!(self.out, "  slot {id} : bytes<{sizes}>")?;
        }
        for (i, b) in p.buffers.iter().enumerate() {
            let (id, bytes) = (self.numbered('b', i), self.dim(&b.bytes));
            write!(self.out, "  buffer {id} : bytes<{bytes}>")?;
            if b.is_used() {
                let slot = self.numbered('s', b.slot);
                write!(self.out, " in {slot} live {}..={}", b.first, b.last)?;
            }
            self.out.push('\n');
        }
        if p.scratch_bytes() > 0 {
            writeln!(self.out, "  // scratch memory: {} bytes a worker", p.scratch_bytes())?;
        }
        for (i, s) in p.steps.iter().enumerate() {
            self.step(i, s)?;
        }
        self.out.push_str("}\n");
        Ok(())
    }

    fn ports(&mut self, ports: &'a [PortSpec], ids: &[String]) -> fmt::Result {
        for (i, (port, id)) in ports.iter().zip(ids).enumerate() {
            write!(self.out, "{}%{}", if i > 0 { ", " } else { "" }, name(id))?;
            if *id != port.name {
                write!(self.out, " {}", quote(&port.name))?;
            }
            self.out.push_str(": ");
            self.ty(&port.ty)?;
        }
        Ok(())
    }

    fn ty(&mut self, ty: &TensorType) -> fmt::Result {
        write!(self.out, "{}", ty.display(&self.program.symbols))
    }

    fn constant(&mut self, i: usize, c: &ConstData) -> fmt::Result {
        let (id, ty) = (self.numbered('c', i), c.layout_type().unwrap_or_else(|| "invalid".into()));
        write!(self.out, "  const {id} : {ty} = ")?;
        if let ConstLayout::Packed { trans: true, .. }
        | ConstLayout::Sums { trans: true }
        | ConstLayout::Sparse { trans: true, .. } = c.layout
        {
            self.out.push_str("transpose ");
        }
        for (i, part) in c.parts.iter().enumerate() {
            write!(self.out, "{}{}", if i > 0 { ", " } else { "" }, elements(part))?;
            if c.layout != ConstLayout::Plain {
                write!(self.out, " : {}", tensor_type(part))?;
            }
        }
        self.out.push('\n');
        Ok(())
    }

    fn chunked(&self, d: &'a Dim, c: Chunk) -> String {
        format!("{} by {c}", self.dim(d))
    }

    fn arg(&self, a: &'a Arg) -> String {
        // The number of something that doesn't exist shows that it doesn't.
        let port =
            |ids: &[String], n: usize| ids.get(n).map_or_else(|| format!("%\"port {n}\""), |s| format!("%{}", name(s)));
        match a {
            Arg::Buffer(b) => self.numbered('b', *b),
            Arg::Input(n) => port(&self.inputs, *n),
            Arg::Output(n) => port(&self.outputs, *n),
            Arg::Const(c) => self.numbered('c', *c),
            Arg::Scratch(bytes) => format!("scratch<{bytes}>"),
            Arg::Again(i) => format!("again<{i}>"),
            Arg::Int(d) => self.dim(d).to_string(),
            Arg::Chunk(d, c) => format!("chunk<{}>", self.chunked(d, *c)),
        }
    }

    fn step(&mut self, i: usize, s: &'a Step) -> fmt::Result {
        let args: Vec<String> = s.args.iter().map(|a| self.arg(a)).collect();
        let kernel = self.program.kernels.get(s.kernel).map_or("", |k| &k.name);
        write!(self.out, "  step {i} @{}({})", name(kernel), args.join(", "))?;
        if !s.tasks.is_empty() {
            let tasks: Vec<String> = s.tasks.iter().map(|(d, c)| self.chunked(d, *c)).collect();
            write!(self.out, " tasks [{}]", tasks.join(", "))?;
        }
        if s.fallible {
            self.out.push_str(" may_fail");
        }
        if !s.in_place.is_empty() {
            let pairs: Vec<String> = s.in_place.iter().map(|(o, i)| format!("{o} over {i}")).collect();
            write!(self.out, " in_place [{}]", pairs.join(", "))?;
        }
        if !s.source.is_empty() {
            write!(self.out, " source {}", quote(&s.source))?;
        }
        self.out.push('\n');
        Ok(())
    }
}

/// An argument as the text writes it, for messages.
pub(super) fn written(p: &Program, a: &Arg) -> String {
    Printer::new(p).arg(a)
}
