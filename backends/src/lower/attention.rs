//! The attention template: softmax(scale·q·kᵀ + mask)·v, streamed over blocks of keys with an online softmax
//! (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).
//!
//! A task is one head of one batch and a block of query rows. For each block of keys it packs the keys' transpose (lanes
//! are keys), and then for each tile of rows: scores, their maximum and exponentials, and the sums of values, which are
//! rescaled whenever a row's maximum grows. Nothing of the size of the scores is ever in memory.
//!
//! Keys at the end that the mask takes away from every row, as padding, are not computed: see [`MASKED`]. Nor are rows
//! that are not below their batch's length.

use bertc_ir::kernel::{Bin, Elem, Place, Reg};
use bertc_ir::{CmpOp, DType, Dim};

use super::ctx::Ctx;
use super::gemm::Tile;
use super::lengths::{Lengths, zero};
use super::matmul::PANEL;
use super::micro::{Left, Range, Right, Spot, accumulate, row_spots, row_tiles, whole_passes};
use super::nest::{fold_over, loop_over};
use super::norm::Row;
use crate::plan::{ALIGN, Arg};
use crate::vecmath;

type Tasks = Option<Vec<(Dim, i64)>>;

/// Query rows of a task.
const ROWS: i64 = 128;
/// Keys of a block: a head's keys and values of one block fit the second cache with room to spare.
const KEYS: i64 = 128;

/// A key is skipped if its mask and those of all keys behind it are below this, and some key's isn't. Its probability
/// is then exactly 0, for scores up to 1e29: the exponent is below -1e29. (Scores that are NaN or infinite there would have
/// made the row NaN.)
const MASKED: f64 = -1e30;

/// Rows of heads in memory: element (batch b, row s, column c) is at `start + (b·rows + s)·stride + c`.
#[derive(Clone, Debug)]
pub struct Heads {
    /// The memory.
    pub arg: Arg,
    /// First element.
    pub start: Dim,
    /// Elements between rows.
    pub stride: Dim,
}

/// An additive mask: element (b, h, s, t) is at Σ coordinate·stride.
#[derive(Clone, Debug)]
pub struct Mask {
    /// The memory.
    pub arg: Arg,
    /// Strides of batch, head, query and key; 0 repeats. The key's is 0 or 1.
    pub strides: [Dim; 4],
}

/// What is computed.
#[derive(Clone, Debug)]
pub struct Spec {
    /// Batches B.
    pub batch: Dim,
    /// Queries S.
    pub queries: Dim,
    /// Keys T.
    pub keys: Dim,
    /// Heads H.
    pub heads: i64,
    /// Elements of a query's and a key's head D.
    pub head: Dim,
    /// Elements of a value's head E.
    pub value_head: Dim,
    /// Factor of the scores.
    pub scale: f32,
    /// Rows without a score above -∞ give 0 instead of NaN.
    pub nan_to_zero: bool,
}

/// Memory of operands and result.
#[derive(Clone, Debug)]
pub struct Args {
    /// `[B, S, H·D]`.
    pub q: Heads,
    /// `[B, T, H·D]`.
    pub k: Heads,
    /// `[B, T, H·E]`.
    pub v: Heads,
    /// Added to the scores.
    pub mask: Option<Mask>,
    /// `[B]`.
    pub lengths: Option<Arg>,
    /// `[B, S, H·E]`, dense.
    pub y: Arg,
}

/// Builds the kernel, or `None` if a size overflows or a head's size isn't constant.
pub fn attention(c: &mut Ctx, tile: Tile, s: &Spec, args: Args) -> Tasks {
    c.b.keep_order();
    let (d, e) = (s.head.as_const()?, s.value_head.as_const()?);
    // Element offsets in the scratch memory: packed keys, scores of a tile, then per row of the task its maximum and its
    // sum, and per row of the tile its rescaling factor.
    let scores = KEYS.checked_mul(d)?;
    let maxima = scores + tile.rows * KEYS;
    let sums = maxima + ROWS;
    let factors = sums + ROWS;
    let bytes = (4 * (factors + tile.rows) as u64).next_multiple_of(ALIGN);
    let f = DType::F32;
    let q = c.input(args.q.arg, f);
    let k = c.input(args.k.arg, f);
    let v = c.input(args.v.arg, f);
    let mask = args.mask.map(|m| (c.input(m.arg, f), m.strides));
    let lengths = args.lengths.map(|l| Lengths::bind(c, l, &s.queries));
    let y = c.output(args.y, f);
    let scratch = c.output(Arg::Scratch(bytes), f);

    // Task number → batch, head, row block.
    let t = c.b.task();
    let queries = c.dim(&s.queries);
    let (up, chunk) = (c.b.int(ROWS - 1), c.b.int(ROWS));
    let blocks = c.b.add(queries, up);
    let blocks = c.b.bin(Bin::DivU, blocks, chunk);
    let (rest, block) = (c.b.bin(Bin::DivU, t, blocks), c.b.bin(Bin::RemU, t, blocks));
    let heads = c.b.int(s.heads);
    let (batch, head) = (c.b.bin(Bin::DivU, rest, heads), c.b.bin(Bin::RemU, rest, heads));
    let (s0, s1) = c.chunk(block, &s.queries, ROWS);
    // The end of the rows that have a result.
    let live = lengths.as_ref().map_or(s1, |l| {
        let length = l.of(c, batch);
        let end = c.b.max(length, s0);
        c.b.min(end, s1)
    });
    // First element of this head in row 0 of this batch.
    let origin = |c: &mut Ctx, x: &Heads, rows: &Dim, size: i64| -> Option<Reg> {
        let start = c.dim(&x.start);
        let at = c.mul_add(start, batch, &rows.mul(&x.stride)?);
        Some(c.mul_add(at, head, &size.into()))
    };
    let lengths = lengths.is_some();
    let q_stride = args.q.stride.clone();
    let start = Heads { arg: Arg::Scratch(0), ..args.q };
    let q0 = origin(c, &start, &s.queries, d)?;
    let start = Heads { arg: Arg::Scratch(0), ..args.k };
    let (k_stride, k0) = (start.stride.clone(), origin(c, &start, &s.keys, d)?);
    let start = Heads { arg: Arg::Scratch(0), ..args.v };
    let (v_stride, v0) = (start.stride.clone(), origin(c, &start, &s.keys, e)?);
    let y_stride = Dim::constant(s.heads.checked_mul(e)?);
    let dense = Heads { arg: Arg::Scratch(0), start: 0.into(), stride: y_stride.clone() };
    let y0 = origin(c, &dense, &s.queries, e)?;
    let mask = mask.map(|(ptr, strides)| {
        let zero = c.b.int(0);
        let at = c.mul_add(zero, batch, &strides[0]);
        let at = c.mul_add(at, head, &strides[1]);
        (ptr, at, strides)
    });
    let worker = c.b.worker();
    let zero = c.b.int(0);
    let own = c.mul_add(zero, worker, &((bytes / 4) as i64).into());
    let a = Attention {
        tile,
        d,
        e,
        q,
        k,
        v,
        y,
        scratch,
        mask,
        q_stride,
        k_stride,
        v_stride,
        y_stride,
        origin: [q0, k0, v0, y0],
        own,
        packed: c.b.address(scratch, own, 0),
        scores: c.b.address(scratch, own, scores),
        maxima: c.b.address(scratch, own, maxima),
        sums: c.b.address(scratch, own, sums),
        factors: c.b.address(scratch, own, factors),
        scale: s.scale,
    };
    let keys = c.dim(&s.keys);
    let mut keys = a.keys(c, keys);
    // Whole tiles of rows: what is too much is overwritten.
    let mut tiles = s1;
    if lengths {
        let (up, mask) = (c.b.int(tile.rows - 1), c.b.int(-tile.rows));
        let rows = c.b.sub(live, s0);
        let none = c.b.cmp(CmpOp::Eq, rows, zero);
        keys = c.b.select(none, zero, keys);
        let rows = c.b.add(rows, up);
        let rows = c.b.bin(Bin::And, rows, mask);
        tiles = c.b.add(s0, rows);
        tiles = c.b.min(tiles, s1);
    }
    loop_over(c, zero, keys, KEYS, |c, t0| {
        let limit = c.b.int(KEYS);
        let left = c.b.sub(keys, t0);
        let count = c.b.min(left, limit);
        a.pack(c, t0, count);
        let zero = c.b.int(0);
        let first = c.b.cmp(CmpOp::Eq, t0, zero);
        let block = Block { t0, count, first };
        row_tiles(c, [s0, tiles], &s.queries, a.tile.rows, |c, row, height| a.rows(c, s0, row, height, &block));
    });
    a.divide(c, s0, live, s.nan_to_zero);
    if lengths {
        a.clear(c, live, s1);
    }
    Some(vec![(s.batch.clone(), 1), (s.heads.into(), 1), (s.queries.clone(), ROWS)])
}

struct Attention {
    tile: Tile,
    d: i64,
    e: i64,
    q: usize,
    k: usize,
    v: usize,
    y: usize,
    scratch: usize,
    /// Parameter, first element of this batch and head, strides.
    mask: Option<(usize, Reg, [Dim; 4])>,
    q_stride: Dim,
    k_stride: Dim,
    v_stride: Dim,
    y_stride: Dim,
    /// First element of this head in `q`, `k`, `v`, `y`.
    origin: [Reg; 4],
    /// First element of the worker's scratch memory.
    own: Reg,
    /// `[KEYS/16][D][16]`: keys in lanes.
    packed: Reg,
    /// `[rows of the tile][KEYS]`.
    scores: Reg,
    maxima: Reg,
    sums: Reg,
    factors: Reg,
    scale: f32,
}

/// A block of keys.
struct Block {
    t0: Reg,
    count: Reg,
    /// Whether it is the first one.
    first: Reg,
}

impl Attention {
    /// The number of keys, without those at the end that are masked for all rows.
    fn keys(&self, c: &mut Ctx, keys: Reg) -> Reg {
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
    fn pack(&self, c: &mut Ctx, t0: Reg, count: Reg) {
        let zero = c.b.int(0);
        let from = c.mul_add(self.origin[1], t0, &self.k_stride);
        let lanes = i64::from(self.tile.lanes);
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
                        let place =
                            Place { ptr: self.scratch, base: Some(self.packed), index: at, offset, active: None };
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

    /// One tile of query rows from `s` on, against one block of keys.
    fn rows(&self, c: &mut Ctx, s0: Reg, s: Reg, rows: i64, block: &Block) {
        self.score(c, s, rows, block);
        let row = c.b.sub(s, s0);
        for r in 0..rows {
            self.softmax(c, row, r, block);
        }
        self.values(c, s, rows, block);
    }

    fn scores_at(&self, index: Reg, offset: i64) -> Place {
        Place { ptr: self.scratch, base: Some(self.scores), index, offset, active: None }
    }

    /// The scores of a tile, with scale and mask; -∞ from the last key to the end of its strip.
    fn score(&self, c: &mut Ctx, s: Reg, rows: i64, block: &Block) {
        let lanes = i64::from(self.tile.lanes);
        let zero = c.b.int(0);
        let vectors = self.tile.vectors;
        let strip = self.tile.width();
        let start = c.mul_add(self.origin[0], s, &self.q_stride);
        let left = Left { ptr: self.q, rows: row_spots(c, self.q, start, &self.q_stride, rows) };
        let mask = self.mask.as_ref().map(|(ptr, at, strides)| {
            let mut at = c.mul_add(*at, s, &strides[2]);
            at = c.mul_add(at, block.t0, &strides[3]);
            (*ptr, row_spots(c, *ptr, at, &strides[2], rows), strides[3] == Dim::constant(0))
        });
        loop_over(c, zero, block.count, strip, |c, col| {
            let panels = (strip / PANEL).max(1);
            let (high, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
            let panel = c.b.bin(Bin::And, col, high);
            let at = c.b.bin(Bin::And, col, low);
            let at = c.mul_add(at, panel, &self.d.into());
            let at = c.b.add(at, self.own);
            let bases: Vec<Reg> = (0..panels).map(|p| c.b.address(self.scratch, at, p * PANEL * self.d)).collect();
            let spot = |v: i64| Spot { base: bases[(v * lanes / PANEL) as usize], offset: v * lanes % PANEL };
            let right = Right { ptr: self.scratch, vectors: (0..vectors).map(spot).collect(), stride: PANEL.into() };
            let d = c.b.int(self.d);
            let lo = c.b.int(0);
            let whole = (self.d % self.tile.unroll != 0).then(|| c.b.int(self.d / self.tile.unroll * self.tile.unroll));
            let init = vec![c.imm(Elem::F32, self.tile.lanes, 0.0); (rows * vectors) as usize];
            let acc = accumulate(c, &self.tile, &left, &right, Range { lo, whole, hi: d }, init);
            let scale = c.imm(Elem::F32, self.tile.lanes, self.scale.into());
            for (i, x) in acc.into_iter().enumerate() {
                let (r, v) = (i as i64 / vectors, i as i64 % vectors);
                let mut x = if self.scale == 1.0 { x } else { c.b.mul(x, scale) };
                if let Some((ptr, spots, repeated)) = &mask {
                    let spot = spots[r as usize];
                    let place = |index, offset| Place { ptr: *ptr, base: Some(spot.base), index, offset, active: None };
                    let m = if *repeated {
                        let zero = c.b.int(0);
                        let m = c.b.load_at(place(zero, spot.offset), 1);
                        c.b.splat(m, self.tile.lanes)
                    } else {
                        let end = c.b.int(v * lanes);
                        let end = c.b.add(col, end);
                        let active = Some(c.b.sub(block.count, end));
                        c.b.load_at(Place { active, ..place(col, spot.offset + v * lanes) }, self.tile.lanes)
                    };
                    x = c.b.add(x, m);
                }
                c.b.store_at(self.scores_at(col, r * KEYS + v * lanes), x);
            }
        });
        let (up, mask) = (c.b.int(strip - 1), c.b.int(-strip));
        let end = c.b.add(block.count, up);
        let end = c.b.bin(Bin::And, end, mask);
        loop_over(c, block.count, end, 1, |c, col| {
            let none = c.imm(Elem::F32, 1, f64::NEG_INFINITY);
            for r in 0..rows {
                c.b.store_at(self.scores_at(col, r * KEYS), none);
            }
        });
    }

    /// Exponentials of row `r` of the tile, which is row `row + r` of the task, and its running maximum and sum.
    fn softmax(&self, c: &mut Ctx, row: Reg, r: i64, block: &Block) {
        let lanes = self.tile.lanes;
        let state = |base: Reg| Place { ptr: self.scratch, base: Some(base), index: row, offset: r, active: None };
        let (maxima, sums) = (state(self.maxima), state(self.sums));
        let nothing = c.imm(Elem::F32, 1, f64::NEG_INFINITY);
        let none = c.imm(Elem::F32, 1, 0.0);
        c.b.begin_if(block.first);
        c.b.begin_else(vec![nothing, none]);
        let (old, sum) = (c.b.load_at(maxima, 1), c.b.load_at(sums, 1));
        let before = c.b.end_if(vec![old, sum]);
        let zero = c.b.int(0);
        let top = c.imm(Elem::F32, lanes, f64::NEG_INFINITY);
        let top = fold_over(c, zero, block.count, lanes.into(), &[top], |c, i, top| {
            let x = c.b.load_at(self.scores_at(i, r * KEYS), lanes);
            vec![c.b.max(top[0], x)]
        });
        let top = c.b.reduce(Bin::Max, top[0]);
        let top = c.b.max(top, before[0]);
        // A row without any score yet is compared with 0, so that its exponentials are 0 rather than NaN.
        let empty = c.b.cmp(CmpOp::Eq, top, nothing);
        let zero_f = c.imm(Elem::F32, 1, 0.0);
        let against = c.b.select(empty, zero_f, top);
        let all = c.b.splat(against, lanes);
        let total = c.imm(Elem::F32, lanes, 0.0);
        let total = fold_over(c, zero, block.count, lanes.into(), &[total], |c, i, total| {
            let place = self.scores_at(i, r * KEYS);
            let x = c.b.load_at(place, lanes);
            let x = c.b.sub(x, all);
            let x = vecmath::exp(&mut c.b, x);
            c.b.store_at(place, x);
            vec![c.b.add(total[0], x)]
        });
        let total = c.b.reduce(Bin::Add, total[0]);
        let less = c.b.sub(before[0], against);
        let factor = vecmath::exp(&mut c.b, less);
        let sum = c.b.fma(before[1], factor, total);
        c.b.store_at(maxima, top);
        c.b.store_at(sums, sum);
        let factors = Place { ptr: self.scratch, base: Some(self.factors), index: zero, offset: r, active: None };
        c.b.store_at(factors, factor);
    }

    /// Adds the block's values to the tile's rows of the result, rescaled.
    fn values(&self, c: &mut Ctx, s: Reg, rows: i64, block: &Block) {
        let zero = c.b.int(0);
        let left =
            Left { ptr: self.scratch, rows: (0..rows).map(|r| Spot { base: self.scores, offset: r * KEYS }).collect() };
        let whole = Some(whole_passes(c, zero, block.count, self.tile.unroll));
        let range = Range { lo: zero, whole, hi: block.count };
        let to = c.mul_add(self.origin[3], s, &self.y_stride);
        let to = row_spots(c, self.y, to, &self.y_stride, rows);
        let from = c.mul_add(self.origin[2], block.t0, &self.v_stride);
        let tile_columns = |c: &mut Ctx, col: Reg, lanes: u8, vectors: i64| {
            let start = c.b.add(from, col);
            let base = c.b.address(self.v, start, 0);
            let spots = (0..vectors).map(|v| Spot { base, offset: v * i64::from(lanes) }).collect();
            let right = Right { ptr: self.v, vectors: spots, stride: self.v_stride.clone() };
            let place = |r: i64, v: i64| {
                let spot = to[r as usize];
                let offset = spot.offset + v * i64::from(lanes);
                Place { ptr: self.y, base: Some(spot.base), index: col, offset, active: None }
            };
            let all: Vec<(i64, i64)> = (0..rows).flat_map(|r| (0..vectors).map(move |v| (r, v))).collect();
            let nothing = c.imm(Elem::F32, lanes, 0.0);
            c.b.begin_if(block.first);
            c.b.begin_else(vec![nothing; all.len()]);
            let mut old = Vec::new();
            for r in 0..rows {
                let index = c.b.int(0);
                let factors = Place { ptr: self.scratch, base: Some(self.factors), index, offset: r, active: None };
                let factor = c.b.load_at(factors, 1);
                let factor = c.b.splat(factor, lanes);
                for v in 0..vectors {
                    let x = c.b.load_at(place(r, v), lanes);
                    old.push(c.b.mul(x, factor));
                }
            }
            let init = c.b.end_if(old);
            let tile = Tile { lanes, ..self.tile };
            let acc = accumulate(c, &tile, &left, &right, range, init);
            for ((r, v), x) in all.into_iter().zip(acc) {
                c.b.store_at(place(r, v), x);
            }
        };
        // Whole tiles of columns, then single registers, then single columns.
        let mut done = 0;
        for (lanes, vectors) in [(self.tile.lanes, self.tile.vectors), (self.tile.lanes, 1), (1, 1)] {
            let step = i64::from(lanes) * vectors;
            let end = done + (self.e - done) / step * step;
            if end > done {
                let (lo, hi) = (c.b.int(done), c.b.int(end));
                loop_over(c, lo, hi, step, |c, col| tile_columns(c, col, lanes, vectors));
                done = end;
            }
        }
    }

    /// Sets rows of the result to 0.
    fn clear(&self, c: &mut Ctx, s0: Reg, s1: Reg) {
        loop_over(c, s0, s1, 1, |c, s| {
            let at = c.mul_add(self.origin[3], s, &self.y_stride);
            let (lo, hi) = (c.b.int(0), c.b.int(self.e));
            zero(c, &Row { lo, hi, len: &self.e.into(), lanes: self.tile.lanes }, self.y, at);
        });
    }

    /// Divides each row of the task by its sum.
    fn divide(&self, c: &mut Ctx, s0: Reg, s1: Reg, nan_to_zero: bool) {
        loop_over(c, s0, s1, 1, |c, s| {
            let row = c.b.sub(s, s0);
            let sum = c.load_from(self.scratch, self.sums, row, 1);
            let one = c.imm(Elem::F32, 1, 1.0);
            let mut factor = c.b.div(one, sum);
            if nan_to_zero {
                let zero = c.imm(Elem::F32, 1, 0.0);
                let empty = c.b.cmp(CmpOp::Eq, sum, zero);
                factor = c.b.select(empty, zero, factor);
            }
            let at = c.mul_add(self.origin[3], s, &self.y_stride);
            let at = c.b.address(self.y, at, 0);
            let (lo, hi) = (c.b.int(0), c.b.int(self.e));
            let e = Dim::constant(self.e);
            Row { lo, hi, len: &e, lanes: self.tile.lanes }.each(c, |c, i, lanes| {
                let x = c.load_from(self.y, at, i, lanes);
                let f = c.b.splat(factor, lanes);
                let mut x = c.b.mul(x, f);
                if nan_to_zero {
                    let sum = c.b.splat(sum, lanes);
                    let undefined = c.b.cmp(CmpOp::Ne, sum, sum);
                    let zero = c.imm(Elem::F32, lanes, 0.0);
                    x = c.b.select(undefined, zero, x);
                }
                c.store_from(self.y, at, i, x);
            });
        });
    }
}
