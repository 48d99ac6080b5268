//! Dot products of the small vectors in each lane: of pairs of bf16, of four bytes each.
//!
//! CLIF has no instruction for them, but Cranelift's lowering knows trees of others for one machine instruction each:
//! `sdot`, `usdot`, `vpdpbusd` and `pmaddwd`. A tree stays exact where it isn't known.

use bertc_ir::Diag;
use bertc_ir::kernel::{DotKind, Reg};
use cranelift_codegen::ir::{InstBuilder, Value, types};

use super::Emitter;
use crate::target::Target;

/// How a target multiplies bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Bytes {
    /// x86-64: 16-bit integers, two at a time.
    Words {
        /// Whether unsigned bytes times signed ones are an instruction.
        mixed: bool,
    },
    /// AArch64: four bytes at a time.
    Quads {
        /// Whether signed bytes have an instruction.
        signed: bool,
        /// Whether unsigned ones times signed ones have one.
        mixed: bool,
    },
}

impl Bytes {
    pub(super) fn of(target: &Target) -> Bytes {
        if target.is_x86_64() {
            let evex = target.has("avx512vnni") && target.has("avx512vl");
            return Bytes::Words { mixed: evex || target.has("avxvnni") };
        }
        Bytes::Quads { signed: target.has("dotprod"), mixed: target.has("i8mm") }
    }
}

/// What is made of a vector, once in a block.
#[derive(Clone, Copy, PartialEq, Eq)]
enum How {
    /// Pairs of bf16 as floats.
    Floats,
    /// Signed bytes as 16-bit integers.
    Signed,
    /// Unsigned bytes as 16-bit integers.
    Unsigned,
    /// Unsigned bytes minus 128, as signed ones.
    Lowered,
    /// -128 times the sum of the signed bytes in each lane.
    Sums,
}

/// What was made of a vector.
pub(super) struct Parts {
    of: Value,
    how: How,
    /// Of the first element of each two, or of all.
    first: Value,
    /// Of the second one.
    second: Value,
}

impl Emitter<'_> {
    /// c plus the products in each lane of a and b.
    pub(super) fn dot(&mut self, kind: DotKind, a: Reg, b: Reg, c: Reg) -> Result<Value, Diag> {
        let (a, b, c) = (self.get(a)?, self.get(b)?, self.get(c)?);
        Ok(match (kind, self.bytes) {
            (DotKind::Bf16, _) => {
                // The high halves first.
                let ((a_low, a_high), (b_low, b_high)) = (self.parts(a, How::Floats), self.parts(b, How::Floats));
                let sum = self.multiply_add(a_high, b_high, c);
                self.multiply_add(a_low, b_low, sum)
            }
            (DotKind::U8I8, Bytes::Words { mixed: true }) => {
                let (a, b) = (self.cast(types::I8X16, a), self.cast(types::I8X16, b));
                // The lowering expects the signed factor first.
                self.quads((b, true), (a, false), c)
            }
            (DotKind::U8I8, Bytes::Quads { mixed: false, signed: true }) => {
                // Σ (a - 128)·b is too little by 128 Σ b.
                let (lowered, less) = (self.parts(a, How::Lowered).0, self.parts(b, How::Sums).0);
                let b = self.cast(types::I8X16, b);
                let sum = self.quads((lowered, true), (b, true), c);
                self.b.ins().isub(sum, less)
            }
            (_, Bytes::Quads { .. }) => {
                let (a, b) = (self.cast(types::I8X16, a), self.cast(types::I8X16, b));
                self.quads((a, kind != DotKind::U8I8), (b, true), c)
            }
            (_, Bytes::Words { .. }) => {
                let how = if kind == DotKind::U8I8 { How::Unsigned } else { How::Signed };
                let ((a0, a1), (b0, b1)) = (self.parts(a, how), self.parts(b, How::Signed));
                let (first, second) = (self.words(a0, b0), self.words(a1, b1));
                let sum = self.b.ins().iadd(c, first);
                self.b.ins().iadd(sum, second)
            }
        })
    }

    /// c plus the products of the four bytes in each lane; with each factor, whether it is signed.
    fn quads(&mut self, (x, x_signed): (Value, bool), (y, y_signed): (Value, bool), c: Value) -> Value {
        let halves = |s: &mut Self, v, signed| match signed {
            true => [s.b.ins().swiden_low(v), s.b.ins().swiden_high(v)],
            false => [s.b.ins().uwiden_low(v), s.b.ins().uwiden_high(v)],
        };
        let (x, y) = (halves(self, x, x_signed), halves(self, y, y_signed));
        let pairs = [0, 1].map(|h| {
            let products = self.b.ins().imul(x[h], y[h]);
            let (low, high) = (self.b.ins().swiden_low(products), self.b.ins().swiden_high(products));
            self.b.ins().iadd_pairwise(low, high)
        });
        let sums = self.b.ins().iadd_pairwise(pairs[0], pairs[1]);
        self.b.ins().iadd(sums, c)
    }

    /// The sums of two products of 16-bit integers each.
    fn words(&mut self, x: Value, y: Value) -> Value {
        let (x_low, y_low) = (self.b.ins().swiden_low(x), self.b.ins().swiden_low(y));
        let (x_high, y_high) = (self.b.ins().swiden_high(x), self.b.ins().swiden_high(y));
        let (low, high) = (self.b.ins().imul(x_low, y_low), self.b.ins().imul(x_high, y_high));
        self.b.ins().iadd_pairwise(low, high)
    }

    /// What `how` says, once in a block.
    fn parts(&mut self, x: Value, how: How) -> (Value, Value) {
        if let Some(p) = self.parts.iter().rev().find(|p| (p.of, p.how) == (x, how)) {
            return (p.first, p.second);
        }
        let (first, second) = match how {
            How::Floats => {
                let low = self.b.ins().ishl_imm_u(x, 16);
                let mask = self.splat_bits(types::I32X4, 0xffff_0000);
                let high = self.b.ins().band(x, mask);
                (self.cast(types::F32X4, low), self.cast(types::F32X4, high))
            }
            How::Signed => {
                let words = self.cast(types::I16X8, x);
                let up = self.b.ins().ishl_imm_u(words, 8);
                (self.b.ins().sshr_imm_u(up, 8), self.b.ins().sshr_imm_u(words, 8))
            }
            How::Unsigned => {
                let mask = self.splat_bits(types::I32X4, 0x00ff_00ff);
                let low = self.b.ins().band(x, mask);
                let words = self.cast(types::I16X8, x);
                (self.cast(types::I16X8, low), self.b.ins().ushr_imm_u(words, 8))
            }
            How::Lowered => {
                let top = self.splat_bits(types::I32X4, 0x8080_8080);
                let flipped = self.b.ins().bxor(x, top);
                let v = self.cast(types::I8X16, flipped);
                (v, v)
            }
            How::Sums => {
                let (all, none) = (self.splat_bits(types::I32X4, 0x8080_8080), self.int(types::I32X4, 0));
                let (all, bytes) = (self.cast(types::I8X16, all), self.cast(types::I8X16, x));
                let v = self.quads((all, true), (bytes, true), none);
                (v, v)
            }
        };
        self.parts.push(Parts { of: x, how, first, second });
        (first, second)
    }
}
