//! `Pad`.

use bertc_ir::{Dim, Tensor};

use crate::import::onnx::build::{Builder, overflow};
use crate::import::onnx::cx::Cx;
use crate::import::onnx::tensor::Element;
use crate::import::onnx::value::{R, Stop, V, Val};

/// What stands beyond the ends.
enum Beyond {
    /// This scalar.
    Constant(V),
    /// The elements in mirrored order, the outermost one not repeated.
    Reflect,
    /// The outermost element.
    Edge,
    /// The elements from the other end.
    Wrap,
}

/// `Pad`: attributes before opset 11, inputs from there on, of which 18 has the axes.
pub fn pad(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let mode = c.string("mode", "constant")?;
    let pads = if c.opset < 11 {
        let pads = c.ints("pads")?.ok_or("attribute 'pads' is missing")?;
        pads.into_iter().map(Dim::constant).collect()
    } else {
        c.sym_ints(1)?
    };
    let axes = if c.opset < 18 { None } else { c.const_ints(3)? };
    let axes = axes.unwrap_or_else(|| (0..x.rank() as i64).collect());
    if pads.len() != 2 * axes.len() {
        return Err(format!("{} pads for {} axes", pads.len(), axes.len()).into());
    }
    // Each axis once; their order is that of the pads.
    c.axes_of(&axes, x.rank())?;
    let value = value(c, &x)?;
    let beyond = match mode.as_str() {
        "constant" => Beyond::Constant(value),
        "reflect" => Beyond::Reflect,
        "edge" => Beyond::Edge,
        "wrap" if c.opset >= 19 => Beyond::Wrap,
        m => return Err(Stop::Fail(format!("mode='{m}' is not supported"))),
    };
    let mut y = x;
    for (i, &a) in axes.iter().enumerate() {
        let axis = c.axis_of(a, y.rank())?;
        y = pad_axis(c.b, &y, axis, [&pads[i], &pads[i + axes.len()]], &beyond)?;
    }
    Ok(vec![y])
}

/// The constant, a scalar of the data's type.
fn value(c: &mut Cx<'_>, x: &V) -> R<V> {
    if c.opset < 11 {
        let v = c.float("value", 0.0)?;
        return Ok(c.b.scalar(x.dtype, v.into()));
    }
    let Some(v) = c.opt(2) else { return Ok(c.b.scalar(x.dtype, 0.0)) };
    let [own, data] = [&v, x].map(Element::of_value);
    if own != data {
        return Err(format!("the constant is {own}, the data {data}").into());
    }
    if v.rank() > 1 || v.shape.iter().any(|d| d.as_const() != Some(1)) {
        return Err("the constant must be a scalar".into());
    }
    c.b.reshape(&v, &[])
}

/// `x` with zeros around it along an axis.
pub fn zeros(b: &mut Builder, x: &V, axis: usize, pads: [&Dim; 2]) -> R<V> {
    let zero = b.scalar(x.dtype, 0.0);
    pad_axis(b, x, axis, pads, &Beyond::Constant(zero))
}

/// Cuts off what negative pads say, then adds what positive ones say.
fn pad_axis(b: &mut Builder, x: &V, axis: usize, pads: [&Dim; 2], beyond: &Beyond) -> R<V> {
    let zero = Dim::constant(0);
    let (mut cut, mut add) = ([zero.clone(), zero.clone()], [zero.clone(), zero.clone()]);
    for (i, p) in pads.into_iter().enumerate() {
        if b.ge(p, &zero) {
            add[i] = p.clone();
        } else if b.ge(&zero, p) {
            cut[i] = zero.sub(p).ok_or_else(overflow)?;
        } else {
            return Err(format!("a pad of {} may be negative for some dims", b.show(p)).into());
        }
    }
    let left = x.shape[axis].sub(&cut[0]).and_then(|n| n.sub(&cut[1])).ok_or_else(overflow)?;
    if !b.ge(&left, &zero) {
        let (n, less) = (b.show(&x.shape[axis]), b.show(&left));
        return Err(format!("pads of dim {n} leave {less} elements, which may be negative").into());
    }
    let x = b.slice(x, axis, &cut[0], &left, 1)?;
    if add.iter().all(|a| *a == zero) {
        return Ok(x);
    }
    let mut shape = x.shape.clone();
    shape[axis] = left.add(&add[0]).and_then(|n| n.add(&add[1])).ok_or_else(overflow)?;
    b.check_size(&shape)?;
    if let Some(indices) = far(b, &left, &add, beyond)? {
        return b.gather(&x, &indices, axis);
    }
    let first = before(b, &x, axis, &add[0], beyond)?;
    let last = behind(b, &x, axis, &add[1], beyond)?;
    let parts: Vec<V> = [(first, &add[0]), (x, &shape[axis]), (last, &add[1])]
        .into_iter()
        .filter_map(|(v, n)| (*n != zero).then_some(v))
        .collect();
    b.concat(&parts, axis)
}

/// The indices, where mirrored or repeated elements are needed more than once.
fn far(b: &Builder, n: &Dim, add: &[Dim; 2], beyond: &Beyond) -> R<Option<V>> {
    let most = match beyond {
        Beyond::Constant(_) | Beyond::Edge => return Ok(None),
        Beyond::Reflect => n.sub(&1.into()).ok_or_else(overflow)?,
        Beyond::Wrap => n.clone(),
    };
    if add.iter().all(|a| b.ge(&most, a)) {
        return Ok(None);
    }
    let known = (n.as_const(), add[0].as_const(), add[1].as_const());
    let (Some(n), Some(p), Some(q)) = known else {
        let m = format!("pads are not proven to be at most {}: narrow the dims' ranges", b.show(&most));
        return Err(m.into());
    };
    if n < 1 {
        return Err("an empty dim has nothing to pad with".into());
    }
    let at = |i: i64| match beyond {
        Beyond::Wrap => i.rem_euclid(n),
        // Back and forth; a single element stands for all.
        _ => {
            let period = (2 * (n - 1)).max(1);
            let i = i.rem_euclid(period);
            i.min(period - i).min(n - 1)
        }
    };
    let len = usize::try_from(p + n + q).map_err(|_| overflow())?;
    let indices: Vec<i64> = (-p..n + q).map(at).collect();
    Ok(Some(Val::constant(Tensor::from_i64(vec![len], &indices))))
}

/// `len` elements for all of an axis: copies of `one`, which has one of them or none of its dims.
fn repeated(b: &mut Builder, x: &V, axis: usize, one: &V, len: &Dim) -> R<V> {
    let mut shape = x.shape.clone();
    shape[axis] = len.clone();
    b.expand(one, &shape)
}

fn outermost(b: &mut Builder, x: &V, axis: usize, at: &Dim, len: &Dim) -> R<V> {
    if !b.ge(&x.shape[axis], &1.into()) {
        return Err("a dim that may be empty has no edge".into());
    }
    let one = b.slice(x, axis, at, &1.into(), 1)?;
    repeated(b, x, axis, &one, len)
}

/// What comes before the first element.
fn before(b: &mut Builder, x: &V, axis: usize, len: &Dim, beyond: &Beyond) -> R<V> {
    let n = x.shape[axis].clone();
    match beyond {
        _ if len.as_const() == Some(0) => Ok(x.clone()),
        Beyond::Constant(v) => repeated(b, x, axis, v, len),
        Beyond::Edge => outermost(b, x, axis, &0.into(), len),
        Beyond::Reflect => b.slice(x, axis, len, len, -1),
        Beyond::Wrap => {
            let from = n.sub(len).ok_or_else(overflow)?;
            b.slice(x, axis, &from, len, 1)
        }
    }
}

/// What comes behind the last element.
fn behind(b: &mut Builder, x: &V, axis: usize, len: &Dim, beyond: &Beyond) -> R<V> {
    let from_end = |k: i64| x.shape[axis].sub(&k.into()).ok_or_else(overflow);
    match beyond {
        _ if len.as_const() == Some(0) => Ok(x.clone()),
        Beyond::Constant(v) => repeated(b, x, axis, v, len),
        Beyond::Edge => {
            let last = from_end(1)?;
            outermost(b, x, axis, &last, len)
        }
        Beyond::Reflect => {
            let from = from_end(2)?;
            b.slice(x, axis, &from, len, -1)
        }
        Beyond::Wrap => b.slice(x, axis, &0.into(), len, 1),
    }
}
