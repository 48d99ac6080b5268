//! Row-wise kernels: reductions, softmax and layer norm.

use bertc_ir::kernel::{Bin, Elem, Reg, Un};
use bertc_ir::{CmpOp, DType, Dim, ReduceOp};

use super::LANES;
use super::ctx::Ctx;
use super::elementwise::{binary, compare, reduce_init, reduce_step};
use super::nest::{fold_over, loop_over, rows_per_task, scalar_nest, strides, vector_end};
use crate::plan::Arg;
use crate::vecmath;

type Tasks = Option<Vec<(Dim, i64)>>;

/// A run of elements in memory: `ptr[offset + i·stride]` for `i` in `0..len`.
struct Run {
    /// Its number among the runs.
    row: Reg,
    ptr: usize,
    offset: Reg,
    stride: Dim,
    len: Dim,
    vector: bool,
}

impl Run {
    fn load(&self, c: &mut Ctx, i: Reg, lanes: u8) -> Reg {
        let index = c.mul_add(self.offset, i, &self.stride);
        c.b.load(self.ptr, index, 0, lanes)
    }

    fn store(&self, c: &mut Ctx, ptr: usize, i: Reg, v: Reg) {
        let index = c.mul_add(self.offset, i, &self.stride);
        c.b.store(ptr, index, 0, v);
    }

    /// Folds the run into one scalar: whole vectors first, then lanes pairwise, then the tail. The order depends on
    /// the length only.
    fn fold(&self, c: &mut Ctx, op: ReduceOp, dtype: DType, map: &mut dyn FnMut(&mut Ctx, Reg, Reg, u8) -> Reg) -> Reg {
        let (lo, hi) = (c.b.int(0), c.dim(&self.len));
        let mut from = lo;
        let mut acc = reduce_init(c, op, dtype, 1);
        if self.vector {
            from = vector_end(c, lo, hi);
            let init = reduce_init(c, op, dtype, LANES);
            let v = fold_over(c, lo, from, i64::from(LANES), &[init], |c, i, a| {
                let x = self.load(c, i, LANES);
                let x = map(c, i, x, LANES);
                vec![reduce_step(c, op, dtype, a[0], x)]
            });
            let mut lanes: Vec<Reg> = (0..LANES).map(|l| c.b.extract(v[0], l)).collect();
            while lanes.len() > 1 {
                let half = lanes.len() / 2;
                lanes = (0..half).map(|i| reduce_step(c, op, dtype, lanes[i], lanes[i + half])).collect();
            }
            acc = lanes[0];
        }
        fold_over(c, from, hi, 1, &[acc], |c, i, a| {
            let x = self.load(c, i, 1);
            let x = map(c, i, x, 1);
            vec![reduce_step(c, op, dtype, a[0], x)]
        })[0]
    }

    /// Runs `body` with each index, in vectors where possible.
    fn each(&self, c: &mut Ctx, body: &mut dyn FnMut(&mut Ctx, Reg, u8)) {
        let (lo, hi) = (c.b.int(0), c.dim(&self.len));
        let mut from = lo;
        if self.vector {
            from = vector_end(c, lo, hi);
            loop_over(c, lo, from, i64::from(LANES), |c, i| body(c, i, LANES));
        }
        loop_over(c, from, hi, 1, |c, i| body(c, i, 1));
    }
}

/// Loops over the rows of `shape` along `axis`; `body` gets the row's run in `x`.
fn rows(c: &mut Ctx, shape: &[Dim], axis: usize, x: usize, dtype: DType, body: impl FnOnce(&mut Ctx, &Run)) -> Tasks {
    let (outer, inner) = (Dim::product(&shape[..axis])?, Dim::product(&shape[axis + 1..])?);
    let len = shape[axis].clone();
    let total = outer.mul(&inner)?;
    let block = inner.mul(&len)?;
    let per_task = rows_per_task(&len);
    let t = c.b.task();
    let (lo, hi) = c.chunk(t, &total, per_task);
    let contiguous = inner.as_const() == Some(1);
    loop_over(c, lo, hi, 1, |c, r| {
        let zero = c.b.int(0);
        let offset = if contiguous {
            c.mul_add(zero, r, &len)
        } else {
            let n = c.dim(&inner);
            let (o, i) = (c.b.bin(Bin::DivU, r, n), c.b.bin(Bin::RemU, r, n));
            c.mul_add(i, o, &block)
        };
        let vector = contiguous && Elem::of(dtype).vectorises();
        body(c, &Run { row: r, ptr: x, offset, stride: inner.clone(), len: len.clone(), vector });
    });
    Some(vec![(total, per_task)])
}

fn count(c: &mut Ctx, n: &Dim, elem: Elem) -> Reg {
    let n = c.dim(n);
    c.b.convert(n, elem)
}

/// Softmax over one axis.
pub fn softmax(c: &mut Ctx, shape: &[Dim], axis: usize, dtype: DType, x: Arg, y: Arg) -> Tasks {
    let (x, y) = (c.input(x, dtype), c.output(y, dtype));
    // A run belongs to one task. Its maximum is known before anything is stored, and then each element is read
    // before its exponential is stored in its place.
    c.in_place.push((y, x));
    rows(c, shape, axis, x, dtype, |c, run| {
        let top = run.fold(c, ReduceOp::Max, dtype, &mut |_, _, x, _| x);
        // exp is computed again in the second pass: a half-precision result can't hold it exactly meanwhile.
        let exp = |c: &mut Ctx, x: Reg, lanes: u8| {
            let t = c.b.splat(top, lanes);
            let d = c.b.sub(x, t);
            vecmath::exp(&mut c.b, d)
        };
        let keep = matches!(dtype, DType::F32 | DType::F64);
        let sum = run.fold(c, ReduceOp::Sum, dtype, &mut |c, i, x, lanes| {
            let e = exp(c, x, lanes);
            if keep {
                run.store(c, y, i, e);
            }
            e
        });
        let one = c.imm(Elem::of(dtype), 1, 1.0);
        let inverse = c.b.div(one, sum);
        run.each(c, &mut |c, i, lanes| {
            let e = if keep {
                let index = c.mul_add(run.offset, i, &run.stride);
                c.b.load(y, index, 0, lanes)
            } else {
                let x = run.load(c, i, lanes);
                exp(c, x, lanes)
            };
            let s = c.b.splat(inverse, lanes);
            let v = c.b.mul(e, s);
            run.store(c, y, i, v);
        });
    })
}

/// Layer norm over the last axis: two passes for mean and variance, one to write.
pub fn layer_norm(c: &mut Ctx, shape: &[Dim], eps: f32, dtype: DType, ins: [Arg; 3], y: Arg) -> Tasks {
    let [x, gamma, beta] = ins.map(|a| c.input(a, dtype));
    let y = c.output(y, dtype);
    // Mean and variance of a run, which belongs to one task, are known before the first store; from then on each element
    // is read once more, right before its place is written.
    c.in_place.push((y, x));
    let axis = shape.len() - 1;
    let elem = Elem::of(dtype);
    rows(c, shape, axis, x, dtype, |c, run| {
        let n = count(c, &run.len, elem);
        let sum = run.fold(c, ReduceOp::Sum, dtype, &mut |_, _, x, _| x);
        let mean = c.b.div(sum, n);
        let squares = run.fold(c, ReduceOp::Sum, dtype, &mut |c, _, x, lanes| {
            let m = c.b.splat(mean, lanes);
            let d = c.b.sub(x, m);
            c.b.mul(d, d)
        });
        let scale = inverse_root(c, squares, n, elem, eps);
        run.each(c, &mut |c, i, lanes| {
            let x = run.load(c, i, lanes);
            let (m, s) = (c.b.splat(mean, lanes), c.b.splat(scale, lanes));
            let d = c.b.sub(x, m);
            let d = c.b.mul(d, s);
            let (g, b) = (c.b.load(gamma, i, 0, lanes), c.b.load(beta, i, 0, lanes));
            let v = c.b.fma(d, g, b);
            run.store(c, y, i, v);
        });
    })
}

/// 1 / sqrt(sum / n + eps).
fn inverse_root(c: &mut Ctx, sum: Reg, n: Reg, elem: Elem, eps: f32) -> Reg {
    let (mean, eps, one) = (c.b.div(sum, n), c.imm(elem, 1, eps.into()), c.imm(elem, 1, 1.0));
    let v = c.b.add(mean, eps);
    let root = c.b.un(Un::Sqrt, v);
    c.b.div(one, root)
}

/// The norm without a mean over the last axis: one pass for the squares, one to write.
pub fn rms_norm(c: &mut Ctx, shape: &[Dim], eps: f32, dtype: DType, ins: [Arg; 2], y: Arg) -> Tasks {
    let [x, gamma] = ins.map(|a| c.input(a, dtype));
    let y = c.output(y, dtype);
    // As in a layer norm.
    c.in_place.push((y, x));
    let axis = shape.len() - 1;
    let elem = Elem::of(dtype);
    rows(c, shape, axis, x, dtype, |c, run| {
        let n = count(c, &run.len, elem);
        let squares = run.fold(c, ReduceOp::Sum, dtype, &mut |c, _, x, _| c.b.mul(x, x));
        let scale = inverse_root(c, squares, n, elem, eps);
        run.each(c, &mut |c, i, lanes| {
            let (x, s) = (run.load(c, i, lanes), c.b.splat(scale, lanes));
            let g = c.b.load(gamma, i, 0, lanes);
            let v = c.b.mul(x, s);
            let v = c.b.mul(v, g);
            run.store(c, y, i, v);
        });
    })
}

/// Reduction over any axes; trailing ones are vectorised.
pub fn reduce(c: &mut Ctx, shape: &[Dim], op: ReduceOp, axes: &[usize], dtype: DType, x: Arg, y: Arg) -> Tasks {
    let (x, y) = (c.input(x, dtype), c.output(y, dtype));
    let elem = Elem::of(dtype);
    let size = Dim::product(axes.iter().map(|&a| &shape[a]))?;
    let first = shape.len() - axes.len();
    let finish = |c: &mut Ctx, v: Reg| {
        if op != ReduceOp::Mean {
            return v;
        }
        let n = count(c, &size, elem);
        c.b.div(v, n)
    };
    if axes.iter().enumerate().all(|(i, &a)| a == first + i) {
        // The reduced dims are one run.
        let flat = [Dim::product(&shape[..first])?, size.clone()];
        return rows(c, &flat, 1, x, dtype, |c, run| {
            let v = run.fold(c, op, dtype, &mut |_, _, x, _| x);
            let v = finish(c, v);
            c.b.store(y, run.row, 0, v);
        });
    }
    let st = strides(shape)?;
    let kept: Vec<usize> = (0..shape.len()).filter(|a| !axes.contains(a)).collect();
    let out: Vec<Dim> = kept.iter().map(|&a| shape[a].clone()).collect();
    let inner: Vec<Dim> = axes.iter().map(|&a| shape[a].clone()).collect();
    scalar_nest(c, &out, 256, |c, e, coords| {
        let mut base = c.b.int(0);
        for (k, x) in kept.iter().zip(coords) {
            base = c.mul_add(base, *x, &st[*k]);
        }
        let (lo, hi) = (c.b.int(0), c.dim(&size));
        let init = reduce_init(c, op, dtype, 1);
        let v = fold_over(c, lo, hi, 1, &[init], |c, i, a| {
            let at = c.coords(i, &inner);
            let mut index = base;
            for (axis, x) in axes.iter().zip(at) {
                index = c.mul_add(index, x, &st[*axis]);
            }
            let v = c.b.load(x, index, 0, 1);
            vec![reduce_step(c, op, dtype, a[0], v)]
        })[0];
        let v = finish(c, v);
        c.b.store(y, e, 0, v);
    })
}

/// Index of the first largest or smallest element along an axis.
pub fn arg_max(c: &mut Ctx, shape: &[Dim], axis: usize, min: bool, dtype: DType, x: Arg, y: Arg) -> Tasks {
    let (x, y) = (c.input(x, dtype), c.output(y, DType::I64));
    let st = strides(shape)?;
    let mut out = shape.to_vec();
    out.remove(axis);
    scalar_nest(c, &out, 256, |c, e, coords| {
        let base = axis_base(c, coords, axis, &st);
        let first = c.b.load(x, base, 0, 1);
        let zero = c.b.int(0);
        let (lo, hi) = (c.b.int(1), c.dim(&shape[axis]));
        let r = fold_over(c, lo, hi, 1, &[first, zero], |c, i, a| {
            let index = c.mul_add(base, i, &st[axis]);
            let v = c.b.load(x, index, 0, 1);
            let mut better = compare(c, if min { CmpOp::Lt } else { CmpOp::Gt }, dtype, v, a[0]);
            if dtype.is_float() {
                // The first NaN wins, as in numpy.
                let (nan, had) = (c.b.cmp(CmpOp::Ne, v, v), c.b.cmp(CmpOp::Ne, a[0], a[0]));
                let not_had = c.b.un(Un::Not, had);
                let either = c.b.bin(Bin::Or, better, nan);
                better = c.b.bin(Bin::And, either, not_had);
            }
            vec![c.b.select(better, v, a[0]), c.b.select(better, i, a[1])]
        });
        c.b.store(y, e, 0, r[1]);
    })
}

/// Prefix sum along an axis.
pub fn cum_sum(
    c: &mut Ctx,
    shape: &[Dim],
    (axis, exclusive, reverse): (usize, bool, bool),
    dtype: DType,
    x: Arg,
    y: Arg,
) -> Tasks {
    let (x, y) = (c.input(x, dtype), c.output(y, dtype));
    let st = strides(shape)?;
    let mut lines = shape.to_vec();
    lines.remove(axis);
    scalar_nest(c, &lines, 64, |c, _, coords| {
        let base = axis_base(c, coords, axis, &st);
        let init = reduce_init(c, ReduceOp::Sum, dtype, 1);
        let (lo, hi) = (c.b.int(0), c.dim(&shape[axis]));
        let last = c.b.int(1);
        let last = c.b.sub(hi, last);
        fold_over(c, lo, hi, 1, &[init], |c, i, a| {
            let i = if reverse { c.b.sub(last, i) } else { i };
            let index = c.mul_add(base, i, &st[axis]);
            let v = c.b.load(x, index, 0, 1);
            let s = binary(c, bertc_ir::BinaryOp::Add, dtype, a[0], v);
            c.b.store(y, index, 0, if exclusive { a[0] } else { s });
            vec![s]
        });
    })
}

/// Offset of the first element of the line along `axis` at the other dims' coordinates.
pub fn axis_base(c: &mut Ctx, coords: &[Reg], axis: usize, strides: &[Dim]) -> Reg {
    let mut base = c.b.int(0);
    let others = strides.iter().enumerate().filter(|(a, _)| *a != axis);
    for (x, (_, s)) in coords.iter().zip(others) {
        base = c.mul_add(base, *x, s);
    }
    base
}
