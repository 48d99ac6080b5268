//! Products of 8-bit integers: how their left operand becomes integers, and their sums floats.

use bertc_ir::kernel::{Elem, Reg};
use bertc_ir::{DType, Dim, RowQuant};

use super::super::ctx::Ctx;
use super::super::quantise::{How, RowArgs, RowQuantiser};
use super::Spec;
use crate::plan::{ALIGN, Arg};

/// What makes floats of sums of products of integers.
#[derive(Clone, Debug)]
pub struct Scaling {
    /// Units of the left operand's rows `[m]`, or one of all; none if the kernel quantises the rows itself.
    pub units: Option<(Arg, PerRow)>,
    /// What 0 stands for in the left operand's rows, `[m]`.
    pub offsets: Option<Arg>,
    /// Units of the right operand's columns, `[n]`.
    pub columns: Arg,
    /// Sums of the right operand's columns, `[n]`, i32.
    pub sums: Arg,
    /// The left operand's zero point, one i32.
    pub zero: Option<Arg>,
    /// What was added to the left operand's integers where they are stored.
    pub added: i64,
}

/// Whether there is one for each row.
pub type PerRow = bool;

/// The left operand's rows of a task as integers, which the task makes itself.
pub(super) struct Quantised {
    pub(super) quantiser: RowQuantiser,
    /// The integers, four by four.
    pub(super) quads: usize,
    /// Elements of a worker: of the fours, and of units and offsets.
    elements: [i64; 2],
}

impl Quantised {
    /// `None` on overflow or if the rows have no constant length.
    pub(super) fn bind(
        c: &mut Ctx,
        quant: RowQuant,
        factor: Option<Arg>,
        scaling: &Scaling,
        s: &Spec<'_>,
        rows: i64,
    ) -> Option<Quantised> {
        let bytes = |n: i64| Some(u64::try_from(n.checked_mul(4)?).ok()?.next_multiple_of(ALIGN));
        let (integers, numbers) = (bytes(rows.checked_mul(s.shape.k.as_const()?)?)?, bytes(rows)?);
        let own = || Some(Arg::Scratch(numbers));
        let at = c.args.len() + usize::from(factor.is_some());
        let args = RowArgs {
            how: How::Rows(quant),
            factor,
            integers: Arg::Scratch(integers),
            scale: own(),
            offset: own().filter(|_| quant.offset),
            added: scaling.added,
        };
        let quantiser = RowQuantiser::bind(c, &args);
        let quads = c.input(Arg::Again(at), DType::I32);
        Some(Quantised { quantiser, quads, elements: [(integers / 4) as i64, (numbers / 4) as i64] })
    }

    /// Where row 0 would be among the fours, of `k` each, and among units and offsets, if the task's first row is `m0`.
    pub(super) fn own(&self, c: &mut Ctx, m0: Reg, k: &Dim) -> [Reg; 2] {
        let zero = c.b.int(0);
        let worker = c.b.worker();
        let [quads, numbers] = self.elements.map(|n| c.mul_add(zero, worker, &n.into()));
        let skipped = c.mul_add(zero, m0, k);
        [c.b.sub(quads, skipped), c.b.sub(numbers, m0)]
    }
}

/// What makes floats of sums: parameter numbers.
pub(super) struct Scales {
    units: usize,
    per_row: PerRow,
    offsets: Option<usize>,
    columns: usize,
    pub(super) sums: usize,
    zero: Option<usize>,
    added: i64,
}

impl Scales {
    pub(super) fn bind(c: &mut Ctx, s: Scaling, left: Option<&Quantised>) -> Scales {
        let f = DType::F32;
        let (units, per_row) = match s.units {
            Some((arg, per_row)) => (c.input(arg, f), per_row),
            None => (left.and_then(|l| l.quantiser.scale()).expect("a kernel that quantises has units"), true),
        };
        let offsets = s.offsets.map(|x| c.input(x, f)).or_else(|| left.and_then(|l| l.quantiser.offset()));
        Scales {
            units,
            per_row,
            offsets,
            columns: c.input(s.columns, f),
            sums: c.input(s.sums, DType::I32),
            zero: s.zero.map(|x| c.input(x, DType::I32)),
            added: s.added,
        }
    }

    /// Whether the products' sums start with 0.
    pub(super) fn starts_at_zero(&self) -> bool {
        self.zero.is_none() && self.added == 0
    }

    /// The factor of the columns' sums that the products' sums start with, if it isn't 0: minus what is too much in each
    /// integer of the left operand.
    pub(super) fn first(&self, c: &mut Ctx, lanes: u8) -> Option<Reg> {
        match self.zero {
            _ if self.starts_at_zero() => None,
            None => Some(c.imm(Elem::I32, lanes, -self.added as f64)),
            Some(zero) => {
                let at = c.b.int(0);
                let zero = c.b.load(zero, at, 0, 1);
                let added = c.imm(Elem::I32, 1, -self.added as f64);
                let factor = c.b.sub(added, zero);
                Some(c.b.splat(factor, lanes))
            }
        }
    }

    /// The tile's sums in units, plus offsets and bias: row by row, `vectors` registers each.
    pub(super) fn scale(
        &self,
        c: &mut Ctx,
        acc: &[Reg],
        [base, row]: [Reg; 2],
        vectors: i64,
        bias: Option<usize>,
        vector: impl Fn(&mut Ctx, usize, i64) -> Reg,
    ) -> Vec<Reg> {
        let mut y = acc.to_vec();
        let lanes = c.b.ty(acc[0]).lanes;
        let first = c.b.add(base, row);
        let number = |c: &mut Ctx, ptr: usize, r: usize| {
            let x = if self.per_row { c.b.load(ptr, first, r as i64, 1) } else { c.b.load(ptr, base, 0, 1) };
            c.b.splat(x, lanes)
        };
        // Of few registers none is there for what a memory operand can be.
        let few = lanes < 16;
        for v in 0..vectors {
            let columns_of = |c: &mut Ctx| (vector(c, self.columns, v), bias.map(|b| vector(c, b, v)));
            let kept = (!few).then(|| columns_of(c));
            let sums = self.offsets.map(|_| {
                let sums = vector(c, self.sums, v);
                c.b.convert(sums, Elem::F32)
            });
            for (r, x) in y.iter_mut().skip(v as usize).step_by(vectors as usize).enumerate() {
                let sum = c.b.convert(*x, Elem::F32);
                let unit = number(c, self.units, r);
                let sum = match (self.offsets, sums) {
                    (Some(offsets), Some(sums)) => {
                        let offset = number(c, offsets, r);
                        let rest = c.b.mul(sums, offset);
                        c.b.fma(sum, unit, rest)
                    }
                    _ => c.b.mul(sum, unit),
                };
                let (columns, bias) = kept.unwrap_or_else(|| columns_of(c));
                *x = match bias {
                    Some(bias) => c.b.fma(sum, columns, bias),
                    None => c.b.mul(sum, columns),
                };
            }
        }
        y
    }
}
