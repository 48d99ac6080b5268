//! The innermost loop of every product: a tile of registers accumulates over k, of which pairs of bf16 take two at a time.

use bertc_ir::Dim;
use bertc_ir::kernel::{Bin, DotKind, Elem, Place, Reg};

use super::ctx::Ctx;
use super::gemm::Tile;
use super::matmul::PANEL;
use super::nest::{fold_over, loop_over, when};

/// An address and a constant number of elements from there.
#[derive(Clone, Copy, Debug)]
pub struct Spot {
    /// An address in the operand's buffer.
    pub base: Reg,
    /// Elements behind it.
    pub offset: i64,
}

/// Left operand: element (r, k) is `k` elements behind `rows[r]`.
pub struct Left {
    /// Its buffer.
    pub ptr: usize,
    /// Where each row begins.
    pub rows: Vec<Spot>,
}

/// Right operand: register v of row k is `k·stride` elements behind `vectors[v]`.
pub struct Right {
    /// Its buffer.
    pub ptr: usize,
    /// Where each register of a row begins.
    pub vectors: Vec<Spot>,
    /// Elements between rows.
    pub stride: Dim,
    /// How many elements behind the ones that are read lie those that are to be prefetched, if any.
    pub ahead: Option<i64>,
}

/// What one multiplication of registers takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Group {
    /// One k.
    One,
    /// Two k of bf16, side by side in the left operand's rows and in each lane of the right one: row k / 2 of it holds
    /// both, as long as two rows.
    Pair,
    /// Four k of 8-bit integers, likewise; they are counted as one i32 wherever k and elements are counted.
    Quad(DotKind),
}

impl Group {
    /// Number of k.
    pub fn size(self) -> i64 {
        match self {
            Group::One | Group::Quad(_) => 1,
            Group::Pair => 2,
        }
    }

    /// Loads one into each lane.
    pub fn load(self, c: &mut Ctx, at: Place, lanes: u8) -> Reg {
        match self {
            Group::One | Group::Quad(_) => c.b.load_at(at, lanes),
            Group::Pair => c.b.load_pairs_at(at, lanes),
        }
    }
}

/// The range of k.
#[derive(Clone, Copy, Debug)]
pub struct Range {
    /// First k.
    pub lo: Reg,
    /// End of the last whole pass of the unrolled loop; `None` if that is `hi`.
    pub whole: Option<Reg>,
    /// End.
    pub hi: Reg,
}

/// Adds Σ a(r, k)·b(k, v) to each of `init`, row by row, in ascending order of k. The range of k holds whole groups; its
/// whole passes take `unroll` of them.
pub fn accumulate(c: &mut Ctx, tile: &Tile, group: Group, a: &Left, b: &Right, k: Range, init: Vec<Reg>) -> Vec<Reg> {
    let lanes = i64::from(tile.lanes);
    // The rows of an unrolled pass lie at constant offsets only if their distance is constant.
    let stride = b.stride.as_const().filter(|s| (0..1 << 24).contains(s));
    let unroll = if stride.is_some() { tile.unroll } else { 1 };
    let g = group.size();
    let pass = |c: &mut Ctx, unroll: i64, i: Reg, carried: &[Reg]| {
        let (at, mut acc) = (carried[0], carried[1..].to_vec());
        let element = |s: Spot, u: i64| Place {
            ptr: a.ptr,
            base: Some(s.base),
            index: i,
            offset: s.offset + u * g,
            active: None,
        };
        let ahead: Vec<Reg> = match tile.spread && lanes > 1 && unroll == lanes {
            true => a.rows.iter().map(|&s| group.load(c, element(s, 0), tile.lanes)).collect(),
            false => Vec::new(),
        };
        for u in 0..unroll {
            let row: Vec<Reg> = b
                .vectors
                .iter()
                .map(|s| {
                    let offset = s.offset + u * g * stride.unwrap_or(0);
                    let place = |offset| Place { ptr: b.ptr, base: Some(s.base), index: at, offset, active: None };
                    // Once for the registers of a panel's row, which is a cache line.
                    if let Some(ahead) = b.ahead.filter(|_| s.offset % (PANEL * g) == 0) {
                        c.b.prefetch(place(offset + ahead));
                    }
                    group.load(c, place(offset), tile.lanes)
                })
                .collect();
            for (r, acc) in acc.chunks_mut(row.len()).enumerate() {
                let x = match ahead.get(r) {
                    Some(&x) => c.b.extract(x, u as u8),
                    None => group.load(c, element(a.rows[r], u), 1),
                };
                let x = c.b.splat(x, tile.lanes);
                for (&b, acc) in row.iter().zip(acc) {
                    *acc = multiply_add(c, group, x, b, *acc);
                }
            }
        }
        let mut next = vec![match stride {
            Some(s) => {
                let step = c.b.int(unroll * g * s);
                c.b.add(at, step)
            }
            None => {
                let step = c.dim(&b.stride);
                let at = c.b.add(at, step);
                if group == Group::Pair { c.b.add(at, step) } else { at }
            }
        }];
        next.extend(acc);
        next
    };
    let zero = c.b.int(0);
    let mut carried = vec![c.mul_add(zero, k.lo, &b.stride)];
    carried.extend(init);
    if unroll == 1 {
        carried = fold_over(c, k.lo, k.hi, g, &carried, |c, i, x| pass(c, 1, i, x));
    } else {
        carried = fold_over(c, k.lo, k.whole.unwrap_or(k.hi), unroll * g, &carried, |c, i, x| pass(c, unroll, i, x));
        if let Some(whole) = k.whole {
            carried = fold_over(c, whole, k.hi, g, &carried, |c, i, x| pass(c, 1, i, x));
        }
    }
    carried.split_off(1)
}

/// acc + a·b in each lane.
pub fn multiply_add(c: &mut Ctx, group: Group, a: Reg, b: Reg, acc: Reg) -> Reg {
    match group {
        Group::Pair => c.b.dot(DotKind::Bf16, a, b, acc),
        Group::Quad(kind) => c.b.dot(kind, a, b, acc),
        Group::One if c.b.ty(acc).elem == Elem::F32 => c.b.fma(a, b, acc),
        Group::One => {
            let p = c.b.mul(a, b);
            c.b.add(acc, p)
        }
    }
}

/// Where `rows` rows, `stride` elements apart, begin from element `start` of a buffer on.
pub fn row_spots(c: &mut Ctx, ptr: usize, start: Reg, stride: &Dim, rows: i64) -> Vec<Spot> {
    if let Some(s) = stride.as_const().filter(|s| (0..1 << 24).contains(s)) {
        let base = c.b.address(ptr, start, 0);
        return (0..rows).map(|r| Spot { base, offset: r * s }).collect();
    }
    let stride = c.dim(stride);
    let mut at = start;
    let mut out = Vec::new();
    for r in 0..rows {
        if r > 0 {
            at = c.b.add(at, stride);
        }
        out.push(Spot { base: c.b.address(ptr, at, 0), offset: 0 });
    }
    out
}

/// `lo` and as many whole passes of `unroll` as fit below `hi`.
pub fn whole_passes(c: &mut Ctx, lo: Reg, hi: Reg, unroll: i64) -> Reg {
    let n = c.b.sub(hi, lo);
    let n = round_down(c, n, unroll);
    c.b.add(lo, n)
}

/// The largest multiple of `unit` up to `n`, which is not negative.
pub fn round_down(c: &mut Ctx, n: Reg, unit: i64) -> Reg {
    if unit.count_ones() == 1 {
        let mask = c.b.int(-unit);
        return c.b.bin(Bin::And, n, mask);
    }
    let unit = c.b.int(unit);
    let rest = c.b.bin(Bin::RemU, n, unit);
    c.b.sub(n, rest)
}

/// Covers the rows `lo..hi` with tiles of `height` and then of the powers of two below: `body` gets a tile's first row and
/// its height. Where 6 rows and 2 would be left, there are two tiles of 4: one of 2 takes as long. `total` is what the rows are a part of, in parts of whole tiles but for the last one if `height` is a power
/// of two.
pub fn row_tiles(c: &mut Ctx, [lo, hi]: [Reg; 2], total: &Dim, height: i64, mut body: impl FnMut(&mut Ctx, Reg, i64)) {
    let mut split = whole_passes(c, lo, hi, height);
    if height == 6 {
        let (rest, two) = (c.b.sub(hi, split), c.b.int(2));
        let uneven = c.b.cmp(bertc_ir::CmpOp::Eq, rest, two);
        let last = c.b.int(height);
        let before = c.b.sub(split, last);
        let before = c.b.max(before, lo);
        split = c.b.select(uneven, before, split);
    }
    loop_over(c, lo, split, height, |c, row| body(c, row, height));
    if height.count_ones() == 1 && total.as_const().is_some_and(|n| n % height == 0) {
        return;
    }
    let (mut row, mut left) = (split, height - 1);
    if height == 6 {
        let end = whole_passes(c, row, hi, 4);
        loop_over(c, row, end, 4, |c, row| body(c, row, 4));
        (row, left) = (end, 3);
    }
    while left > 0 {
        let height = 1 << left.ilog2();
        let step = c.b.int(height);
        let end = c.b.add(row, step);
        let fits = c.b.cmp(bertc_ir::CmpOp::Le, end, hi);
        when(c, fits, |c| body(c, row, height));
        row = c.b.select(fits, end, row);
        left = height - 1;
    }
}
