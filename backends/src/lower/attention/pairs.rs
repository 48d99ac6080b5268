//! Keys, values and probabilities as pairs of bf16, which products take two k at a time of.

use bertc_ir::kernel::{Bin, Elem, Reg};
use bertc_ir::{CmpOp, DType, Dim};

use super::super::ctx::Ctx;
use super::super::gemm::Tile;
use super::super::nest::{loop_over, when};
use super::super::norm::Row;
use super::{Attention, KEYS};
use crate::plan::{ALIGN, Arg};

/// Lanes of the narrowest register of columns.
pub const COLUMNS: i64 = 4;

/// Whether heads of these sizes of keys and values can be taken in pairs.
pub fn possible(d: i64, e: i64) -> bool {
    d % 2 == 0 && e % COLUMNS == 0
}

/// Scratch memory of bf16.
pub struct Pairs {
    /// Its parameter.
    pub ptr: usize,
    /// The worker's first element: of `[KEYS/16][D/2][16][2]`, keys in lanes.
    pub own: Reg,
    /// The first element of `[KEYS/2][E][2]`.
    pub values: Reg,
    /// Where `[rows of the tile][KEYS]` is.
    pub probabilities: Reg,
}

impl Pairs {
    /// The worker's memory for keys of `d` and values of `e` elements; `None` on overflow.
    pub fn bind(c: &mut Ctx, tile: &Tile, d: i64, e: i64) -> Option<Pairs> {
        let values = KEYS.checked_mul(d)?;
        let probabilities = KEYS.checked_mul(e)?.checked_add(values)?;
        let elements = probabilities.checked_add(tile.rows * KEYS)?;
        let bytes = u64::try_from(elements.checked_mul(2)?).ok()?.next_multiple_of(ALIGN);
        let ptr = c.output(Arg::Scratch(bytes), DType::BF16);
        let (zero, worker) = (c.b.int(0), c.b.worker());
        let own = c.mul_add(zero, worker, &((bytes / 2) as i64).into());
        let values = c.b.int(values);
        let values = c.b.add(own, values);
        Some(Pairs { ptr, own, values, probabilities: c.b.address(ptr, own, probabilities) })
    }
}

impl Attention {
    /// Packs `count` values from `t0` on, each two of them side by side. What would stand beside an odd last one is 0.
    pub(super) fn pack_value_pairs(&self, c: &mut Ctx, p: &Pairs, t0: Reg, count: Reg) {
        let (zero, low) = (c.b.int(0), c.b.int(-2));
        let even = c.b.bin(Bin::And, count, low);
        let first = c.mul_add(self.origin[2], t0, &self.v_stride);
        loop_over(c, zero, even, 2, |c, t| self.pack_pair(c, p, first, t, true));
        let odd = c.b.cmp(CmpOp::Lt, even, count);
        when(c, odd, |c| self.pack_pair(c, p, first, even, false));
    }

    /// Packs value `t` of those that begin at element `first`, and the one behind it if there is one.
    fn pack_pair(&self, c: &mut Ctx, p: &Pairs, first: Reg, t: Reg, both: bool) {
        let start = c.mul_add(first, t, &self.v_stride);
        let one = c.b.address(self.v, start, 0);
        let next = c.dim(&self.v_stride);
        let next = c.b.add(start, next);
        let other = c.b.address(self.v, next, 0);
        let (lo, hi, len) = (c.b.int(0), c.b.int(self.e), Dim::constant(self.e));
        Row { lo, hi, len: &len, lanes: self.tile.lanes }.each(c, |c, x, lanes| {
            // Widened, an element has its bits in the high half.
            let bits = |c: &mut Ctx, base: Reg| {
                let v = c.load_from(self.v, base, x, lanes);
                c.b.bitcast(v, Elem::I32)
            };
            let low = bits(c, one);
            let sixteen = c.imm(Elem::I32, lanes, 16.0);
            let mut pair = c.b.bin(Bin::ShrU, low, sixteen);
            if both {
                let high = bits(c, other);
                pair = c.b.bin(Bin::Or, pair, high);
            }
            let at = c.mul_add(p.values, t, &len);
            let at = c.mul_add(at, x, &2.into());
            c.b.store(p.ptr, at, 0, pair);
        });
    }
}
