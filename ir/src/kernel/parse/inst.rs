//! Reads blocks and instructions.

use super::super::verify::MAX_NESTING;
use super::super::{Bin, Block, DotKind, Elem, Inst, Place, Reg, RegType, Un};
use super::{Entity, I64, Name, Parsed, Parser};
use crate::diag::{Diag, Loc};
use crate::op::CmpOp;
use crate::text::lex::Tok;

impl<'a> Parser<'a> {
    /// A block after its opening brace.
    pub(super) fn block(&mut self, depth: usize) -> Parsed<Block> {
        if depth > MAX_NESTING {
            return Err(self.about_last(format!("blocks nest deeper than {MAX_NESTING}")));
        }
        let mark = self.scope.len();
        let block = self.block_body(depth)?;
        self.leave(mark);
        Ok(block)
    }

    fn leave(&mut self, mark: usize) {
        for name in self.scope.drain(mark..) {
            self.names.insert(name, Entity::Gone);
        }
    }

    fn block_body(&mut self, depth: usize) -> Parsed<Block> {
        let mut b = Block::default();
        while !self.eat("}") {
            if self.eat("yield") {
                b.yields.push(self.reg()?);
                while self.eat(",") {
                    b.yields.push(self.reg()?);
                }
                self.expect("}")?;
                break;
            }
            let n = self.spans.len();
            let start = self.token().start;
            self.spans.push((start, self.token().end));
            let inst = self.inst(n, depth)?;
            if !matches!(inst, Inst::For { .. } | Inst::If { .. }) {
                self.spans[n].1 = self.tokens[self.at - 1].end;
            }
            b.insts.push(inst);
        }
        Ok(b)
    }

    /// Instruction number `n`.
    fn inst(&mut self, n: usize, depth: usize) -> Parsed<Inst> {
        let mut dst = Vec::new();
        if matches!(self.token().tok, Tok::Value(_)) {
            dst.push(self.value()?);
            while self.eat(",") {
                dst.push(self.value()?);
            }
            self.expect("=")?;
        }
        let op = self.word("an instruction")?;
        match (op, &dst[..]) {
            ("for", _) => self.for_loop(n, depth, &dst),
            ("if", _) => self.if_else(n, depth, &dst),
            ("fail", []) => Ok(Inst::Fail),
            ("store", []) => {
                let at = self.place()?;
                self.expect(",")?;
                Ok(Inst::Store { at, value: self.reg()? })
            }
            ("prefetch", []) => Ok(Inst::Prefetch { at: self.place()? }),
            ("store" | "prefetch" | "fail", _) => Err(self.about_last(format!("'{op}' has no result"))),
            (_, &[name]) => self.plain(op, name),
            _ if !is_plain(op) => Err(self.about_last(format!("there is no instruction '{op}'"))),
            _ => Err(self.about_last(format!("'{op}' has one result, found {}", dst.len()))),
        }
    }

    /// An instruction of one result, which is called `name`.
    fn plain(&mut self, op: &'a str, name: Name<'a>) -> Parsed<Inst> {
        let un = Un::from_name(op);
        let bin = Bin::from_name(op);
        // The result isn't visible in its own operands.
        let dst = Reg(self.regs.len() as u32);
        let mut inst = match op {
            "const" => return self.constant(name),
            "fma" | "select" => {
                let [a, b, c] = self.operands()?;
                if op == "fma" { Inst::Fma { dst, a, b, c } } else { Inst::Select { dst, m: a, a: b, b: c } }
            }
            "dot" => {
                let word = self.word("what the lanes hold")?;
                let kind = DotKind::ALL.into_iter().find(|k| k.name() == word).ok_or_else(|| {
                    self.about_last(format!("no dot product of '{word}'"))
                        .note(format!("there are those of {}", DotKind::ALL.map(DotKind::name).join(", ")))
                })?;
                let [a, b, c] = self.operands()?;
                Inst::Dot { dst, kind, a, b, c }
            }
            "cmp" => {
                let unsigned = self.eat("unsigned");
                let pred = self.word("a predicate")?;
                let op = CmpOp::from_name(pred).ok_or_else(|| {
                    self.about_last(format!("'{pred}' is not a predicate"))
                        .note("predicates are eq, ne, lt, le, gt, ge")
                })?;
                let [a, b] = self.operands()?;
                Inst::Cmp { dst, op, unsigned, a, b }
            }
            "convert" => {
                let unsigned = self.eat("unsigned");
                Inst::Convert { dst, a: self.reg()?, unsigned }
            }
            "bitcast" => Inst::Bitcast { dst, a: self.reg()? },
            "splat" => Inst::Splat { dst, a: self.reg()? },
            "extract" => {
                let a = self.reg()?;
                self.expect("[")?;
                let lane = self.int()?;
                let lane = u8::try_from(lane).map_err(|_| self.about_last(format!("no lane {lane}")))?;
                self.expect("]")?;
                Inst::Extract { dst, a, lane }
            }
            "reduce" => {
                let op = self.word("an operation")?;
                let op = Bin::from_name(op).ok_or_else(|| self.about_last(format!("'{op}' is not an operation")))?;
                Inst::Reduce { dst, op, a: self.reg()? }
            }
            "zip" => {
                let half = self.word("a half")?;
                let high = match half {
                    "low" => false,
                    "high" => true,
                    _ => {
                        return Err(self.about_last(format!("'{half}' is not a half")).note("halves are low and high"));
                    }
                };
                let [a, b] = self.operands()?;
                Inst::Zip { dst, high, a, b }
            }
            "address" => {
                let (ptr, index, offset) = self.element()?;
                Inst::Address { dst, ptr, index, offset }
            }
            "load" => Inst::Load { dst, at: self.place()? },
            _ => match (un, bin) {
                (Some(op), _) => Inst::Un { dst, op, a: self.reg()? },
                (_, Some(op)) => {
                    let [a, b] = self.operands()?;
                    Inst::Bin { dst, op, a, b }
                }
                _ => return Err(self.about_last(format!("there is no instruction '{op}'"))),
            },
        };
        let ty = self.ty()?;
        let r = self.define(name, ty)?;
        inst.results_mut(|d| *d = r);
        Ok(inst)
    }

    fn constant(&mut self, name: Name<'a>) -> Parsed<Inst> {
        // Whether the number is a float is in the type, which comes after it.
        let start = self.at;
        self.eat("-");
        if !self.done() {
            self.at += 1;
        }
        let ty = self.ty()?;
        let end = std::mem::replace(&mut self.at, start);
        let dst = self.define(name, ty)?;
        let inst = match ty.elem {
            Elem::F32 | Elem::F64 => Inst::ConstF { dst, value: self.float()? },
            Elem::I32 | Elem::I64 | Elem::Mask | Elem::Addr => Inst::ConstI { dst, value: self.int()? },
        };
        self.at = end;
        Ok(inst)
    }

    fn operands<const N: usize>(&mut self) -> Parsed<[Reg; N]> {
        let mut regs = [Reg(0); N];
        for (i, r) in regs.iter_mut().enumerate() {
            if i > 0 {
                self.expect(",")?;
            }
            *r = self.reg()?;
        }
        Ok(regs)
    }

    /// An element, and what may follow it: `from %base`, `active %count`.
    fn place(&mut self) -> Parsed<Place> {
        let (ptr, index, offset) = self.element()?;
        let base = if self.eat("from") { Some(self.reg()?) } else { None };
        let active = if self.eat("active") { Some(self.reg()?) } else { None };
        Ok(Place { ptr, base, index, offset, active })
    }

    /// `%ptr[%index + offset]`.
    fn element(&mut self) -> Parsed<(usize, Reg, i64)> {
        let name = self.value()?;
        let Some(&Entity::Pointer(ptr)) = self.names.get(name.text) else {
            return Err(self.about_last(format!("{name} is not a pointer parameter")));
        };
        self.expect("[")?;
        let index = self.reg()?;
        let offset = if self.is("-") || self.eat("+") { self.int()? } else { 0 };
        self.expect("]")?;
        Ok((ptr, index, offset))
    }

    fn for_loop(&mut self, n: usize, depth: usize, dst: &[Name<'_>]) -> Parsed<Inst> {
        let var = self.value()?;
        self.expect("=")?;
        let lo = self.reg()?;
        self.expect("to")?;
        let hi = self.reg()?;
        self.expect("step")?;
        let step = self.int()?;
        let mut carried = Vec::new();
        if self.eat("iter") {
            self.expect("(")?;
            carried = self.list(")", |p| {
                let name = p.value()?;
                p.expect("=")?;
                Ok((name, p.reg()?))
            })?;
        }
        self.expect("{")?;
        self.spans[n].1 = self.tokens[self.at - 2].end;
        if dst.len() != carried.len() {
            return Err(self.about_inst(n, format!("{} results for {} carried values", dst.len(), carried.len())));
        }
        let init: Vec<Reg> = carried.iter().map(|&(_, r)| r).collect();
        let types: Vec<RegType> = init.iter().map(|r| self.regs[r.0 as usize]).collect();
        let mark = self.scope.len();
        let var = self.define(var, I64)?;
        let mut args = Vec::new();
        for (&(name, _), &ty) in carried.iter().zip(&types) {
            args.push(self.define(name, ty)?);
        }
        let body = self.block(depth + 1)?;
        self.leave(mark);
        let dst = self.results(dst, &types)?;
        Ok(Inst::For { dst, var, args, lo, hi, step, init, body })
    }

    fn if_else(&mut self, n: usize, depth: usize, dst: &[Name<'_>]) -> Parsed<Inst> {
        let cond = self.reg()?;
        self.expect("{")?;
        self.spans[n].1 = self.tokens[self.at - 2].end;
        let then = self.block(depth + 1)?;
        let mut otherwise = Block::default();
        if self.eat("else") {
            self.expect("{")?;
            otherwise = self.block(depth + 1)?;
        }
        if dst.len() != then.yields.len() {
            return Err(self.about_inst(n, format!("{} results for {} yielded values", dst.len(), then.yields.len())));
        }
        let types: Vec<RegType> = then.yields.iter().map(|r| self.regs[r.0 as usize]).collect();
        let dst = self.results(dst, &types)?;
        Ok(Inst::If { dst, cond, then, otherwise })
    }

    fn about_inst(&self, n: usize, message: String) -> Diag {
        let (start, end) = self.spans[n];
        Diag::new(message).at(Loc::Text { start, end })
    }

    fn results(&mut self, dst: &[Name<'_>], types: &[RegType]) -> Parsed<Vec<Reg>> {
        dst.iter().zip(types).map(|(&name, &ty)| self.define(name, ty)).collect()
    }
}

/// Whether `op` is the word of an instruction of one result.
fn is_plain(op: &str) -> bool {
    let others =
        ["const", "fma", "select", "cmp", "convert", "bitcast", "splat", "extract", "reduce", "zip", "address", "load"];
    others.contains(&op) || Un::from_name(op).is_some() || Bin::from_name(op).is_some()
}
