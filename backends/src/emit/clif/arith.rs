//! Arithmetic, comparisons, shifts and division.

use bertc_ir::kernel::{Bin, Elem, Reg, Un};
use bertc_ir::{CmpOp, Diag};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

use super::{Emitter, Fact};

impl Emitter<'_> {
    pub(super) fn un(&mut self, op: Un, a: Reg) -> Result<Value, Diag> {
        let (t, x) = (self.ty(a), self.get(a)?);
        let ty = Self::clif_type(t);
        let float = matches!(t.elem, Elem::F32 | Elem::F64);
        Ok(match (op, t.elem) {
            (Un::Neg, _) if float => self.b.ins().fneg(x),
            (Un::Abs, _) if float => self.b.ins().fabs(x),
            (Un::Sqrt, _) if float => self.b.ins().sqrt(x),
            (Un::Floor | Un::Ceil | Un::Nearest | Un::Trunc, _) if float => self.round(op, x),
            (Un::Neg, Elem::I32 | Elem::I64) => self.b.ins().ineg(x),
            // Not `iabs`: without SSSE3 it is no single instruction either.
            (Un::Abs, Elem::I32 | Elem::I64) => {
                let amount = i64::from(ty.lane_bits()) - 1;
                let sign = self.b.ins().sshr_imm_u(x, amount);
                let flipped = self.b.ins().bxor(x, sign);
                self.b.ins().isub(flipped, sign)
            }
            (Un::Not, Elem::Mask) if t.lanes == 1 => self.b.ins().bxor_imm_u(x, 1),
            (Un::Not, Elem::I32 | Elem::I64 | Elem::Mask) => self.b.ins().bnot(x),
            _ => return Err(self.error(format!("{op:?} of {}", t.elem.name()))),
        })
    }

    /// A vector's lanes by `op`, in the order that [`bertc_ir::kernel::Inst::Reduce`] fixes.
    pub(super) fn reduce(&mut self, op: Bin, a: Reg) -> Result<Value, Diag> {
        let (t, v) = (self.ty(a), self.get(a)?);
        if t.lanes != 4 || !matches!(t.elem, Elem::F32 | Elem::I32) {
            return Err(self.error(format!("a reduction of {t}")));
        }
        let lanes: Vec<Value> = (0..4u8).map(|l| self.b.ins().extractlane(v, l)).collect();
        let combine = |s: &mut Self, x: Value, y: Value| {
            if t.elem == Elem::F32 {
                return s.float_bin(op, x, y);
            }
            let cc = if op == Bin::Min { IntCC::SignedLessThan } else { IntCC::SignedGreaterThan };
            if op == Bin::Add {
                return Ok(s.b.ins().iadd(x, y));
            }
            let first = s.b.ins().icmp(cc, x, y);
            Ok(s.choose(first, x, y))
        };
        let (x, y) = (combine(self, lanes[0], lanes[2])?, combine(self, lanes[1], lanes[3])?);
        combine(self, x, y)
    }

    fn float_bin(&mut self, op: Bin, x: Value, y: Value) -> Result<Value, Diag> {
        Ok(match op {
            Bin::Add => self.b.ins().fadd(x, y),
            Bin::Sub => self.b.ins().fsub(x, y),
            Bin::Mul => self.b.ins().fmul(x, y),
            Bin::Div => self.b.ins().fdiv(x, y),
            Bin::Min => self.b.ins().fmin(x, y),
            Bin::Max => self.b.ins().fmax(x, y),
            _ => return Err(self.error(format!("{op:?} of floats"))),
        })
    }

    pub(super) fn bin(&mut self, dst: Reg, op: Bin, a: Reg, b: Reg) -> Result<Value, Diag> {
        let t = self.ty(a);
        let (x, y) = (self.get(a)?, self.get(b)?);
        let v = match t.elem {
            Elem::Addr => return Err(self.error(format!("{op:?} of addresses"))),
            Elem::F32 | Elem::F64 => self.float_bin(op, x, y)?,
            Elem::Mask => match op {
                Bin::And => self.b.ins().band(x, y),
                Bin::Or => self.b.ins().bor(x, y),
                Bin::Xor => self.b.ins().bxor(x, y),
                _ => return Err(self.error(format!("{op:?} of mask"))),
            },
            Elem::I32 | Elem::I64 => match op {
                Bin::Add => self.int_add(dst, a, b, x, y),
                Bin::Sub => self.b.ins().isub(x, y),
                Bin::Mul => self.b.ins().imul(x, y),
                Bin::And => self.b.ins().band(x, y),
                Bin::Or => self.b.ins().bor(x, y),
                Bin::Xor => self.b.ins().bxor(x, y),
                Bin::Min | Bin::Max => {
                    let cc = if op == Bin::Min { IntCC::SignedLessThan } else { IntCC::SignedGreaterThan };
                    let first = self.b.ins().icmp(cc, x, y);
                    self.choose(first, x, y)
                }
                Bin::Shl | Bin::ShrS | Bin::ShrU => self.shift(op, b, x, y)?,
                Bin::Div | Bin::Rem | Bin::DivU | Bin::RemU if t.lanes == 1 => self.divide(op, b, x, y),
                _ => return Err(self.error(format!("{op:?} of {} lanes of {}", t.lanes, t.elem.name()))),
            },
        };
        Ok(v)
    }

    /// Remembers `register + constant`, so that addresses can take the constant.
    fn int_add(&mut self, dst: Reg, a: Reg, b: Reg, x: Value, y: Value) -> Value {
        if self.ty(dst).elem == Elem::I64 {
            for (r, c) in [(a, b), (b, a)] {
                if let Fact::Const(k) = self.fact(c) {
                    self.facts[dst.0 as usize] = match self.fact(r) {
                        Fact::Offset(base, old) => Fact::Offset(base, old.wrapping_add(k)),
                        _ => Fact::Offset(r, k),
                    };
                }
            }
        }
        self.b.ins().iadd(x, y)
    }

    /// CLIF shifts all lanes by one amount (modulo the width); other vectors go lane by lane.
    fn shift(&mut self, op: Bin, amount: Reg, x: Value, y: Value) -> Result<Value, Diag> {
        let ty = self.b.func.dfg.value_type(x);
        if !ty.is_vector() {
            return self.shift_by(op, x, y);
        }
        match self.fact(amount) {
            Fact::Const(c) => {
                let c = self.b.ins().iconst(types::I32, c & 31);
                self.shift_by(op, x, c)
            }
            Fact::Splat(s) => self.shift_by(op, x, s),
            _ => {
                let mut lanes = Vec::new();
                for lane in 0..4 {
                    let (a, s) = (self.b.ins().extractlane(x, lane), self.b.ins().extractlane(y, lane));
                    lanes.push(self.shift_by(op, a, s)?);
                }
                let mut v = self.b.ins().scalar_to_vector(ty, lanes[0]);
                for lane in 1..4u8 {
                    v = self.b.ins().insertlane(v, lanes[usize::from(lane)], lane);
                }
                Ok(v)
            }
        }
    }

    fn shift_by(&mut self, op: Bin, x: Value, amount: Value) -> Result<Value, Diag> {
        Ok(match op {
            Bin::Shl => self.b.ins().ishl(x, amount),
            Bin::ShrS => self.b.ins().sshr(x, amount),
            Bin::ShrU => self.b.ins().ushr(x, amount),
            _ => return Err(self.error(format!("{op:?} is no shift"))),
        })
    }

    /// Division that never traps: a divisor of 0 or -1 is replaced by 1 and the result corrected.
    fn divide(&mut self, op: Bin, divisor: Reg, x: Value, y: Value) -> Value {
        if matches!(self.fact(divisor), Fact::Const(c) if c != 0 && c != -1) {
            return self.divide_by(op, x, y);
        }
        let ty = self.b.func.dfg.value_type(x);
        let (zero, one) = (self.int(ty, 0), self.int(ty, 1));
        let is_zero = self.b.ins().icmp(IntCC::Equal, y, zero);
        let mut safe = self.b.ins().select(is_zero, one, y);
        let mut minus = None;
        if matches!(op, Bin::Div | Bin::Rem) {
            let all = self.int(ty, -1);
            let is_minus = self.b.ins().icmp(IntCC::Equal, y, all);
            safe = self.b.ins().select(is_minus, one, safe);
            minus = Some(is_minus);
        }
        // A remainder by 1 is 0, which is right in both cases.
        let mut v = self.divide_by(op, x, safe);
        if let (Bin::Div, Some(is_minus)) = (op, minus) {
            let neg = self.b.ins().ineg(x);
            v = self.b.ins().select(is_minus, neg, v);
        }
        if matches!(op, Bin::Div | Bin::DivU) {
            v = self.b.ins().select(is_zero, zero, v);
        }
        v
    }

    fn divide_by(&mut self, op: Bin, x: Value, y: Value) -> Value {
        match op {
            Bin::Div => self.b.ins().sdiv(x, y),
            Bin::Rem => self.b.ins().srem(x, y),
            Bin::DivU => self.b.ins().udiv(x, y),
            _ => self.b.ins().urem(x, y),
        }
    }

    pub(super) fn fma(&mut self, a: Reg, b: Reg, c: Reg) -> Result<Value, Diag> {
        if !matches!(self.ty(a).elem, Elem::F32 | Elem::F64) {
            return Err(self.error("fma of integers"));
        }
        let (a, b, c) = (self.get(a)?, self.get(b)?, self.get(c)?);
        Ok(self.multiply_add(a, b, c))
    }

    pub(super) fn multiply_add(&mut self, a: Value, b: Value, c: Value) -> Value {
        if self.fma {
            return self.b.ins().fma(a, b, c);
        }
        let product = self.b.ins().fmul(a, b);
        self.b.ins().fadd(product, c)
    }

    pub(super) fn cmp(&mut self, op: CmpOp, unsigned: bool, a: Reg, b: Reg) -> Result<Value, Diag> {
        let t = self.ty(a);
        let (mut x, mut y) = (self.get(a)?, self.get(b)?);
        if matches!(t.elem, Elem::F32 | Elem::F64) {
            return Ok(self.b.ins().fcmp(float_cc(op), x, y));
        }
        // Masks order as false < true: 0 and 1, or 0 and all ones, unsigned.
        let mut unsigned = unsigned || t.elem == Elem::Mask;
        let ty = Self::clif_type(t);
        if unsigned && ty.is_vector() && !self.sse41 && !matches!(op, CmpOp::Eq | CmpOp::Ne) {
            (x, y) = (self.flip_sign(ty, x), self.flip_sign(ty, y));
            unsigned = false;
        }
        Ok(self.b.ins().icmp(int_cc(op, unsigned), x, y))
    }

    /// Unsigned order becomes signed order when the highest bits are flipped.
    fn flip_sign(&mut self, ty: Type, x: Value) -> Value {
        let bit = self.int(ty, i64::from(i32::MIN));
        self.b.ins().bxor(x, bit)
    }
}

fn float_cc(op: CmpOp) -> FloatCC {
    match op {
        CmpOp::Eq => FloatCC::Equal,
        CmpOp::Ne => FloatCC::NotEqual,
        CmpOp::Lt => FloatCC::LessThan,
        CmpOp::Le => FloatCC::LessThanOrEqual,
        CmpOp::Gt => FloatCC::GreaterThan,
        CmpOp::Ge => FloatCC::GreaterThanOrEqual,
    }
}

fn int_cc(op: CmpOp, unsigned: bool) -> IntCC {
    match (op, unsigned) {
        (CmpOp::Eq, _) => IntCC::Equal,
        (CmpOp::Ne, _) => IntCC::NotEqual,
        (CmpOp::Lt, false) => IntCC::SignedLessThan,
        (CmpOp::Le, false) => IntCC::SignedLessThanOrEqual,
        (CmpOp::Gt, false) => IntCC::SignedGreaterThan,
        (CmpOp::Ge, false) => IntCC::SignedGreaterThanOrEqual,
        (CmpOp::Lt, true) => IntCC::UnsignedLessThan,
        (CmpOp::Le, true) => IntCC::UnsignedLessThanOrEqual,
        (CmpOp::Gt, true) => IntCC::UnsignedGreaterThan,
        (CmpOp::Ge, true) => IntCC::UnsignedGreaterThanOrEqual,
    }
}
