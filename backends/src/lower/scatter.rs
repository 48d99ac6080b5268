//! Scatters: changes of a tensor at the places that indices name, one after the other where these repeat.

use bertc_ir::kernel::{Bin, Elem, Reg, Un};
use bertc_ir::{BinaryOp, DType, Diag, Dim, Op, ValueId};

use super::ctx::Ctx;
use super::elementwise::binary;
use super::gather::{Operand, index};
use super::nest::{loop_over, scalar_nest, strides, vector_end, when};
use super::rows::axis_base;
use super::{LANES, Lowering};
use crate::plan::Arg;

type Tasks = Option<Vec<(Dim, i64)>>;

impl Lowering<'_> {
    /// A copy of the data, and a step that changes it.
    pub(super) fn scatter(&mut self, v: ValueId) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let y = self.define(v)?;
        let shape = node.ty.shape.clone();
        let from = self.view(node.operands[0], &shape).ok_or_else(|| self.overflow(v))?;
        let to = Self::whole(y.clone(), node.ty.dtype, &shape).ok_or_else(|| self.overflow(v))?;
        self.copy_views(v, &shape, from, to)?;
        if let Some(s) = self.steps.last_mut() {
            s.fallible = false;
        }
        let [indices, updates] = [1, 2].map(|i| {
            let ty = self.g.ty(node.operands[i]).clone();
            Operand { arg: self.arg(node.operands[i]), dtype: ty.dtype, shape: ty.shape }
        });
        let data = Operand { arg: y, dtype: node.ty.dtype, shape };
        let mut c = Ctx::new(node.op.name());
        let tasks = match node.op {
            Op::ScatterElements { axis, combine } => elements(&mut c, axis, combine, &data, &indices, updates.arg),
            Op::ScatterNd { combine } => nd(&mut c, combine, &data, &indices, updates.arg),
            op => return Err(Diag::new(format!("'{}' is no scatter", op.name())).at(node.loc)),
        };
        self.step(v, c, tasks)
    }
}

/// Elements of a part that a task changes: each task goes through all indices.
const PART: i64 = 4096;

/// Runs `body` unless `bad`, which fails.
fn unless(c: &mut Ctx, bad: Reg, body: impl FnOnce(&mut Ctx)) {
    when(c, bad, |c| c.b.fail());
    let good = c.b.un(Un::Not, bad);
    when(c, good, body);
}

/// One update: the element at `from` of `u` into the one at `at` of `y`.
fn put(
    c: &mut Ctx,
    combine: Option<BinaryOp>,
    dtype: DType,
    (u, from): (usize, Reg),
    (y, at): (usize, Reg),
    lanes: u8,
) {
    let mut v = c.b.load(u, from, 0, lanes);
    if let Some(op) = combine {
        let old = c.b.load(y, at, 0, lanes);
        v = binary(c, op, dtype, old, v);
    }
    c.b.store(y, at, 0, v);
}

/// `data[…, indices[…, j, …], …]` becomes `updates[…, j, …]`. A task owns whole lines along the axis: no other index
/// leads into them.
pub fn elements(
    c: &mut Ctx,
    axis: usize,
    combine: Option<BinaryOp>,
    data: &Operand,
    indices: &Operand,
    updates: Arg,
) -> Tasks {
    let idx = c.input(indices.arg.clone(), indices.dtype);
    let u = c.input(updates, data.dtype);
    let y = c.output(data.arg.clone(), data.dtype);
    let (from, to) = (strides(&indices.shape)?, strides(&data.shape)?);
    let mut lines = indices.shape.clone();
    let len = lines.remove(axis);
    scalar_nest(c, &lines, 64, |c, _, coords| {
        let (first, base) = (axis_base(c, coords, axis, &from), axis_base(c, coords, axis, &to));
        let (lo, hi) = (c.b.int(0), c.dim(&len));
        loop_over(c, lo, hi, 1, |c, j| {
            let at = c.mul_add(first, j, &from[axis]);
            let (i, bad) = index(c, idx, at, 0, &data.shape[axis]);
            unless(c, bad, |c| {
                let place = c.mul_add(base, i, &to[axis]);
                put(c, combine, data.dtype, (u, at), (y, place), 1);
            });
        });
    })
}

/// The parts of the data that the tuples along the last dim of the indices address become those of the updates. A task
/// owns a range of every part and goes through all tuples.
pub fn nd(c: &mut Ctx, combine: Option<BinaryOp>, data: &Operand, indices: &Operand, updates: Arg) -> Tasks {
    let (tuples, k) = indices.shape.split_at(indices.shape.len() - 1);
    let k = usize::try_from(k[0].as_const()?).ok()?;
    let idx = c.input(indices.arg.clone(), indices.dtype);
    let u = c.input(updates, data.dtype);
    let y = c.output(data.arg.clone(), data.dtype);
    let st = strides(&data.shape)?;
    let (tuples, inner) = (Dim::product(tuples)?, Dim::product(&data.shape[k..])?);
    let t = c.b.task();
    let (begin, end) = c.chunk(t, &inner, PART);
    let (zero, count) = (c.b.int(0), c.dim(&tuples));
    loop_over(c, zero, count, 1, |c, t| {
        let at = c.mul_add(zero, t, &Dim::constant(k as i64));
        let (mut to, mut bad) = (zero, None);
        for (j, (size, stride)) in data.shape[..k].iter().zip(&st).enumerate() {
            let (i, outside) = index(c, idx, at, j as i64, size);
            to = c.mul_add(to, i, stride);
            bad = Some(bad.map_or(outside, |b| c.b.bin(Bin::Or, b, outside)));
        }
        let Some(bad) = bad else { return };
        let from = c.mul_add(zero, t, &inner);
        unless(c, bad, |c| {
            let mut tail = begin;
            let one = |c: &mut Ctx, e: Reg, lanes: u8| {
                let (a, b) = (c.b.add(from, e), c.b.add(to, e));
                put(c, combine, data.dtype, (u, a), (y, b), lanes);
            };
            if Elem::of(data.dtype).vectorises() {
                tail = vector_end(c, begin, end);
                loop_over(c, begin, tail, i64::from(LANES), |c, e| one(c, e, LANES));
            }
            loop_over(c, tail, end, 1, |c, e| one(c, e, 1));
        });
    });
    Some(vec![(inner, PART)])
}
