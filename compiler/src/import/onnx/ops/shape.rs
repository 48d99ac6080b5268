//! Operators that make tensors out of shapes and numbers.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Scalar, Tensor};

use crate::import::onnx::build::overflow;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::proto::attribute_proto::AttributeType;
use crate::import::onnx::value::{Affine, R, SYM_LIMIT, Stop, V, Val};

/// `Constant`, in any of its forms.
pub fn constant(c: &mut Cx<'_>) -> R<Vec<V>> {
    let t = if let Some(v) = c.tensor("value")? {
        return Ok(vec![v]);
    } else if c.has("value_int") {
        Tensor::scalar(DType::I64, Scalar::Int(c.int("value_int", 0)?.into()))
    } else if c.has("value_float") {
        Tensor::scalar(DType::F32, Scalar::Float(c.float("value_float", 0.0)?.into()))
    } else if let Some(v) = c.ints("value_ints")? {
        Tensor::from_i64(vec![v.len()], &v)
    } else if let Some(a) = c.attr("value_floats", AttributeType::Floats)? {
        Tensor::from_f32(vec![a.floats.len()], &a.floats)
    } else {
        return Err("the constant is neither a tensor nor numbers".into());
    };
    Ok(vec![Val::constant(t)])
}

/// `Shape`; from opset 15 a part of it.
pub fn shape(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let rank = x.rank() as i64;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(rank) } else { v }).clamp(0, rank) as usize;
    let (start, end) = (clamp(c.int("start", 0)?), clamp(c.int("end", rank)?));
    let dims = x.shape.get(start..end.max(start)).unwrap_or_default();
    Ok(vec![c.b.dims_value(dims)])
}

/// `Size`: the number of elements.
pub fn size(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let n = c.b.product(&x.shape)?;
    Ok(vec![Val::sym(DType::I64, Vec::new(), vec![n])])
}

/// Checks that dims that were computed can be a shape.
fn valid_shape(c: &Cx<'_>, dims: Vec<Dim>) -> R<Vec<Dim>> {
    if dims.len() > bertc_ir::infer::MAX_RANK {
        return Err(format!("rank {} is above the limit of {}", dims.len(), bertc_ir::infer::MAX_RANK).into());
    }
    if let Some(d) = dims.iter().find(|d| !c.b.ge(d, &Dim::constant(0))) {
        return Err(format!("dim {} may be negative", c.b.show(d)).into());
    }
    c.b.check_size(&dims)?;
    Ok(dims)
}

/// `ConstantOfShape`.
pub fn constant_of_shape(c: &mut Cx<'_>) -> R<Vec<V>> {
    let value = c.tensor("value")?;
    let (dtype, s) = match &value {
        Some(v) => (v.dtype, v.as_const().and_then(Tensor::single).ok_or("the value must be one element")?),
        None => (DType::F32, Scalar::Float(0.0)),
    };
    let dims = c.sym_ints(0)?;
    let dims = valid_shape(c, dims)?;
    let y = Val::splat(dtype, dims, s);
    y.small.set(value.and_then(|v| v.small.get()));
    Ok(vec![y])
}

/// `Expand`: broadcasting both ways.
pub fn expand(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let dims = c.sym_ints(1)?;
    let dims = valid_shape(c, dims)?;
    let shape = c.b.broadcast(&[&x.shape, &dims])?;
    c.b.check_size(&shape)?;
    Ok(vec![c.b.expand(&x, &shape)?])
}

/// `Tile` by constant repeats: each repeated dim is a broadcast new one.
pub fn tile(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let reps = c.sym_ints(1)?;
    if reps.len() != x.rank() {
        return Err(format!("{} repeats for rank {}", reps.len(), x.rank()).into());
    }
    let (mut split, mut wide, mut out) = (Vec::new(), Vec::new(), Vec::new());
    for (d, r) in x.shape.iter().zip(&reps) {
        if r.as_const() == Some(1) || d.as_const() == Some(1) {
            split.push(d.clone());
            wide.push(if d.as_const() == Some(1) { r.clone() } else { d.clone() });
        } else {
            split.extend([Dim::constant(1), d.clone()]);
            wide.extend([r.clone(), d.clone()]);
        }
        out.push(d.mul(r).ok_or_else(overflow)?);
    }
    let (wide, out) = (valid_shape(c, wide)?, valid_shape(c, out)?);
    let x = c.b.reshape(&x, &split)?;
    let x = c.b.expand(&x, &wide)?;
    Ok(vec![c.b.reshape(&x, &out)?])
}

/// `Range`.
pub fn range(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (start, limit, delta) = (c.input(0)?, c.input(1)?, c.input(2)?);
    if limit.dtype != start.dtype || delta.dtype != start.dtype {
        return Err(format!("operand types {}, {} and {} differ", start.dtype, limit.dtype, delta.dtype).into());
    }
    if c.opset >= 27 {
        // The elements are computed in f64 and rounded once.
        c.ignore("stash_type");
    }
    if start.dtype.is_float() {
        return float_range(&start, &limit, &delta);
    }
    let one = |v: &V| {
        let known = v.as_sym().filter(|e| e.len() == 1).map(|e| e[0].clone());
        known.or_else(|| v.as_const()?.single().and_then(|s| i64::try_from(s.to_int()).ok()).map(Dim::constant))
    };
    let unknown = || Stop::from("the limits must be computable at compile time: they may depend on shapes only");
    let (a, b, d) = (one(&start).ok_or_else(unknown)?, one(&limit).ok_or_else(unknown)?, one(&delta));
    let d = d.and_then(|d| d.as_const()).filter(|&d| d != 0).ok_or("the step must be a constant other than 0")?;
    let span = if d > 0 { b.sub(&a) } else { a.sub(&b) }.ok_or_else(overflow)?;
    let step = Dim::constant(d.checked_abs().ok_or_else(overflow)?);
    let len = if let Some(s) = span.as_const() {
        let step = d.unsigned_abs() as i128;
        Dim::constant(i64::try_from((i128::from(s).max(0) + step - 1) / step).map_err(|_| overflow())?)
    } else if !c.b.ge(&span, &Dim::constant(0)) {
        return Err(format!("the length {} may be negative", c.b.show(&span)).into());
    } else {
        span.div_exact(&step).ok_or("the length is not a polynomial of the dims")?
    };
    c.b.check_size(std::slice::from_ref(&len))?;
    if let Some(n) = len.as_const().and_then(|n| usize::try_from(n).ok())
        && n <= SYM_LIMIT
    {
        let at = |i: usize| a.add(&Dim::constant(d.checked_mul(i as i64)?));
        let e = (0..n).map(at).collect::<Option<Vec<_>>>().ok_or_else(overflow)?;
        return Ok(vec![Val::sym(start.dtype, vec![len], e)]);
    }
    if start.dtype == DType::I16
        && let (Some(a), Some(n)) = (a.as_const(), len.as_const().and_then(|n| usize::try_from(n).ok()))
    {
        let e = (0..n).map(|i| Scalar::Int(i128::from(a) + i128::from(d) * i as i128));
        return Ok(vec![Val::constant(Tensor::from_scalars(DType::I16, vec![n], e))]);
    }
    if !matches!(start.dtype, DType::I64 | DType::I32) {
        return Err(format!("a range of {} is not supported", start.dtype).into());
    }
    Ok(vec![Val::affine_of(start.dtype, vec![len], Affine { base: a, coef: vec![Dim::constant(d)] })])
}

fn float_range(start: &V, limit: &V, delta: &V) -> R<Vec<V>> {
    let one = |v: &V| v.as_const().and_then(Tensor::single).map(Scalar::to_f64);
    let (Some(a), Some(b), Some(d)) = (one(start), one(limit), one(delta)) else {
        return Err("the limits of a range of floats must be constants".into());
    };
    if d == 0.0 {
        return Err("the step is 0".into());
    }
    let n = ((b - a) / d).ceil();
    let n = if n < 0.0 { 0.0 } else { n };
    if n.is_nan() || n > (1 << 20) as f64 {
        return Err(format!("a range of {n} floats is above the limit").into());
    }
    let e = (0..n as usize).map(|i| Scalar::Float(a + i as f64 * d));
    Ok(vec![Val::constant(Tensor::from_scalars(start.dtype, vec![n as usize], e))])
}

/// `Trilu`: the part on one side of a diagonal, zeros elsewhere.
pub fn trilu(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let upper = c.flag("upper", true)?;
    let k = match c.const_ints(1)? {
        Some(v) => *v.first().ok_or("k is empty")?,
        None => 0,
    };
    let [.., m, n] = x.shape.as_slice() else { return Err("the operand needs rank 2 or more".into()) };
    // Column - row >= k, or <= k.
    let axis = |len: &Dim, shape: [Dim; 2], at: usize| {
        let mut coef = vec![Dim::constant(0); 2];
        coef[at] = Dim::constant(1);
        debug_assert!(shape[at] == *len);
        Val::affine_of(DType::I64, shape.to_vec(), Affine { base: Dim::constant(0), coef })
    };
    let row = axis(m, [m.clone(), 1.into()], 0);
    let col = axis(n, [1.into(), n.clone()], 1);
    let k = Val::constant(Tensor::scalar(DType::I64, Scalar::Int(k.into())));
    let edge = c.b.binary(BinaryOp::Add, &row, &k)?;
    let keep = c.b.compare(if upper { CmpOp::Ge } else { CmpOp::Le }, &col, &edge)?;
    if x.dtype == DType::Bool {
        return Ok(vec![c.b.binary(BinaryOp::And, &keep, &x)?]);
    }
    let zero = c.b.scalar(x.dtype, 0.0);
    Ok(vec![c.b.select(&keep, &x, &zero)?])
}
