//! Writes kernels as text; [`parse`](super::parse::parse) reads them back. A pointer or integer parameter appears under
//! its name, every other register as `%` and its number. Each result's type follows a colon.

use std::fmt::{self, Write};

use super::{Block, Inst, Kernel, Param, Place, Reg, RegType};
use crate::text::lex::{is_ident, quote};

/// The text of a kernel, ending in a line break. Total: an invalid kernel prints too, but may not parse.
pub fn print(kernel: &Kernel) -> String {
    let mut p = Printer { kernel, out: String::new() };
    // Writing to a string can't fail.
    let _ = p.kernel();
    p.out
}

/// `sigil` and a name, in quotes where it isn't an identifier.
pub(super) fn sigiled(sigil: char, name: &str) -> String {
    if is_ident(name) { format!("{sigil}{name}") } else { format!("{sigil}{}", quote(name)) }
}

/// How a register appears in text.
pub(super) fn reg_name(kernel: &Kernel, r: Reg) -> String {
    let named = kernel.params.iter().find_map(|p| match p {
        Param::Int { name, reg } if *reg == r => Some(name),
        _ => None,
    });
    named.map_or_else(|| format!("%{}", r.0), |n| sigiled('%', n))
}

/// A float exactly: shortest decimal that reads back, `inf`, `nan`, or the bits of another NaN.
pub(super) fn float(v: f64) -> String {
    if v.is_nan() {
        return if v.to_bits() == f64::NAN.to_bits() { "nan".into() } else { format!("{:#018x}", v.to_bits()) };
    }
    format!("{v:?}")
}

struct Printer<'a> {
    kernel: &'a Kernel,
    out: String,
}

impl Printer<'_> {
    fn kernel(&mut self) -> fmt::Result {
        let k = self.kernel;
        write!(self.out, "kernel {}(", sigiled('@', &k.name))?;
        for (i, p) in k.params.iter().enumerate() {
            let comma = if i > 0 { ", " } else { "" };
            match p {
                Param::Ptr { name, dtype, write } => {
                    let ptr = if *write { "mut ptr" } else { "ptr" };
                    write!(self.out, "{comma}{}: {ptr}<{dtype}>", sigiled('%', name))?;
                }
                Param::Int { name, .. } => write!(self.out, "{comma}{}: i64", sigiled('%', name))?,
            }
        }
        let ordered = if k.ordered { "ordered " } else { "" };
        write!(self.out, ") task {} ", self.name(k.task))?;
        if let Some(w) = k.worker {
            write!(self.out, "worker {} ", self.name(w))?;
        }
        self.out.push_str(ordered);
        self.block(&k.body, 1)?;
        self.out.push('\n');
        Ok(())
    }

    fn name(&self, r: Reg) -> String {
        reg_name(self.kernel, r)
    }

    fn names(&self, regs: &[Reg]) -> String {
        regs.iter().map(|&r| self.name(r)).collect::<Vec<_>>().join(", ")
    }

    /// The type of a result, after its colon.
    fn ty(&self, r: Reg) -> String {
        self.kernel.regs.get(r.0 as usize).map_or_else(|| "unknown".into(), ToString::to_string)
    }

    fn place(&self, at: &Place) -> String {
        let mut text = self.at(at.ptr, at.index, at.offset);
        if let Some(b) = at.base {
            let _ = write!(text, " from {}", self.name(b));
        }
        if let Some(a) = at.active {
            let _ = write!(text, " active {}", self.name(a));
        }
        text
    }

    fn at(&self, ptr: usize, index: Reg, offset: i64) -> String {
        let name = match self.kernel.params.get(ptr) {
            Some(Param::Ptr { name, .. } | Param::Int { name, .. }) => sigiled('%', name),
            None => format!("%\"parameter {ptr}\""),
        };
        let index = self.name(index);
        match offset {
            0 => format!("{name}[{index}]"),
            1.. => format!("{name}[{index} + {offset}]"),
            _ => format!("{name}[{index} - {}]", offset.unsigned_abs()),
        }
    }

    /// A block in braces; the closing one is not followed by a line break.
    fn block(&mut self, b: &Block, depth: usize) -> fmt::Result {
        self.out.push_str("{\n");
        for i in &b.insts {
            self.indent(depth);
            self.inst(i, depth)?;
            self.out.push('\n');
        }
        if !b.yields.is_empty() {
            self.indent(depth);
            let line = format!("yield {}\n", self.names(&b.yields));
            self.out.push_str(&line);
        }
        self.indent(depth - 1);
        self.out.push('}');
        Ok(())
    }

    fn indent(&mut self, depth: usize) {
        self.out.push_str(&"  ".repeat(depth));
    }

    fn inst(&mut self, inst: &Inst, depth: usize) -> fmt::Result {
        let mut dst = Vec::new();
        inst.results(|r| dst.push(r));
        if !dst.is_empty() {
            let line = format!("{} = ", self.names(&dst));
            self.out.push_str(&line);
        }
        self.out.push_str(inst.mnemonic());
        let mut operands = Vec::new();
        inst.operands(|r| operands.push(r));
        let operands = self.names(&operands);
        match inst {
            Inst::For { var, args, lo, hi, step, init, body, dst: _ } => {
                let (var, lo, hi) = (self.name(*var), self.name(*lo), self.name(*hi));
                write!(self.out, " {var} = {lo} to {hi} step {step} ")?;
                if !args.is_empty() {
                    let carried: Vec<_> =
                        args.iter().zip(init).map(|(&a, &i)| format!("{} = {}", self.name(a), self.name(i))).collect();
                    write!(self.out, "iter({}) ", carried.join(", "))?;
                }
                return self.block(body, depth + 1);
            }
            Inst::If { then, otherwise, .. } => {
                write!(self.out, " {operands} ")?;
                self.block(then, depth + 1)?;
                if *otherwise != Block::default() {
                    self.out.push_str(" else ");
                    self.block(otherwise, depth + 1)?;
                }
                return Ok(());
            }
            Inst::Store { at, value } => {
                let line = format!(" {}, {}", self.place(at), self.name(*value));
                self.out.push_str(&line);
                return Ok(());
            }
            Inst::Prefetch { at } => {
                let line = format!(" {}", self.place(at));
                self.out.push_str(&line);
                return Ok(());
            }
            Inst::Fail => return Ok(()),
            Inst::ConstF { value, .. } => write!(self.out, " {}", float(*value))?,
            Inst::ConstI { value, .. } => write!(self.out, " {value}")?,
            Inst::Dot { kind, .. } => write!(self.out, " {} {operands}", kind.name())?,
            Inst::Cmp { op, unsigned, .. } => {
                let unsigned = if *unsigned { "unsigned " } else { "" };
                write!(self.out, " {unsigned}{} {operands}", op.name())?;
            }
            Inst::Convert { unsigned: true, .. } => write!(self.out, " unsigned {operands}")?,
            Inst::Extract { lane, .. } => write!(self.out, " {operands}[{lane}]")?,
            Inst::Reduce { op, .. } => write!(self.out, " {} {operands}", op.name())?,
            Inst::Zip { high, .. } => write!(self.out, " {} {operands}", if *high { "high" } else { "low" })?,
            Inst::Load { at, .. } => {
                let line = format!(" {}", self.place(at));
                self.out.push_str(&line);
            }
            Inst::Address { ptr, index, offset, .. } => {
                let line = format!(" {}", self.at(*ptr, *index, *offset));
                self.out.push_str(&line);
            }
            Inst::Un { .. }
            | Inst::Bin { .. }
            | Inst::Fma { .. }
            | Inst::Select { .. }
            | Inst::Convert { .. }
            | Inst::Bitcast { .. }
            | Inst::Splat { .. } => write!(self.out, " {operands}")?,
        }
        dst.first().map_or(Ok(()), |&d| {
            let line = format!(" : {}", self.ty(d));
            self.out.push_str(&line);
            Ok(())
        })
    }
}

impl fmt::Display for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

impl Kernel {
    /// The same kernel with its registers numbered as the parser numbers them: the task, the integer parameters, the worker, then
    /// definitions in program order, where a loop's or conditional's results follow its blocks. Types of registers
    /// that nothing defines are dropped.
    #[must_use]
    pub fn canonical(&self) -> Kernel {
        let mut n = Numbers { old: self, new: vec![None; self.regs.len()], regs: Vec::new() };
        let mut k = self.clone();
        n.define(&mut k.task);
        for p in &mut k.params {
            if let Param::Int { reg, .. } = p {
                n.define(reg);
            }
        }
        if let Some(w) = &mut k.worker {
            n.define(w);
        }
        n.block(&mut k.body);
        k.regs = n.regs;
        k
    }
}

struct Numbers<'a> {
    old: &'a Kernel,
    new: Vec<Option<Reg>>,
    regs: Vec<RegType>,
}

impl Numbers<'_> {
    /// Numbers a register when it first appears; in a valid kernel that is its definition.
    fn define(&mut self, r: &mut Reg) {
        let i = r.0 as usize;
        let Some(&ty) = self.old.regs.get(i) else { return };
        *r = *self.new[i].get_or_insert_with(|| {
            self.regs.push(ty);
            Reg(self.regs.len() as u32 - 1)
        });
    }

    fn block(&mut self, b: &mut Block) {
        for i in &mut b.insts {
            i.operands_mut(|r| self.define(r));
            match i {
                Inst::For { var, args, body, .. } => {
                    self.define(var);
                    args.iter_mut().for_each(|r| self.define(r));
                    self.block(body);
                }
                Inst::If { then, otherwise, .. } => {
                    self.block(then);
                    self.block(otherwise);
                }
                _ => (),
            }
            i.results_mut(|r| self.define(r));
        }
        b.yields.iter_mut().for_each(|r| self.define(r));
    }
}
