//! Loop nests over strided operands: every op that computes one element from one element of each operand.

use bertc_ir::kernel::{Elem, Reg, RegType};
use bertc_ir::{DType, Dim, Scalar};

use super::LANES;
use super::ctx::Ctx;
use crate::plan::Arg;

/// Elements that one task of an elementwise step handles, roughly: large enough to hide the hand-over to a worker.
pub const TASK_ELEMENTS: i64 = 16 * 1024;

/// Where an operand's elements are: `ptr[base + Σ coord[i]·strides[i]]`.
#[derive(Clone, Debug)]
pub struct View {
    /// The memory, or an immediate.
    pub source: Source,
    /// Element type in memory.
    pub dtype: DType,
    /// Element offset of coordinate zero.
    pub base: Dim,
    /// One stride in elements per dim of the nest; 0 repeats.
    pub strides: Vec<Dim>,
}

/// What a view reads.
#[derive(Clone, Debug)]
pub enum Source {
    /// Memory.
    Memory(Arg),
    /// One value for all elements.
    Immediate(Scalar),
}

/// Row-major strides of a shape, or `None` on overflow.
pub fn strides(shape: &[Dim]) -> Option<Vec<Dim>> {
    let mut s = vec![Dim::constant(1); shape.len()];
    for i in (1..shape.len()).rev() {
        s[i - 1] = s[i].mul(&shape[i])?;
    }
    Some(s)
}

/// A nest whose adjacent dims are merged wherever every view walks them as one.
struct Nest {
    sizes: Vec<Dim>,
    views: Vec<View>,
}

fn collapse(shape: &[Dim], views: &[View]) -> Option<Nest> {
    let one = Dim::constant(1);
    let mut n = Nest { sizes: Vec::new(), views: views.to_vec() };
    n.views.iter_mut().for_each(|v| v.strides.clear());
    for (i, size) in shape.iter().enumerate() {
        if *size == one {
            continue;
        }
        let mut fits = !n.sizes.is_empty();
        for (to, from) in n.views.iter().zip(views) {
            let Some(outer) = to.strides.last() else { break };
            fits &= *outer == from.strides[i].mul(size)?;
        }
        if fits {
            let last = n.sizes.len() - 1;
            n.sizes[last] = n.sizes[last].mul(size)?;
        } else {
            n.sizes.push(size.clone());
        }
        for (to, from) in n.views.iter_mut().zip(views) {
            if fits {
                to.strides.pop();
            }
            to.strides.push(from.strides[i].clone());
        }
    }
    if n.sizes.is_empty() {
        n.sizes.push(one);
        n.views.iter_mut().for_each(|v| v.strides.push(Dim::constant(1)));
    }
    Some(n)
}

/// An operand inside the row loop: memory with this row's offset, or a value for the whole row.
enum Row {
    Memory { ptr: usize, offset: Reg, stride: Dim },
    Value(Reg),
}

impl Row {
    fn load(&self, c: &mut Ctx, i: Reg, lanes: u8) -> Reg {
        match self {
            Row::Value(v) => c.b.splat(*v, lanes),
            Row::Memory { ptr, offset, stride } => {
                let index = c.mul_add(*offset, i, stride);
                c.b.load(*ptr, index, 0, lanes)
            }
        }
    }
}

fn immediate(c: &mut Ctx, dtype: DType, v: Scalar) -> Reg {
    let ty = RegType::scalar(Elem::of(dtype));
    match v {
        Scalar::Float(f) => c.b.const_f(ty, f),
        Scalar::Int(i) => c.b.const_i(ty, i as i64),
    }
}

/// Builds `out[…] = body(views[0][…], …)` over `shape`: vectorised along the innermost merged dim where every view is
/// contiguous or constant there. Returns the tasks, or `None` when a size overflows 64 bits.
pub fn pointwise(
    c: &mut Ctx,
    shape: &[Dim],
    out: View,
    inputs: &[View],
    body: &dyn Fn(&mut Ctx, &[Reg]) -> Reg,
) -> Option<Vec<(Dim, i64)>> {
    let mut all = inputs.to_vec();
    all.push(out);
    let nest = collapse(shape, &all)?;
    let (outer, inner) = nest.sizes.split_at(nest.sizes.len() - 1);
    let inner = &inner[0];
    let (zero, one) = (Dim::constant(0), Dim::constant(1));
    let vector = nest.views.iter().all(|v| {
        let s = &v.strides[outer.len()];
        let immediate = matches!(v.source, Source::Immediate(_));
        Elem::of(v.dtype).vectorises() && (immediate || *s == zero || *s == one)
    }) && nest.views[inputs.len()].strides[outer.len()] == one;

    let mut params = Vec::new();
    for (k, v) in nest.views.iter().enumerate() {
        params.push(match &v.source {
            Source::Memory(a) if k == inputs.len() => Some(c.output(a.clone(), v.dtype)),
            Source::Memory(a) => Some(c.input(a.clone(), v.dtype)),
            Source::Immediate(_) => None,
        });
    }
    // The tasks visit each index once; they load the operands' elements there, in a register's width, and then store the
    // result's. So an operand that is walked like the result may be overwritten: no other index needs its element.
    let (out, result) = (&nest.views[inputs.len()], params[inputs.len()]);
    for (v, p) in nest.views.iter().zip(&params[..inputs.len()]) {
        let same = v.base == out.base && v.strides == out.strides && v.dtype.size() == out.dtype.size();
        c.in_place.extend(result.zip(*p).filter(|_| same));
    }
    // One row of the nest: inner indices lo..hi at the outer coordinates.
    let row = |c: &mut Ctx, coords: &[Reg], lo: Reg, hi: Reg| {
        let mut rows = Vec::new();
        for (v, p) in nest.views.iter().zip(&params) {
            rows.push(match (&v.source, p) {
                (Source::Memory(_), Some(ptr)) => {
                    let mut offset = c.dim(&v.base);
                    for (x, s) in coords.iter().zip(&v.strides) {
                        offset = c.mul_add(offset, *x, s);
                    }
                    let stride = v.strides[outer.len()].clone();
                    if stride == zero && rows.len() < inputs.len() {
                        Row::Value(c.b.load(*ptr, offset, 0, 1))
                    } else {
                        Row::Memory { ptr: *ptr, offset, stride }
                    }
                }
                (Source::Immediate(s), _) => Row::Value(immediate(c, v.dtype, *s)),
                (Source::Memory(_), None) => unreachable!("memory views have a parameter"),
            });
        }
        let step = |c: &mut Ctx, i: Reg, lanes: u8| {
            let x: Vec<Reg> = rows[..inputs.len()].iter().map(|r| r.load(c, i, lanes)).collect();
            let y = body(c, &x);
            if let Row::Memory { ptr, offset, stride } = &rows[inputs.len()] {
                let index = c.mul_add(*offset, i, stride);
                c.b.store(*ptr, index, 0, y);
            }
        };
        let mut from = lo;
        if vector {
            from = vector_end(c, lo, hi);
            loop_over(c, lo, from, i64::from(LANES), |c, i| step(c, i, LANES));
        }
        loop_over(c, from, hi, 1, |c, i| step(c, i, 1));
    };
    let t = c.b.task();
    if outer.is_empty() {
        let (lo, hi) = c.chunk(t, inner, TASK_ELEMENTS);
        row(c, &[], lo, hi);
        return Some(vec![(inner.clone(), TASK_ELEMENTS)]);
    }
    let total = Dim::product(outer)?;
    let rows = rows_per_task(inner);
    let (lo, hi) = c.chunk(t, &total, rows);
    loop_over(c, lo, hi, 1, |c, r| {
        let coords = c.coords(r, outer);
        let (a, b) = (c.b.int(0), c.dim(inner));
        row(c, &coords, a, b);
    });
    Some(vec![(total, rows)])
}

/// Rows of `inner` elements that make a task worth handing over.
pub fn rows_per_task(inner: &Dim) -> i64 {
    // A symbolic length is taken as 64: short enough to keep tasks useful, long enough for the hand-over to pay.
    (TASK_ELEMENTS / inner.as_const().unwrap_or(64).max(1)).clamp(1, TASK_ELEMENTS)
}

/// `for i in lo..hi step` without carried values.
pub fn loop_over(c: &mut Ctx, lo: Reg, hi: Reg, step: i64, body: impl FnOnce(&mut Ctx, Reg)) {
    fold_over(c, lo, hi, step, &[], |c, i, _| {
        body(c, i);
        Vec::new()
    });
}

/// `for i in lo..hi step` with carried values.
pub fn fold_over(
    c: &mut Ctx,
    lo: Reg,
    hi: Reg,
    step: i64,
    init: &[Reg],
    body: impl FnOnce(&mut Ctx, Reg, &[Reg]) -> Vec<Reg>,
) -> Vec<Reg> {
    let (i, args) = c.b.begin_for(lo, hi, step, init);
    let yields = body(c, i, &args);
    c.b.end_for(yields)
}

/// Runs `body` when `cond` holds.
pub fn when(c: &mut Ctx, cond: Reg, body: impl FnOnce(&mut Ctx)) {
    c.b.begin_if(cond);
    body(c);
    c.b.end_if(Vec::new());
}

/// The end of the last whole vector in `lo..hi`.
pub fn vector_end(c: &mut Ctx, lo: Reg, hi: Reg) -> Reg {
    let n = c.b.sub(hi, lo);
    let mask = c.b.int(-i64::from(LANES));
    let whole = c.b.bin(bertc_ir::kernel::Bin::And, n, mask);
    c.b.add(lo, whole)
}

/// Builds a loop over every element of `shape` with its coordinates: for ops whose elements don't vectorise.
/// Returns the tasks, or `None` when a size overflows 64 bits.
pub fn scalar_nest(
    c: &mut Ctx,
    shape: &[Dim],
    per_task: i64,
    body: impl FnOnce(&mut Ctx, Reg, &[Reg]),
) -> Option<Vec<(Dim, i64)>> {
    let total = Dim::product(shape)?;
    let t = c.b.task();
    let (lo, hi) = c.chunk(t, &total, per_task);
    loop_over(c, lo, hi, 1, |c, e| {
        let coords = c.coords(e, shape);
        body(c, e, &coords);
    });
    Some(vec![(total, per_task)])
}

/// The columns of a square matrix, given its rows.
pub fn transpose(c: &mut Ctx, mut rows: Vec<Reg>) -> Vec<Reg> {
    let half = rows.len() / 2;
    for _ in 0..rows.len().ilog2() {
        rows = (0..half).flat_map(|i| [false, true].map(|high| c.b.zip(high, rows[i], rows[i + half]))).collect();
    }
    rows
}
