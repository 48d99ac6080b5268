//! Reductions.

use bertc_ir::{BinaryOp, DType, Dim, Op, ReduceOp, UnaryOp};

use crate::import::onnx::build::overflow;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, V, Val};

/// What is reduced.
#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    /// The elements.
    Plain(ReduceOp),
    /// Sum of absolute values.
    L1,
    /// Root of the sum of squares.
    L2,
    /// Logarithm of the sum.
    LogSum,
    /// Logarithm of the sum of exponentials.
    LogSumExp,
    /// Sum of squares.
    SumSquare,
}

/// The axes: an attribute before opset 18 (sum: 13), an input from there on. None: all, or none if asked for.
fn axes(c: &Cx<'_>, kind: Kind, rank: usize) -> R<Vec<usize>> {
    let since = if kind == Kind::Plain(ReduceOp::Sum) { 13 } else { 18 };
    let none_is_noop = c.flag("noop_with_empty_axes", false)?;
    match c.axes(since, 1)? {
        Some(a) if !a.is_empty() => c.axes_of(&a, rank),
        _ if none_is_noop => Ok(Vec::new()),
        _ => Ok((0..rank).collect()),
    }
}

/// `Reduce…`.
pub fn reduce(c: &mut Cx<'_>, kind: Kind) -> R<Vec<V>> {
    let x = c.input(0)?;
    let logarithm = matches!(kind, Kind::LogSum | Kind::LogSumExp);
    if logarithm && x.dtype.is_int() {
        // Of integers it is cut to one.
        let wide = c.b.cast(DType::F32, &x)?;
        let y = reduced(c, kind, &wide)?;
        return Ok(vec![c.b.cast(x.dtype, &y)?]);
    }
    Ok(vec![reduced(c, kind, &x)?])
}

fn reduced(c: &mut Cx<'_>, kind: Kind, x: &V) -> R<V> {
    let keep = c.flag("keepdims", true)?;
    let axes = axes(c, kind, x.rank())?;
    if let (Kind::Plain(op), false) = (kind, axes.is_empty())
        && axes.len() == x.rank()
        && let Some(v) = decided(c, op, x, keep)
    {
        return Ok(v);
    }
    let fold = |c: &mut Cx<'_>, op: ReduceOp, x: &V, keep: bool| {
        if axes.is_empty() {
            return Ok(x.clone());
        }
        if x.dtype == DType::Bool {
            // A bool maximum (opset 20) is one of 0 and 1.
            let w = c.b.cast(DType::U8, x)?;
            let r = c.b.op(Op::Reduce { op, axes: axes.clone(), keep }, &[&w])?;
            return c.b.cast(DType::Bool, &r);
        }
        if op == ReduceOp::Mean && !x.dtype.is_float() {
            let sum = c.b.op(Op::Reduce { op: ReduceOp::Sum, axes: axes.clone(), keep }, &[x])?;
            let n: Vec<Dim> = axes.iter().map(|&a| x.shape[a].clone()).collect();
            let n = Val::sym(DType::I64, Vec::new(), vec![c.b.product(&n)?]);
            let n = c.b.cast(x.dtype, &n)?;
            return c.b.binary(BinaryOp::Div, &sum, &n);
        }
        c.b.op(Op::Reduce { op, axes: axes.clone(), keep }, &[x])
    };
    let r = match kind {
        Kind::Plain(op) => fold(c, op, x, keep)?,
        Kind::L1 => {
            let a = c.b.unary(UnaryOp::Abs, x)?;
            fold(c, ReduceOp::Sum, &a, keep)?
        }
        Kind::SumSquare | Kind::L2 => {
            let s = c.b.binary(BinaryOp::Mul, x, x)?;
            let s = fold(c, ReduceOp::Sum, &s, keep)?;
            if kind == Kind::L2 { root(c, &s)? } else { s }
        }
        Kind::LogSum => {
            let s = fold(c, ReduceOp::Sum, x, keep)?;
            c.b.unary(UnaryOp::Log, &s)?
        }
        Kind::LogSumExp => {
            // Less the maximum, so that no exponential overflows.
            let max = fold(c, ReduceOp::Max, x, true)?;
            // Infinities stand for themselves: a difference of two would be NaN.
            let (infinite, zero) = (c.b.unary(UnaryOp::IsInf, &max)?, c.b.scalar(x.dtype, 0.0));
            let max = c.b.select(&infinite, &zero, &max)?;
            let d = c.b.binary(BinaryOp::Sub, x, &max)?;
            let e = c.b.unary(UnaryOp::Exp, &d)?;
            let s = fold(c, ReduceOp::Sum, &e, keep)?;
            let l = c.b.unary(UnaryOp::Log, &s)?;
            let max = c.b.reshape(&max, &l.shape)?;
            c.b.binary(BinaryOp::Add, &l, &max)?
        }
    };
    Ok(r)
}

/// The square root; of an integer it is cut to one.
fn root(c: &mut Cx<'_>, x: &V) -> R<V> {
    if x.dtype.is_float() {
        return c.b.unary(UnaryOp::Sqrt, x);
    }
    let wide = c.b.cast(DType::F64, x)?;
    let r = c.b.unary(UnaryOp::Sqrt, &wide)?;
    c.b.cast(x.dtype, &r)
}

/// The reduction of all elements of a small symbolic tensor.
fn decided(c: &Cx<'_>, op: ReduceOp, x: &V, keep: bool) -> Option<V> {
    let e = x.as_sym().filter(|e| x.dtype != DType::Bool && !e.is_empty())?;
    let mut it = e.into_iter();
    let first = it.next()?;
    let r = it.try_fold(first, |a, d| match op {
        ReduceOp::Sum => a.add(&d),
        ReduceOp::Prod => a.mul(&d),
        ReduceOp::Max if c.b.ge(&a, &d) => Some(a),
        ReduceOp::Max if c.b.ge(&d, &a) => Some(d),
        ReduceOp::Min if c.b.ge(&a, &d) => Some(d),
        ReduceOp::Min if c.b.ge(&d, &a) => Some(a),
        _ => None,
    })?;
    let shape = if keep { vec![Dim::constant(1); x.rank()] } else { Vec::new() };
    (op != ReduceOp::Mean).then(|| Val::sym(x.dtype, shape, vec![r]))
}

/// The mean or the maximum over all dims behind batch and channels, which stay as 1.
pub fn global_pool(c: &mut Cx<'_>, op: ReduceOp) -> R<Vec<V>> {
    let x = c.input(0)?;
    if x.rank() < 2 || !x.dtype.is_float() {
        return Err("the operand must be floats of rank 2 or more".into());
    }
    let axes: Vec<usize> = (2..x.rank()).collect();
    if axes.is_empty() {
        return Ok(vec![x]);
    }
    Ok(vec![c.b.op(Op::Reduce { op, axes, keep: true }, &[&x])?])
}

/// `ArgMax` and `ArgMin`; of equal elements the first, or the last if asked for.
pub fn arg(c: &mut Cx<'_>, min: bool) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axis = c.axis(0, x.rank())?;
    let keep = c.flag("keepdims", true)?;
    let r = if c.opset >= 12 && c.flag("select_last_index", false)? {
        // The first one from behind.
        let n = x.shape[axis].clone();
        let last = n.sub(&1.into()).ok_or_else(overflow)?;
        let turned = c.b.slice(&x, axis, &last, &n, -1)?;
        let r = c.b.op(Op::ArgMax { axis, min }, &[&turned])?;
        let last = Val::sym(DType::I64, Vec::new(), vec![last]);
        c.b.binary(BinaryOp::Sub, &last, &r)?
    } else {
        c.b.op(Op::ArgMax { axis, min }, &[&x])?
    };
    let mut shape = r.shape.clone();
    if keep {
        shape.insert(axis, Dim::constant(1));
    }
    Ok(vec![c.b.reshape(&r, &shape)?])
}

/// `CumSum`.
pub fn cum_sum(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axis = c.const_ints(1)?.and_then(|v| v.first().copied()).ok_or("the axis is missing")?;
    let axis = c.axis_of(axis, x.rank())?;
    let (exclusive, reverse) = (c.flag("exclusive", false)?, c.flag("reverse", false)?);
    Ok(vec![c.b.op(Op::CumSum { axis, exclusive, reverse }, &[&x])?])
}
