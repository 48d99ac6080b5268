//! Keys: how many count, and their transpose.

use bertc_ir::kernel::{Bin, Elem, Place, Reg};
use bertc_ir::{CmpOp, Dim};

use super::super::ctx::Ctx;
use super::super::matmul::PANEL;
use super::super::micro::{Spot, round_down, row_spots};
use super::super::nest::{fold_over, loop_over, transpose};
use super::super::norm::Row;
use super::{Attention, KEYS, MASKED};

impl Attention {
    /// The number of keys, without those at the end that are masked for all rows. A register of keys of which one isn't
    /// counts as a whole.
    pub(super) fn keys(&self, c: &mut Ctx, keys: Reg) -> Reg {
        let Some((ptr, at, _)) = self.mask.as_ref().filter(|(_, _, s)| s[2] == 0.into() && s[3] != 0.into()) else {
            return keys;
        };
        let zero = c.b.int(0);
        let base = c.b.address(*ptr, *at, 0);
        let mut end = zero;
        let whole = round_down(c, keys, self.tile.lanes.into());
        for (lo, hi, lanes) in [(zero, whole, self.tile.lanes), (whole, keys, 1)] {
            end = fold_over(c, lo, hi, lanes.into(), &[end], |c, t, end| {
                let m = c.load_from(*ptr, base, t, lanes);
                let limit = c.imm(Elem::F32, lanes, MASKED);
                // A NaN counts as not masked.
                let masked = c.b.cmp(CmpOp::Lt, m, limit);
                let (no, yes) = (c.imm(Elem::I32, lanes, 0.0), c.imm(Elem::I32, lanes, 1.0));
                let counts = c.b.select(masked, no, yes);
                let counts = c.b.reduce(Bin::Max, counts);
                let none = c.imm(Elem::I32, 1, 0.0);
                let counts = c.b.cmp(CmpOp::Ne, counts, none);
                let step = c.b.int(lanes.into());
                let behind = c.b.add(t, step);
                vec![c.b.select(counts, behind, end[0])]
            })[0];
        }
        let none = c.b.cmp(CmpOp::Eq, end, zero);
        c.b.select(none, keys, end)
    }

    /// Packs the transpose of `count` keys from `t0` on. Lanes beyond the last key keep what they held: their scores
    /// are overwritten.
    pub(super) fn pack(&self, c: &mut Ctx, t0: Reg, count: Reg) {
        let zero = c.b.int(0);
        let from = c.mul_add(self.origin[1], t0, &self.k_stride);
        let lanes = i64::from(self.tile.lanes);
        let group = self.group().0;
        let step = lanes * group.size();
        let columns = self.d / step * step;
        let mut single = zero;
        if columns > 0 {
            single = round_down(c, count, lanes);
            loop_over(c, zero, single, lanes, |c, j| {
                let row = c.mul_add(from, j, &self.k_stride);
                let rows = row_spots(c, self.k, row, &self.k_stride, lanes);
                let to = self.packed_at(c, j);
                let (lo, hi) = (c.b.int(0), c.b.int(columns));
                loop_over(c, lo, hi, step, |c, x| {
                    let load = |s: &Spot| {
                        let place = Place { ptr: self.k, base: Some(s.base), index: x, offset: s.offset, active: None };
                        group.load(c, place, self.tile.lanes)
                    };
                    let square: Vec<Reg> = rows.iter().map(load).collect();
                    let square = transpose(c, square);
                    let at = c.mul_add(to, x, &PANEL.into());
                    for (i, v) in (0..).zip(square) {
                        c.b.store_at(self.packed_place(at, i * PANEL * group.size()), v);
                    }
                });
            });
            if columns < self.d {
                self.pack_singly(c, from, [zero, single], [columns, self.d]);
            }
        }
        self.pack_singly(c, from, [single, count], [0, self.d]);
    }

    /// Packs these columns of these keys one by one.
    fn pack_singly(&self, c: &mut Ctx, from: Reg, [lo, hi]: [Reg; 2], columns: [i64; 2]) {
        loop_over(c, lo, hi, 1, |c, j| {
            let row = c.mul_add(from, j, &self.k_stride);
            let row = c.b.address(self.k, row, 0);
            let to = self.packed_at(c, j);
            let [lo, hi] = columns.map(|x| c.b.int(x));
            let group = self.group().0;
            loop_over(c, lo, hi, group.size(), |c, x| {
                let place = Place { ptr: self.k, base: Some(row), index: x, offset: 0, active: None };
                let v = group.load(c, place, 1);
                let at = c.mul_add(to, x, &Dim::constant(PANEL));
                c.b.store_at(self.packed_place(at, 0), v);
            });
        });
    }

    /// Copies the values of `count` keys from `t0` on, so that they are neighbours: in the operand each of them may lie on a page of
    /// its own, and all of them in few sets of the first cache.
    pub(super) fn pack_values(&self, c: &mut Ctx, t0: Reg, count: Reg) {
        let zero = c.b.int(0);
        let from = c.mul_add(self.origin[2], t0, &self.v_stride);
        let e = Dim::constant(self.e);
        loop_over(c, zero, count, 1, |c, j| {
            let row = c.mul_add(from, j, &self.v_stride);
            let row = c.b.address(self.v, row, 0);
            let to = c.mul_add(zero, j, &e);
            let to = c.b.add(self.own, to);
            let to = c.b.address(self.scratch, to, KEYS * self.d);
            let hi = c.b.int(self.e);
            Row { lo: zero, hi, len: &e, lanes: self.tile.lanes }.each(c, |c, x, lanes| {
                let v = c.load_from(self.v, row, x, lanes);
                c.store_from(self.scratch, to, x, v);
            });
        });
    }

    /// Where key `j` of the block begins in the packed keys.
    fn packed_at(&self, c: &mut Ctx, j: Reg) -> Reg {
        let (mask, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
        let panel = c.b.bin(Bin::And, j, mask);
        let inside = c.b.bin(Bin::And, j, low);
        let zero = c.b.int(0);
        let to = c.mul_add(zero, inside, &self.group().0.size().into());
        c.mul_add(to, panel, &self.d.into())
    }

    fn packed_place(&self, index: Reg, offset: i64) -> Place {
        Place { ptr: self.group().1, base: Some(self.packed), index, offset, active: None }
    }
}
