//! The attention template: softmax(scale·q·kᵀ + mask)·v, streamed over blocks of keys with an online softmax
//! (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018; Dao et al., "FlashAttention", 2022).
//!
//! A task is one head of one batch and a block of query rows. For each block of keys it packs the keys' transpose (lanes
//! are keys), and then for each tile of rows: scores, their maximum and exponentials, and the sums of values, which are
//! rescaled whenever a row's maximum grows. Nothing of the size of the scores is ever in memory.
//!
//! Keys at the end that the mask takes away from every row, as padding, are not computed: see [`MASKED`]. Nor are rows
//! that are not below their batch's length.

mod keys;
mod pairs;
mod tile;

use bertc_ir::kernel::{Bin, Reg};
use bertc_ir::{CmpOp, DType, Dim};

use self::pairs::Pairs;
use super::ctx::Ctx;
use super::gemm::Tile;
use super::lengths::{Lengths, zero};
use super::micro::{Group, row_tiles};
use super::nest::loop_over;
use super::norm::Row;
use crate::plan::{ALIGN, Arg};

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
    /// Element type of queries, keys and values: f32 or bf16.
    pub dtype: DType,
    /// Whether bf16 is multiplied in pairs, where heads can be taken in pairs; else it is widened where it is packed.
    pub pairs: bool,
    /// Element type of the result: f32 or bf16.
    pub y: DType,
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
    let in_pairs = s.pairs && pairs::possible(d, e);
    // Element offsets in the scratch memory: packed keys, their values, results that are to be rounded, scores of a tile, per
    // row of the task its maximum and its sum, and then lists of a number per row of the tile.
    let results = if in_pairs { 0 } else { KEYS.checked_mul(d.checked_add(e)?)? };
    let scores = results + if s.y == DType::F32 { 0 } else { ROWS.checked_mul(e)? };
    let maxima = scores + tile.rows * KEYS;
    let sums = maxima + ROWS;
    let lists = sums + ROWS;
    let bytes = (4 * (lists + 4 * tile.rows) as u64).next_multiple_of(ALIGN);
    let f = DType::F32;
    let q = c.input(args.q.arg, s.dtype);
    let k = c.input(args.k.arg, s.dtype);
    let v = c.input(args.v.arg, s.dtype);
    let mask = args.mask.map(|m| (c.input(m.arg, f), m.strides));
    let lengths = args.lengths.map(|l| Lengths::bind(c, l, &s.queries));
    let y = c.output(args.y, s.y);
    let scratch = c.output(Arg::Scratch(bytes), f);
    let pairs = if in_pairs { Some(Pairs::bind(c, &tile, d, e)?) } else { None };

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
        packed: match &pairs {
            None => c.b.address(scratch, own, 0),
            Some(p) => c.b.address(p.ptr, p.own, 0),
        },
        pairs,
        results: (s.y != f).then(|| c.b.address(scratch, own, results)),
        scores: c.b.address(scratch, own, scores),
        maxima: c.b.address(scratch, own, maxima),
        sums: c.b.address(scratch, own, sums),
        totals: c.b.address(scratch, own, lists),
        bases: c.b.address(scratch, own, lists + tile.rows),
        factors: c.b.address(scratch, own, lists + 2 * tile.rows),
        inverses: c.b.address(scratch, own, lists + 3 * tile.rows),
        scale: s.scale,
        nan_to_zero: s.nan_to_zero,
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
        match &a.pairs {
            None => a.pack_values(c, t0, count),
            Some(p) => a.pack_value_pairs(c, p, t0, count),
        }
        let zero = c.b.int(0);
        let first = c.b.cmp(CmpOp::Eq, t0, zero);
        let last = c.b.cmp(CmpOp::Eq, left, count);
        let block = Block { t0, count, first, last };
        row_tiles(c, [s0, tiles], &s.queries, a.tile.rows, |c, row, height| a.rows(c, s0, row, height, &block));
    });
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
    /// `[KEYS/16][D/g][16][g]`, keys in lanes: in the scratch memory, or that of pairs.
    packed: Reg,
    /// What products of bf16 in pairs take.
    pairs: Option<Pairs>,
    /// `[rows of the task][E]`, where the result is rounded.
    results: Option<Reg>,
    /// `[rows of the tile][KEYS]`.
    scores: Reg,
    maxima: Reg,
    sums: Reg,
    /// Per row of the tile: the block's largest score, then its sum of exponentials.
    totals: Reg,
    /// What is taken from a row's scores before the exponential.
    bases: Reg,
    /// What the sums so far are multiplied by.
    factors: Reg,
    /// What the result is multiplied by after the block.
    inverses: Reg,
    scale: f32,
    nan_to_zero: bool,
}

/// A block of keys.
struct Block {
    t0: Reg,
    count: Reg,
    /// Whether it is the first one.
    first: Reg,
    /// Whether it is the last one.
    last: Reg,
}

impl Attention {
    /// What products take at a time, and the scratch memory of their right operands.
    fn group(&self) -> (Group, usize) {
        match &self.pairs {
            None => (Group::One, self.scratch),
            Some(p) => (Group::Pair, p.ptr),
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
}
