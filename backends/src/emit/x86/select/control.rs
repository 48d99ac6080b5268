//! Loops and conditionals.

use bertc_ir::Diag;
use bertc_ir::kernel::{Block, Inst, Reg};
use iced_x86::Code;

use super::super::mir::{Item, V};
use super::{Select, Val};

impl Select<'_> {
    /// Rotated: one test before the loop and one at its end.
    pub(super) fn for_loop(&mut self, inst: &Inst) -> Result<(), Diag> {
        let Inst::For { dst, var, args, lo, hi, step, init, body } = inst else {
            return Err(self.error("not a loop"));
        };
        let mut carried = Vec::with_capacity(args.len());
        for (&a, &i) in args.iter().zip(init) {
            let from = self.reg(i)?;
            let v = self.f.new_reg(self.f.class_of(self.ty(a)));
            self.copy(v, from);
            carried.push(v);
        }
        let (head, exit) = (self.f.new_label(), self.f.new_label());
        let from = self.reg(*lo)?;
        let v = self.gpr();
        self.copy(v, from);
        let constants = (self.val(*lo), self.val(*hi));
        // A bound that is no immediate stays in one register during the loop.
        if self.immediate(*hi).is_none() {
            let bound = self.reg(*hi)?;
            self.set(*hi, bound);
        }
        match constants {
            (Val::Int(a), Val::Int(b)) if a < b => (),
            _ => {
                self.compare_ints(v, *hi, true)?;
                self.jump(Code::Jge_rel32_64, exit);
            }
        }
        let innermost = !body.insts.iter().any(has_loop);
        self.f.push(Item::Label { label: head, align: if innermost { 64 } else { 1 } });
        self.f.depth += 1;
        self.loops += 1;
        let outer = std::mem::replace(&mut self.in_loop, self.loops);
        self.set(*var, v);
        for (&a, &c) in args.iter().zip(&carried) {
            self.set(a, c);
        }
        let masks = self.masks.len();
        for &r in args.iter().chain([var]) {
            self.active_masks(r);
        }
        self.block(body)?;
        self.masks.truncate(masks);
        let yields = body.yields.iter().map(|&r| self.reg(r)).collect::<Result<Vec<_>, _>>()?;
        self.parallel_copy(&carried, &yields);
        self.int_op_imm(Code::Add_rm64_imm8, Code::Add_rm64_imm32, v, *step)?;
        self.compare_ints(v, *hi, true)?;
        self.jump(Code::Jl_rel32_64, head);
        self.f.depth -= 1;
        self.in_loop = outer;
        self.vals[hi.0 as usize] = constants.1;
        self.label(exit);
        for (&d, &c) in dst.iter().zip(&carried) {
            self.set(d, c);
        }
        Ok(())
    }

    /// Copies all at once; a source may be another copy's destination.
    fn parallel_copy(&mut self, dst: &[V], src: &[V]) {
        let mut left: Vec<(V, V)> = dst.iter().copied().zip(src.iter().copied()).filter(|(d, s)| d != s).collect();
        while !left.is_empty() {
            // A destination that nobody still reads may be overwritten.
            let free = left.iter().position(|(d, _)| !left.iter().any(|(_, s)| s == d));
            if let Some(i) = free {
                let (d, s) = left.remove(i);
                self.copy(d, s);
            } else {
                // Only cycles are left: what the first destination holds moves aside.
                let d = left[0].0;
                let aside = self.f.new_reg(self.f.class(d));
                self.copy(aside, d);
                for (_, s) in left.iter_mut().filter(|(_, s)| *s == d) {
                    *s = aside;
                }
            }
        }
    }

    pub(super) fn if_else(&mut self, dst: &[Reg], cond: Reg, then: &Block, otherwise: &Block) -> Result<(), Diag> {
        let (no, exit) = (self.f.new_label(), self.f.new_label());
        let results: Vec<V> = dst.iter().map(|&d| self.f.new_reg(self.f.class_of(self.ty(d)))).collect();
        let unless = self.condition(cond)?.1;
        self.jump(unless, no);
        // What one branch forces into registers isn't there for the other.
        let vals = self.vals.clone();
        for (i, block) in [then, otherwise].into_iter().enumerate() {
            self.block(block)?;
            for (&r, &y) in results.iter().zip(&block.yields) {
                let v = self.reg(y)?;
                self.copy(r, v);
            }
            self.vals.clone_from(&vals);
            if i == 0 {
                let empty = otherwise.insts.is_empty() && dst.is_empty();
                if !empty {
                    self.jump(Code::Jmp_rel32_64, exit);
                }
                self.label(no);
            }
        }
        self.label(exit);
        for (&d, &v) in dst.iter().zip(&results) {
            self.set(d, v);
        }
        Ok(())
    }
}

/// Whether an instruction is or contains a loop.
fn has_loop(i: &Inst) -> bool {
    match i {
        Inst::For { .. } => true,
        Inst::If { then, otherwise, .. } => then.insts.iter().chain(&otherwise.insts).any(has_loop),
        _ => false,
    }
}
