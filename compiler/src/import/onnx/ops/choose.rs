//! Operators that choose elements or say where they are: `TopK`, `OneHot`, `EyeLike`, `NonZero`.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, Scalar, Tensor};

use crate::import::onnx::cx::Cx;
use crate::import::onnx::tensor::dtype;
use crate::import::onnx::value::{Affine, R, Stop, V, Val, const_dims};

/// Constants above this many elements are not looked through.
const SCAN_LIMIT: usize = 1 << 22;

/// 0, 1, 2, … along one dim of `rank`, 1 along the others.
fn count(len: &Dim, rank: usize, axis: usize) -> V {
    let (mut shape, mut coef) = (vec![Dim::constant(1); rank], vec![Dim::constant(0); rank]);
    (shape[axis], coef[axis]) = (len.clone(), Dim::constant(1));
    Val::affine_of(DType::I64, shape, Affine { base: Dim::constant(0), coef })
}

/// The one number of input `i`, of any type; floats are cut to integers.
fn number(c: &Cx<'_>, i: usize, what: &str) -> R<Dim> {
    let v = c.input(i)?;
    let known = v.as_sym().filter(|e| e.len() == 1 && v.dtype != DType::Bool).map(|mut e| e.remove(0));
    let known = known.or_else(|| match v.as_const().and_then(Tensor::single)? {
        Scalar::Int(n) => i64::try_from(n).ok().map(Dim::constant),
        Scalar::Float(f) => (f.is_finite() && f.abs() < 9e15).then(|| Dim::constant(f as i64)),
    });
    known.ok_or_else(|| Stop::Fail(format!("{what} must be one number that is known at compile time")))
}

/// `TopK`: k is an attribute before opset 10. Of equal elements the first comes first; NaN is above all numbers. They
/// are sorted whether asked for or not.
pub fn top_k(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axis = c.axis(-1, x.rank())?;
    let k = if c.opset < 10 {
        if !c.has("k") {
            return Err("attribute 'k' is missing".into());
        }
        Dim::constant(c.int("k", 0)?)
    } else {
        number(c, 1, "k")?
    };
    let largest = c.opset < 11 || c.flag("largest", true)?;
    if c.opset >= 11 {
        c.ignore("sorted");
    }
    if k.as_const() == Some(0) {
        let mut shape = x.shape.clone();
        shape[axis] = k;
        let none =
            |d: DType| Val::splat(d, shape.clone(), if d.is_float() { Scalar::Float(0.0) } else { Scalar::Int(0) });
        return Ok(vec![none(x.dtype), none(DType::I64)]);
    }
    if !c.b.ge(&k, &1.into()) || !c.b.ge(&x.shape[axis], &k) {
        let (k, n) = (c.b.show(&k), c.b.show(&x.shape[axis]));
        return Err(format!("k = {k} is not proven to lie in 1..={n}: narrow the dims' ranges").into());
    }
    let at = c.b.op(Op::TopK { axis, k, smallest: !largest }, &[&x])?;
    let values = c.b.op(Op::GatherElements { axis }, &[&x, &at])?;
    Ok(vec![values, at])
}

/// `OneHot`: off wherever an index is out of range.
pub fn one_hot(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (indices, values) = (c.input(0)?, c.input(2)?);
    let depth = number(c, 1, "the depth")?;
    if !c.b.ge(&depth, &0.into()) {
        return Err(format!("the depth {} may be negative", c.b.show(&depth)).into());
    }
    if values.rank() != 1 || values.shape[0].as_const() != Some(2) {
        return Err("the values must be two: off and on".into());
    }
    if indices.dtype == DType::Bool {
        return Err("indices must be numbers, got bool".into());
    }
    let rank = indices.rank() + 1;
    let axis = c.axis(-1, rank)?;
    let mut at = indices;
    if at.dtype == DType::U64 {
        // What i64 doesn't hold would be negative, and might be in range then.
        let most = Val::constant(Tensor::scalar(DType::U64, Scalar::Int(i64::MAX.into())));
        at = c.b.binary(BinaryOp::Min, &at, &most)?;
    }
    let at = c.b.cast(DType::I64, &at)?;
    let mut shape = at.shape.clone();
    shape.insert(axis, Dim::constant(1));
    let at = c.b.reshape(&at, &shape)?;
    let n = Val::sym(DType::I64, Vec::new(), vec![depth.clone()]);
    let zero = c.b.scalar(DType::I64, 0.0);
    let (below, from_end) = (c.b.compare(CmpOp::Lt, &at, &zero)?, c.b.binary(BinaryOp::Add, &at, &n)?);
    let at = c.b.select(&below, &from_end, &at)?;
    let hot = c.b.compare(CmpOp::Eq, &at, &count(&depth, rank, axis))?;
    let mut ends = Vec::new();
    for i in 0..2 {
        let v = c.b.slice(&values, 0, &i.into(), &1.into(), 1)?;
        ends.push(c.b.reshape(&v, &[])?);
    }
    Ok(vec![c.b.select(&hot, &ends[1], &ends[0])?])
}

/// `EyeLike`: ones on a diagonal.
pub fn eye_like(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let [m, n] = x.shape.as_slice() else { return Err("the operand must be a matrix".into()) };
    let k = c.int("k", 0)?;
    let to = if c.has("dtype") { dtype(i32::try_from(c.int("dtype", 0)?).unwrap_or(0))? } else { x.dtype };
    let k = Val::constant(Tensor::scalar(DType::I64, Scalar::Int(k.into())));
    let ones = c.b.binary(BinaryOp::Add, &count(m, 2, 0), &k)?;
    let ones = c.b.compare(CmpOp::Eq, &count(n, 2, 1), &ones)?;
    Ok(vec![c.b.cast(to, &ones)?])
}

/// `NonZero` of what is known: how many there are must not depend on data.
pub fn non_zero(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let unknown = || Stop::from("the operand must be a constant: how many elements differ from 0 would be a dim");
    let dims = const_dims(&x.shape).ok_or_else(unknown)?;
    let n = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|&n| n <= SCAN_LIMIT);
    let n = n.ok_or("the operand is too large to look through")?;
    let hits: Vec<usize> = match (x.as_const(), x.as_splat()) {
        (Some(t), _) => (0..n).filter(|&i| t.get(i).to_f64() != 0.0).collect(),
        (_, Some(s)) => {
            if s.to_f64() == 0.0 {
                Vec::new()
            } else {
                (0..n).collect()
            }
        }
        _ => {
            let e = x.as_sym().ok_or_else(unknown)?;
            let (zero, one, minus) = (Dim::constant(0), Dim::constant(1), Dim::constant(-1));
            let mut hits = Vec::new();
            for (i, d) in e.iter().enumerate() {
                if c.b.ge(d, &one) || c.b.ge(&minus, d) {
                    hits.push(i);
                } else if *d != zero {
                    return Err(unknown());
                }
            }
            hits
        }
    };
    let mut out = Vec::with_capacity(hits.len().saturating_mul(dims.len()));
    for axis in 0..dims.len() {
        let inner: usize = dims[axis + 1..].iter().product();
        out.extend(hits.iter().map(|&i| (i / inner % dims[axis]) as i64));
    }
    Ok(vec![Val::constant(Tensor::from_i64(vec![dims.len(), hits.len()], &out))])
}
