//! `Conv` of any number of spatial dims, with the channels last: the taps of the kernel are slices, side by side they are
//! the rows of one matrix product. Layers of text models come with their channels last and a transpose on both sides,
//! which cancel. A depthwise convolution is a sum of scaled slices.

use bertc_ir::{BinaryOp, Dim};

use super::matmul::multiply;
use super::pad::zeros;
use crate::import::onnx::build::{Builder, overflow};
use crate::import::onnx::cx::Cx;
use crate::import::onnx::value::{R, Stop, V};

/// More taps would be that many slices.
const MAX_TAPS: i64 = 1024;

/// How the window moves along one spatial dim.
struct Window {
    kernel: i64,
    stride: i64,
    dilation: i64,
    /// Zeros before and behind.
    pads: [Dim; 2],
    /// Number of results.
    out: Dim,
}

/// `Conv`.
pub fn conv(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (x, w, bias) = (c.input(0)?, c.input(1)?, c.opt(2));
    if x.rank() < 3 || w.rank() != x.rank() {
        return Err("operands must be [batch, channels, …] and [features, channels, …], of one rank".into());
    }
    if !x.dtype.is_float() || w.dtype != x.dtype {
        return Err(format!("a convolution of {} by {} is not supported", x.dtype, w.dtype).into());
    }
    let group = c.int("group", 1)?;
    let features = w.shape[0].as_const().ok_or("the number of features is not constant")?;
    if group < 1 || features % group != 0 {
        return Err(format!("{features} features don't make {group} groups").into());
    }
    let channels = w.shape[1].mul(&group.into()).ok_or_else(overflow)?;
    c.b.require_equal(&x.shape[1], &channels)?;
    let windows = windows(c, &x.shape[2..], &w.shape[2..])?;
    if windows.iter().try_fold(1i64, |n, w| n.checked_mul(w.kernel)).is_none_or(|n| n > MAX_TAPS) {
        return Err(format!("a kernel of more than {MAX_TAPS} elements is not supported").into());
    }
    let mut y = c.b.transpose(&x, &last(x.rank(), 1))?;
    for (i, window) in windows.iter().enumerate() {
        y = zeros(c.b, &y, i + 1, [&window.pads[0], &window.pads[1]])?;
    }
    let taps = taps(c.b, &y, &windows)?;
    let depthwise = w.shape[1].as_const() == Some(1) && features == group;
    let mut y = match (group, depthwise) {
        (_, true) => depthwise_sum(c.b, &taps, &w)?,
        (1, _) => joined(c.b, &taps, &w)?,
        _ => grouped(c.b, &taps, &w, group)?,
    };
    if let Some(bias) = bias {
        let n = bias.shape.first().filter(|_| bias.rank() == 1).ok_or("the bias must have rank 1")?;
        c.b.require_equal(n, &features.into())?;
        y = c.b.binary(BinaryOp::Add, &y, &bias)?;
    }
    let first: Vec<usize> = [0, y.rank() - 1].into_iter().chain(1..y.rank() - 1).collect();
    Ok(vec![c.b.transpose(&y, &first)?])
}

/// The permutation that moves a dim behind all others.
fn last(rank: usize, axis: usize) -> Vec<usize> {
    (0..rank).filter(|&a| a != axis).chain([axis]).collect()
}

/// An attribute with a number of at least 1 for each spatial dim, 1 where it is left out.
fn steps(c: &Cx<'_>, name: &'static str, given: Option<Vec<i64>>, rank: usize) -> R<Vec<i64>> {
    let v = given.unwrap_or_else(|| vec![1; rank]);
    if v.len() != rank || v.iter().any(|&s| s < 1) {
        return Err(format!("{name} {v:?} are not {rank} numbers above 0 (opset {})", c.opset).into());
    }
    Ok(v)
}

fn windows(c: &Cx<'_>, sizes: &[Dim], kernel: &[Dim]) -> R<Vec<Window>> {
    let rank = sizes.len();
    let kernel = kernel.iter().map(|d| d.as_const().filter(|&k| k >= 1)).collect::<Option<Vec<_>>>();
    let kernel = kernel.ok_or("the dims of the kernel must be constants above 0")?;
    if let Some(k) = c.ints("kernel_shape")?.filter(|k| *k != kernel) {
        return Err(format!("kernel_shape is {k:?}, the weights' {kernel:?}").into());
    }
    let strides = steps(c, "strides", c.ints("strides")?, rank)?;
    let dilations = steps(c, "dilations", c.ints("dilations")?, rank)?;
    let auto = c.string("auto_pad", "NOTSET")?;
    let pads = c.ints("pads")?;
    if pads.as_ref().is_some_and(|p| p.len() != 2 * rank || p.iter().any(|&p| p < 0)) {
        return Err(format!("pads {:?} are not {} numbers of at least 0", pads.unwrap_or_default(), 2 * rank).into());
    }
    let mut all = Vec::with_capacity(rank);
    for (i, n) in sizes.iter().enumerate() {
        let (kernel, stride, dilation) = (kernel[i], strides[i], dilations[i]);
        let reach = (kernel - 1).checked_mul(dilation).and_then(|r| r.checked_add(1)).ok_or_else(overflow)?;
        let given = |at: usize| Dim::constant(pads.as_ref().map_or(0, |p| p[at]));
        let pads = match auto.as_str() {
            "NOTSET" | "" => [given(i), given(i + rank)],
            "VALID" => [Dim::constant(0), Dim::constant(0)],
            "SAME_UPPER" => same(c.b, n, reach, stride, false)?,
            "SAME_LOWER" => same(c.b, n, reach, stride, true)?,
            a => return Err(Stop::Fail(format!("auto_pad='{a}' is not supported"))),
        };
        let padded = n.add(&pads[0]).and_then(|n| n.add(&pads[1])).ok_or_else(overflow)?;
        let span = padded.sub(&reach.into()).ok_or_else(overflow)?;
        if !c.b.ge(&span, &0.into()) {
            let (n, d) = (c.b.show(&padded), c.b.show(n));
            return Err(format!("a kernel over {reach} elements doesn't fit {n} for all dims: narrow {d}").into());
        }
        let out = divided(&span, stride).and_then(|s| s.add(&1.into()));
        let out = out.ok_or_else(|| format!("the length {} by {stride} is not a polynomial", c.b.show(&span)))?;
        all.push(Window { kernel, stride, dilation, pads, out });
    }
    Ok(all)
}

/// `n / by`, rounded down, where that is a polynomial.
fn divided(n: &Dim, by: i64) -> Option<Dim> {
    match n.as_const() {
        Some(n) => Some(n.div_euclid(by).into()),
        None => n.div_exact(&by.into()),
    }
}

/// Pads with which there is a result for each stride that was begun; an odd one goes behind, or with `lower` before.
fn same(b: &Builder, n: &Dim, reach: i64, stride: i64, lower: bool) -> R<[Dim; 2]> {
    let unknown = || Stop::Fail(format!("{} by {stride} is not a polynomial", b.show(n)));
    let up = n.as_const().map_or_else(|| Some(n.clone()), |n| n.checked_add(stride - 1).map(Dim::constant));
    let out = up.and_then(|n| divided(&n, stride)).ok_or_else(unknown)?;
    let total = out.sub(&1.into()).and_then(|o| o.mul(&stride.into())).and_then(|o| o.add(&reach.into()));
    let total = total.and_then(|t| t.sub(n)).ok_or_else(overflow)?;
    let total = total.as_const().ok_or_else(unknown)?.max(0);
    let (less, more) = (total / 2, total - total / 2);
    Ok(if lower { [more.into(), less.into()] } else { [less.into(), more.into()] })
}

/// What each element of the kernel meets, in row-major order: `[batch, out…, channels]`.
fn taps(b: &mut Builder, x: &V, windows: &[Window]) -> R<Vec<V>> {
    let mut taps = vec![x.clone()];
    for (i, w) in windows.iter().enumerate() {
        let mut next = Vec::new();
        for t in &taps {
            for k in 0..w.kernel {
                let start = k.checked_mul(w.dilation).ok_or_else(overflow)?;
                next.push(b.slice(t, i + 1, &start.into(), &w.out, w.stride)?);
            }
        }
        taps = next;
    }
    Ok(taps)
}

/// One group: `[batch, out…, taps·channels] · [taps·channels, features]`.
fn joined(b: &mut Builder, taps: &[V], w: &V) -> R<V> {
    let axis = taps.first().map_or(0, |t| t.rank() - 1);
    let rows = b.concat(taps, axis)?;
    // [features, channels, taps…] to [taps…, channels, features].
    let perm: Vec<usize> = (2..w.rank()).chain([1, 0]).collect();
    let columns = b.transpose(w, &perm)?;
    let k = b.product(&w.shape[1..])?;
    let columns = b.reshape(&columns, &[k, w.shape[0].clone()])?;
    multiply(b, &rows, &columns, false)
}

/// Several groups: a product for each, `[group, batch·out…, taps·channels] · [group, taps·channels, features]`.
fn grouped(b: &mut Builder, taps: &[V], w: &V, group: i64) -> R<V> {
    let group = Dim::constant(group);
    let (each, features) = (w.shape[1].clone(), w.shape[0].div_exact(&group).ok_or("the groups are not equal")?);
    let mut parts = Vec::with_capacity(taps.len());
    for t in taps {
        let shape = [&t.shape[..t.rank() - 1], &[group.clone(), each.clone()]].concat();
        parts.push(b.reshape(t, &shape)?);
    }
    let rank = parts.first().map_or(0, |p| p.rank());
    let rows = b.concat(&parts, rank - 1)?;
    let outer = rows.shape[..rank - 2].to_vec();
    let front: Vec<usize> = [rank - 2].into_iter().chain(0..rank - 2).chain([rank - 1]).collect();
    let rows = b.transpose(&rows, &front)?;
    let (m, k) = (b.product(&outer)?, b.product(&w.shape[1..])?);
    let rows = b.reshape(&rows, &[group.clone(), m, k.clone()])?;
    // [group, features, channels, taps…] to [group, taps…, channels, features].
    let split = [&[group.clone(), features.clone()], &w.shape[1..]].concat();
    let columns = b.reshape(w, &split)?;
    let perm: Vec<usize> = [0].into_iter().chain(3..split.len()).chain([2, 1]).collect();
    let columns = b.transpose(&columns, &perm)?;
    let columns = b.reshape(&columns, &[group.clone(), k, features.clone()])?;
    let y = multiply(b, &rows, &columns, false)?;
    let y = b.reshape(&y, &[&[group], &outer[..], &[features]].concat())?;
    let back: Vec<usize> = (1..rank - 1).chain([0, rank - 1]).collect();
    let y = b.transpose(&y, &back)?;
    b.reshape(&y, &[&outer[..], std::slice::from_ref(&w.shape[0])].concat())
}

/// A group for each channel, of one feature: Σ tap · weight.
fn depthwise_sum(b: &mut Builder, taps: &[V], w: &V) -> R<V> {
    let flat = b.reshape(w, &[w.shape[0].clone(), (taps.len() as i64).into()])?;
    let columns = b.transpose(&flat, &[1, 0])?;
    let mut sum: Option<V> = None;
    for (i, t) in taps.iter().enumerate() {
        let weight = b.slice(&columns, 0, &(i as i64).into(), &1.into(), 1)?;
        let weight = b.reshape(&weight, std::slice::from_ref(&w.shape[0]))?;
        let p = b.binary(BinaryOp::Mul, t, &weight)?;
        sum = Some(match sum {
            Some(s) => b.binary(BinaryOp::Add, &s, &p)?,
            None => p,
        });
    }
    sum.ok_or_else(|| Stop::from("the kernel has no elements"))
}
