//! Conversions of values and of types of bits.

use bertc_ir::Diag;
use bertc_ir::kernel::{Elem, Reg, RegType};
use iced_x86::Code;

use super::super::codes;
use super::super::mir::{Class, Mem, Opnd, Rm, V, View};
use super::{Select, Val, def, form, get, imm8, modify, undef, vec_view};

/// Greater or equal, ordered, quiet.
pub(super) const GE: u8 = 0x1d;
/// Neither is NaN.
pub(super) const ORDERED: u8 = 7;
/// Not equal, or NaN.
const NE: u8 = 4;

impl Select<'_> {
    pub(super) fn bitcast(&mut self, dst: Reg, a: Reg) -> Result<V, Diag> {
        let (from, to) = (self.ty(a), self.ty(dst));
        let x = self.reg(a)?;
        Ok(match (Class::of(from), Class::of(to)) {
            (Class::Gpr, Class::Vec(_)) => self.move_to_vec(x, from.elem == Elem::I64),
            (Class::Vec(_), Class::Gpr) => self.move_to_gpr(x, from.elem == Elem::F64),
            _ => x,
        })
    }

    /// The bits of a known value as the other type's value. A NaN's bits don't survive as a float.
    pub(super) fn bitcast_constant(&self, a: Reg) -> Option<Val> {
        Some(match (self.val(a), self.ty(a).elem) {
            (Val::Float(c), Elem::F32) if !c.is_nan() => Val::Int((c as f32).to_bits() as i32 as i64),
            (Val::Float(c), Elem::F64) if !c.is_nan() => Val::Int(c.to_bits() as i64),
            (Val::Int(c), Elem::I32) if !f32::from_bits(c as u32).is_nan() => {
                Val::Float(f32::from_bits(c as u32).into())
            }
            (Val::Int(c), Elem::I64) if !f64::from_bits(c as u64).is_nan() => Val::Float(f64::from_bits(c as u64)),
            _ => return None,
        })
    }

    /// The lowest 32 or 64 bits of a vector register.
    pub(super) fn move_to_gpr(&mut self, x: V, wide: bool) -> V {
        let v = self.gpr();
        let (code, view) =
            if wide { (Code::EVEX_Vmovq_rm64_xmm, View::Q) } else { (Code::EVEX_Vmovd_rm32_xmm, View::D) };
        self.emit(code, &[def(v, view), get(x, View::X)]);
        v
    }

    pub(super) fn convert(&mut self, dst: Reg, a: Reg, unsigned: bool) -> Result<V, Diag> {
        use Elem::{F32, F64, I32, I64, Mask};
        let (from, to) = (self.ty(a), self.ty(dst));
        let x = self.reg(a)?;
        if from.elem == to.elem {
            return Ok(x);
        }
        if to.lanes > 1 {
            return self.convert_vector(from, to, x, unsigned);
        }
        let gpr = |s: &mut Self, code: Code, view: View| {
            let v = s.gpr();
            s.emit(code, &[def(v, view), get(x, View::D)]);
            v
        };
        Ok(match (from.elem, to.elem) {
            (I32, I64) if !unsigned => gpr(self, Code::Movsxd_r64_rm32, View::Q),
            (I32, I64) | (I64, I32) => gpr(self, Code::Mov_r32_rm32, View::D),
            // A scalar mask is 0 or 1.
            (Mask, I32 | I64) => x,
            (I32 | I64, Mask) => self.not_zero(x, from.elem == I64),
            (F32 | F64, Mask) => {
                let k = self.nonzero_floats(from, x);
                self.bit_of_mask(k)
            }
            (F32, F64) | (F64, F32) => {
                let code = if to.elem == F64 {
                    Code::EVEX_Vcvtss2sd_xmm_k1z_xmm_xmmm32_sae
                } else {
                    Code::EVEX_Vcvtsd2ss_xmm_k1z_xmm_xmmm64_er
                };
                self.op3(0, code, x, Rm::R(x))
            }
            (I32 | I64 | Mask, F32 | F64) if self.avx2() => self.int_to_float_by_parts(from, to, x, unsigned),
            (F32 | F64, I32 | I64) if self.avx2() => self.float_to_int_by_parts(from, to, x, unsigned),
            (I32 | I64 | Mask, F32 | F64) => self.int_to_float(from, to, x, unsigned),
            (F32 | F64, I32 | I64) => self.float_to_int(from, to, x, unsigned),
            _ => return Err(self.error(format!("a conversion of {from} to {to}"))),
        })
    }

    /// By the vector forms, which don't merge with what the register held.
    fn int_to_float(&mut self, from: RegType, to: RegType, x: V, unsigned: bool) -> V {
        let wide = from.elem == Elem::I64;
        let bits = self.move_to_vec(x, wide);
        let v = self.vec(0);
        let code = match (wide, to.elem == Elem::F64, unsigned) {
            (false, false, false) => codes::I2F[0],
            (false, false, true) => codes::U2F[0],
            (false, true, false) => Code::EVEX_Vcvtdq2pd_xmm_k1z_xmmm64b32,
            (false, true, true) => Code::EVEX_Vcvtudq2pd_xmm_k1z_xmmm64b32,
            (true, false, false) => Code::EVEX_Vcvtqq2ps_xmm_k1z_xmmm128b64,
            (true, false, true) => Code::EVEX_Vcvtuqq2ps_xmm_k1z_xmmm128b64,
            (true, true, false) => Code::EVEX_Vcvtqq2pd_xmm_k1z_xmmm128b64,
            (true, true, true) => Code::EVEX_Vcvtuqq2pd_xmm_k1z_xmmm128b64,
        };
        self.emit(code, &[def(v, View::X), get(bits, View::X)]);
        v
    }

    fn float_to_int(&mut self, from: RegType, to: RegType, x: V, unsigned: bool) -> V {
        let (f64, wide) = (from.elem == Elem::F64, to.elem == Elem::I64);
        let code = match (f64, wide, unsigned) {
            (false, false, false) => codes::F2I[0],
            (false, false, true) => codes::F2U[0],
            (false, true, false) => Code::EVEX_Vcvttps2qq_xmm_k1z_xmmm64b32,
            (false, true, true) => Code::EVEX_Vcvttps2uqq_xmm_k1z_xmmm64b32,
            (true, false, false) => Code::EVEX_Vcvttpd2dq_xmm_k1z_xmmm128b64,
            (true, false, true) => Code::EVEX_Vcvttpd2udq_xmm_k1z_xmmm128b64,
            (true, true, false) => Code::EVEX_Vcvttpd2qq_xmm_k1z_xmmm128b64,
            (true, true, true) => Code::EVEX_Vcvttpd2uqq_xmm_k1z_xmmm128b64,
        };
        let limit = if wide { 2f64.powi(63) } else { 2f64.powi(31) };
        let v = self.saturate(form(from), if wide { 4 } else { 0 }, code, x, limit, unsigned);
        self.move_to_gpr(v, wide)
    }

    /// Converts with `code`, which gives 100…0 (unsigned: 111…1) for what doesn't fit, NaN included. `i` is the form of
    /// the floats, `j` that of the integers.
    fn saturate(&mut self, i: usize, j: usize, code: Code, x: V, limit: f64, unsigned: bool) -> V {
        let (v, view) = (self.vec(j), vec_view(i));
        if unsigned {
            // The maximum gives its second operand if the first is NaN, so what isn't positive becomes 0.
            let zero = self.zero(i);
            let positive = self.vec(i);
            self.emit(codes::FMAX[i], &[def(positive, view), get(x, view), get(zero, view)]);
            self.emit(code, &[def(v, view), get(positive, view)]);
            return v;
        }
        let [number, over] = [(); 2].map(|()| self.mask(i));
        let bytes = if i == 4 { limit.to_le_bytes().to_vec() } else { (limit as f32).to_le_bytes().to_vec() };
        let literal = self.f.literal(&bytes);
        let literal = Mem { bcst: i < 3, ..literal };
        self.emit(codes::FCMP[i], &[def(number, View::K), get(x, view), get(x, view), imm8(ORDERED)]);
        self.emit(codes::FCMP[i], &[def(over, View::K), get(x, view), Opnd::Mem(literal), imm8(GE)]);
        self.emit_zeroing(code, &[def(v, view), get(x, view)], Some(number));
        // 100…0 becomes 011…1.
        let flip = [modify(v, view), undef(v, view), undef(v, view), imm8(0x0f)];
        self.push(codes::TERNLOG[j], &flip, Some(over), false, false);
        v
    }

    fn nonzero_floats(&mut self, t: RegType, x: V) -> V {
        let i = form(t);
        let zero = self.zero(i);
        self.float_mask(i, x, Rm::R(zero), NE)
    }

    fn convert_vector(&mut self, from: RegType, to: RegType, x: V, unsigned: bool) -> Result<V, Diag> {
        use Elem::{F32, I32, Mask};
        let i = form(to);
        let view = vec_view(i);
        let simple = |s: &mut Self, code: Code| {
            let v = s.vec(i);
            s.emit(code, &[def(v, view), get(x, view)]);
            v
        };
        Ok(match (from.elem, to.elem) {
            (I32, F32) if unsigned && self.avx2() => self.unsigned_to_float(i, x),
            (F32, I32) if self.avx2() => self.saturate_lanes(i, x, unsigned),
            (I32, F32) => simple(self, if unsigned { codes::U2F[i] } else { codes::I2F[i] }),
            (F32, I32) => {
                let code = if unsigned { codes::F2U[i] } else { codes::F2I[i] };
                self.saturate(i, i, code, x, 2f64.powi(31), unsigned)
            }
            (F32, Mask) => self.nonzero_floats(from, x),
            (I32, Mask) if self.avx2() => {
                let i = form(from);
                let zero = self.zero(i);
                let same = self.op3(i, codes::IEQ[i], x, Rm::R(zero));
                self.mask_not(i, same)
            }
            (I32, Mask) => {
                let (k, i) = (self.mask(i), form(from));
                let view = vec_view(i);
                self.emit(codes::ITEST[i], &[def(k, View::K), get(x, view), get(x, view)]);
                k
            }
            (Mask, F32 | I32) => {
                let one = if to.elem == F32 { 1f32.to_bits() } else { 1 };
                if self.avx2() {
                    let one = self.repeated(i, &one.to_le_bytes());
                    return Ok(self.op3(i, codes::IAND[i], x, Rm::M(one)));
                }
                let one = self.f.literal(&one.to_le_bytes());
                let v = self.vec(i);
                self.emit_zeroing(codes::BROADCAST[i], &[def(v, view), Opnd::Mem(one)], Some(x));
                v
            }
            _ => return Err(self.error(format!("a conversion of {from} to {to}"))),
        })
    }
}
