//! Arithmetic on vectors of integers and of masks, and which code each operation has by its type.

use bertc_ir::kernel::{Bin, Elem, Reg, Un};
use bertc_ir::{CmpOp, Diag};

use super::super::codes;
use super::super::mir::{Class, V, View};
use super::mask::MaskOp;
use super::{Select, Val, def, form, get, imm8, rm, vec_view};

impl Select<'_> {
    pub(super) fn un(&mut self, op: Un, a: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        if matches!(t.elem, Elem::F32 | Elem::F64) {
            return self.float_un(op, a);
        }
        let x = self.reg(a)?;
        match Class::of(t) {
            Class::Gpr => self.scalar_un(op, t, x),
            Class::Mask => Ok(self.mask_not(form(t), x)),
            Class::Vec(_) => {
                let i = form(t);
                let view = vec_view(i);
                match op {
                    Un::Neg => {
                        let zero = self.zero(i);
                        let v = self.vec(i);
                        self.emit(codes::ISUB[i], &[def(v, view), get(zero, view), get(x, view)]);
                        Ok(v)
                    }
                    Un::Abs => {
                        let v = self.vec(i);
                        self.emit(codes::IABS[i], &[def(v, view), get(x, view)]);
                        Ok(v)
                    }
                    Un::Not if self.avx2() => Ok(self.mask_not(i, x)),
                    Un::Not => {
                        // The table of "not the last operand"; the first two don't matter.
                        let v = self.vec(i);
                        self.emit(codes::TERNLOG[i], &[def(v, view), get(x, view), get(x, view), imm8(0x55)]);
                        Ok(v)
                    }
                    _ => Err(self.error(format!("{} of {t}", op.name()))),
                }
            }
        }
    }

    pub(super) fn bin(&mut self, dst: Reg, op: Bin, a: Reg, b: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        if matches!(t.elem, Elem::F32 | Elem::F64) {
            return self.float_bin(op, a, b);
        }
        match Class::of(t) {
            Class::Gpr => self.scalar_bin(dst, op, a, b),
            Class::Mask => {
                let what = match op {
                    Bin::And => MaskOp::And,
                    Bin::Or => MaskOp::Or,
                    Bin::Xor => MaskOp::Xor,
                    _ => return Err(self.error(format!("{} of masks", op.name()))),
                };
                let (x, y) = (self.reg(a)?, self.reg(b)?);
                Ok(self.mask_op(what, form(t), x, y))
            }
            Class::Vec(_) => self.vector_bin(op, a, b),
        }
    }

    fn vector_bin(&mut self, op: Bin, a: Reg, b: Reg) -> Result<V, Diag> {
        let i = form(self.ty(a));
        let table = match op {
            Bin::Add => codes::IADD,
            Bin::Sub => codes::ISUB,
            Bin::Mul => codes::IMUL,
            Bin::Min => codes::IMIN,
            Bin::Max => codes::IMAX,
            Bin::And => codes::IAND,
            Bin::Or => codes::IOR,
            Bin::Xor => codes::IXOR,
            Bin::Shl | Bin::ShrS | Bin::ShrU => return self.vector_shift(op, a, b),
            Bin::Div | Bin::Rem | Bin::DivU | Bin::RemU => {
                return Err(self.error(format!("{} of {}", op.name(), self.ty(a))));
            }
        };
        let (a, b) = if op == Bin::Sub { (a, b) } else { self.memory_second(a, b) };
        let (x, y) = (self.reg(a)?, self.rm(b)?);
        let (v, view) = (self.vec(i), vec_view(i));
        self.emit(table[i], &[def(v, view), get(x, view), rm(y, view)]);
        Ok(v)
    }

    /// Amounts count modulo 32, where the instructions shift everything out.
    fn vector_shift(&mut self, op: Bin, a: Reg, b: Reg) -> Result<V, Diag> {
        let i = form(self.ty(a));
        let (variable, constant) = match op {
            Bin::Shl => (codes::ISHL, codes::ISHL_IMM),
            Bin::ShrS => (codes::ISHRS, codes::ISHRS_IMM),
            _ => (codes::ISHRU, codes::ISHRU_IMM),
        };
        let (x, view) = (self.reg(a)?, vec_view(i));
        if let Val::Int(c) = self.val(b) {
            let v = self.vec(i);
            self.emit(constant[i], &[def(v, view), get(x, view), imm8((c & 31) as u8)]);
            return Ok(v);
        }
        let (y, low) = (self.reg(b)?, self.vec(i));
        let bits = self.repeated(i, &31i32.to_le_bytes());
        self.emit(codes::IAND[i], &[def(low, view), get(y, view), super::Opnd::Mem(bits)]);
        let v = self.vec(i);
        self.emit(variable[i], &[def(v, view), get(x, view), get(low, view)]);
        Ok(v)
    }

    /// The comparison as a kernel register: a vector mask, or 0 or 1 in a general register.
    pub(super) fn compare_to_mask(&mut self, op: CmpOp, unsigned: bool, a: Reg, b: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        match (t.elem, Class::of(t)) {
            (Elem::F32 | Elem::F64, _) => {
                let k = self.float_cmp(op, a, b)?;
                Ok(if t.lanes == 1 { self.bit_of_mask(k) } else { k })
            }
            (_, Class::Vec(_)) if self.avx2() => self.compare_lanes(op, unsigned, a, b),
            (_, Class::Vec(_)) => {
                let i = form(t);
                let predicate = match op {
                    CmpOp::Eq => 0,
                    CmpOp::Lt => 1,
                    CmpOp::Le => 2,
                    CmpOp::Ne => 4,
                    CmpOp::Ge => 5,
                    CmpOp::Gt => 6,
                };
                let (x, y) = (self.reg(a)?, self.rm(b)?);
                let (k, view) = (self.mask(i), vec_view(i));
                let code = if unsigned { codes::ICMPU[i] } else { codes::ICMP[i] };
                self.emit(code, &[def(k, View::K), get(x, view), rm(y, view), imm8(predicate)]);
                Ok(k)
            }
            (_, Class::Mask) => {
                let (x, y) = (self.reg(a)?, self.reg(b)?);
                let other = self.mask_op(MaskOp::Xor, form(t), x, y);
                Ok(if op == CmpOp::Eq { self.mask_not(form(t), other) } else { other })
            }
            (_, Class::Gpr) => self.scalar_cmp(op, unsigned, a, b),
        }
    }
}
