//! What takes several instructions in AVX2 code and one with AVX-512: conversions of unsigned and of 64-bit integers, and
//! vectors in memory of narrow elements or of the first lanes only.

use bertc_ir::kernel::{Elem, RegType};
use bertc_ir::{DType, Diag};
use iced_x86::{Code, OpKind};

use super::super::codes;
use super::super::mir::{Label, Mem, Opnd, Rm, V, View};
use super::convert::{GE, ORDERED};
use super::{Select, def, form, get, imm8, modify, vec_view};

impl Select<'_> {
    /// A literal as the second operand of float instructions of form `i`.
    fn number(&mut self, i: usize, c: f64) -> Rm {
        let t = match i {
            1 => RegType::vector(Elem::F32, 8),
            3 => RegType::scalar(Elem::F32),
            4 => RegType::scalar(Elem::F64),
            _ => RegType::vector(Elem::F32, 4),
        };
        Rm::M(self.float_literal(t, c))
    }

    /// u32 lanes as floats: both halves are exact, so one rounding is left.
    pub(super) fn unsigned_to_float(&mut self, i: usize, x: V) -> V {
        let view = vec_view(i);
        let [high, low_float, high_float] = [(); 3].map(|()| self.vec(i));
        self.emit(codes::ISHRU_IMM[i], &[def(high, view), get(x, view), imm8(16)]);
        let bits = self.repeated(i, &0xffffu32.to_le_bytes());
        let low = self.op3(i, codes::IAND[i], x, Rm::M(bits));
        self.emit(codes::I2F[i], &[def(low_float, view), get(low, view)]);
        self.emit(codes::I2F[i], &[def(high_float, view), get(high, view)]);
        let unit = self.number(i, 65536.0);
        let sum = self.vec(i);
        self.copy(sum, high_float);
        self.emit(codes::FMA132[i], &[modify(sum, view), get(low_float, view), super::rm(unit, view)]);
        sum
    }

    /// Float lanes as i32 or u32. The conversion gives 100…0 for what doesn't fit, NaN included.
    pub(super) fn saturate_lanes(&mut self, i: usize, x: V, unsigned: bool) -> V {
        let view = vec_view(i);
        let converted = |s: &mut Self, x: V| {
            let v = s.vec(i);
            s.emit(codes::F2I[i], &[def(v, view), get(x, view)]);
            v
        };
        let limit = self.number(i, 2f64.powi(31));
        if !unsigned {
            let v = converted(self, x);
            let number = self.float_mask(i, x, Rm::R(x), ORDERED);
            let over = self.float_mask(i, x, limit, GE);
            let v = self.op3(i, codes::IAND[i], v, Rm::R(number));
            return self.op3(i, codes::IXOR[i], v, Rm::R(over));
        }
        // The maximum gives its second operand if the first is NaN.
        let zero = self.zero(i);
        let positive = self.op3(i, codes::FMAX[i], x, Rm::R(zero));
        let big = self.float_mask(i, positive, limit, GE);
        let excess = self.op3(i, codes::FAND[i], big, limit);
        let small = self.op3(i, codes::FSUB[i], positive, Rm::R(excess));
        let v = converted(self, small);
        let top = self.vec(i);
        self.emit(codes::ISHL_IMM[i], &[def(top, view), get(big, view), imm8(31)]);
        let v = self.op3(i, codes::IXOR[i], v, Rm::R(top));
        let end = self.number(i, 2f64.powi(32));
        let over = self.float_mask(i, positive, end, GE);
        self.op3(i, codes::IOR[i], v, Rm::R(over))
    }

    /// A scalar integer or truth value as a float.
    pub(super) fn int_to_float_by_parts(&mut self, from: RegType, to: RegType, x: V, unsigned: bool) -> V {
        let double = to.elem == Elem::F64;
        if from.elem != Elem::I64 && !unsigned {
            let (bits, v) = (self.move_to_vec(x, false), self.vec(0));
            let code = if double { Code::VEX_Vcvtdq2pd_xmm_xmmm64 } else { Code::VEX_Vcvtdq2ps_xmm_xmmm128 };
            self.emit(code, &[def(v, View::X), get(bits, View::X)]);
            return v;
        }
        let signed = |s: &mut Self, x: V| {
            let (v, zero) = (s.vec(0), s.zero(0));
            let code = if double { Code::VEX_Vcvtsi2sd_xmm_xmm_rm64 } else { Code::VEX_Vcvtsi2ss_xmm_xmm_rm64 };
            s.emit(code, &[def(v, View::X), get(zero, View::X), get(x, View::Q)]);
            v
        };
        if from.elem != Elem::I64 {
            let wide = self.gpr();
            self.emit(Code::Mov_r32_rm32, &[def(wide, View::D), get(x, View::D)]);
            return signed(self, wide);
        }
        if !unsigned {
            return signed(self, x);
        }
        // From 2^63 on, half of it, its last bit kept for the rounding, twice.
        let [half, last, chosen, sign] = [(); 4].map(|()| {
            let v = self.gpr();
            self.copy(v, x);
            v
        });
        self.emit(Code::Shr_rm64_imm8, &[modify(half, View::Q), imm8(1)]);
        self.emit(Code::And_rm32_imm8, &[modify(last, View::D), Opnd::Imm(OpKind::Immediate8to32, 1)]);
        self.emit(Code::Or_r64_rm64, &[modify(half, View::Q), get(last, View::Q)]);
        self.emit(Code::Sar_rm64_imm8, &[modify(sign, View::Q), imm8(63)]);
        self.emit_effect(Code::Test_rm64_r64, &[get(x, View::Q), get(x, View::Q)]);
        self.emit(Code::Cmovs_r64_rm64, &[modify(chosen, View::Q), get(half, View::Q)]);
        let once = signed(self, chosen);
        let twice = self.op3(0, codes::FADD[form(to)], once, Rm::R(once));
        let big = self.move_to_vec(sign, true);
        self.blend(to, big, once, Rm::R(twice))
    }

    /// A scalar float as an integer, all by way of f64, which has every f32.
    pub(super) fn float_to_int_by_parts(&mut self, from: RegType, to: RegType, x: V, unsigned: bool) -> V {
        let x = if from.elem == Elem::F64 { x } else { self.op3(0, Code::VEX_Vcvtss2sd_xmm_xmm_xmmm32, x, Rm::R(x)) };
        // NaN becomes 0.
        let number = self.float_mask(4, x, Rm::R(x), ORDERED);
        let x = self.op3(4, codes::FAND[4], x, Rm::R(number));
        let truncated = |s: &mut Self, x: V| {
            let v = s.gpr();
            s.emit(Code::VEX_Vcvttsd2si_r64_xmmm64, &[def(v, View::Q), get(x, View::X)]);
            v
        };
        if to.elem == Elem::I32 {
            let (least, most) = if unsigned { (0.0, u32::MAX.into()) } else { (i32::MIN.into(), i32::MAX.into()) };
            let (least, most) = (self.number(4, least), self.number(4, most));
            let x = self.op3(4, codes::FMAX[4], x, least);
            let x = self.op3(4, codes::FMIN[4], x, most);
            return truncated(self, x);
        }
        let bits = |s: &mut Self, x: V, c: f64| {
            let limit = s.number(4, c);
            let over = s.float_mask(4, x, limit, GE);
            (over, s.move_to_gpr(over, true))
        };
        if !unsigned {
            let v = truncated(self, x);
            let (_, over) = bits(self, x, 2f64.powi(63));
            self.emit(Code::Xor_r64_rm64, &[modify(v, View::Q), get(over, View::Q)]);
            return v;
        }
        let zero = self.zero(4);
        let x = self.op3(4, codes::FMAX[4], x, Rm::R(zero));
        let (big, top) = bits(self, x, 2f64.powi(63));
        let limit = self.repeated(4, &2f64.powi(63).to_le_bytes());
        let excess = self.op3(4, codes::FAND[4], big, Rm::M(limit));
        let small = self.op3(4, codes::FSUB[4], x, Rm::R(excess));
        let v = truncated(self, small);
        self.emit(Code::Shl_rm64_imm8, &[modify(top, View::Q), imm8(63)]);
        self.emit(Code::Xor_r64_rm64, &[modify(v, View::Q), get(top, View::Q)]);
        let (_, over) = bits(self, x, 2f64.powi(64));
        self.emit(Code::Or_r64_rm64, &[modify(v, View::Q), get(over, View::Q)]);
        v
    }

    /// The same place, with a displacement that a few bytes may be added to.
    fn with_room(&mut self, m: Mem) -> Mem {
        if m.disp < i32::MAX - 64 { m } else { Mem::at(self.lea(true, m), 0) }
    }

    /// Runs `one` for the lanes below a count, given negated.
    fn each_lane(&mut self, lanes: u8, negated: V, mut one: impl FnMut(&mut Self, u8)) {
        let done: Label = self.f.new_label();
        for lane in 0..lanes {
            let limit = Opnd::Imm(OpKind::Immediate8to64, -i64::from(lane));
            self.emit_effect(Code::Cmp_rm64_imm8, &[get(negated, View::Q), limit]);
            self.jump(Code::Jge_rel32_64, done);
            one(self, lane);
        }
        self.label(done);
    }

    /// A load of the first lanes, or of all of truth values.
    pub(super) fn load_first(&mut self, t: RegType, dtype: DType, m: Mem, active: Option<V>) -> Result<V, Diag> {
        let i = form(t);
        let view = vec_view(i);
        if let (DType::F32 | DType::I32, Some(n)) = (dtype, active) {
            let (k, v) = (self.lane_mask(i, n), self.vec(i));
            self.emit(codes::MASKED_LOAD[i], &[def(v, view), get(k, view), Opnd::Mem(m)]);
            return Ok(v);
        }
        let m = self.with_room(m);
        let code = self.widening(t, if dtype == DType::Bool { DType::U8 } else { dtype })?;
        let source = match active {
            None => Opnd::Mem(m),
            Some(n) => {
                let all = self.zero(0);
                let size = dtype.size() as u8;
                let code = if size == 1 {
                    Code::VEX_Vpinsrb_xmm_xmm_r32m8_imm8
                } else {
                    Code::VEX_Vpinsrw_xmm_xmm_r32m16_imm8
                };
                self.each_lane(t.lanes, n, |s, lane| {
                    let at = Mem { disp: m.disp + i32::from(lane * size), ..m };
                    s.emit(code, &[def(all, View::X), get(all, View::X), Opnd::Mem(at), imm8(lane)]);
                });
                get(all, View::X)
            }
        };
        let v = self.vec(i);
        self.emit(code, &[def(v, view), source]);
        Ok(match dtype {
            DType::BF16 => self.shift_up(i, v),
            DType::Bool => {
                let zero = self.zero(i);
                self.op3(i, codes::IGT[i], v, Rm::R(zero))
            }
            _ => v,
        })
    }

    /// A store of the first lanes, or of all of a narrow type.
    pub(super) fn store_first(
        &mut self,
        t: RegType,
        dtype: DType,
        x: V,
        m: Mem,
        active: Option<V>,
    ) -> Result<(), Diag> {
        let i = form(t);
        let view = vec_view(i);
        if let (DType::F32 | DType::I32, Some(n)) = (dtype, active) {
            let k = self.lane_mask(i, n);
            self.emit_effect(codes::MASKED_STORE[i], &[Opnd::Mem(m), get(k, view), get(x, view)]);
            return Ok(());
        }
        let packed = match dtype {
            DType::I8 | DType::U8 => self.pack(i, x, true),
            DType::I16 | DType::U16 => self.pack(i, x, false),
            DType::Bool => {
                let one = self.vec(i);
                self.emit(codes::ISHRU_IMM[i], &[def(one, view), get(x, view), imm8(31)]);
                self.pack(i, one, true)
            }
            DType::F16 => {
                let v = self.vec(0);
                self.emit(codes::TO_HALF[i], &[def(v, View::X), get(x, view), imm8(0)]);
                v
            }
            DType::BF16 => {
                let halves = self.round_to_bf16(i, x);
                self.pack(i, halves, false)
            }
            _ => return Err(self.error(format!("a store of {t} to {dtype}"))),
        };
        let (size, m) = (dtype.size() as u8, self.with_room(m));
        let Some(n) = active else {
            let code = match t.lanes * size {
                4 => Code::VEX_Vmovd_rm32_xmm,
                8 => Code::VEX_Vmovq_xmmm64_xmm,
                _ => Code::VEX_Vmovdqu_xmmm128_xmm,
            };
            self.emit_effect(code, &[Opnd::Mem(m), get(packed, View::X)]);
            return Ok(());
        };
        let code = if size == 1 { Code::VEX_Vpextrb_r32m8_xmm_imm8 } else { Code::VEX_Vpextrw_r32m16_xmm_imm8 };
        self.each_lane(t.lanes, n, |s, lane| {
            let at = Mem { disp: m.disp + i32::from(lane * size), ..m };
            s.emit_effect(code, &[Opnd::Mem(at), get(packed, View::X), imm8(lane)]);
        });
        Ok(())
    }

    /// The low bytes or halves of all lanes next to each other.
    fn pack(&mut self, i: usize, x: V, bytes: bool) -> V {
        let low = self.repeated(i, &(if bytes { 0xffu32 } else { 0xffff }).to_le_bytes());
        let x = self.op3(i, codes::IAND[i], x, Rm::M(low));
        let mut upper = x;
        if i == 1 {
            upper = self.vec(0);
            let code = Code::VEX_Vextractf128_xmmm128_ymm_imm8;
            self.emit(code, &[def(upper, View::X), get(x, View::Y), imm8(1)]);
        }
        let halves = self.op3(0, Code::VEX_Vpackusdw_xmm_xmm_xmmm128, x, Rm::R(upper));
        if bytes { self.op3(0, Code::VEX_Vpackuswb_xmm_xmm_xmmm128, halves, Rm::R(halves)) } else { halves }
    }
}
