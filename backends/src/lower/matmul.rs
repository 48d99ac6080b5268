//! Matrix products: a blocked kernel over a packed right operand, and the packing of operands known only at run time.
//!
//! Packed layout: `[ceil(N/16)][K][16]`, zero-padded, one such block per batch. A tile of `rows` × 4·`vectors` results
//! stays in registers while k runs over all of K.

use bertc_ir::kernel::{Bin, Elem, Reg, RegType};
use bertc_ir::{CmpOp, DType, Dim};

use super::LANES;
use super::ctx::Ctx;
use super::nest::{fold_over, loop_over, scalar_nest, strides, when};
use crate::plan::Arg;

type Tasks = Option<Vec<(Dim, i64)>>;

/// Columns of a packed panel.
pub const PANEL: i64 = 16;
/// Rows of the result that one task computes.
const TASK_ROWS: i64 = 48;
/// Panels of the right operand that one task computes.
const TASK_PANELS: i64 = 8;

/// Register tile of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct Tile {
    /// Rows.
    pub rows: i64,
    /// Vectors of four columns; divides 4.
    pub vectors: i64,
}

impl Tile {
    /// The tile that a register file holds: the accumulators, and for one k the right operand's vectors and an element
    /// of each row.
    pub fn for_registers(count: usize) -> Tile {
        Tile { rows: 4, vectors: if count >= 32 { 4 } else { 2 } }
    }
}

/// The element type of packed operands for a matmul on `dtype`.
pub fn packed_dtype(dtype: DType) -> DType {
    if dtype == DType::I32 { DType::I32 } else { DType::F32 }
}

/// Sizes of a matmul: `batch` products of [m, k] by [k, n].
#[derive(Clone, Debug)]
pub struct Shape {
    /// Number of products.
    pub batch: Dim,
    /// Rows of the left operand.
    pub m: Dim,
    /// Inner size.
    pub k: Dim,
    /// Columns of the right operand.
    pub n: Dim,
}

impl Shape {
    /// Elements of one packed right operand, or `None` on overflow: exact for constant `n`, else the bound
    /// `(n + 15)·k`, since a dim can't round up.
    pub fn packed_elements(&self) -> Option<Dim> {
        let n = match self.n.as_const() {
            Some(n) => Dim::constant(n.checked_add(PANEL - 1)? / PANEL * PANEL),
            None => self.n.add(&Dim::constant(PANEL - 1))?,
        };
        n.mul(&self.k)
    }
}

/// Packs `batch` row-major right operands of `dtype` ([k, n], or [n, k] with `trans`).
pub fn pack(c: &mut Ctx, s: &Shape, trans: bool, dtype: DType, b: Arg, to: Arg) -> Tasks {
    let b = c.input(b, dtype);
    let to = c.output(to, packed_dtype(dtype));
    let t = c.b.task();
    let (n, k) = (c.dim(&s.n), c.dim(&s.k));
    let panels = panel_count(c, n);
    let (batch, panel) = (c.b.bin(Bin::DivU, t, panels), c.b.bin(Bin::RemU, t, panels));
    let source = c.dim(&s.n.mul(&s.k)?);
    let source = c.b.mul(batch, source);
    let stride = c.dim(&s.packed_elements()?);
    let target = c.b.mul(batch, stride);
    let sixteen = c.b.int(PANEL);
    let col = c.b.mul(panel, sixteen);
    let first = c.b.mul(col, k);
    let target = c.b.add(target, first);
    let end = c.b.add(col, sixteen);
    let full = c.b.cmp(CmpOp::Le, end, n);
    let zero = c.b.int(0);
    if !trans {
        when(c, full, |c| {
            loop_over(c, zero, k, 1, |c, kk| {
                let row = c.b.mul(kk, n);
                let from = c.b.add(source, row);
                let from = c.b.add(from, col);
                let at = c.b.mul(kk, sixteen);
                let at = c.b.add(target, at);
                for v in 0..PANEL / i64::from(LANES) {
                    let x = c.b.load(b, from, v * i64::from(LANES), LANES);
                    c.b.store(to, at, v * i64::from(LANES), x);
                }
            });
        });
    }
    let partial = if trans { c.b.const_i(RegType::scalar(Elem::Mask), 1) } else { c.b.cmp(CmpOp::Gt, end, n) };
    when(c, partial, |c| {
        loop_over(c, zero, sixteen, 1, |c, lane| {
            let column = c.b.add(col, lane);
            let inside = c.b.cmp(CmpOp::Lt, column, n);
            // Beyond the last column its neighbour is read and zero is stored.
            let last = c.b.int(1);
            let last = c.b.sub(n, last);
            let safe = c.b.min(column, last);
            let elem = Elem::of(dtype);
            let pad = c.imm(elem, 1, 0.0);
            loop_over(c, zero, k, 1, |c, kk| {
                let (row, rest, width) = if trans { (safe, kk, k) } else { (kk, safe, n) };
                let from = c.b.mul(row, width);
                let from = c.b.add(from, rest);
                let from = c.b.add(from, source);
                let x = c.b.load(b, from, 0, 1);
                let x = c.b.select(inside, x, pad);
                let at = c.b.mul(kk, sixteen);
                let at = c.b.add(at, target);
                let at = c.b.add(at, lane);
                c.b.store(to, at, 0, x);
            });
        });
    });
    Some(vec![(s.batch.clone(), 1), (s.n.clone(), PANEL)])
}

fn panel_count(c: &mut Ctx, n: Reg) -> Reg {
    let (up, sixteen) = (c.b.int(PANEL - 1), c.b.int(PANEL));
    let n = c.b.add(n, up);
    c.b.bin(Bin::DivU, n, sixteen)
}

/// The product of row-major left operands with packed right ones. `shared`: all batches use one right operand.
pub fn matmul(c: &mut Ctx, s: &Shape, shared: bool, dtype: DType, tile: Tile, [a, b, y]: [Arg; 3]) -> Tasks {
    let g = Gemm {
        a: c.input(a, dtype),
        b: c.input(b, packed_dtype(dtype)),
        y: c.output(y, dtype),
        tile,
        shape: s,
        elem: Elem::of(packed_dtype(dtype)),
    };
    let t = c.b.task();
    let (m, n, k) = (c.dim(&s.m), c.dim(&s.n), c.dim(&s.k));
    // Task number → batch, row block, panel block, as the driver multiplies the factors below.
    let blocks = |c: &mut Ctx, size: Reg, chunk: i64| {
        let (up, chunk) = (c.b.int(chunk - 1), c.b.int(chunk));
        let x = c.b.add(size, up);
        c.b.bin(Bin::DivU, x, chunk)
    };
    let (mb, nb) = (blocks(c, m, TASK_ROWS), blocks(c, n, TASK_PANELS * PANEL));
    let (rest, nblock) = (c.b.bin(Bin::DivU, t, nb), c.b.bin(Bin::RemU, t, nb));
    let (batch, mblock) = (c.b.bin(Bin::DivU, rest, mb), c.b.bin(Bin::RemU, rest, mb));
    let (m0, m1) = c.chunk(mblock, &s.m, TASK_ROWS);
    let (n0, n1) = c.chunk(nblock, &s.n, TASK_PANELS * PANEL);
    let mut base = Base { a: c.b.int(0), b: c.b.int(0), y: c.b.int(0), k, n };
    if s.batch.as_const() != Some(1) {
        base.a = c.mul_add(base.a, batch, &s.m.mul(&s.k)?);
        base.y = c.mul_add(base.y, batch, &s.m.mul(&s.n)?);
        if !shared {
            base.b = c.mul_add(base.b, batch, &s.packed_elements()?);
        }
    }
    let width = tile.vectors * i64::from(LANES);
    let rows = c.b.int(tile.rows);
    let span = c.b.sub(m1, m0);
    let whole = c.b.bin(Bin::DivU, span, rows);
    let whole = c.b.mul(whole, rows);
    let split = c.b.add(m0, whole);
    loop_over(c, n0, n1, width, |c, col| {
        loop_over(c, m0, split, tile.rows, |c, row| g.tile(c, &base, row, col, tile.rows));
        loop_over(c, split, m1, 1, |c, row| g.tile(c, &base, row, col, 1));
    });
    Some(vec![(s.batch.clone(), 1), (s.m.clone(), TASK_ROWS), (s.n.clone(), TASK_PANELS * PANEL)])
}

struct Gemm<'a> {
    a: usize,
    b: usize,
    y: usize,
    tile: Tile,
    shape: &'a Shape,
    elem: Elem,
}

/// Element offsets of this batch's operands, and sizes.
struct Base {
    a: Reg,
    b: Reg,
    y: Reg,
    k: Reg,
    n: Reg,
}

impl Gemm<'_> {
    /// One register tile: `rows` rows from `row`, the tile's columns from `col`.
    fn tile(&self, c: &mut Ctx, base: &Base, row: Reg, col: Reg, rows: i64) {
        let lanes = i64::from(LANES);
        let vectors = self.tile.vectors;
        let elem = self.elem;
        let a_rows: Vec<Reg> = (0..rows)
            .map(|r| {
                let r = c.b.int(r);
                let r = c.b.add(row, r);
                let o = c.b.mul(r, base.k);
                c.b.add(o, base.a)
            })
            .collect();
        // Panel p starts at p·16·K; inside it a row of 16 columns per k.
        let (mask, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
        let panel = c.b.bin(Bin::And, col, mask);
        let inside = c.b.bin(Bin::And, col, low);
        let b0 = c.b.mul(panel, base.k);
        let b0 = c.b.add(b0, inside);
        let b0 = c.b.add(b0, base.b);
        let zero = c.imm(elem, LANES, 0.0);
        let init = vec![zero; (rows * vectors) as usize];
        // One k a pass: Cranelift places loads before the arithmetic of their block, so every operand of an unrolled
        // body would want a register at once.
        let k0 = c.b.int(0);
        let acc = fold_over(c, k0, base.k, 1, &init, |c, k, acc| {
            let sixteen = c.b.int(PANEL);
            let bk = c.b.mul(k, sixteen);
            let bk = c.b.add(bk, b0);
            let b: Vec<Reg> = (0..vectors).map(|v| c.b.load(self.b, bk, v * lanes, LANES)).collect();
            let mut acc = acc.to_vec();
            for (&row, acc) in a_rows.iter().zip(acc.chunks_mut(vectors as usize)) {
                let at = c.b.add(row, k);
                let x = c.b.load(self.a, at, 0, 1);
                let x = c.b.splat(x, LANES);
                for (&b, acc) in b.iter().zip(acc) {
                    *acc = if elem == Elem::F32 {
                        c.b.fma(x, b, *acc)
                    } else {
                        let p = c.b.mul(x, b);
                        c.b.add(*acc, p)
                    };
                }
            }
            acc
        });
        for (r, accs) in acc.chunks(vectors as usize).enumerate() {
            let r = c.b.int(r as i64);
            let r = c.b.add(row, r);
            let o = c.b.mul(r, base.n);
            let o = c.b.add(o, base.y);
            let o = c.b.add(o, col);
            for (v, &x) in accs.iter().enumerate() {
                self.store(c, base, o, col, v as i64 * lanes, x);
            }
        }
    }

    /// Stores four columns at `col + offset`, only those below N.
    fn store(&self, c: &mut Ctx, base: &Base, at: Reg, col: Reg, offset: i64, x: Reg) {
        let width = self.tile.vectors * i64::from(LANES);
        if self.shape.n.as_const().is_some_and(|n| n % width == 0) {
            c.b.store(self.y, at, offset, x);
            return;
        }
        let lanes = i64::from(LANES);
        let end = c.b.int(offset + lanes);
        let end = c.b.add(col, end);
        let full = c.b.cmp(CmpOp::Le, end, base.n);
        when(c, full, |c| c.b.store(self.y, at, offset, x));
        let partial = c.b.cmp(CmpOp::Gt, end, base.n);
        when(c, partial, |c| {
            for l in 0..LANES {
                let column = c.b.int(offset + i64::from(l));
                let column = c.b.add(col, column);
                let inside = c.b.cmp(CmpOp::Lt, column, base.n);
                when(c, inside, |c| {
                    let v = c.b.extract(x, l);
                    c.b.store(self.y, at, offset + i64::from(l), v);
                });
            }
        });
    }
}

/// f64 products, which no vector register holds: one dot product per result.
pub fn matmul_f64(c: &mut Ctx, s: &Shape, trans: bool, shared: bool, [a, b, y]: [Arg; 3]) -> Tasks {
    let (a, b, y) = (c.input(a, DType::F64), c.input(b, DType::F64), c.output(y, DType::F64));
    let out = [s.batch.clone(), s.m.clone(), s.n.clone()];
    let sa = strides(&[s.batch.clone(), s.m.clone(), s.k.clone()])?;
    let b_shape = if trans { [&s.n, &s.k] } else { [&s.k, &s.n] };
    let sb = strides(&[s.batch.clone(), b_shape[0].clone(), b_shape[1].clone()])?;
    scalar_nest(c, &out, 64, |c, e, x| {
        let zero = c.b.int(0);
        let a0 = c.mul_add(zero, x[0], &sa[0]);
        let a0 = c.mul_add(a0, x[1], &sa[1]);
        let b0 = if shared { zero } else { c.mul_add(zero, x[0], &sb[0]) };
        let (ks, ns) = if trans { (&sb[2], &sb[1]) } else { (&sb[1], &sb[2]) };
        let b0 = c.mul_add(b0, x[2], ns);
        let init = c.imm(Elem::F64, 1, 0.0);
        let k = c.dim(&s.k);
        let v = fold_over(c, zero, k, 1, &[init], |c, k, acc| {
            let (ia, ib) = (c.b.add(a0, k), c.mul_add(b0, k, ks));
            let (p, q) = (c.b.load(a, ia, 0, 1), c.b.load(b, ib, 0, 1));
            vec![c.b.fma(p, q, acc[0])]
        });
        c.b.store(y, e, 0, v[0]);
    })
}
