//! A tile of query rows against a block of keys.

use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, Elem, Place, Reg};

use super::super::ctx::Ctx;
use super::super::gemm::Tile;
use super::super::matmul::PANEL;
use super::super::micro::{Group, Left, Range, Right, Spot, accumulate, round_down, row_spots, whole_passes};
use super::super::nest::{fold_over, loop_over};
use super::pairs::COLUMNS;
use super::{Attention, Block, KEYS};
use crate::vecmath;

/// The mask's part for a tile of rows and a block of keys.
struct TileMask {
    ptr: usize,
    rows: Vec<Spot>,
    /// Whether it is the same for all keys.
    repeated: bool,
}

impl Attention {
    /// One tile of query rows from `s` on, against one block of keys.
    pub(super) fn rows(&self, c: &mut Ctx, s0: Reg, s: Reg, rows: i64, block: &Block) {
        let tops = self.scores_of(c, s, rows, block);
        let row = c.b.sub(s, s0);
        self.softmax(c, row, &tops, block);
        self.values(c, s, row, rows, block);
    }

    fn scores_at(&self, index: Reg, offset: i64) -> Place {
        self.at(self.scores, index, offset)
    }

    /// A place in the scratch memory.
    fn at(&self, base: Reg, index: Reg, offset: i64) -> Place {
        Place { ptr: self.scratch, base: Some(base), index, offset, active: None }
    }

    /// The scores of a tile, with scale and mask; -∞ from the last key to the end of its strip. For each row a vector whose
    /// largest element is the row's.
    fn scores_of(&self, c: &mut Ctx, s: Reg, rows: i64, block: &Block) -> Vec<Reg> {
        let lanes = self.tile.lanes;
        let strip = self.tile.width();
        let start = c.mul_add(self.origin[0], s, &self.q_stride);
        let left = Left { ptr: self.q, rows: row_spots(c, self.q, start, &self.q_stride, rows) };
        let mask = self.mask.as_ref().map(|(ptr, at, strides)| {
            let mut at = c.mul_add(*at, s, &strides[2]);
            at = c.mul_add(at, block.t0, &strides[3]);
            TileMask { ptr: *ptr, rows: row_spots(c, *ptr, at, &strides[2], rows), repeated: strides[3] == 0.into() }
        });
        let zero = c.b.int(0);
        let whole = round_down(c, block.count, strip);
        let tops = vec![c.imm(Elem::F32, lanes, f64::NEG_INFINITY); rows as usize];
        let tops = fold_over(c, zero, whole, strip, &tops, |c, col, tops| {
            let scores = self.strip(c, &left, mask.as_ref(), col, None);
            let mut tops = tops.to_vec();
            for (row, top) in scores.chunks(self.tile.vectors as usize).zip(&mut tops) {
                row.iter().for_each(|&x| *top = c.b.max(*top, x));
            }
            tops
        });
        // The last strip, if it isn't whole. Where it has no keys it is computed from what the packed keys held before.
        let (up, low) = (c.b.int(strip - 1), c.b.int(-strip));
        let end = c.b.add(block.count, up);
        let end = c.b.bin(Bin::And, end, low);
        loop_over(c, whole, block.count, strip, |c, col| {
            self.strip(c, &left, mask.as_ref(), col, Some(block.count));
        });
        loop_over(c, block.count, end, 1, |c, col| {
            let none = c.imm(Elem::F32, 1, f64::NEG_INFINITY);
            (0..rows).for_each(|r| c.b.store_at(self.scores_at(col, r * KEYS), none));
        });
        fold_over(c, whole, block.count, lanes.into(), &tops, |c, i, tops| {
            let each = |(r, &top): (i64, &Reg)| {
                let x = c.b.load_at(self.scores_at(i, r * KEYS), lanes);
                c.b.max(top, x)
            };
            (0..rows).zip(tops).map(each).collect()
        })
    }

    /// A strip of scores, stored; `end` limits the keys of the last one.
    fn strip(&self, c: &mut Ctx, left: &Left, mask: Option<&TileMask>, col: Reg, end: Option<Reg>) -> Vec<Reg> {
        let (lanes, vectors) = (i64::from(self.tile.lanes), self.tile.vectors);
        let panels = (self.tile.width() / PANEL).max(1);
        let (high, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
        let panel = c.b.bin(Bin::And, col, high);
        let at = c.b.bin(Bin::And, col, low);
        let (group, ptr) = self.group();
        let own = self.pairs.as_ref().map_or(self.own, |p| p.own);
        let g = group.size();
        let at = c.mul_add(own, at, &g.into());
        let at = c.mul_add(at, panel, &self.d.into());
        let bases: Vec<Reg> = (0..panels).map(|p| c.b.address(ptr, at, p * PANEL * self.d)).collect();
        let spot = |v: i64| Spot { base: bases[(v * lanes / PANEL) as usize], offset: v * lanes % PANEL * g };
        let vectors_at = (0..vectors).map(spot).collect();
        let right = Right { ptr, vectors: vectors_at, stride: PANEL.into(), ahead: None };
        let (lo, d, pass) = (c.b.int(0), c.b.int(self.d), self.tile.unroll * g);
        let whole = (self.d % pass != 0).then(|| c.b.int(self.d / pass * pass));
        let rows = left.rows.len() as i64;
        let init = vec![c.imm(Elem::F32, self.tile.lanes, 0.0); (rows * vectors) as usize];
        let active: Vec<Option<Reg>> = (0..vectors)
            .map(|v| {
                let first = c.b.int(v * lanes);
                let first = c.b.add(col, first);
                end.map(|end| c.b.sub(end, first))
            })
            .collect();
        let mut acc = accumulate(c, &self.tile, group, left, &right, Range { lo, whole, hi: d }, init);
        let scale = c.imm(Elem::F32, self.tile.lanes, self.scale.into());
        for (i, x) in (0..).zip(&mut acc) {
            let (r, v) = (i / vectors, i % vectors);
            if let Some(m) = mask {
                let spot = m.rows[r as usize];
                let place = |index, offset, active| Place { ptr: m.ptr, base: Some(spot.base), index, offset, active };
                let m = if m.repeated {
                    let m = c.b.load_at(place(lo, spot.offset, None), 1);
                    c.b.splat(m, self.tile.lanes)
                } else {
                    c.b.load_at(place(col, spot.offset + v * lanes, active[v as usize]), self.tile.lanes)
                };
                *x = if self.scale == 1.0 { c.b.add(*x, m) } else { c.b.fma(*x, scale, m) };
            } else if self.scale != 1.0 {
                *x = c.b.mul(*x, scale);
            }
            c.b.store_at(self.scores_at(col, r * KEYS + v * lanes), *x);
        }
        acc
    }

    /// Calls `body` with the rows of a tile as lanes of registers: the first one's number, and the lanes.
    fn each_rows(&self, c: &mut Ctx, rows: i64, mut body: impl FnMut(&mut Ctx, i64, u8)) {
        let mut done = 0;
        for lanes in [8, 4, 1] {
            while i64::from(lanes) <= rows - done && lanes <= self.tile.lanes {
                body(c, done, lanes);
                done += i64::from(lanes);
            }
        }
    }

    /// Exponentials of the tile's scores, whose first row is row `row` of the task, and the rows' running maxima and sums.
    /// What is done once a row is done for all rows at once, as lanes.
    fn softmax(&self, c: &mut Ctx, row: Reg, tops: &[Reg], block: &Block) {
        let (rows, lanes) = (tops.len() as i64, self.tile.lanes);
        let zero = c.b.int(0);
        for (r, &top) in (0..).zip(tops) {
            let top = c.b.reduce(Bin::Max, top);
            c.b.store_at(self.at(self.totals, zero, r), top);
        }
        self.each_rows(c, rows, |c, r, lanes| {
            let nothing = c.imm(Elem::F32, lanes, f64::NEG_INFINITY);
            c.b.begin_if(block.first);
            c.b.begin_else(vec![nothing]);
            let old = c.b.load_at(self.at(self.maxima, row, r), lanes);
            let old = c.b.end_if(vec![old])[0];
            let top = c.b.load_at(self.at(self.totals, zero, r), lanes);
            let top = c.b.max(old, top);
            c.b.store_at(self.at(self.maxima, row, r), top);
            // A row without any score yet is compared with 0, so that its exponentials are 0 rather than NaN.
            let empty = c.b.cmp(CmpOp::Eq, top, nothing);
            let none = c.imm(Elem::F32, lanes, 0.0);
            let base = c.b.select(empty, none, top);
            c.b.store_at(self.at(self.bases, zero, r), base);
            let less = c.b.sub(old, base);
            let factor = vecmath::decay(&mut c.b, less);
            c.b.store_at(self.at(self.factors, zero, r), factor);
        });
        let bases: Vec<Reg> = (0..rows)
            .map(|r| {
                let base = c.b.load_at(self.at(self.bases, zero, r), 1);
                c.b.splat(base, lanes)
            })
            .collect();
        let totals = vec![c.imm(Elem::F32, lanes, 0.0); tops.len()];
        let totals = fold_over(c, zero, block.count, lanes.into(), &totals, |c, i, totals| {
            let each = |((r, &base), &total): ((i64, &Reg), &Reg)| {
                let place = self.scores_at(i, r * KEYS);
                let x = c.b.load_at(place, lanes);
                let x = c.b.sub(x, base);
                let x = vecmath::decay(&mut c.b, x);
                match &self.pairs {
                    None => c.b.store_at(place, x),
                    Some(p) => {
                        let (ptr, base) = (p.ptr, Some(p.probabilities));
                        c.b.store_at(Place { ptr, base, index: i, offset: r * KEYS, active: None }, x);
                    }
                }
                c.b.add(total, x)
            };
            (0..).zip(&bases).zip(totals).map(each).collect()
        });
        for (r, &total) in (0..).zip(&totals) {
            let total = c.b.reduce(Bin::Add, total);
            c.b.store_at(self.at(self.totals, zero, r), total);
        }
        self.each_rows(c, rows, |c, r, lanes| {
            let total = c.b.load_at(self.at(self.totals, zero, r), lanes);
            c.b.begin_if(block.first);
            c.b.begin_else(vec![total]);
            let old = c.b.load_at(self.at(self.sums, row, r), lanes);
            let factor = c.b.load_at(self.at(self.factors, zero, r), lanes);
            let sum = c.b.fma(old, factor, total);
            let sum = c.b.end_if(vec![sum])[0];
            c.b.store_at(self.at(self.sums, row, r), sum);
            let one = c.imm(Elem::F32, lanes, 1.0);
            c.b.begin_if(block.last);
            let mut inverse = c.b.div(one, sum);
            if self.nan_to_zero {
                let none = c.imm(Elem::F32, lanes, 0.0);
                let empty = c.b.cmp(CmpOp::Eq, sum, none);
                inverse = c.b.select(empty, none, inverse);
            }
            c.b.begin_else(vec![inverse]);
            let inverse = c.b.end_if(vec![one])[0];
            c.b.store_at(self.at(self.inverses, zero, r), inverse);
        });
    }

    /// Adds the block's values to the tile's rows of the result, rescaled; the first one is row `row` of the task. A result
    /// that is rounded has the sums in scratch memory up to the last block.
    fn values(&self, c: &mut Ctx, s: Reg, row: Reg, rows: i64, block: &Block) {
        let zero = c.b.int(0);
        let (group, ptr, base) = match &self.pairs {
            None => (Group::One, self.scratch, self.scores),
            Some(p) => (Group::Pair, p.ptr, p.probabilities),
        };
        let left = Left { ptr, rows: (0..rows).map(|r| Spot { base, offset: r * KEYS }).collect() };
        let mut hi = block.count;
        if group == Group::Pair {
            // The probability beside an odd last one meets a value of 0.
            let (one, low) = (c.b.int(1), c.b.int(-2));
            hi = c.b.add(hi, one);
            hi = c.b.bin(Bin::And, hi, low);
        }
        let whole = Some(whole_passes(c, zero, hi, self.tile.unroll * group.size()));
        let range = Range { lo: zero, whole, hi };
        let to = c.mul_add(self.origin[3], s, &self.y_stride);
        let to = row_spots(c, self.y, to, &self.y_stride, rows);
        let tile_columns = |c: &mut Ctx, col: Reg, lanes: u8, vectors: i64| {
            let (ptr, base) = match &self.pairs {
                None => {
                    let start = c.b.add(self.own, col);
                    (self.scratch, c.b.address(self.scratch, start, KEYS * self.d))
                }
                Some(p) => {
                    let start = c.mul_add(p.values, col, &2.into());
                    (p.ptr, c.b.address(p.ptr, start, 0))
                }
            };
            let offset = |v: i64| v * i64::from(lanes) * group.size();
            let spots = (0..vectors).map(|v| Spot { base, offset: offset(v) }).collect();
            let right = Right { ptr, vectors: spots, stride: self.e.into(), ahead: None };
            let place = |r: i64, v: i64| {
                let spot = to[r as usize];
                let offset = spot.offset + v * i64::from(lanes);
                Place { ptr: self.y, base: Some(spot.base), index: col, offset, active: None }
            };
            let own = c.mul_add(col, row, &self.e.into());
            let sums = |r: i64, v: i64| match self.results {
                None => place(r, v),
                Some(base) => self.at(base, own, r * self.e + v * i64::from(lanes)),
            };
            let factor_of = |c: &mut Ctx, list: Reg, r: i64| {
                let index = c.b.int(0);
                let x = c.b.load_at(self.at(list, index, r), 1);
                c.b.splat(x, lanes)
            };
            let nothing = c.imm(Elem::F32, lanes, 0.0);
            c.b.begin_if(block.first);
            c.b.begin_else(vec![nothing; (rows * vectors) as usize]);
            let mut old = Vec::new();
            for r in 0..rows {
                let factor = factor_of(c, self.factors, r);
                for v in 0..vectors {
                    let x = c.b.load_at(sums(r, v), lanes);
                    old.push(c.b.mul(x, factor));
                }
            }
            let init = c.b.end_if(old);
            let tile = Tile { lanes, ..self.tile };
            let acc = accumulate(c, &tile, group, &left, &right, range, init);
            let mut done = Vec::new();
            for (r, row) in (0..).zip(acc.chunks(vectors as usize)) {
                let inverse = factor_of(c, self.inverses, r);
                for (v, &x) in (0..).zip(row) {
                    let mut x = c.b.mul(x, inverse);
                    if self.nan_to_zero {
                        let undefined = c.b.cmp(CmpOp::Ne, inverse, inverse);
                        let none = c.imm(Elem::F32, lanes, 0.0);
                        x = c.b.select(undefined, none, x);
                    }
                    match self.results {
                        None => c.b.store_at(place(r, v), x),
                        Some(_) => done.push((r, v, x)),
                    }
                }
            }
            if self.results.is_some() {
                c.b.begin_if(block.last);
                done.iter().for_each(|&(r, v, x)| c.b.store_at(place(r, v), x));
                c.b.begin_else(Vec::new());
                done.iter().for_each(|&(r, v, x)| c.b.store_at(sums(r, v), x));
                c.b.end_if(Vec::new());
            }
        };
        // Whole tiles of columns, then single registers, then what is left: columns, or registers of pairs.
        let rest = if group == Group::Pair { COLUMNS as u8 } else { 1 };
        let mut done = 0;
        for (lanes, vectors) in [(self.tile.lanes, self.tile.vectors), (self.tile.lanes, 1), (rest, 1)] {
            let step = i64::from(lanes) * vectors;
            let end = done + (self.e - done) / step * step;
            if end > done {
                let (lo, hi) = (c.b.int(done), c.b.int(end));
                loop_over(c, lo, hi, step, |c, col| tile_columns(c, col, lanes, vectors));
                done = end;
            }
        }
    }
}
