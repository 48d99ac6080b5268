//! Arithmetic on floats, scalars and vectors alike.

use bertc_ir::kernel::{Bin, Elem, Reg, RegType, Un};
use bertc_ir::{CmpOp, Diag};

use super::super::codes;
use super::super::mir::{Mem, Opnd, Rm, V};
use super::{Select, Val, def, form, get, imm8, modify, rm, vec_view};

/// `vfixupimm` with this table keeps what the destination holds, but where the second operand is NaN takes that. The
/// nibbles 0 and 1 are the responses to quiet and signalling NaNs; 2 is "the source, quiet".
const NAN_OF_SOURCE: u32 = 0x22;

/// Either is NaN.
const UNORDERED: u8 = 3;

impl Select<'_> {
    /// A literal in every lane, also for instructions that treat a scalar as a vector.
    fn bits_literal(&mut self, t: RegType, bits: u32, bits64: u64) -> Mem {
        let i = form(t);
        if t.elem == Elem::F64 {
            self.repeated(i, &bits64.to_le_bytes())
        } else {
            self.repeated(i, &bits.to_le_bytes())
        }
    }

    pub(super) fn float_un(&mut self, op: Un, a: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        let (i, x) = (form(t), self.reg(a)?);
        let (v, view) = (self.vec(i), vec_view(i));
        let scalar = i > 2;
        match op {
            Un::Neg | Un::Abs => {
                let (code, m) = if op == Un::Neg {
                    (codes::FXOR[i], self.bits_literal(t, 1 << 31, 1 << 63))
                } else {
                    (codes::FAND[i], self.bits_literal(t, !(1 << 31), !(1 << 63)))
                };
                self.emit(code, &[def(v, view), get(x, view), Opnd::Mem(m)]);
            }
            Un::Sqrt if scalar => self.emit(codes::SQRT[i], &[def(v, view), get(x, view), get(x, view)]),
            Un::Sqrt => self.emit(codes::SQRT[i], &[def(v, view), get(x, view)]),
            Un::Floor | Un::Ceil | Un::Nearest | Un::Trunc => {
                // The mode, and 8: no exception for inexact results.
                let mode = imm8(match op {
                    Un::Nearest => 8,
                    Un::Floor => 9,
                    Un::Ceil => 10,
                    _ => 11,
                });
                if scalar {
                    self.emit(codes::ROUND[i], &[def(v, view), get(x, view), get(x, view), mode]);
                } else {
                    self.emit(codes::ROUND[i], &[def(v, view), get(x, view), mode]);
                }
            }
            Un::Not => return Err(self.error("not of floats")),
        }
        Ok(v)
    }

    /// Puts what is in memory, if only one operand is, second.
    pub(super) fn memory_second(&self, a: Reg, b: Reg) -> (Reg, Reg) {
        if self.in_memory(a) && !self.in_memory(b) { (b, a) } else { (a, b) }
    }

    pub(super) fn float_bin(&mut self, op: Bin, a: Reg, b: Reg) -> Result<V, Diag> {
        let i = form(self.ty(a));
        let code = match op {
            Bin::Add => codes::FADD[i],
            Bin::Sub => codes::FSUB[i],
            Bin::Mul => codes::FMUL[i],
            Bin::Div => codes::FDIV[i],
            Bin::Min | Bin::Max => return self.float_extreme(op, a, b),
            _ => return Err(self.error(format!("{} of floats", op.name()))),
        };
        let (a, b) = if matches!(op, Bin::Add | Bin::Mul) { self.memory_second(a, b) } else { (a, b) };
        let (x, y) = (self.reg(a)?, self.rm(b)?);
        let (v, view) = (self.vec(i), vec_view(i));
        self.emit(code, &[def(v, view), get(x, view), rm(y, view)]);
        Ok(v)
    }

    /// The instructions give their second operand if either is NaN, which is right unless only the first is.
    fn float_extreme(&mut self, op: Bin, a: Reg, b: Reg) -> Result<V, Diag> {
        let number = |s: &Self, r| matches!(s.val(r), Val::Float(c) if !c.is_nan());
        let carried = |s: &Self, r: Reg| s.uses.of[r.0 as usize].carried;
        // A number comes first, where it needs no correction; a value that a loop carries second, so that it may be
        // overwritten before the correction.
        let (a, b) = if number(self, a) {
            (a, b)
        } else if number(self, b) || carried(self, a) && !carried(self, b) {
            (b, a)
        } else {
            self.memory_second(a, b)
        };
        let never_nan = number(self, a);
        let (t, x, y) = (self.ty(a), self.reg(a)?, self.rm(b)?);
        Ok(self.extreme(op, t, x, y, never_nan))
    }

    /// Minimum or maximum, NaN if either is; `number` says that `x` is none.
    pub(super) fn extreme(&mut self, op: Bin, t: RegType, x: V, y: Rm, number: bool) -> V {
        let i = form(t);
        let code = if op == Bin::Min { codes::FMIN[i] } else { codes::FMAX[i] };
        let (v, view) = (self.vec(i), vec_view(i));
        self.emit(code, &[def(v, view), get(x, view), rm(y, view)]);
        if !number && self.avx2() {
            // All ones are a NaN.
            let (nan, both) = (self.vec(i), self.vec(i));
            self.emit(codes::FCMP[i], &[def(nan, view), get(x, view), get(x, view), imm8(UNORDERED)]);
            self.emit(codes::FOR[usize::from(i == 1)], &[def(both, view), get(v, view), get(nan, view)]);
            return both;
        }
        if !number {
            let m = self.bits_literal(t, NAN_OF_SOURCE, NAN_OF_SOURCE.into());
            let m = Mem { bcst: i < 3, ..m };
            self.emit(codes::FIXUP[i], &[modify(v, view), get(x, view), Opnd::Mem(m), imm8(0)]);
        }
        v
    }

    /// a·b + c. The destination is one of the operands: one that isn't needed any more, if there is one. Another may
    /// come from memory: at best a broadcast, else a load, else a literal.
    pub(super) fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Result<V, Diag> {
        let rank = |s: &Self, r| match s.val(r) {
            Val::SplatLoad(_) if s.avx2() => 0,
            Val::SplatLoad(_) => 3,
            Val::Load(_) => 2,
            Val::Float(_) | Val::Int(_) => 1,
            _ => 0,
        };
        let (ra, rb, rc) = (rank(self, a), rank(self, b), rank(self, c));
        // Among factors, the better one for memory is b.
        let (a, b) = if ra > rb { (b, a) } else { (a, b) };
        let best = ra.max(rb);
        let i = form(self.ty(a));
        let view = vec_view(i);
        if rc > best {
            let (a, b) = if !self.dies(a) && self.dies(b) { (b, a) } else { (a, b) };
            let (x, y, z) = (self.reg(a)?, self.reg(b)?, self.rm(c)?);
            let v = self.tied(i, x);
            self.emit(codes::FMA213[i], &[modify(v, view), get(y, view), rm(z, view)]);
            return Ok(v);
        }
        if self.dies(c) || !self.dies(a) && (best > 0 || !self.dies(b)) {
            let (x, z) = (self.reg(a)?, self.reg(c)?);
            let y = self.rm(b)?;
            let v = self.tied(i, z);
            self.emit(codes::FMA231[i], &[modify(v, view), get(x, view), rm(y, view)]);
            return Ok(v);
        }
        let (a, b) = if best == 0 && !self.dies(a) { (b, a) } else { (a, b) };
        let (x, z) = (self.reg(a)?, self.reg(c)?);
        let y = self.rm(b)?;
        let v = self.tied(i, x);
        self.emit(codes::FMA132[i], &[modify(v, view), get(z, view), rm(y, view)]);
        Ok(v)
    }

    /// A new register that begins as a copy.
    pub(super) fn tied(&mut self, i: usize, from: V) -> V {
        let v = self.vec(i);
        self.copy(v, from);
        v
    }

    /// A mask of the lanes for which the predicate holds.
    pub(super) fn float_mask(&mut self, i: usize, x: V, y: Rm, predicate: u8) -> V {
        let (k, view, of_mask) = (self.mask(i), vec_view(i), self.mask_view(i));
        self.emit(codes::FCMP[i], &[def(k, of_mask), get(x, view), rm(y, view), imm8(predicate)]);
        k
    }

    /// Comparison of floats to a vector mask; a scalar's is in the lowest bit.
    pub(super) fn float_cmp(&mut self, op: CmpOp, a: Reg, b: Reg) -> Result<V, Diag> {
        // Ordered and quiet, but for "not equal", which is true of NaN.
        let predicate = match op {
            CmpOp::Eq => 0x00,
            CmpOp::Ne => 0x04,
            CmpOp::Lt => 0x11,
            CmpOp::Le => 0x12,
            CmpOp::Gt => 0x1e,
            CmpOp::Ge => 0x1d,
        };
        let (i, x, y) = (form(self.ty(a)), self.reg(a)?, self.rm(b)?);
        Ok(self.float_mask(i, x, y, predicate))
    }
}
