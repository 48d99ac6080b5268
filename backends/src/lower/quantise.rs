//! Rows as 8-bit integers: what kernels do with a row that products of integers read, and which kernel does it.

use bertc_ir::kernel::{Bin, DotKind, Elem, Reg, Un};
use bertc_ir::{CmpOp, DType, Diag, Op, RowQuant, ValueId};

use super::ctx::Ctx;
use super::norm::Row;
use super::sum_norm::{self, Term, sum_norm};
use super::{Lowering, elementwise};
use crate::plan::Arg;

/// How elements become integers.
#[derive(Clone, Copy, Debug)]
pub enum How {
    /// By the range of their row.
    Rows(RowQuant),
    /// As [`Op::Quantise`] says, with a constant scale and zero point.
    Constant { to: DType, scale: f64, zero: f64 },
}

impl How {
    /// That of rows.
    pub(super) fn rows(self) -> Option<RowQuant> {
        if let How::Rows(quant) = self { Some(quant) } else { None }
    }
}

/// The values that one look at the rows of another one gives.
#[derive(Clone, Debug)]
pub(super) struct RowGroup {
    pub how: How,
    pub factor: Option<ValueId>,
    pub integers: ValueId,
    pub scale: Option<ValueId>,
    pub offset: Option<ValueId>,
}

impl RowGroup {
    pub fn values(&self) -> impl Iterator<Item = ValueId> {
        [Some(self.integers), self.scale, self.offset].into_iter().flatten()
    }
}

/// Memory of a [`RowGroup`].
#[derive(Clone, Debug)]
pub struct RowArgs {
    pub how: How,
    /// `[n]`, f32.
    pub factor: Option<Arg>,
    /// `[m, n]`, bytes.
    pub integers: Arg,
    /// `[m]`, f32.
    pub scale: Option<Arg>,
    /// `[m]`, f32.
    pub offset: Option<Arg>,
    /// Added to the integers where they are stored.
    pub added: i64,
}

/// The same in a kernel: parameter numbers.
pub struct RowQuantiser {
    how: How,
    factor: Option<usize>,
    integers: usize,
    scale: Option<usize>,
    offset: Option<usize>,
    added: i64,
}

/// 1.5·2²³: a float of up to 2²² around it is an integer, which its low bits show in two's complement.
const INTEGERS: f64 = 12_582_912.0;

impl RowQuantiser {
    pub fn bind(c: &mut Ctx, args: &RowArgs) -> RowQuantiser {
        let f = DType::F32;
        RowQuantiser {
            how: args.how,
            factor: args.factor.clone().map(|x| c.input(x, f)),
            integers: c.output(args.integers.clone(), DType::I8),
            scale: args.scale.clone().map(|x| c.output(x, f)),
            offset: args.offset.clone().map(|x| c.output(x, f)),
            added: args.added,
        }
    }

    /// Whether the integers' steps depend on their row.
    pub fn is_of_rows(&self) -> bool {
        self.how.rows().is_some()
    }

    /// Parameter number of the scales.
    pub fn scale(&self) -> Option<usize> {
        self.scale
    }

    /// Parameter number of the offsets.
    pub fn offset(&self) -> Option<usize> {
        self.offset
    }

    /// Makes integers of a whole row that is in `ptr` from element `from` on: from element `to` of the integers on, and
    /// element `index` of units and offsets.
    pub fn apply(&self, c: &mut Ctx, row: &Row<'_>, (ptr, from): (usize, Reg), to: Reg, index: Reg) {
        let from = c.b.address(ptr, from, 0);
        let to = c.b.address(self.integers, to, 0);
        let element = |c: &mut Ctx, i: Reg, lanes: u8| {
            let x = c.load_from(ptr, from, i, lanes);
            match self.factor {
                Some(factor) => {
                    let f = c.b.load(factor, i, 0, lanes);
                    c.b.mul(x, f)
                }
                None => x,
            }
        };
        let quant = match self.how {
            How::Rows(quant) => quant,
            How::Constant { to: dtype, scale, zero } => {
                row.each(c, |c, i, lanes| {
                    let x = element(c, i, lanes);
                    let (scale, zero) = (c.imm(Elem::F32, lanes, scale), c.imm(Elem::I32, lanes, zero));
                    let x = elementwise::quantise(c, dtype, x, scale, zero);
                    let added = c.imm(Elem::I32, lanes, self.added as f64);
                    let x = c.b.add(x, added);
                    c.store_from(self.integers, to, i, x);
                });
                return;
            }
        };
        let one = |c: &mut Ctx, v: f64| c.imm(Elem::F32, 1, v);
        let (units, low, span) = if quant.offset {
            let [low, high] = row.extremes(c, [Bin::Min, Bin::Max], element);
            (255.0, Some(low), c.b.sub(high, low))
        } else {
            let [high] = row.extremes(c, [Bin::Max], |c, i, lanes| {
                let x = element(c, i, lanes);
                c.b.un(Un::Abs, x)
            });
            (127.0, None, high)
        };
        if let Some(scale) = self.scale {
            let unit = one(c, f64::from(1.0f32 / units));
            let unit = c.b.mul(span, unit);
            c.b.store(scale, index, 0, unit);
        }
        if let Some(offset) = self.offset {
            let middle = match low {
                Some(low) => {
                    let half = one(c, f64::from(128.0f32 / 255.0));
                    let half = c.b.mul(span, half);
                    c.b.add(half, low)
                }
                None => one(c, 0.0),
            };
            c.b.store(offset, index, 0, middle);
        }
        let (units, zero) = (one(c, units.into()), one(c, 0.0));
        let inverse = c.b.div(units, span);
        let empty = c.b.cmp(CmpOp::Eq, span, zero);
        let inverse = c.b.select(empty, zero, inverse);
        let shift = self.added - if quant.offset { 128 } else { 0 };
        row.each(c, |c, i, lanes| {
            let mut x = element(c, i, lanes);
            if let Some(low) = low {
                let low = c.b.splat(low, lanes);
                x = c.b.sub(x, low);
            }
            let inverse = c.b.splat(inverse, lanes);
            x = c.b.mul(x, inverse);
            // The addition rounds to nearest even.
            let integers = c.imm(Elem::F32, lanes, INTEGERS + shift as f64);
            x = c.b.add(x, integers);
            let x = c.b.bitcast(x, Elem::I32);
            c.store_from(self.integers, to, i, x);
        });
    }

    /// Stores a unit and an offset of 0, with which the integers of a row don't matter.
    pub fn clear(&self, c: &mut Ctx, index: Reg) {
        for ptr in [self.scale, self.offset].into_iter().flatten() {
            let none = c.imm(Elem::F32, 1, 0.0);
            c.b.store(ptr, index, 0, none);
        }
    }
}

/// The operands of a row op, if `v` is one.
fn row_op(op: &Op) -> Option<RowQuant> {
    match op {
        Op::RowScale(q) | Op::RowOffset(q) | Op::QuantiseRows(q) => Some(*q),
        _ => None,
    }
}

impl Lowering<'_> {
    /// What is to be made of the rows of `x` besides `x`: the first [`Op::QuantiseRows`] of it, and what goes with that.
    fn group_of(&self, x: ValueId) -> Option<RowGroup> {
        let users = self.g.users(x);
        let Some(&integers) = users.iter().find(|&&u| matches!(self.g.op(u), Op::QuantiseRows(_))) else {
            return users.iter().find_map(|&u| self.constant_group(u, x));
        };
        let quant = row_op(self.g.op(integers))?;
        let with = |f: fn(RowQuant) -> Op| {
            let same =
                |&&u: &&ValueId| *self.g.op(u) == f(quant) && self.g.operands(u)[1..] == self.g.operands(integers)[1..];
            users.iter().find(same).copied()
        };
        let (scale, offset) = (with(Op::RowScale), with(Op::RowOffset));
        let factor = quant.factor_at().map(|at| self.g.operands(integers)[at]);
        let group = RowGroup { how: How::Rows(quant), factor, integers, scale, offset };
        let free = group.values().all(|v| self.is_free(v));
        free.then_some(group)
    }

    /// Whether a value may be written with another one: an output may have to be written later.
    fn is_free(&self, v: ValueId) -> bool {
        !self.g.outputs().iter().any(|o| self.roots.get(&o.value) == Some(&v))
    }

    /// The group that `v` is by itself, if it makes integers of `x` with a constant scale and zero point.
    fn constant_group(&self, v: ValueId, x: ValueId) -> Option<RowGroup> {
        let (&Op::Quantise { to }, &[of, scale, zero]) = (self.g.op(v), self.g.operands(v)) else { return None };
        let number = |v: ValueId| Some(self.g.as_const(self.roots[&v])?.single()?.to_f64());
        let how = How::Constant { to, scale: number(scale)?, zero: number(zero)? };
        let group = RowGroup { how, factor: None, integers: v, scale: None, offset: None };
        (of == x && self.is_free(v)).then_some(group)
    }

    /// The group that the kernel of `x` makes.
    pub(super) fn fused_group(&self, x: ValueId) -> Option<RowGroup> {
        let rows = matches!(self.g.op(x), Op::Linear(_) | Op::SumNorm(_));
        // Rows of padding would have to become what 0 does.
        let lengths = matches!(self.g.op(x), Op::Linear(l) if l.lengths);
        let constant = self.g.ty(x).shape.last().is_some_and(|n| n.as_const().is_some_and(|n| n > 0));
        let group = if rows && constant { self.group_of(x) } else { None };
        group.filter(|g| !lengths || g.how.rows().is_some())
    }

    /// The group that the product which reads it makes of its left operand, for its own rows.
    pub(super) fn group_at_product(&self, integers: ValueId) -> Option<RowGroup> {
        let Op::QuantiseRows(_) = self.g.op(integers) else { return None };
        let x = self.g.operands(integers)[0];
        let group = self.group_of(x).filter(|g| g.integers == integers)?;
        let [user] = self.g.users(integers)[..] else { return None };
        let Op::Linear(l) = self.g.op(user) else { return None };
        let alone = group.values().all(|v| self.g.users(v) == [user]);
        // Only a task that has whole rows of the result makes the integers once.
        let rows = l.norm.is_some() || self.fused_group(user).is_some();
        let o = self.g.operands(user);
        let left = l.scales_at().is_some_and(|at| group.scale == Some(o[at])) && o[1..].iter().all(|&o| o != integers);
        let left = left && l.offset_at().map(|at| o[at]) == group.offset;
        (alone && rows && left && self.fused_group(x).is_none()).then_some(group)
    }

    /// Whether the product that reads `v` makes it.
    pub(super) fn is_made_at_product(&self, v: ValueId) -> bool {
        let users = self.g.users(self.g.operands(v)[0]);
        let groups = users.iter().filter_map(|&u| self.group_at_product(u));
        groups.flat_map(|g| g.values().collect::<Vec<_>>()).any(|made| made == v)
    }

    /// Whether only products of integers read `v`, at their left.
    fn is_left_only(&self, v: ValueId) -> bool {
        self.read_only_at(v, |u, i| i == 0 && matches!(self.g.op(u), Op::Linear(l) if l.int8))
    }

    /// What is added to integers of `v` where they are stored, so that they are unsigned where the target multiplies
    /// unsigned ones, and else signed.
    pub(super) fn added(&self, v: ValueId) -> i64 {
        let made = matches!(self.g.op(v), Op::QuantiseRows(_) | Op::Quantise { .. });
        if !made || !self.is_left_only(v) {
            return 0;
        }
        match (self.g.ty(v).dtype, self.target.fastest_int8() == DotKind::U8I8) {
            (DType::I8, true) => 128,
            (DType::U8, false) => -128,
            _ => 0,
        }
    }

    /// Memory for a group that a kernel makes.
    pub(super) fn define_group(&mut self, g: &RowGroup) -> Result<RowArgs, Diag> {
        let added = self.added(g.integers);
        let mut define = |v: Option<ValueId>| v.map(|v| self.define(v)).transpose();
        let (scale, offset) = (define(g.scale)?, define(g.offset)?);
        let integers = self.define(g.integers)?;
        self.made.extend(g.values());
        let factor = g.factor.map(|f| self.arg(f));
        Ok(RowArgs { how: g.how, factor, integers, scale, offset, added })
    }

    /// A step that makes integers of rows, or what they mean.
    pub(super) fn quantise_rows(&mut self, v: ValueId) -> Result<(), Diag> {
        let quant = row_op(self.g.op(v)).ok_or_else(|| self.overflow(v))?;
        let operands = self.g.operands(v).to_vec();
        let x = operands[0];
        let group = self.group_of(x).filter(|g| g.values().any(|u| u == v) && !self.made.contains(&g.integers));
        let args = match group {
            Some(g) => self.define_group(&g)?,
            // By itself: nobody reads the integers, or there are others.
            None => {
                let own = self.define(v)?;
                let factor = quant.factor_at().map(|at| self.arg(operands[at]));
                let mut args = RowArgs {
                    how: How::Rows(quant),
                    factor,
                    integers: own.clone(),
                    scale: None,
                    offset: None,
                    added: 0,
                };
                match self.g.op(v) {
                    Op::RowScale(_) => args.scale = Some(own),
                    Op::RowOffset(_) => args.offset = Some(own),
                    _ => args.added = self.added(v),
                }
                if !matches!(self.g.op(v), Op::QuantiseRows(_)) {
                    let bytes = self.g.ty(x).elements().ok_or_else(|| self.overflow(v))?;
                    args.integers = Arg::Buffer(self.temp(bytes));
                }
                args
            }
        };
        let ty = self.g.ty(x).clone();
        let overflow = self.overflow(v);
        let (n, lead) = ty.shape.split_last().ok_or_else(|| overflow.clone())?;
        let mut c = Ctx::new("quantise_rows");
        let strides = super::nest::strides(&ty.shape).ok_or_else(|| overflow.clone())?[..lead.len()].to_vec();
        let arg = self.arg(x);
        let terms = [Term { ptr: c.input(arg, ty.dtype), ids: None, scales: None, strides, repeated: false }];
        let quantiser = RowQuantiser::bind(&mut c, &args);
        let spec = sum_norm::Spec { lanes: self.tile.lanes, lead, n, dtype: ty.dtype };
        let tasks = sum_norm(&mut c, &spec, &terms, None, None, Some(&quantiser));
        self.step(v, c, tasks)
    }

    /// A step that makes integers of a tensor with one scale.
    pub(super) fn quantise(&mut self, v: ValueId, to: DType) -> Result<(), Diag> {
        let added = self.added(v);
        self.elementwise(v, "quantise", move |c, x| {
            let y = elementwise::quantise(c, to, x[0], x[1], x[2]);
            let lanes = c.b.ty(y).lanes;
            let added = c.imm(Elem::I32, lanes, added as f64);
            c.b.add(y, added)
        })
    }
}
