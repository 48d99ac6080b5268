//! Addresses, loads and stores of every memory type, whole or of the first lanes only.

use bertc_ir::kernel::{Elem, Param, Place, Reg, RegType, lane_in_memory};
use bertc_ir::{DType, Diag};
use iced_x86::{Code, OpKind};

use super::super::codes;
use super::super::mir::{Mem, Opnd, Rm, V, View};
use super::{Select, Val, def, form, get, imm8, modify, vec_view};

impl Select<'_> {
    fn pointer(&self, ptr: usize) -> Result<(V, DType), Diag> {
        match (self.kernel.params.get(ptr), self.pointers.get(ptr)) {
            (Some(Param::Ptr { dtype, .. }), Some(Some(v))) => Ok((*v, *dtype)),
            _ => Err(self.error(format!("parameter {ptr} is not a pointer"))),
        }
    }

    /// `base + (index + offset) · size`, constants in the displacement.
    fn element(&mut self, base: V, size: i64, index: Reg, offset: i64) -> Result<Mem, Diag> {
        let (index, constant) = match (self.val(index), self.offsets[index.0 as usize]) {
            (Val::Int(c), _) => (None, c),
            (_, Some((r, c))) => (Some(r), c),
            _ => (Some(index), 0),
        };
        // Addresses are computed modulo 2^64.
        let bytes = offset.wrapping_add(constant).wrapping_mul(size);
        let mut m = Mem::at(base, 0);
        if let Some(r) = index {
            m.index = Some((self.reg(r)?, size as u32));
        }
        match i32::try_from(bytes) {
            Ok(disp) => m.disp = disp,
            Err(_) => {
                let start = if m.index.is_some() { self.lea(true, m) } else { base };
                let far = self.int_constant(RegType::scalar(Elem::I64), bytes);
                m = Mem { base: Some(start), index: Some((far, 1)), ..Mem::default() };
            }
        }
        Ok(m)
    }

    /// The address of `ptr[index + offset]`.
    pub(super) fn address(&mut self, ptr: usize, index: Reg, offset: i64) -> Result<V, Diag> {
        let (base, dtype) = self.pointer(ptr)?;
        let m = self.element(base, dtype.size() as i64, index, offset)?;
        Ok(self.lea(true, m))
    }

    /// Type in memory and memory operand of a place.
    pub(super) fn place(&mut self, at: &Place) -> Result<(DType, Mem), Diag> {
        let (mut base, dtype) = self.pointer(at.ptr)?;
        if let Some(b) = at.base {
            base = self.reg(b)?;
        }
        Ok((dtype, self.element(base, dtype.size() as i64, at.index, at.offset)?))
    }

    /// Makes the masks that accesses will want of the register that counts their lanes.
    pub(super) fn active_masks(&mut self, r: Reg) {
        let lanes = std::mem::take(&mut self.uses.active[r.0 as usize]);
        for &n in &lanes {
            let k = match self.val(r) {
                Val::Int(c) if self.avx2() => self.int_constant(RegType::scalar(Elem::I64), -c.clamp(0, n.into())),
                Val::Int(c) => {
                    let bits = (1i64 << c.clamp(0, n.into())) - 1;
                    let bits = self.int_constant(RegType::scalar(Elem::I64), bits);
                    self.mask_of_bits(bits)
                }
                Val::Reg(v) => self.first_lanes(v, n),
                // Counts are integers, which aren't deferred.
                _ => continue,
            };
            self.masks.push((r, n, k));
        }
        self.uses.active[r.0 as usize] = lanes;
    }

    /// The mask of the first `count` lanes of `lanes`; less than 0 is 0, more is all.
    fn first_lanes(&mut self, count: V, lanes: u8) -> V {
        let i64_type = RegType::scalar(Elem::I64);
        let (most, none) = (self.int_constant(i64_type, lanes.into()), self.int_constant(i64_type, 0));
        let n = self.gpr();
        self.copy(n, count);
        let limit = Opnd::Imm(OpKind::Immediate8to64, lanes.into());
        self.emit_effect(Code::Cmp_rm64_imm8, &[get(n, View::Q), limit]);
        self.emit(Code::Cmovg_r64_rm64, &[modify(n, View::Q), get(most, View::Q)]);
        self.emit_effect(Code::Test_rm64_r64, &[get(n, View::Q), get(n, View::Q)]);
        self.emit(Code::Cmovs_r64_rm64, &[modify(n, View::Q), get(none, View::Q)]);
        if self.avx2() {
            self.emit(Code::Neg_rm64, &[modify(n, View::Q)]);
            return n;
        }
        let ones = self.int_constant(i64_type, 0xffff);
        let bits = self.gpr();
        self.emit(Code::VEX_Bzhi_r32_rm32_r32, &[def(bits, View::D), get(ones, View::D), get(n, View::D)]);
        self.mask_of_bits(bits)
    }

    /// The mask for an access of `lanes` lanes.
    fn active(&self, at: &Place, lanes: u8) -> Result<Option<V>, Diag> {
        let Some(r) = at.active else { return Ok(None) };
        let made = self.masks.iter().rev().find(|(a, n, _)| (*a, *n) == (r, lanes));
        made.map(|m| Some(m.2)).ok_or_else(|| self.error(format!("no mask of register {}", r.0)))
    }

    pub(super) fn load(&mut self, t: RegType, at: &Place) -> Result<V, Diag> {
        let (dtype, m) = self.place(at)?;
        let Some(dtype) = lane_in_memory(dtype, t.elem) else {
            return Err(self.error(format!("a load of {dtype} into {t}")));
        };
        if t.lanes == 1 {
            return Ok(self.load_one(dtype, m));
        }
        let k = self.active(at, t.lanes)?;
        let i = form(t);
        if self.avx2() && (k.is_some() || dtype == DType::Bool) {
            return self.load_first(t, dtype, m, k);
        }
        let view = vec_view(i);
        if dtype == DType::Bool {
            return Ok(self.load_bools(t.lanes, m, k));
        }
        let v = self.vec(i);
        let code = self.widening(t, dtype)?;
        self.emit_zeroing(code, &[def(v, view), Opnd::Mem(m)], k);
        Ok(if dtype == DType::BF16 { self.shift_up(i, v) } else { v })
    }

    /// The load of whole registers.
    pub(super) fn widening(&self, t: RegType, dtype: DType) -> Result<Code, Diag> {
        let i = form(t);
        Ok(match dtype {
            DType::I8 => codes::SX8[i],
            DType::U8 => codes::ZX8[i],
            DType::I16 => codes::SX16[i],
            DType::U16 | DType::BF16 => codes::ZX16[i],
            DType::F16 => codes::FROM_HALF[i],
            DType::F32 | DType::I32 => codes::LOADPS[i],
            DType::F64 | DType::U32 | DType::I64 | DType::U64 | DType::Bool => {
                return Err(self.error(format!("a load of {dtype} into {t}")));
            }
        })
    }

    /// What bfloat16s in the low halves are as floats.
    pub(super) fn shift_up(&mut self, i: usize, x: V) -> V {
        let (v, view) = (self.vec(i), vec_view(i));
        self.emit(codes::ISHL_IMM[i], &[def(v, view), get(x, view), imm8(16)]);
        v
    }

    /// Bytes that aren't 0.
    fn load_bools(&mut self, lanes: u8, m: Mem, k: Option<V>) -> V {
        let (bytes, v) = (self.vec(0), self.mask(0));
        let code = match (lanes, k) {
            (16, _) | (_, Some(_)) => Code::EVEX_Vmovdqu8_xmm_k1z_xmmm128,
            (8, _) => Code::EVEX_Vmovq_xmm_xmmm64,
            _ => Code::EVEX_Vmovd_xmm_rm32,
        };
        self.emit_zeroing(code, &[def(bytes, View::X), Opnd::Mem(m)], k);
        self.emit(Code::EVEX_Vptestmb_kr_k1_xmm_xmmm128, &[def(v, View::K), get(bytes, View::X), get(bytes, View::X)]);
        v
    }

    fn load_one(&mut self, dtype: DType, m: Mem) -> V {
        let (code, view) = match dtype {
            DType::F32 | DType::F64 => {
                let code =
                    if dtype == DType::F32 { Code::EVEX_Vmovss_xmm_k1z_m32 } else { Code::EVEX_Vmovsd_xmm_k1z_m64 };
                let v = self.vec(0);
                self.emit(code, &[def(v, View::X), Opnd::Mem(m)]);
                return v;
            }
            DType::Bool => {
                self.emit_effect(Code::Cmp_rm8_imm8, &[Opnd::Mem(m), imm8(0)]);
                let (byte, v) = (self.gpr(), self.gpr());
                self.emit(Code::Setne_rm8, &[def(byte, View::B)]);
                self.emit(Code::Movzx_r32_rm8, &[def(v, View::D), get(byte, View::B)]);
                return v;
            }
            DType::I8 => (Code::Movsx_r32_rm8, View::D),
            DType::U8 => (Code::Movzx_r32_rm8, View::D),
            DType::I16 => (Code::Movsx_r32_rm16, View::D),
            DType::U16 | DType::F16 | DType::BF16 => (Code::Movzx_r32_rm16, View::D),
            DType::I32 | DType::U32 => (Code::Mov_r32_rm32, View::D),
            DType::I64 | DType::U64 => (Code::Mov_r64_rm64, View::Q),
        };
        let v = self.gpr();
        self.emit(code, &[def(v, view), Opnd::Mem(m)]);
        match dtype {
            DType::F16 => {
                let (half, x) = (self.move_to_vec(v, false), self.vec(0));
                self.emit(codes::FROM_HALF[0], &[def(x, View::X), get(half, View::X)]);
                x
            }
            DType::BF16 => {
                self.emit(Code::Shl_rm32_imm8, &[modify(v, View::D), imm8(16)]);
                self.move_to_vec(v, false)
            }
            _ => v,
        }
    }

    pub(super) fn store(&mut self, at: &Place, value: Reg) -> Result<(), Diag> {
        let t = self.ty(value);
        let x = self.reg(value)?;
        let (dtype, m) = self.place(at)?;
        let Some(dtype) = lane_in_memory(dtype, t.elem) else {
            return Err(self.error(format!("a store of {t} to {dtype}")));
        };
        if t.lanes == 1 {
            self.store_one(dtype, x, m);
            return Ok(());
        }
        let k = self.active(at, t.lanes)?;
        let i = form(t);
        let view = vec_view(i);
        let ops = [Opnd::Mem(m), get(x, view)];
        if self.avx2() && (k.is_some() || !matches!(dtype, DType::F32 | DType::I32)) {
            return self.store_first(t, dtype, x, m, k);
        }
        match dtype {
            DType::F32 | DType::I32 => self.push(codes::STOREPS[i], &ops, k, false, true),
            DType::I8 | DType::U8 => self.push(codes::STORE8[i], &ops, k, false, true),
            DType::I16 | DType::U16 => self.push(codes::STORE16[i], &ops, k, false, true),
            DType::F16 => self.push(codes::TO_HALF[i], &[ops[0], ops[1], imm8(0)], k, false, true),
            // A mask selects lanes of 16 bits, of which 4 are less than a register.
            DType::BF16 if self.f.features.bf16 && (i > 0 || k.is_none()) => {
                let (h, half) = (self.vec(i.saturating_sub(1)), vec_view(i.saturating_sub(1)));
                self.emit(codes::TO_BF16[i], &[def(h, half), get(x, view)]);
                self.push(codes::STORE_WORDS[i], &[ops[0], get(h, half)], k, false, true);
            }
            DType::BF16 => {
                let h = self.round_to_bf16(i, x);
                self.push(codes::STORE16[i], &[ops[0], get(h, view)], k, false, true);
            }
            DType::Bool => self.store_bools(t.lanes, x, m, k),
            DType::F64 | DType::U32 | DType::I64 | DType::U64 => {
                return Err(self.error(format!("a store of {t} to {dtype}")));
            }
        }
        Ok(())
    }

    fn store_bools(&mut self, lanes: u8, x: V, m: Mem, k: Option<V>) {
        let ones = self.f.literal(&[1; 16]);
        let bytes = self.vec(0);
        let load = Code::EVEX_Vmovdqu8_xmm_k1z_xmmm128;
        self.emit_zeroing(load, &[def(bytes, View::X), Opnd::Mem(ones)], Some(x));
        let code = match (lanes, k) {
            (16, _) | (_, Some(_)) => Code::EVEX_Vmovdqu8_xmmm128_k1z_xmm,
            (8, _) => Code::EVEX_Vmovq_xmmm64_xmm,
            _ => Code::EVEX_Vmovd_rm32_xmm,
        };
        self.push(code, &[Opnd::Mem(m), get(bytes, View::X)], k, false, true);
    }

    fn store_one(&mut self, dtype: DType, x: V, m: Mem) {
        let to = Opnd::Mem(m);
        let half = |s: &mut Self, h: V| {
            s.emit_effect(Code::EVEX_Vpextrw_r32m16_xmm_imm8, &[to, get(h, View::X), imm8(0)]);
        };
        match dtype {
            DType::F32 => self.emit_effect(Code::EVEX_Vmovss_m32_k1_xmm, &[to, get(x, View::X)]),
            DType::F64 => self.emit_effect(Code::EVEX_Vmovsd_m64_k1_xmm, &[to, get(x, View::X)]),
            DType::F16 => {
                let h = self.vec(0);
                self.emit(codes::TO_HALF[0], &[def(h, View::X), get(x, View::X), imm8(0)]);
                half(self, h);
            }
            DType::BF16 => {
                let h = self.round_to_bf16(0, x);
                half(self, h);
            }
            DType::I8 | DType::U8 | DType::Bool => self.emit_effect(Code::Mov_rm8_r8, &[to, get(x, View::B)]),
            DType::I16 | DType::U16 => self.emit_effect(Code::Mov_rm16_r16, &[to, get(x, View::W)]),
            DType::I32 | DType::U32 => self.emit_effect(Code::Mov_rm32_r32, &[to, get(x, View::D)]),
            DType::I64 | DType::U64 => self.emit_effect(Code::Mov_rm64_r64, &[to, get(x, View::Q)]),
        }
    }

    /// The bfloat16 nearest to each f32, ties to even, in the low half of its lane; a NaN stays one.
    pub(super) fn round_to_bf16(&mut self, i: usize, x: V) -> V {
        let view = vec_view(i);
        let [cut, odd, up, sum, rounded] = [(); 5].map(|()| self.vec(i));
        let word = |s: &mut Self, w: u32| Opnd::Mem(s.repeated(i, &w.to_le_bytes()));
        let (one, bias, quiet) = (word(self, 1), word(self, 0x7fff), word(self, 0x40));
        self.emit(codes::ISHRU_IMM[i], &[def(cut, view), get(x, view), imm8(16)]);
        self.emit(codes::IAND[i], &[def(odd, view), get(cut, view), one]);
        self.emit(codes::IADD[i], &[def(up, view), get(x, view), bias]);
        self.emit(codes::IADD[i], &[def(sum, view), get(up, view), get(odd, view)]);
        self.emit(codes::ISHRU_IMM[i], &[def(rounded, view), get(sum, view), imm8(16)]);
        // Unordered: only a NaN is, with itself.
        let nan = self.float_mask(i, x, Rm::R(x), 3);
        if self.avx2() {
            let quiet_nan = self.vec(i);
            self.emit(codes::IOR[i], &[def(quiet_nan, view), get(cut, view), quiet]);
            return self.blend(RegType::vector(Elem::I32, if i == 1 { 8 } else { 4 }), nan, rounded, Rm::R(quiet_nan));
        }
        self.push(codes::IOR[i], &[modify(rounded, view), get(cut, view), quiet], Some(nan), false, false);
        rounded
    }

    /// A general register's bits in the lowest lane of a vector register.
    pub(super) fn move_to_vec(&mut self, x: V, wide: bool) -> V {
        let v = self.vec(0);
        if wide {
            self.emit(Code::EVEX_Vmovq_xmm_rm64, &[def(v, View::X), get(x, View::Q)]);
        } else {
            self.emit(Code::EVEX_Vmovd_xmm_rm32, &[def(v, View::X), get(x, View::D)]);
        }
        v
    }
}
