//! The indices of the largest or smallest elements along an axis, in order.

use bertc_ir::kernel::{Bin, Reg, Un};
use bertc_ir::{CmpOp, DType, Dim};

use super::ctx::Ctx;
use super::elementwise::compare;
use super::nest::{fold_over, loop_over, scalar_nest, strides, when};
use super::rows::axis_base;
use crate::plan::Arg;

type Tasks = Option<Vec<(Dim, i64)>>;

/// Whether `a` is more extreme than `b`; NaN is above all numbers.
fn beyond(c: &mut Ctx, smallest: bool, dtype: DType, a: Reg, b: Reg) -> Reg {
    let m = compare(c, if smallest { CmpOp::Lt } else { CmpOp::Gt }, dtype, a, b);
    if !dtype.is_float() {
        return m;
    }
    let (nan, number) = if smallest { (b, a) } else { (a, b) };
    let nan = c.b.cmp(CmpOp::Ne, nan, nan);
    let number = c.b.cmp(CmpOp::Eq, number, number);
    let apart = c.b.bin(Bin::And, nan, number);
    c.b.bin(Bin::Or, m, apart)
}

/// An element and its index.
#[derive(Clone, Copy)]
struct Entry {
    value: Reg,
    index: Reg,
}

/// Whether `a` comes before `b`: it is more extreme, or no less so and has the lower index.
fn before(c: &mut Ctx, smallest: bool, dtype: DType, a: Entry, b: Entry) -> Reg {
    let more = beyond(c, smallest, dtype, a.value, b.value);
    let less = beyond(c, smallest, dtype, b.value, a.value);
    let lower = c.b.cmp(CmpOp::Lt, a.index, b.index);
    let not_less = c.b.un(Un::Not, less);
    let tie = c.b.bin(Bin::And, not_less, lower);
    c.b.bin(Bin::Or, more, tie)
}

/// Insertion into the result, which holds the best ones so far in order. An element that isn't among them costs one
/// comparison, so that a line of any length is about one pass where `k` is small.
pub fn top_k(
    c: &mut Ctx,
    shape: &[Dim],
    (axis, k, smallest): (usize, &Dim, bool),
    dtype: DType,
    x: Arg,
    y: Arg,
) -> Tasks {
    let (x, y) = (c.input(x, dtype), c.output(y, DType::I64));
    let mut result = shape.to_vec();
    result[axis] = k.clone();
    let (from, to) = (strides(shape)?, strides(&result)?);
    let mut lines = shape.to_vec();
    let len = lines.remove(axis);
    scalar_nest(c, &lines, 16, |c, _, coords| {
        let (source, list) = (axis_base(c, coords, axis, &from), axis_base(c, coords, axis, &to));
        let entry = |c: &mut Ctx, index: Reg| {
            let at = c.mul_add(source, index, &from[axis]);
            Entry { value: c.b.load(x, at, 0, 1), index }
        };
        let (zero, one) = (c.b.int(0), c.b.int(1));
        c.b.store(y, list, 0, zero);
        let (n, most) = (c.dim(&len), c.dim(k));
        loop_over(c, one, n, 1, |c, i| {
            let e = entry(c, i);
            let held = c.b.min(i, most);
            let last = c.b.sub(held, one);
            let last = c.mul_add(list, last, &to[axis]);
            let last = c.b.load(y, last, 0, 1);
            let worst = entry(c, last);
            let better = beyond(c, smallest, dtype, e.value, worst.value);
            let room = c.b.cmp(CmpOp::Lt, i, most);
            let enters = c.b.bin(Bin::Or, better, room);
            when(c, enters, |c| {
                // From its place on, everything moves by one.
                let out = fold_over(c, zero, held, 1, &[e.value, e.index], |c, j, a| {
                    let moved = Entry { value: a[0], index: a[1] };
                    let place = c.mul_add(list, j, &to[axis]);
                    let there = c.b.load(y, place, 0, 1);
                    let there = entry(c, there);
                    let first = before(c, smallest, dtype, moved, there);
                    let stays = c.b.select(first, moved.index, there.index);
                    c.b.store(y, place, 0, stays);
                    vec![c.b.select(first, there.value, moved.value), c.b.select(first, there.index, moved.index)]
                });
                when(c, room, |c| {
                    let place = c.mul_add(list, i, &to[axis]);
                    c.b.store(y, place, 0, out[1]);
                });
            });
        });
    })
}
