//! Dot products of the small vectors in each lane: of pairs of bf16, of four bytes each.

use bertc_ir::Diag;
use bertc_ir::kernel::{DotKind, Reg};

use super::super::codes;
use super::super::mir::{Opnd, Rm, V, Vnni};
use super::{Select, def, form, get, imm8, modify, rm, vec_view};

/// What is made of a vector, once in a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Pairs of bf16 as floats.
    Floats,
    /// Signed bytes as 16-bit integers.
    Signed,
    /// Unsigned bytes as 16-bit integers.
    Unsigned,
    /// The absolute values of signed bytes, as unsigned ones.
    Magnitudes,
    /// Signed bytes plus 128, as unsigned ones.
    Raised,
    /// 128 times the sum of the signed bytes in each lane.
    Sums,
}

/// What was made of a vector.
pub(super) struct Parts {
    of: V,
    how: How,
    /// Of the first element of each two, or of all.
    first: V,
    /// Of the second one.
    second: V,
}

/// Bits of half a lane in both halves.
fn twice(half: u16) -> [u8; 4] {
    (u32::from(half) << 16 | u32::from(half)).to_le_bytes()
}

impl Select<'_> {
    /// c plus the products in each lane of a and b.
    pub(super) fn dot(&mut self, kind: DotKind, a: Reg, b: Reg, c: Reg) -> Result<V, Diag> {
        let i = form(self.ty(c));
        let vnni = self.f.features.vnni != Vnni::None;
        match kind {
            DotKind::Bf16 if self.f.features.bf16 => {
                let (a, b) = self.memory_second(a, b);
                let (x, y, z) = (self.reg(a)?, self.rm(b)?, self.reg(c)?);
                Ok(self.accumulate(i, codes::DOT_BF16[i], x, y, z))
            }
            DotKind::Bf16 => {
                let (x, y, z) = (self.reg(a)?, self.reg(b)?, self.reg(c)?);
                let ((x_low, x_high), (y_low, y_high)) = (self.parts(i, x, How::Floats), self.parts(i, y, How::Floats));
                let sum = self.accumulate(i, codes::FMA231[i], x_high, Rm::R(y_high), z);
                Ok(self.accumulate(i, codes::FMA231[i], x_low, Rm::R(y_low), sum))
            }
            DotKind::U8I8 if vnni => {
                let x = self.reg(a)?;
                // Of a splat, only EVEX forms read one element.
                let (y, z) = (self.rm(b)?, self.reg(c)?);
                Ok(self.accumulate(i, codes::DOT_BYTES[i], x, y, z))
            }
            DotKind::I8 | DotKind::I8Full if vnni => {
                // Σ (a + 128)·b is too much by 128 Σ b.
                let (x, y, z) = (self.reg(a)?, self.reg(b)?, self.reg(c)?);
                let (raised, sums) = (self.parts(i, x, How::Raised).0, self.parts(i, y, How::Sums).0);
                let more = self.accumulate(i, codes::DOT_BYTES[i], raised, Rm::R(y), z);
                Ok(self.op3(i, codes::ISUB[i], more, Rm::R(sums)))
            }
            DotKind::I8 if self.avx2() => {
                // |a|·(b with a's sign): at most 2·128·127 a pair, which 16 bits hold.
                let (x, y, z) = (self.reg(a)?, self.reg(b)?, self.reg(c)?);
                let magnitudes = self.parts(i, x, How::Magnitudes).0;
                let y = self.op3(i, codes::SIGN_BYTES[i], y, Rm::R(x));
                let pairs = self.op3(i, codes::MULTIPLY_BYTES[i], magnitudes, Rm::R(y));
                let ones = self.repeated(i, &twice(1));
                let sums = self.op3(i, codes::MULTIPLY_WORDS[i], pairs, Rm::M(ones));
                Ok(self.op3(i, codes::IADD[i], z, Rm::R(sums)))
            }
            DotKind::I8 | DotKind::I8Full | DotKind::U8I8 => {
                let (x, y, mut sum) = (self.reg(a)?, self.reg(b)?, self.reg(c)?);
                let how = if kind == DotKind::U8I8 { How::Unsigned } else { How::Signed };
                let ((x0, x1), (y0, y1)) = (self.parts(i, x, how), self.parts(i, y, How::Signed));
                for (x, y) in [(x0, y0), (x1, y1)] {
                    let products = self.op3(i, codes::MULTIPLY_WORDS[i], x, Rm::R(y));
                    sum = self.op3(i, codes::IADD[i], sum, Rm::R(products));
                }
                Ok(sum)
            }
        }
    }

    /// An instruction that adds to its first operand.
    fn accumulate(&mut self, i: usize, code: iced_x86::Code, x: V, y: Rm, sum: V) -> V {
        let (v, view) = (self.tied(i, sum), vec_view(i));
        self.emit(code, &[modify(v, view), get(x, view), rm(y, view)]);
        v
    }

    /// What `how` says, once in a block.
    fn parts(&mut self, i: usize, x: V, how: How) -> (V, V) {
        if let Some(p) = self.parts.iter().rev().find(|p| (p.of, p.how) == (x, how)) {
            return (p.first, p.second);
        }
        let view = vec_view(i);
        let shifted = |s: &mut Self, table: [iced_x86::Code; 3], x: V| {
            let v = s.vec(i);
            s.emit(table[i], &[def(v, view), get(x, view), imm8(8)]);
            v
        };
        let (first, second) = match how {
            How::Floats => {
                let mask = self.repeated(i, &0xffff_0000u32.to_le_bytes());
                (self.shift_up(i, x), self.op3(i, codes::IAND[i], x, Rm::M(mask)))
            }
            How::Signed => {
                let up = shifted(self, codes::WORDS_SHL_IMM, x);
                (shifted(self, codes::WORDS_SHRS_IMM, up), shifted(self, codes::WORDS_SHRS_IMM, x))
            }
            How::Unsigned => {
                let mask = self.repeated(i, &twice(0xff));
                (self.op3(i, codes::IAND[i], x, Rm::M(mask)), shifted(self, codes::WORDS_SHRU_IMM, x))
            }
            How::Magnitudes => {
                let v = self.vec(i);
                self.emit(codes::ABS_BYTES[i], &[def(v, view), get(x, view)]);
                (v, v)
            }
            How::Raised => {
                let top = self.repeated(i, &twice(0x8080));
                let v = self.op3(i, codes::IXOR[i], x, Rm::M(top));
                (v, v)
            }
            How::Sums => {
                let top = self.f.literal(&twice(0x8080));
                let (all, none) = (self.vec(i), self.zero(i));
                self.emit(codes::BROADCAST[i], &[def(all, view), Opnd::Mem(top)]);
                let v = self.accumulate(i, codes::DOT_BYTES[i], all, Rm::R(x), none);
                (v, v)
            }
        };
        self.parts.push(Parts { of: x, how, first, second });
        (first, second)
    }
}
