//! What surrounds the [GEMM template](super::gemm): sizes, the packing of right operands known only at run time, and
//! f64 products.
//!
//! Packed layout: `[ceil(N/16)][K][16]`, zero-padded, one such block per batch.

use bertc_ir::kernel::{Bin, Elem, Reg, RegType};
use bertc_ir::{CmpOp, DType, Dim};

use super::LANES;
use super::ctx::Ctx;
use super::nest::{fold_over, loop_over, scalar_nest, strides, when};
use crate::plan::Arg;

type Tasks = Option<Vec<(Dim, i64)>>;

/// Columns of a packed panel.
pub const PANEL: i64 = 16;
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
