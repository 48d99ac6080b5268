//! Scatters.

use bertc_ir::{BinaryOp, DType, Dim, Op};

use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V, Val, const_dims};

/// How updates join what is there; nothing where they replace it.
fn reduction(c: &Cx<'_>) -> R<Option<BinaryOp>> {
    if c.opset < 16 {
        return Ok(None);
    }
    match c.string("reduction", "none")?.as_str() {
        "none" => Ok(None),
        "add" => Ok(Some(BinaryOp::Add)),
        "mul" => Ok(Some(BinaryOp::Mul)),
        "max" if c.opset >= 18 => Ok(Some(BinaryOp::Max)),
        "min" if c.opset >= 18 => Ok(Some(BinaryOp::Min)),
        r => Err(Stop::Fail(format!("reduction='{r}' is not supported"))),
    }
}

/// Demands that updates have the type and the dims that indices and data say.
fn check_updates(c: &Cx<'_>, data: &V, updates: &V, shape: &[Dim]) -> R<()> {
    if updates.dtype != data.dtype {
        return Err(format!("the updates are {}, the data {}", updates.dtype, data.dtype).into());
    }
    if updates.rank() != shape.len() {
        return Err(format!("the updates have rank {}, expected {}", updates.rank(), shape.len()).into());
    }
    updates.shape.iter().zip(shape).try_for_each(|(a, b)| c.b.require_equal(b, a))
}

/// Adds the op. Bools are combined as numbers: or is the larger one, and the smaller one.
fn add(c: &mut Cx<'_>, op: impl Fn(Option<BinaryOp>) -> Op, combine: Option<BinaryOp>, x: [&V; 3]) -> R<V> {
    if x[0].dtype != DType::Bool || combine.is_none() {
        return c.b.op(op(combine), &x);
    }
    let combine = match combine {
        Some(BinaryOp::Add) => Some(BinaryOp::Max),
        Some(BinaryOp::Mul) => Some(BinaryOp::Min),
        other => other,
    };
    let (data, updates) = (c.b.cast(DType::U8, x[0])?, c.b.cast(DType::U8, x[2])?);
    let y = c.b.op(op(combine), &[&data, x[1], &updates])?;
    c.b.cast(DType::Bool, &y)
}

/// `ScatterElements`, and `Scatter`, as it was called before opset 11.
pub fn elements(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (data, indices, updates) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let axis = c.axis(0, data.rank())?;
    let combine = reduction(c)?;
    if data.rank() != indices.rank() {
        return Err("data and indices must have one rank".into());
    }
    check_updates(c, &data, &updates, &indices.shape)?;
    for (i, (d, n)) in data.shape.iter().zip(&indices.shape).enumerate() {
        if i != axis && !c.b.ge(d, n) {
            c.b.require_equal(d, n)?;
        }
    }
    let places = |dims: &[usize], at: &[i64], shape: &[usize]| {
        let mut out = Vec::with_capacity(at.len());
        for (e, &i) in at.iter().enumerate() {
            let (mut rest, mut place, mut stride) = (e, 0, 1);
            for a in (0..shape.len()).rev() {
                let own = rest % shape[a];
                rest /= shape[a];
                place += stride * if a == axis { resolve(i, dims[a])? } else { own };
                stride *= dims[a];
            }
            out.push(place);
        }
        Ok(out)
    };
    if let Some(v) = decided(&data, &indices, &updates, combine, places)? {
        return Ok(vec![v]);
    }
    let indices = c.b.as_index(&indices)?;
    let op = |combine| Op::ScatterElements { axis, combine };
    Ok(vec![add(c, op, combine, [&data, &indices, &updates])?])
}

/// `ScatterND`.
pub fn nd(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (data, indices, updates) = (c.input(0)?, c.input(1)?, c.input(2)?);
    let combine = reduction(c)?;
    let Some((k, tuples)) = indices.shape.split_last() else { return Err("the indices need rank 1 or more".into()) };
    let k = k.as_const().ok_or("the last dim of the indices is not constant")?;
    let size = usize::try_from(k).ok().filter(|&k| k >= 1 && k <= data.rank());
    let size = size.ok_or_else(|| Stop::Fail(format!("index tuples of {k} don't fit data of rank {}", data.rank())))?;
    let shape = [tuples, &data.shape[size..]].concat();
    check_updates(c, &data, &updates, &shape)?;
    let places = |dims: &[usize], at: &[i64], _: &[usize]| {
        let run: usize = dims[size..].iter().product();
        let mut out = Vec::new();
        for tuple in at.chunks_exact(size) {
            let mut place = 0;
            for (&i, &n) in tuple.iter().zip(dims) {
                place = place * n + resolve(i, n)?;
            }
            out.extend(place * run..(place + 1) * run);
        }
        Ok(out)
    };
    if let Some(v) = decided(&data, &indices, &updates, combine, places)? {
        return Ok(vec![v]);
    }
    let indices = c.b.as_index(&indices)?;
    Ok(vec![add(c, |combine| Op::ScatterNd { combine }, combine, [&data, &indices, &updates])?])
}

fn resolve(i: i64, n: usize) -> R<usize> {
    let at = if i < 0 { i.checked_add(n as i64) } else { Some(i) };
    let at = at.and_then(|i| usize::try_from(i).ok()).filter(|&i| i < n);
    at.ok_or_else(|| Stop::Fail(format!("index {i} is outside of a dim of {n}")))
}

/// The result on small tensors that are known: shapes are put together so. `places` gives the data's element that each
/// update goes to, from the data's dims, the indices and their dims.
fn decided(
    data: &V,
    indices: &V,
    updates: &V,
    combine: Option<BinaryOp>,
    places: impl Fn(&[usize], &[i64], &[usize]) -> R<Vec<usize>>,
) -> R<Option<V>> {
    let known = (data.as_sym(), indices.as_ints(), updates.as_sym());
    let (Some(mut elements), Some(at), Some(new)) = known else { return Ok(None) };
    let (Some(dims), Some(shape)) = (const_dims(&data.shape), const_dims(&indices.shape)) else { return Ok(None) };
    if data.dtype == DType::Bool && combine.is_some() {
        return Ok(None);
    }
    for (place, update) in places(&dims, &at, &shape)?.into_iter().zip(new) {
        let Some(e) = elements.get_mut(place) else { return Ok(None) };
        let value = match combine {
            None => Some(update),
            Some(BinaryOp::Add) => e.add(&update),
            Some(BinaryOp::Mul) => e.mul(&update),
            Some(_) => None,
        };
        let Some(value) = value else { return Ok(None) };
        *e = value;
    }
    Ok(Some(Val::sym(data.dtype, data.shape.clone(), elements)))
}
