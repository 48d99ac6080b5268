//! Indexing by tensors: gather, gather_elements, gather_nd. Every index is checked when the kernel runs.

use bertc_ir::kernel::{Bin, Elem, Reg};
use bertc_ir::{CmpOp, DType, Dim};

use super::LANES;
use super::ctx::Ctx;
use super::nest::{loop_over, rows_per_task, scalar_nest, strides, vector_end, when};
use crate::plan::Arg;

type Tasks = Option<Vec<(Dim, i64)>>;

/// Loads an index and counts negative ones from the end; the index, and whether it is out of range.
pub fn index(c: &mut Ctx, idx: usize, at: Reg, offset: i64, size: &Dim) -> (Reg, Reg) {
    let i = c.b.load(idx, at, offset, 1);
    let i = if c.b.ty(i).elem == Elem::I32 { c.b.convert(i, Elem::I64) } else { i };
    let (zero, n) = (c.b.int(0), c.dim(size));
    let negative = c.b.cmp(CmpOp::Lt, i, zero);
    let from_end = c.b.add(i, n);
    let i = c.b.select(negative, from_end, i);
    let bad = c.b.cmp_sign(CmpOp::Ge, true, i, n);
    (i, bad)
}

/// Loads an index, counts negative ones from the end, and sets the error flag where it is out of range: then 0 is
/// used, so that nothing is read out of bounds.
pub fn checked_index(c: &mut Ctx, idx: usize, at: Reg, offset: i64, size: &Dim) -> Reg {
    let (i, bad) = index(c, idx, at, offset, size);
    when(c, bad, |c| c.b.fail());
    let zero = c.b.int(0);
    c.b.select(bad, zero, i)
}

/// An operand of a gather: memory and element type.
pub struct Operand {
    /// Where it is.
    pub arg: Arg,
    /// Its element type.
    pub dtype: DType,
    /// Its shape.
    pub shape: Vec<Dim>,
}

/// `result[o, q, i] = data[o, indices[q], i]`.
pub fn gather(c: &mut Ctx, axis: usize, data: &Operand, indices: &Operand, y: Arg) -> Tasks {
    let x = c.input(data.arg.clone(), data.dtype);
    let idx = c.input(indices.arg.clone(), indices.dtype);
    let y = c.output(y, data.dtype);
    let size = data.shape[axis].clone();
    let (outer, inner) = (Dim::product(&data.shape[..axis])?, Dim::product(&data.shape[axis + 1..])?);
    let queries = Dim::product(&indices.shape)?;
    let total = outer.mul(&queries)?;
    let per_task = rows_per_task(&inner);
    let t = c.b.task();
    let (lo, hi) = c.chunk(t, &total, per_task);
    let single = outer.as_const() == Some(1);
    loop_over(c, lo, hi, 1, |c, r| {
        let zero = c.b.int(0);
        let (o, q) = if single {
            (zero, r)
        } else {
            let n = c.dim(&queries);
            (c.b.bin(Bin::DivU, r, n), c.b.bin(Bin::RemU, r, n))
        };
        let i = checked_index(c, idx, q, 0, &size);
        let row = c.mul_add(i, o, &size);
        let from = c.mul_add(zero, row, &inner);
        let to = c.mul_add(zero, r, &inner);
        copy_run(c, (x, from), (y, to), &inner, data.dtype);
    });
    Some(vec![(total, per_task)])
}

/// Copies `len` consecutive elements.
fn copy_run(c: &mut Ctx, (x, from): (usize, Reg), (y, to): (usize, Reg), len: &Dim, dtype: DType) {
    let (lo, hi) = (c.b.int(0), c.dim(len));
    let mut tail = lo;
    let copy = |c: &mut Ctx, i: Reg, lanes: u8| {
        let (a, b) = (c.b.add(from, i), c.b.add(to, i));
        let v = c.b.load(x, a, 0, lanes);
        c.b.store(y, b, 0, v);
    };
    if Elem::of(dtype).vectorises() {
        tail = vector_end(c, lo, hi);
        loop_over(c, lo, tail, i64::from(LANES), |c, i| copy(c, i, LANES));
    }
    loop_over(c, tail, hi, 1, |c, i| copy(c, i, 1));
}

/// `result[…, j, …] = data[…, indices[…, j, …], …]` along `axis`.
pub fn gather_elements(c: &mut Ctx, axis: usize, data: &Operand, indices: &Operand, y: Arg) -> Tasks {
    let x = c.input(data.arg.clone(), data.dtype);
    let idx = c.input(indices.arg.clone(), indices.dtype);
    let y = c.output(y, data.dtype);
    let st = strides(&data.shape)?;
    scalar_nest(c, &indices.shape, 1024, |c, e, coords| {
        let i = checked_index(c, idx, e, 0, &data.shape[axis]);
        let mut from = c.b.int(0);
        for (a, s) in st.iter().enumerate() {
            from = c.mul_add(from, if a == axis { i } else { coords[a] }, s);
        }
        let v = c.b.load(x, from, 0, 1);
        c.b.store(y, e, 0, v);
    })
}

/// ONNX GatherND: the last dim of the indices addresses `k` dims of the data after the batch dims.
pub fn gather_nd(c: &mut Ctx, batch_dims: usize, data: &Operand, indices: &Operand, y: Arg) -> Tasks {
    let (tuples, k) = indices.shape.split_at(indices.shape.len() - 1);
    let k = usize::try_from(k[0].as_const()?).ok()?;
    let x = c.input(data.arg.clone(), data.dtype);
    let idx = c.input(indices.arg.clone(), indices.dtype);
    let y = c.output(y, data.dtype);
    let st = strides(&data.shape)?;
    let inner = Dim::product(&data.shape[batch_dims + k..])?;
    let per_task = rows_per_task(&inner);
    scalar_nest(c, tuples, per_task, |c, e, coords| {
        let zero = c.b.int(0);
        let at = c.mul_add(zero, e, &Dim::constant(k as i64));
        let mut from = zero;
        for (a, s) in st[..batch_dims].iter().enumerate() {
            from = c.mul_add(from, coords[a], s);
        }
        for j in 0..k {
            let i = checked_index(c, idx, at, j as i64, &data.shape[batch_dims + j]);
            from = c.mul_add(from, i, &st[batch_dims + j]);
        }
        let to = c.mul_add(zero, e, &inner);
        copy_run(c, (x, from), (y, to), &inner, data.dtype);
    })
}
