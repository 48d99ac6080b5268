//! Operators that move elements.

use bertc_ir::Dim;

use crate::import::onnx::build::overflow;
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V};

/// `Concat`.
pub fn concat(c: &mut Cx<'_>) -> R<Vec<V>> {
    let parts = (0..c.ins.len()).map(|i| c.input(i)).collect::<R<Vec<_>>>()?;
    let rank = parts.first().ok_or("concat needs an operand")?.rank();
    let axis = c.axis(0, rank)?;
    Ok(vec![c.b.concat(&parts, axis)?])
}

/// `Flatten` to a matrix.
pub fn flatten(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let a = c.int("axis", 1)?;
    let axis = if a == x.rank() as i64 { x.rank() } else { c.axis_of(a, x.rank())? };
    let (rows, columns) = (c.b.product(&x.shape[..axis])?, c.b.product(&x.shape[axis..])?);
    Ok(vec![c.b.reshape(&x, &[rows, columns])?])
}

/// `Reshape`: 0 copies a dim, -1 is what is left.
pub fn reshape(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let keep_zero = c.flag("allowzero", false)?;
    let target = c.sym_ints(1)?;
    let mut shape = Vec::with_capacity(target.len());
    let mut rest = None;
    for (i, d) in target.iter().enumerate() {
        shape.push(match d.as_const() {
            Some(0) if !keep_zero => x.shape.get(i).cloned().ok_or("a 0 copies a dim that isn't there")?,
            Some(-1) if rest.is_some() => return Err("two dims are -1".into()),
            Some(-1) => {
                rest = Some(i);
                Dim::constant(1)
            }
            _ if !c.b.ge(d, &Dim::constant(0)) => {
                return Err(format!("dim {} may be negative", c.b.show(d)).into());
            }
            _ => d.clone(),
        });
    }
    if let Some(i) = rest {
        let (all, known) = (c.b.product(&x.shape)?, c.b.product(&shape)?);
        let left = all.div_exact(&known);
        shape[i] = left.ok_or_else(|| {
            Stop::Fail(format!(
                "{} can't be divided into {}: {} is not a multiple of {} for all dims",
                c.b.show_shape(&x.shape),
                c.b.show_shape(&target),
                c.b.show(&all),
                c.b.show(&known)
            ))
        })?;
    }
    Ok(vec![c.b.reshape(&x, &shape)?])
}

/// `Squeeze`; the axes are an input from opset 13.
pub fn squeeze(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axes = match c.axes(13, 1)? {
        Some(a) => c.axes_of(&a, x.rank())?,
        // A symbolic dim may be 1 only where its whole range is.
        None => (0..x.rank()).filter(|&i| x.shape[i].as_const() == Some(1)).collect(),
    };
    for &a in &axes {
        c.b.require_equal(&x.shape[a], &Dim::constant(1))?;
    }
    let shape: Vec<Dim> = (0..x.rank()).filter(|i| !axes.contains(i)).map(|i| x.shape[i].clone()).collect();
    Ok(vec![c.b.reshape(&x, &shape)?])
}

/// `Unsqueeze`; the axes are an input from opset 13.
pub fn unsqueeze(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axes = c.axes(13, 1)?.ok_or("axes are missing")?;
    let rank = x.rank() + axes.len();
    let axes = c.axes_of(&axes, rank)?;
    let mut dims = x.shape.iter().cloned();
    let shape = (0..rank).map(|i| if axes.contains(&i) { Some(Dim::constant(1)) } else { dims.next() });
    let shape = shape.collect::<Option<Vec<_>>>().ok_or("axes don't fit")?;
    Ok(vec![c.b.reshape(&x, &shape)?])
}

/// `Transpose`; reverses the dims by default.
pub fn transpose(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let perm = match c.ints("perm")? {
        Some(p) => p.iter().map(|&a| c.axis_of(a, x.rank())).collect::<R<Vec<_>>>()?,
        None => (0..x.rank()).rev().collect(),
    };
    let mut sorted = perm.clone();
    sorted.sort_unstable();
    if !sorted.into_iter().eq(0..x.rank()) {
        return Err(format!("{perm:?} is not a permutation of {} dims", x.rank()).into());
    }
    Ok(vec![c.b.transpose(&x, &perm)?])
}

/// `Split` in equal or given parts.
pub fn split(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    let axis = c.axis(0, x.rank())?;
    let given = if c.opset < 13 {
        c.ints("split")?.map(|v| v.into_iter().map(Dim::constant).collect::<Vec<_>>())
    } else if c.opt(1).is_some() {
        Some(c.sym_ints(1)?)
    } else {
        None
    };
    let outs = c.node.output.len() as i64;
    let n = c.int("num_outputs", outs)?;
    if n != outs {
        return Err(format!("num_outputs={n} for {outs} outputs").into());
    }
    let total = x.shape[axis].clone();
    let parts = match given {
        Some(p) if p.len() as i64 != outs => return Err(format!("{} parts for {outs} outputs", p.len()).into()),
        Some(p) => p,
        None => match total.as_const() {
            // The last part is smaller where the division leaves a rest (opset 18).
            Some(t) => {
                let chunk = t.checked_add(outs - 1).ok_or_else(overflow)? / outs;
                if chunk * outs != t && c.opset < 18 {
                    return Err(format!("a dim of {t} can't be split in {outs} equal parts").into());
                }
                (0..outs).map(|i| Dim::constant((t - i * chunk).clamp(0, chunk))).collect()
            }
            None => {
                let p = total.div_exact(&Dim::constant(outs));
                let p = p.ok_or_else(|| {
                    Stop::Fail(format!("dim {} can't be split in {outs} equal parts", c.b.show(&total)))
                })?;
                vec![p; outs as usize]
            }
        },
    };
    let mut out = Vec::with_capacity(parts.len());
    let mut at = Dim::constant(0);
    for len in &parts {
        if !c.b.ge(len, &Dim::constant(0)) {
            return Err(format!("a part of size {} may be negative", c.b.show(len)).into());
        }
        out.push(c.b.slice(&x, axis, &at, len, 1)?);
        at = at.add(len).ok_or_else(overflow)?;
    }
    c.b.require_equal(&at, &total)?;
    Ok(out)
}

/// `Slice`: attributes before opset 10, inputs from there on.
pub fn slice(c: &mut Cx<'_>) -> R<Vec<V>> {
    let mut x = c.input(0)?;
    let consts = |v: Vec<i64>| v.into_iter().map(Dim::constant).collect::<Vec<_>>();
    let (starts, ends, axes, steps) = if c.opset < 10 {
        let starts = c.ints("starts")?.ok_or("starts are missing")?;
        let ends = c.ints("ends")?.ok_or("ends are missing")?;
        (consts(starts), consts(ends), c.ints("axes")?, None)
    } else {
        (c.sym_ints(1)?, c.sym_ints(2)?, c.const_ints(3)?, c.const_ints(4)?)
    };
    let axes = axes.unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = steps.unwrap_or_else(|| vec![1; starts.len()]);
    if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
        return Err("starts, ends, axes and steps differ in length".into());
    }
    for (i, &a) in axes.iter().enumerate() {
        let axis = c.axis_of(a, x.rank())?;
        let (start, len) = extent(c, &starts[i], &ends[i], steps[i], &x.shape[axis])?;
        x = c.b.slice(&x, axis, &start, &len, steps[i])?;
    }
    Ok(vec![x])
}

/// First index and number of elements of `start..end` by `step` in a dim of `n`.
fn extent(c: &mut Cx<'_>, start: &Dim, end: &Dim, step: i64, n: &Dim) -> R<(Dim, Dim)> {
    if step == 0 {
        return Err("the step is 0".into());
    }
    let (zero, one) = (Dim::constant(0), Dim::constant(1));
    let (lo, hi) = if step > 0 {
        (clamp(c, start, n, &zero, n)?, clamp(c, end, n, &zero, n)?)
    } else {
        // Backwards: start is clamped to the last index, end to one before the first.
        let last = n.sub(&one).ok_or_else(overflow)?;
        (clamp(c, start, n, &zero, &last)?, clamp(c, end, n, &Dim::constant(-1), &last)?)
    };
    let span = if step > 0 { hi.sub(&lo) } else { lo.sub(&hi) }.ok_or_else(overflow)?;
    let s = i64::try_from(step.unsigned_abs()).map_err(|_| overflow())?;
    if c.b.ge(&zero, &span) {
        return Ok((zero.clone(), zero));
    }
    if !c.b.ge(&span, &zero) {
        let m = format!("the length {} may be negative for some dims", c.b.show(&span));
        return Err(Stop::Fail(m));
    }
    let len = match span.as_const() {
        Some(v) => Dim::constant((i128::from(v) + i128::from(s) - 1).div_euclid(s.into()) as i64),
        None => span.div_exact(&Dim::constant(s)).ok_or("the length is not a polynomial of the dims")?,
    };
    Ok((lo, len))
}

/// An index of a dim of `n`, negative ones from the end, clamped to `lo..=hi`.
fn clamp(c: &mut Cx<'_>, at: &Dim, n: &Dim, lo: &Dim, hi: &Dim) -> R<Dim> {
    // What stands for "to the end" is far above any dim, and "from the start" far below any negative one. Checked on
    // the numbers: their difference to a dim may overflow.
    match at.as_const() {
        Some(v) if v >= i64::from(i32::MAX) => return Ok(hi.clone()),
        Some(v) if v <= -i64::from(i32::MAX) => return Ok(lo.clone()),
        _ => {}
    }
    let at = if c.b.ge(at, &Dim::constant(0)) {
        at.clone()
    } else if c.b.ge(&Dim::constant(-1), at) {
        at.add(n).ok_or_else(overflow)?
    } else {
        // From some length on it would count from the end: no polynomial, and not what was meant, as where a table of relative
        // positions is cut on both sides of its middle.
        let why = format!("{} slices a dim at {}", c.b.loc, c.b.show(at));
        if !c.b.require_le(&Dim::constant(0), at, &why) {
            return Err(format!("index {} may be negative for some dims", c.b.show(at)).into());
        }
        at.clone()
    };
    if c.b.ge(&at, hi) {
        return Ok(hi.clone());
    }
    if c.b.ge(lo, &at) {
        return Ok(lo.clone());
    }
    let below = c.b.ge(&at, lo);
    // A table cut to a symbolic length: where the length exceeds the table, the model itself fails later.
    let above = match hi.as_const() {
        Some(h) if at.as_const().is_none() => {
            let why = format!("{} slices a dim of {h} at {}", c.b.loc, c.b.show(&at));
            c.b.require_le(&at, hi, &why)
        }
        _ => c.b.ge(hi, &at),
    };
    if below && above {
        return Ok(at);
    }
    Err(Stop::Fail(format!(
        "index {} is not proven to lie in {}..={}: narrow the dims' ranges",
        c.b.show(&at),
        c.b.show(lo),
        c.b.show(hi)
    )))
}
