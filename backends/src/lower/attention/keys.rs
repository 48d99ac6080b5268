//! Keys: how many count, and their transpose.

use bertc_ir::kernel::{Bin, Elem, Place, Reg};
use bertc_ir::{CmpOp, Dim};

use super::super::ctx::Ctx;
use super::super::matmul::PANEL;
use super::super::nest::{fold_over, loop_over};
use super::{Attention, MASKED};

impl Attention {
    /// The number of keys, without those at the end that are masked for all rows.
    pub(super) fn keys(&self, c: &mut Ctx, keys: Reg) -> Reg {
        let Some((ptr, at, strides)) = self.mask.as_ref().filter(|(_, _, s)| s[2] == 0.into() && s[3] != 0.into())
        else {
            return keys;
        };
        let zero = c.b.int(0);
        let base = c.b.address(*ptr, *at, 0);
        let end = fold_over(c, zero, keys, 1, &[zero], |c, t, end| {
            let index = c.mul_add(zero, t, &strides[3]);
            let m = c.load_from(*ptr, base, index, 1);
            let limit = c.imm(Elem::F32, 1, MASKED);
            // A NaN counts as not masked.
            let masked = c.b.cmp(CmpOp::Lt, m, limit);
            let one = c.b.int(1);
            let behind = c.b.add(t, one);
            vec![c.b.select(masked, end[0], behind)]
        });
        let none = c.b.cmp(CmpOp::Eq, end[0], zero);
        c.b.select(none, keys, end[0])
    }
    /// Packs the transpose of `count` keys from `t0` on. Lanes beyond the last key keep what they held: their scores
    /// are overwritten.
    pub(super) fn pack(&self, c: &mut Ctx, t0: Reg, count: Reg) {
        let zero = c.b.int(0);
        let from = c.mul_add(self.origin[1], t0, &self.k_stride);
        let lanes = i64::from(self.tile.lanes);
        let packed = c.b.address(self.scratch, self.own, 0);
        loop_over(c, zero, count, 1, |c, j| {
            let row = c.mul_add(from, j, &self.k_stride);
            let row = c.b.address(self.k, row, 0);
            let (mask, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
            let panel = c.b.bin(Bin::And, j, mask);
            let to = c.b.bin(Bin::And, j, low);
            let to = c.mul_add(to, panel, &self.d.into());
            let columns = |c: &mut Ctx, from: i64, to_column: i64, lanes: u8| {
                let (lo, hi) = (c.b.int(from), c.b.int(to_column));
                let sixteen = Dim::constant(PANEL);
                loop_over(c, lo, hi, lanes.into(), |c, x| {
                    let v = c.load_from(self.k, row, x, lanes);
                    let at = c.mul_add(to, x, &sixteen);
                    for l in 0..lanes {
                        let element = if lanes == 1 { v } else { c.b.extract(v, l) };
                        let offset = i64::from(l) * PANEL;
                        let place = Place { ptr: self.scratch, base: Some(packed), index: at, offset, active: None };
                        c.b.store_at(place, element);
                    }
                });
            };
            let whole = self.d / lanes * lanes;
            if whole > 0 {
                columns(c, 0, whole, self.tile.lanes);
            }
            if whole < self.d {
                columns(c, whole, self.d, 1);
            }
        });
    }
}
