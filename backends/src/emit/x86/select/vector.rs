//! Across lanes: splats, extraction, reduction, selection.

use bertc_ir::Diag;
use bertc_ir::kernel::{Bin, Elem, Reg, RegType};
use iced_x86::{Code, OpKind};

use super::super::codes;
use super::super::mir::{Class, Mem, Opnd, Rm, V, View};
use super::mask::MaskOp;
use super::{Select, Val, def, form, get, imm8, modify, rm, vec_view};

impl Select<'_> {
    pub(super) fn splat(&mut self, dst: Reg, a: Reg) -> Result<(), Diag> {
        let t = self.ty(dst);
        let v = match self.val(a) {
            known @ (Val::Int(_) | Val::Float(_)) => {
                self.vals[dst.0 as usize] = known;
                return Ok(());
            }
            Val::Load(at) => {
                if self.uses.of[dst.0 as usize].defer {
                    self.vals[dst.0 as usize] = Val::SplatLoad(at);
                    return Ok(());
                }
                let (_, m) = self.place(&at)?;
                self.splat_from(t, Rm::M(m))
            }
            _ => {
                let x = self.reg(a)?;
                match t.elem {
                    Elem::F32 => self.splat_from(t, Rm::R(x)),
                    Elem::I32 if self.avx2() => {
                        let low = self.move_to_vec(x, false);
                        self.splat_from(t, Rm::R(low))
                    }
                    Elem::I32 => {
                        let i = form(t);
                        let v = self.vec(i);
                        self.emit(codes::BROADCAST_GPR[i], &[def(v, vec_view(i)), get(x, View::D)]);
                        v
                    }
                    _ => self.splat_mask(form(t), x),
                }
            }
        };
        self.set(dst, v);
        Ok(())
    }

    pub(super) fn splat_from(&mut self, t: RegType, x: Rm) -> V {
        let i = form(t);
        let v = self.vec(i);
        let x = if let Rm::M(m) = x { Rm::M(Mem { bcst: false, ..m }) } else { x };
        self.emit(codes::BROADCAST[i], &[def(v, vec_view(i)), rm(x, View::X)]);
        v
    }

    pub(super) fn extract(&mut self, a: Reg, lane: u8) -> Result<V, Diag> {
        let (t, x) = (self.ty(a), self.reg(a)?);
        if t.elem == Elem::Mask {
            let bits = self.mask_bits(form(t), x);
            let v = self.gpr();
            self.copy(v, bits);
            if lane > 0 {
                self.emit(Code::Shr_rm32_imm8, &[modify(v, View::D), imm8(lane)]);
            }
            self.emit(Code::And_rm32_imm8, &[modify(v, View::D), Opnd::Imm(OpKind::Immediate8to32, 1)]);
            return Ok(v);
        }
        let mut v = x;
        if lane >= 4 {
            let (code, view) = if t.lanes == 16 {
                (Code::EVEX_Vextractf32x4_xmmm128_k1z_zmm_imm8, View::Z)
            } else {
                (Code::EVEX_Vextractf32x4_xmmm128_k1z_ymm_imm8, View::Y)
            };
            v = self.vec(0);
            self.emit(code, &[def(v, View::X), get(x, view), imm8(lane / 4)]);
        }
        if !lane.is_multiple_of(4) {
            v = self.permute(v, lane % 4);
        }
        if t.elem == Elem::I32 {
            let r = self.gpr();
            self.emit(Code::EVEX_Vmovd_rm32_xmm, &[def(r, View::D), get(v, View::X)]);
            return Ok(r);
        }
        Ok(v)
    }

    /// Four lanes in another order, two bits for each lane of the result.
    fn permute(&mut self, x: V, order: u8) -> V {
        let v = self.vec(0);
        let code = Code::EVEX_Vpermilps_xmm_k1z_xmmm128b32_imm8;
        self.emit(code, &[def(v, View::X), get(x, View::X), imm8(order)]);
        v
    }

    /// The lanes of both operands' halves by turns. Within 128 bits, instructions do just that; wider registers take a permutation
    /// by a literal, or with AVX2 the halves of two such.
    pub(super) fn zip(&mut self, high: bool, a: Reg, b: Reg) -> Result<V, Diag> {
        let i = form(self.ty(a));
        let (x, y) = (self.reg(a)?, self.reg(b)?);
        let view = vec_view(i);
        let short = |s: &mut Self, high: bool| {
            let v = s.vec(i);
            let code = if high { codes::ZIP_HIGH[i.min(1)] } else { codes::ZIP_LOW[i.min(1)] };
            s.emit(code, &[def(v, view), get(x, view), get(y, view)]);
            v
        };
        if i == 0 {
            return Ok(short(self, high));
        }
        if self.avx2() {
            let (low, up) = (short(self, false), short(self, true));
            let (v, halves) = (self.vec(i), if high { 0x31 } else { 0x20 });
            let code = Code::VEX_Vperm2f128_ymm_ymm_ymmm256_imm8;
            self.emit(code, &[def(v, view), get(low, view), get(up, view), imm8(halves)]);
            return Ok(v);
        }
        let order = self.zip_order(i, high);
        let v = self.vec(i);
        self.copy(v, x);
        self.emit(codes::PERMUTE_TWO[i - 1], &[modify(v, view), get(order, view), get(y, view)]);
        Ok(v)
    }

    /// The numbers of the lanes that a zip takes, which a block loads once.
    fn zip_order(&mut self, i: usize, high: bool) -> V {
        if let Some(&(.., v)) = self.orders.iter().find(|o| (o.0, o.1) == (i, high)) {
            return v;
        }
        let n = if i == 1 { 8u32 } else { 16 };
        let from = if high { n / 2 } else { 0 };
        let order: Vec<u8> = (0..n).flat_map(|l| (from + l / 2 + l % 2 * n).to_le_bytes()).collect();
        let order = self.f.literal(&order);
        let v = self.vec(i);
        self.emit(codes::LOADPS[i], &[def(v, vec_view(i)), Opnd::Mem(order)]);
        self.orders.push((i, high, v));
        v
    }

    /// Half by half: first the upper 8 lanes onto the lower ones, and so on.
    pub(super) fn reduce(&mut self, op: Bin, a: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        let mut x = self.reg(a)?;
        let mut n = t.lanes;
        while n > 1 {
            let half = match n {
                16 => {
                    let v = self.vec(1);
                    let code = Code::EVEX_Vextractf64x4_ymmm256_k1z_zmm_imm8;
                    self.emit(code, &[def(v, View::Y), get(x, View::Z), imm8(1)]);
                    v
                }
                8 => {
                    let v = self.vec(0);
                    let code = Code::EVEX_Vextractf32x4_xmmm128_k1z_ymm_imm8;
                    self.emit(code, &[def(v, View::X), get(x, View::Y), imm8(1)]);
                    v
                }
                4 => self.permute(x, 0b1110),
                _ => self.permute(x, 1),
            };
            n /= 2;
            // Below four lanes the rest of the register is garbage that nobody reads.
            x = self.combine(op, RegType::vector(t.elem, n.max(4)), x, half)?;
        }
        if t.elem == Elem::I32 {
            let r = self.gpr();
            self.emit(Code::EVEX_Vmovd_rm32_xmm, &[def(r, View::D), get(x, View::X)]);
            return Ok(r);
        }
        Ok(x)
    }

    fn combine(&mut self, op: Bin, t: RegType, x: V, y: V) -> Result<V, Diag> {
        let i = form(t);
        let code = match (op, t.elem) {
            (Bin::Add, Elem::F32) => codes::FADD[i],
            (Bin::Min | Bin::Max, Elem::F32) => return Ok(self.extreme(op, t, x, Rm::R(y), false)),
            (Bin::Add, Elem::I32) => codes::IADD[i],
            (Bin::Min, Elem::I32) => codes::IMIN[i],
            (Bin::Max, Elem::I32) => codes::IMAX[i],
            _ => return Err(self.error(format!("a reduction of {t} by {}", op.name()))),
        };
        let (v, view) = (self.vec(i), vec_view(i));
        self.emit(code, &[def(v, view), get(x, view), get(y, view)]);
        Ok(v)
    }

    pub(super) fn select(&mut self, m: Reg, a: Reg, b: Reg) -> Result<V, Diag> {
        let t = self.ty(a);
        match (t.elem, Class::of(t)) {
            (Elem::F32 | Elem::F64, _) | (_, Class::Vec(_)) => {
                let mut k = self.reg(m)?;
                if t.lanes == 1 {
                    k = self.mask_of_bit(form(t), k);
                }
                let y = self.reg(b)?;
                // Scalars are blended as vectors, so memory may be read for one lane only.
                let x = if self.avx2() && t.lanes == 1 { Rm::R(self.reg(a)?) } else { self.rm(a)? };
                Ok(self.blend(t, k, y, x))
            }
            (_, Class::Mask) => {
                let (k, x, y) = (self.reg(m)?, self.reg(a)?, self.reg(b)?);
                let i = form(t);
                let (yes, no) = (self.mask_op(MaskOp::And, i, k, x), self.mask_op(MaskOp::AndNot, i, k, y));
                Ok(self.mask_op(MaskOp::Or, i, yes, no))
            }
            (_, Class::Gpr) => {
                let (x, y) = (self.reg(a)?, self.reg(b)?);
                let v = self.gpr();
                self.copy(v, y);
                let code = self.condition(m)?.0;
                self.emit(code, &[modify(v, View::Q), get(x, View::Q)]);
                Ok(v)
            }
        }
    }
}
