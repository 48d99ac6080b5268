//! Masks of vectors: AVX-512 has registers for them, AVX2 keeps each lane's all ones or zeros in a vector register.

use bertc_ir::kernel::{Elem, Reg, RegType};
use bertc_ir::{CmpOp, Diag};
use iced_x86::Code;

use super::super::codes;
use super::super::mir::{Class, Isa, Mem, Rm, V, View};
use super::{Select, def, form, get, modify, rm, vec_view};

/// What is done with two masks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MaskOp {
    And,
    /// Not the first, but the second.
    AndNot,
    Or,
    Xor,
}

impl Select<'_> {
    pub(super) fn avx2(&self) -> bool {
        self.f.isa == Isa::Avx2
    }

    /// A new register for the mask of vectors, by their index into a table of [`codes`].
    pub(super) fn mask(&mut self, i: usize) -> V {
        if self.avx2() { self.vec(i) } else { self.f.new_reg(Class::Mask) }
    }

    pub(super) fn mask_view(&self, i: usize) -> View {
        if self.avx2() { vec_view(i) } else { View::K }
    }

    /// An instruction of two operands and a result of the same size.
    pub(super) fn op3(&mut self, i: usize, code: Code, x: V, y: Rm) -> V {
        let (v, view) = (self.vec(i), vec_view(i));
        self.emit(code, &[def(v, view), get(x, view), rm(y, view)]);
        v
    }

    pub(super) fn mask_op(&mut self, op: MaskOp, i: usize, x: V, y: V) -> V {
        if self.avx2() {
            let code = match op {
                MaskOp::And => codes::IAND[i],
                MaskOp::AndNot => codes::IANDN[i],
                MaskOp::Or => codes::IOR[i],
                MaskOp::Xor => codes::IXOR[i],
            };
            return self.op3(i, code, x, Rm::R(y));
        }
        let code = match op {
            MaskOp::And => Code::VEX_Kandw_kr_kr_kr,
            MaskOp::AndNot => Code::VEX_Kandnw_kr_kr_kr,
            MaskOp::Or => Code::VEX_Korw_kr_kr_kr,
            MaskOp::Xor => Code::VEX_Kxorw_kr_kr_kr,
        };
        let v = self.mask(i);
        self.emit(code, &[def(v, View::K), get(x, View::K), get(y, View::K)]);
        v
    }

    /// Not a mask; with AVX2 also of integers, which are no different there.
    pub(super) fn mask_not(&mut self, i: usize, x: V) -> V {
        if self.avx2() {
            let ones = self.repeated(i, &[0xff; 4]);
            return self.op3(i, codes::IXOR[i], x, Rm::M(ones));
        }
        let v = self.mask(i);
        self.emit(Code::VEX_Knotw_kr_kr, &[def(v, View::K), get(x, View::K)]);
        v
    }

    /// A vector mask's bits in a general register; the lanes that don't exist are garbage.
    pub(super) fn mask_bits(&mut self, i: usize, k: V) -> V {
        let v = self.gpr();
        let code = match (self.avx2(), i) {
            (true, 1) => Code::VEX_Vmovmskps_r32_ymm,
            (true, _) => Code::VEX_Vmovmskps_r32_xmm,
            (false, _) => Code::VEX_Kmovw_r32_kr,
        };
        let view = self.mask_view(i);
        self.emit(code, &[def(v, View::D), get(k, view)]);
        v
    }

    /// The mask of a comparison of scalars as 0 or 1.
    pub(super) fn bit_of_mask(&mut self, k: V) -> V {
        if !self.avx2() {
            return self.mask_bits(0, k);
        }
        let v = self.move_to_gpr(k, false);
        self.emit(Code::Neg_rm32, &[modify(v, View::D)]);
        v
    }

    /// 0 or 1 as no or all bits of a general register.
    fn spread_bit(&mut self, x: V) -> V {
        let bits = self.gpr();
        self.copy(bits, x);
        self.emit(Code::Neg_rm64, &[modify(bits, View::Q)]);
        bits
    }

    /// 0 or 1 as the mask of a scalar.
    pub(super) fn mask_of_bit(&mut self, i: usize, x: V) -> V {
        if !self.avx2() {
            return self.mask_of_bits(x);
        }
        // What is above the bit in the register may be garbage.
        let low = self.gpr();
        self.emit(Code::Mov_r32_rm32, &[def(low, View::D), get(x, View::D)]);
        let bits = self.spread_bit(low);
        self.move_to_vec(bits, i == 4)
    }

    /// 0 or 1 in every lane of a mask.
    pub(super) fn splat_mask(&mut self, i: usize, x: V) -> V {
        let bits = self.spread_bit(x);
        if !self.avx2() {
            return self.mask_of_bits(bits);
        }
        let low = self.move_to_vec(bits, false);
        self.splat_from(RegType::vector(Elem::I32, if i == 1 { 8 } else { 4 }), Rm::R(low))
    }

    /// The vector mask of a general register's bits, with AVX-512.
    pub(super) fn mask_of_bits(&mut self, bits: V) -> V {
        let k = self.mask(0);
        self.emit(Code::VEX_Kmovw_kr_r32, &[def(k, View::K), get(bits, View::D)]);
        k
    }

    /// `x` where the mask is set, else `y`. In AVX2 code `x` of a scalar is a register.
    pub(super) fn blend(&mut self, t: RegType, k: V, y: V, x: Rm) -> V {
        let i = form(t);
        let (v, view) = (self.vec(i), vec_view(i));
        if self.avx2() {
            let code = match i {
                4 => Code::VEX_Vblendvpd_xmm_xmm_xmmm128_xmm,
                i => codes::BLENDV[usize::from(i == 1)],
            };
            self.emit(code, &[def(v, view), get(y, view), rm(x, view), get(k, view)]);
            return v;
        }
        // Of a scalar, memory is read for one lane only.
        let x = if let (Rm::M(mem), 3..) = (x, i) { Rm::M(mem.broadcast()) } else { x };
        let code = if t.elem == Elem::I32 { codes::IBLEND[i] } else { codes::FBLEND[i] };
        self.push(code, &[def(v, view), get(y, view), rm(x, view)], Some(k), false, false);
        v
    }

    /// Comparison of integers to a mask, of which AVX2 has signed "greater" and "equal".
    pub(super) fn compare_lanes(&mut self, op: CmpOp, unsigned: bool, a: Reg, b: Reg) -> Result<V, Diag> {
        let i = form(self.ty(a));
        let swapped = matches!(op, CmpOp::Lt | CmpOp::Ge);
        let (a, b) = if swapped { (b, a) } else { (a, b) };
        let (mut x, mut y) = (self.reg(a)?, self.rm(b)?);
        let same = matches!(op, CmpOp::Eq | CmpOp::Ne);
        if unsigned && !same {
            let sign = self.repeated(i, &i32::MIN.to_le_bytes());
            let other = self.reg(b)?;
            x = self.op3(i, codes::IXOR[i], x, Rm::M(sign));
            y = Rm::R(self.op3(i, codes::IXOR[i], other, Rm::M(sign)));
        }
        let holds = self.op3(i, if same { codes::IEQ[i] } else { codes::IGT[i] }, x, y);
        let negated = matches!(op, CmpOp::Ne | CmpOp::Le | CmpOp::Ge);
        Ok(if negated { self.mask_not(i, holds) } else { holds })
    }

    /// The mask of the first lanes in AVX2 code by their negated number, which is all that lives on between accesses:
    /// where ones end in a table, so many lanes further on.
    pub(super) fn lane_mask(&mut self, i: usize, negated: V) -> V {
        let table: Vec<u8> = [0xff; 32].into_iter().chain([0; 32]).collect();
        let table = self.f.literal(&table);
        let start = self.lea(true, table);
        let m = Mem { base: Some(start), index: Some((negated, 4)), disp: 32, ..Mem::default() };
        let v = self.vec(i);
        self.emit(codes::LOADPS[i], &[def(v, vec_view(i)), super::Opnd::Mem(m)]);
        v
    }
}
