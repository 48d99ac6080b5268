//! Rows without a result: those of a matrix that are not below its length. They become 0, and whole tiles of them are
//! not computed.

use bertc_ir::kernel::{Bin, Elem, Reg, Un};
use bertc_ir::{CmpOp, DType, Dim};

use super::ctx::Ctx;
use super::micro::round_down;
use super::nest::{fold_over, when};
use super::norm::Row;
use crate::plan::Arg;

/// The lengths of matrices that lie one behind the other.
pub struct Lengths {
    /// Parameter number, i64.
    ptr: usize,
    /// Rows of a matrix.
    rows: Dim,
}

impl Lengths {
    /// Binds the lengths of matrices of `rows` rows each.
    pub fn bind(c: &mut Ctx, arg: Arg, rows: &Dim) -> Lengths {
        Lengths { ptr: c.input(arg, DType::I64), rows: rows.clone() }
    }

    /// The length of a matrix, as its kernel reads it.
    pub fn of(&self, c: &mut Ctx, matrix: Reg) -> Reg {
        c.b.load(self.ptr, matrix, 0, 1)
    }

    /// Whether row `r`, counted over all matrices, is below its matrix's length.
    fn has(&self, c: &mut Ctx, r: Reg) -> Reg {
        let rows = c.dim(&self.rows);
        let (matrix, row) = (c.b.bin(Bin::DivU, r, rows), c.b.bin(Bin::RemU, r, rows));
        let length = self.of(c, matrix);
        c.b.cmp(CmpOp::Lt, row, length)
    }

    /// The part of `lo..hi` from the first to the last row that has a result, widened to multiples of `height` from
    /// `lo` on; empty if there is none.
    pub fn span(&self, c: &mut Ctx, [lo, hi]: [Reg; 2], height: i64) -> [Reg; 2] {
        let found = fold_over(c, lo, hi, 1, &[hi, lo], |c, r, found| {
            let has = self.has(c, r);
            let first = c.b.min(found[0], r);
            let one = c.b.int(1);
            let behind = c.b.add(r, one);
            vec![c.b.select(has, first, found[0]), c.b.select(has, behind, found[1])]
        });
        let up = c.b.int(height - 1);
        let first = c.b.sub(found[0], lo);
        let first = round_down(c, first, height);
        let last = c.b.sub(found[1], lo);
        let last = c.b.add(last, up);
        let last = round_down(c, last, height);
        let last = c.b.add(lo, last);
        let last = c.b.min(last, hi);
        let first = c.b.add(lo, first);
        [c.b.min(first, last), last]
    }

    /// `body` for a row that has a result, `otherwise` for another.
    pub fn row(&self, c: &mut Ctx, r: Reg, body: impl FnOnce(&mut Ctx), otherwise: impl FnOnce(&mut Ctx)) {
        let has = self.has(c, r);
        when(c, has, body);
        let no = c.b.un(Un::Not, has);
        when(c, no, otherwise);
    }
}

/// Sets a row's elements of `ptr` from `offset` on to 0.
pub fn zero(c: &mut Ctx, row: &Row<'_>, ptr: usize, offset: Reg) {
    let at = c.b.address(ptr, offset, 0);
    row.each(c, |c, i, lanes| {
        let none = c.imm(Elem::F32, lanes, 0.0);
        c.store_from(ptr, at, i, none);
    });
}
