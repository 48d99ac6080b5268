//! Integers, addresses and truth values in general registers.

use bertc_ir::kernel::{Bin, Elem, Reg, RegType, Un};
use bertc_ir::{CmpOp, Diag};
use iced_x86::{Code, OpKind};

use super::super::mir::{Item, Mem, Opnd, V, View};
use super::{Select, Val, def, get, imm8, modify};

/// A condition of the flags: the conditional move, `setcc`, and the jump if it does not hold.
#[derive(Clone, Copy)]
struct Condition {
    cmov: Code,
    set: Code,
    unless: Code,
}

fn condition_of(op: CmpOp, unsigned: bool) -> Condition {
    let (cmov, set, unless) = match (op, unsigned) {
        (CmpOp::Eq, _) => (Code::Cmove_r64_rm64, Code::Sete_rm8, Code::Jne_rel32_64),
        (CmpOp::Ne, _) => (Code::Cmovne_r64_rm64, Code::Setne_rm8, Code::Je_rel32_64),
        (CmpOp::Lt, false) => (Code::Cmovl_r64_rm64, Code::Setl_rm8, Code::Jge_rel32_64),
        (CmpOp::Le, false) => (Code::Cmovle_r64_rm64, Code::Setle_rm8, Code::Jg_rel32_64),
        (CmpOp::Gt, false) => (Code::Cmovg_r64_rm64, Code::Setg_rm8, Code::Jle_rel32_64),
        (CmpOp::Ge, false) => (Code::Cmovge_r64_rm64, Code::Setge_rm8, Code::Jl_rel32_64),
        (CmpOp::Lt, true) => (Code::Cmovb_r64_rm64, Code::Setb_rm8, Code::Jae_rel32_64),
        (CmpOp::Le, true) => (Code::Cmovbe_r64_rm64, Code::Setbe_rm8, Code::Ja_rel32_64),
        (CmpOp::Gt, true) => (Code::Cmova_r64_rm64, Code::Seta_rm8, Code::Jbe_rel32_64),
        (CmpOp::Ge, true) => (Code::Cmovae_r64_rm64, Code::Setae_rm8, Code::Jb_rel32_64),
    };
    Condition { cmov, set, unless }
}

/// One of two codes, for 64 or 32 bits.
fn by_width(wide: bool, q: Code, d: Code) -> Code {
    if wide { q } else { d }
}

fn width(t: RegType) -> (bool, View) {
    let wide = matches!(t.elem, Elem::I64 | Elem::Addr);
    (wide, if wide { View::Q } else { View::D })
}

impl Select<'_> {
    /// The value as a sign-extended immediate.
    pub(super) fn immediate(&self, r: Reg) -> Option<i32> {
        match self.val(r) {
            Val::Int(c) if self.ty(r).elem == Elem::I32 => Some(c as i32),
            Val::Int(c) if self.ty(r).elem == Elem::Mask => Some(i32::from(c != 0)),
            Val::Int(c) => i32::try_from(c).ok(),
            _ => None,
        }
    }

    /// `v op= c` for a 64-bit register by its forms for bytes and for 32 bits.
    pub(super) fn int_op_imm(&mut self, short: Code, long: Code, v: V, c: i64) -> Result<(), Diag> {
        if let Ok(small) = i8::try_from(c) {
            self.emit(short, &[modify(v, View::Q), Opnd::Imm(OpKind::Immediate8to64, small.into())]);
        } else if i32::try_from(c).is_ok() {
            self.emit(long, &[modify(v, View::Q), Opnd::Imm(OpKind::Immediate32to64, c)]);
        } else {
            return Err(self.error(format!("a loop's step of {c}")).note("at most 2^31 - 1 is supported"));
        }
        Ok(())
    }

    /// Sets the flags by `x - y`.
    pub(super) fn compare_ints(&mut self, x: V, y: Reg, wide: bool) -> Result<(), Diag> {
        let view = if wide { View::Q } else { View::D };
        let Some(c) = self.immediate(y) else {
            let y = self.reg(y)?;
            self.emit_effect(by_width(wide, Code::Cmp_r64_rm64, Code::Cmp_r32_rm32), &[get(x, view), get(y, view)]);
            return Ok(());
        };
        let (code, kind) = match (i8::try_from(c).is_ok(), wide) {
            (true, true) => (Code::Cmp_rm64_imm8, OpKind::Immediate8to64),
            (true, false) => (Code::Cmp_rm32_imm8, OpKind::Immediate8to32),
            (false, true) => (Code::Cmp_rm64_imm32, OpKind::Immediate32to64),
            (false, false) => (Code::Cmp_rm32_imm32, OpKind::Immediate32),
        };
        self.emit_effect(code, &[get(x, view), Opnd::Imm(kind, c.into())]);
        Ok(())
    }

    /// Sets the flags for a scalar mask: the conditional move if it holds and the jump if it doesn't.
    pub(super) fn condition(&mut self, m: Reg) -> Result<(Code, Code), Diag> {
        if let Val::Cmp { op, unsigned, a, b } = self.val(m) {
            let wide = self.ty(a).elem == Elem::I64;
            let x = self.reg(a)?;
            self.compare_ints(x, b, wide)?;
            let c = condition_of(op, unsigned);
            return Ok((c.cmov, c.unless));
        }
        let x = self.reg(m)?;
        self.emit_effect(Code::Test_rm32_r32, &[get(x, View::D), get(x, View::D)]);
        let c = condition_of(CmpOp::Ne, false);
        Ok((c.cmov, c.unless))
    }

    /// 0 or 1.
    pub(super) fn scalar_cmp(&mut self, op: CmpOp, unsigned: bool, a: Reg, b: Reg) -> Result<V, Diag> {
        let x = self.reg(a)?;
        self.compare_ints(x, b, self.ty(a).elem == Elem::I64)?;
        Ok(self.set_by_flags(condition_of(op, unsigned).set))
    }

    fn set_by_flags(&mut self, set: Code) -> V {
        let (byte, v) = (self.gpr(), self.gpr());
        self.emit(set, &[def(byte, View::B)]);
        self.emit(Code::Movzx_r32_rm8, &[def(v, View::D), get(byte, View::B)]);
        v
    }

    /// Whether `x` isn't 0.
    pub(super) fn not_zero(&mut self, x: V, wide: bool) -> V {
        let (code, view) = if wide { (Code::Test_rm64_r64, View::Q) } else { (Code::Test_rm32_r32, View::D) };
        self.emit_effect(code, &[get(x, view), get(x, view)]);
        self.set_by_flags(Code::Setne_rm8)
    }

    pub(super) fn scalar_un(&mut self, op: Un, t: RegType, x: V) -> Result<V, Diag> {
        let (wide, view) = width(t);
        let v = self.gpr();
        self.copy(v, x);
        match (op, t.elem) {
            (Un::Not, Elem::Mask) => {
                self.emit(Code::Xor_rm32_imm8, &[modify(v, View::D), Opnd::Imm(OpKind::Immediate8to32, 1)]);
            }
            (Un::Not, _) => self.emit(by_width(wide, Code::Not_rm64, Code::Not_rm32), &[modify(v, view)]),
            (Un::Neg, _) => self.emit(by_width(wide, Code::Neg_rm64, Code::Neg_rm32), &[modify(v, view)]),
            (Un::Abs, _) => {
                // The negation's sign says which of the two it is; both are the least number or neither.
                self.emit(by_width(wide, Code::Neg_rm64, Code::Neg_rm32), &[modify(v, view)]);
                self.emit(by_width(wide, Code::Cmovs_r64_rm64, Code::Cmovs_r32_rm32), &[modify(v, view), get(x, view)]);
            }
            _ => return Err(self.error(format!("{} of {t}", op.name()))),
        }
        Ok(v)
    }

    pub(super) fn scalar_bin(&mut self, dst: Reg, op: Bin, a: Reg, b: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        let (wide, view) = width(t);
        let commutes = matches!(op, Bin::Add | Bin::Mul | Bin::And | Bin::Or | Bin::Xor | Bin::Min | Bin::Max);
        let known = |s: &Self, r| matches!(s.val(r), Val::Int(_));
        let (a, b) = if commutes && known(self, a) { (b, a) } else { (a, b) };
        let constant = if let Val::Int(c) = self.val(b) { Some(c) } else { None };
        if let Some(c) = constant
            && let Some(v) = self.with_constant(dst, op, a, c)?
        {
            return Ok(v);
        }
        match op {
            Bin::Add => {
                let (x, y) = (self.reg(a)?, self.reg(b)?);
                Ok(self.lea(wide, Mem { base: Some(x), index: Some((y, 1)), ..Mem::default() }))
            }
            Bin::Sub => self.tied_int(a, b, view, by_width(wide, Code::Sub_r64_rm64, Code::Sub_r32_rm32)),
            Bin::Mul => self.tied_int(a, b, view, by_width(wide, Code::Imul_r64_rm64, Code::Imul_r32_rm32)),
            Bin::And => self.bitwise(
                a,
                b,
                wide,
                [Code::And_rm64_imm32, Code::And_rm32_imm32, Code::And_r64_rm64, Code::And_r32_rm32],
            ),
            Bin::Or => self.bitwise(
                a,
                b,
                wide,
                [Code::Or_rm64_imm32, Code::Or_rm32_imm32, Code::Or_r64_rm64, Code::Or_r32_rm32],
            ),
            Bin::Xor => self.bitwise(
                a,
                b,
                wide,
                [Code::Xor_rm64_imm32, Code::Xor_rm32_imm32, Code::Xor_r64_rm64, Code::Xor_r32_rm32],
            ),
            Bin::Min | Bin::Max => {
                let (x, y) = (self.reg(a)?, self.reg(b)?);
                let v = self.gpr();
                self.copy(v, x);
                self.emit_effect(by_width(wide, Code::Cmp_r64_rm64, Code::Cmp_r32_rm32), &[get(x, view), get(y, view)]);
                let code = if op == Bin::Min { Code::Cmovg_r64_rm64 } else { Code::Cmovl_r64_rm64 };
                self.emit(code, &[modify(v, View::Q), get(y, View::Q)]);
                Ok(v)
            }
            Bin::Shl | Bin::ShrS | Bin::ShrU => {
                let (q, d) = match op {
                    Bin::Shl => (Code::VEX_Shlx_r64_rm64_r64, Code::VEX_Shlx_r32_rm32_r32),
                    Bin::ShrS => (Code::VEX_Sarx_r64_rm64_r64, Code::VEX_Sarx_r32_rm32_r32),
                    _ => (Code::VEX_Shrx_r64_rm64_r64, Code::VEX_Shrx_r32_rm32_r32),
                };
                let (x, y) = (self.reg(a)?, self.reg(b)?);
                let v = self.gpr();
                self.emit(by_width(wide, q, d), &[def(v, view), get(x, view), get(y, view)]);
                Ok(v)
            }
            Bin::Div | Bin::Rem | Bin::DivU | Bin::RemU => self.divide(op, t, a, b),
        }
    }

    /// The operation on `a` and a constant, where that has a form of its own.
    fn with_constant(&mut self, dst: Reg, op: Bin, a: Reg, c: i64) -> Result<Option<V>, Diag> {
        let t = self.ty(a);
        let (wide, view) = width(t);
        let (q, d) = match op {
            Bin::Add | Bin::Sub => {
                let c = if op == Bin::Add { c } else { c.wrapping_neg() };
                if t.elem == Elem::I64 {
                    let (base, old) = self.offsets[a.0 as usize].unwrap_or((a, 0));
                    self.offsets[dst.0 as usize] = Some((base, old.wrapping_add(c)));
                }
                let small = if wide { i32::try_from(c).ok() } else { Some(c as i32) };
                let Some(c) = small else { return Ok(None) };
                let x = self.reg(a)?;
                return Ok(Some(if c == 0 { x } else { self.lea(wide, Mem::at(x, c)) }));
            }
            Bin::Mul => {
                let x = self.reg(a)?;
                return Ok(self.multiply_by(x, c, wide));
            }
            Bin::Shl => (Code::Shl_rm64_imm8, Code::Shl_rm32_imm8),
            Bin::ShrS => (Code::Sar_rm64_imm8, Code::Sar_rm32_imm8),
            Bin::ShrU => (Code::Shr_rm64_imm8, Code::Shr_rm32_imm8),
            _ => return Ok(None),
        };
        let (x, v) = (self.reg(a)?, self.gpr());
        self.copy(v, x);
        let amount = c & if wide { 63 } else { 31 };
        self.emit(by_width(wide, q, d), &[modify(v, view), imm8(amount as u8)]);
        Ok(Some(v))
    }

    fn tied_int(&mut self, a: Reg, b: Reg, view: View, code: Code) -> Result<V, Diag> {
        let (x, y) = (self.reg(a)?, self.reg(b)?);
        let v = self.gpr();
        self.copy(v, x);
        self.emit(code, &[modify(v, view), get(y, view)]);
        Ok(v)
    }

    /// By the codes for 64 and 32 bits with an immediate and with a register.
    fn bitwise(&mut self, a: Reg, b: Reg, wide: bool, codes: [Code; 4]) -> Result<V, Diag> {
        let view = if wide { View::Q } else { View::D };
        let Some(c) = self.immediate(b) else {
            return self.tied_int(a, b, view, by_width(wide, codes[2], codes[3]));
        };
        let (x, v) = (self.reg(a)?, self.gpr());
        self.copy(v, x);
        let kind = if wide { OpKind::Immediate32to64 } else { OpKind::Immediate32 };
        self.emit(by_width(wide, codes[0], codes[1]), &[modify(v, view), Opnd::Imm(kind, c.into())]);
        Ok(v)
    }

    pub(super) fn lea(&mut self, wide: bool, m: Mem) -> V {
        let v = self.gpr();
        let (code, view) = if wide { (Code::Lea_r64_m, View::Q) } else { (Code::Lea_r32_m, View::D) };
        self.emit(code, &[def(v, view), Opnd::Mem(m)]);
        v
    }

    /// The product with a constant that is 0, 1, small or a power of two, or fits an immediate.
    fn multiply_by(&mut self, x: V, c: i64, wide: bool) -> Option<V> {
        let view = if wide { View::Q } else { View::D };
        match c {
            1 => Some(x),
            2 => Some(self.lea(wide, Mem { base: Some(x), index: Some((x, 1)), ..Mem::default() })),
            3 | 5 | 9 => Some(self.lea(wide, Mem { base: Some(x), index: Some((x, c as u32 - 1)), ..Mem::default() })),
            c if c > 0 && c.count_ones() == 1 && (wide || c < 1 << 32) => {
                let v = self.gpr();
                self.copy(v, x);
                let code = by_width(wide, Code::Shl_rm64_imm8, Code::Shl_rm32_imm8);
                self.emit(code, &[modify(v, view), imm8(c.trailing_zeros() as u8)]);
                Some(v)
            }
            c => {
                let c = if wide { i32::try_from(c).ok()? } else { c as i32 };
                let v = self.gpr();
                let (code, kind) = if wide {
                    (Code::Imul_r64_rm64_imm32, OpKind::Immediate32to64)
                } else {
                    (Code::Imul_r32_rm32_imm32, OpKind::Immediate32)
                };
                self.emit(code, &[def(v, view), get(x, view), Opnd::Imm(kind, c.into())]);
                Some(v)
            }
        }
    }

    /// Never traps: x/0 and x%0 are 0, and a signed divisor of -1 negates.
    fn divide(&mut self, op: Bin, t: RegType, a: Reg, b: Reg) -> Result<V, Diag> {
        let (wide, view) = width(t);
        let signed = matches!(op, Bin::Div | Bin::Rem);
        let remainder = matches!(op, Bin::Rem | Bin::RemU);
        let constant = if let Val::Int(c) = self.val(b) { Some(if wide { c } else { c as i32 as i64 }) } else { None };
        let x = self.reg(a)?;
        if let Some(c) = constant
            && c > 0
            && c.count_ones() == 1
            && !signed
        {
            return Ok(self.divide_by_power(x, c, wide, remainder));
        }
        let y = self.reg(b)?;
        let v = self.gpr();
        let divide = Item::Divide { dst: v, a: x, b: y, signed, wide, remainder };
        if constant.is_some_and(|c| c != 0 && c != -1) {
            self.f.push(divide);
            return Ok(v);
        }
        let (test, cmp) = (
            by_width(wide, Code::Test_rm64_r64, Code::Test_rm32_r32),
            by_width(wide, Code::Cmp_rm64_imm8, Code::Cmp_rm32_imm8),
        );
        let done = self.f.new_label();
        let zero = self.int_constant(t, 0);
        self.copy(v, zero);
        self.emit_effect(test, &[get(y, view), get(y, view)]);
        self.jump(Code::Je_rel32_64, done);
        if signed {
            let normal = self.f.new_label();
            let kind = if wide { OpKind::Immediate8to64 } else { OpKind::Immediate8to32 };
            self.emit_effect(cmp, &[get(y, view), Opnd::Imm(kind, -1)]);
            self.jump(Code::Jne_rel32_64, normal);
            if !remainder {
                self.copy(v, x);
                self.emit(by_width(wide, Code::Neg_rm64, Code::Neg_rm32), &[modify(v, view)]);
            }
            self.jump(Code::Jmp_rel32_64, done);
            self.label(normal);
        }
        self.f.push(divide);
        self.label(done);
        Ok(v)
    }

    /// Unsigned division by a power of two.
    fn divide_by_power(&mut self, x: V, c: i64, wide: bool, remainder: bool) -> V {
        let view = if wide { View::Q } else { View::D };
        let v = self.gpr();
        self.copy(v, x);
        let bits = c.trailing_zeros() as u8;
        if !remainder {
            self.emit(by_width(wide, Code::Shr_rm64_imm8, Code::Shr_rm32_imm8), &[modify(v, view), imm8(bits)]);
            return v;
        }
        // Keeps the lowest bits.
        let count = self.int_constant(RegType::scalar(Elem::I64), bits.into());
        let low = self.gpr();
        let code = by_width(wide, Code::VEX_Bzhi_r64_rm64_r64, Code::VEX_Bzhi_r32_rm32_r32);
        self.emit(code, &[def(low, view), get(v, view), get(count, view)]);
        low
    }
}
