//! Conversions between register elements, and between f32 and the half types in memory.

use bertc_ir::Diag;
use bertc_ir::kernel::{Elem, Reg};
use cranelift_codegen::ir::condcodes::{FloatCC, IntCC};
use cranelift_codegen::ir::{InstBuilder, Type, Value, types};

use super::Emitter;

/// 112 in the exponent of an f32: the difference of the biases of f32 and f16.
const REBIAS: i64 = 112 << 23;

impl Emitter<'_> {
    pub(super) fn convert(&mut self, dst: Reg, a: Reg, unsigned: bool) -> Result<Value, Diag> {
        let (from, to) = (self.ty(a), self.ty(dst));
        if from.lanes != to.lanes {
            return Err(self.error("a conversion changes the number of lanes"));
        }
        let x = self.get(a)?;
        let (src, ty) = (Self::clif_type(from), Self::clif_type(to));
        use Elem::{F32, F64, I32, I64, Mask};
        Ok(match (from.elem, to.elem) {
            (f, t) if f == t => x,
            (F32, F64) => self.b.ins().fpromote(ty, x),
            (F64, F32) => self.b.ins().fdemote(ty, x),
            (F32 | F64, I32 | I64) if unsigned => self.b.ins().fcvt_to_uint_sat(ty, x),
            (F32 | F64, I32 | I64) => self.b.ins().fcvt_to_sint_sat(ty, x),
            (I32 | I64, F32 | F64) if unsigned => self.b.ins().fcvt_from_uint(ty, x),
            (I32 | I64, F32 | F64) => self.b.ins().fcvt_from_sint(ty, x),
            (I32, I64) if unsigned => self.b.ins().uextend(ty, x),
            (I32, I64) => self.b.ins().sextend(ty, x),
            (I64, I32) => self.b.ins().ireduce(ty, x),
            (Mask, F32 | F64) => {
                let (one, zero) = (self.float(ty, 1.0), self.float(ty, 0.0));
                self.choose(x, one, zero)
            }
            (Mask, _) if to.lanes == 1 => self.b.ins().uextend(ty, x),
            (Mask, _) => {
                let one = self.int(ty, 1);
                self.b.ins().band(x, one)
            }
            (F32 | F64, _) => {
                let zero = self.float(src, 0.0);
                self.b.ins().fcmp(FloatCC::NotEqual, x, zero)
            }
            _ => {
                let zero = self.int(src, 0);
                self.b.ins().icmp(IntCC::NotEqual, x, zero)
            }
        })
    }

    /// i32 and f32 with as many lanes as `v` has.
    fn word_types(&self, v: Value) -> (Type, Type) {
        if self.b.func.dfg.value_type(v).is_vector() { (types::I32X4, types::F32X4) } else { (types::I32, types::F32) }
    }

    /// The f32 of a binary16 in the low half of each i32 (the high half is zero). Integer arithmetic only but for
    /// denormals, which are (0.5 + m·2⁻²⁴) - 0.5, so a flush-to-zero mode changes nothing.
    pub(super) fn f16_to_f32(&mut self, h: Value) -> Value {
        let (i, f) = self.word_types(h);
        let low = self.int(i, 0x7fff);
        let magnitude = self.b.ins().band(h, low);
        let top = self.int(i, 0x8000);
        let sign = self.b.ins().band(h, top);
        let sign = self.b.ins().ishl_imm_u(sign, 16);
        let shifted = self.b.ins().ishl_imm_u(magnitude, 13);
        let rebias = self.int(i, REBIAS);
        let normal = self.b.ins().iadd(shifted, rebias);
        let special = self.b.ins().iadd(normal, rebias);
        let half = self.int(i, 0x3f00_0000);
        let denormal = self.b.ins().bor(magnitude, half);
        let (denormal, half) = (self.cast(f, denormal), self.cast(f, half));
        let denormal = self.b.ins().fsub(denormal, half);
        let denormal = self.cast(i, denormal);
        let (least, infinity) = (self.int(i, 0x400), self.int(i, 0x7c00));
        let is_denormal = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, least);
        let is_finite = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, infinity);
        let v = self.choose(is_denormal, denormal, normal);
        let v = self.choose(is_finite, v, special);
        let v = self.b.ins().bor(v, sign);
        self.cast(f, v)
    }

    /// The binary16 nearest to an f32, ties to even, in the low half of an i32; NaN is 0x7e00 with the sign.
    pub(super) fn f32_to_f16(&mut self, x: Value) -> Value {
        let (i, f) = self.word_types(x);
        let bits = self.cast(i, x);
        let low = self.int(i, 0x7fff_ffff);
        let magnitude = self.b.ins().band(bits, low);
        let sign = self.b.ins().ushr_imm_u(bits, 16);
        let top = self.int(i, 0x8000);
        let sign = self.b.ins().band(sign, top);
        // Normal: rebias, add half a unit (one less if the kept part is even) and cut.
        let odd = self.b.ins().ushr_imm_u(magnitude, 13);
        let one = self.int(i, 1);
        let odd = self.b.ins().band(odd, one);
        let bias = self.int(i, 0xfff - REBIAS);
        let normal = self.b.ins().iadd(magnitude, bias);
        let normal = self.b.ins().iadd(normal, odd);
        let normal = self.b.ins().ushr_imm_u(normal, 13);
        // Denormal: adding 0.5 puts the rounded multiple of 2^-24 into the low bits.
        let half = self.int(i, 0x3f00_0000);
        let (m, h) = (self.cast(f, magnitude), self.cast(f, half));
        let sum = self.b.ins().fadd(m, h);
        let sum = self.cast(i, sum);
        let denormal = self.b.ins().isub(sum, half);
        let (least, over, infinity) = (self.int(i, 0x3880_0000), self.int(i, 0x4780_0000), self.int(i, 0x7f80_0000));
        let (inf16, nan16) = (self.int(i, 0x7c00), self.int(i, 0x7e00));
        let is_denormal = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, least);
        let fits = self.b.ins().icmp(IntCC::SignedLessThan, magnitude, over);
        let is_nan = self.b.ins().icmp(IntCC::SignedGreaterThan, magnitude, infinity);
        let v = self.choose(is_denormal, denormal, normal);
        let v = self.choose(fits, v, inf16);
        let v = self.choose(is_nan, nan16, v);
        self.b.ins().bor(v, sign)
    }

    /// The f32 of a bfloat16 in the low half of each i32.
    pub(super) fn bf16_to_f32(&mut self, h: Value) -> Value {
        let (_, f) = self.word_types(h);
        let bits = self.b.ins().ishl_imm_u(h, 16);
        self.cast(f, bits)
    }

    /// The bfloat16 nearest to an f32, ties to even, in the low half of an i32; a NaN stays one.
    pub(super) fn f32_to_bf16(&mut self, x: Value) -> Value {
        let (i, _) = self.word_types(x);
        let bits = self.cast(i, x);
        let cut = self.b.ins().ushr_imm_u(bits, 16);
        let (one, round, quiet) = (self.int(i, 1), self.int(i, 0x7fff), self.int(i, 0x40));
        let odd = self.b.ins().band(cut, one);
        let v = self.b.ins().iadd(bits, round);
        let v = self.b.ins().iadd(v, odd);
        let v = self.b.ins().ushr_imm_u(v, 16);
        let nan = self.b.ins().bor(cut, quiet);
        let is_nan = self.b.ins().fcmp(FloatCC::Unordered, x, x);
        self.choose(is_nan, nan, v)
    }
}
