//! `prune-structured`: whole attention heads and neurons between the two products of a feed-forward layer go, and dims shrink.
//!
//! ```text
//! %1 = linear %x, %w1, %b1 {bias = true, act = gelu}      of 64 neurons
//! %2 = linear %1, %w2, %b2, %x {bias = true, residual = true}
//!   => %1 = linear %x, %v1, %c1 {bias = true, act = gelu}      of 48
//!      %2 = linear %1, %v2, %c2, %x {bias = true, residual = true}
//! ```
//!
//! Not exact: it runs where `--prune-heads` and `--prune-ffn` ask for it. What a head or a neuron matters is what the results of
//! the product behind it lose without it, on samples, with what is lost together with others that went (`search`). One budget
//! holds for all layers; each keeps a head and 16 neurons. The weights of that product that are left are fitted to make up
//! for it. Without samples all inputs count as if they were alike and had nothing to do with each other. Runs on fused ops, before queries, keys and values are
//! merged.

mod search;
mod sites;

use std::collections::BTreeMap;

use bertc_ir::{Attention, DType, Diag, Graph, Op, Scalar, Tensor, ValueId};

use crate::measure::constants::{constant, floats};
use crate::measure::{Replaced, Sample, names, walk};
use crate::pass::{Pass, PassContext, PassOption};
use crate::pattern::{applied, remark};
use crate::prune::{Hessian, Moments, transposed};
use search::{Order, greedy, share};
use sites::{Kind, Site};

/// The pass.
pub struct PruneStructured;

const HEADS: PassOption = PassOption { name: "heads", doc: "percent of the attention heads that go", default: 50 };
const FFN: PassOption =
    PassOption { name: "ffn", doc: "percent of the neurons of feed-forward layers that go", default: 50 };

/// What `prune-structured` is asked for.
#[derive(Clone, Debug, Default)]
pub struct StructuredSettings {
    /// The parts of all heads and of all neurons that go.
    pub heads: f64,
    /// The same of neurons.
    pub ffn: f64,
    /// Layers whose matrices have such names stay as they are.
    pub keep: Vec<String>,
    /// Names in `keep` that no layer has are errors; others may be for another pass.
    pub strict: bool,
    /// What to measure on: the first set that the graph can be evaluated on.
    pub samples: Vec<Vec<Sample>>,
    /// The samples are made up: that the graph can't be evaluated on them is no error.
    pub synthetic: bool,
}

/// What became of a layer.
#[derive(Clone, PartialEq, Debug)]
pub struct StructuredRow {
    /// The model's node of the product behind the heads or neurons.
    pub name: String,
    /// Heads rather than neurons.
    pub heads: bool,
    /// How many there were, and are.
    pub counts: [usize; 2],
    /// The error of that product's results on the samples, relative to their energy.
    pub error: Option<f64>,
}

/// What became of all layers.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct StructuredReport {
    /// Each layer of heads or neurons.
    pub rows: Vec<StructuredRow>,
    /// The samples were made up.
    pub synthetic: bool,
    /// Rows of inputs that were measured on.
    pub tokens: usize,
}

impl Pass for PruneStructured {
    fn name(&self) -> &'static str {
        "prune-structured"
    }

    fn options(&self) -> &'static [PassOption] {
        &[HEADS, FFN]
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let settings = settings(ctx)?;
        let (mut sites, missed) = sites::find(g, &ctx.names);
        for (v, reason) in missed {
            remark(g, ctx, self.name(), v, reason);
        }
        if settings.strict {
            let of_all: Vec<&[String]> = sites.iter().map(|s| &s.names[..]).collect();
            names::named(&of_all, &settings.keep, "--keep")?;
        }
        let kept = |s: &Site| settings.keep.iter().any(|p| !names::matching(&[&s.names], p).is_empty());
        sites.retain(|s| !kept(s));
        let orders = measured(g, &sites, &settings)?;
        let gone = chosen(&sites, &orders, &settings);
        let fitted = fit(g, &sites, &gone, &settings)?;
        let mut report =
            StructuredReport { synthetic: settings.synthetic, tokens: fitted.tokens, ..StructuredReport::default() };
        let mut changed = false;
        // What a layer reads may be what another one gives, which is another value then.
        for (i, site) in sites.iter().enumerate() {
            let left: Vec<usize> = (0..site.units).filter(|u| !gone[i].contains(u)).collect();
            let heads = site.kind == Kind::Heads;
            report.rows.push(StructuredRow {
                name: site.names.first().cloned().unwrap_or_default(),
                heads,
                counts: [site.units, left.len()],
                error: fitted.errors.get(&i).copied(),
            });
            if left.len() == site.units {
                continue;
            }
            let what = if heads { "heads" } else { "neurons" };
            let what = format!("{} of {} {what} are left", left.len(), site.units);
            applied(g, ctx, self.name(), site.output, &what);
            rebuild(g, ctx, site, &left, fitted.weights.get(&i), fitted.biases.get(&i))?;
            changed = true;
        }
        if changed {
            g.remove_dead();
        }
        if ctx.settings.structured.is_some() {
            ctx.reports.structured = Some(report);
        }
        Ok(changed)
    }
}

fn settings(ctx: &PassContext) -> Result<StructuredSettings, Diag> {
    let mut settings = ctx.settings.structured.clone().unwrap_or_default();
    for (option, part) in [(&HEADS, &mut settings.heads), (&FFN, &mut settings.ffn)] {
        if ctx.settings.structured.is_none() || ctx.options.iter().any(|o| o.0 == option.name) {
            *part = ctx.option(option) as f64 / 100.0;
        }
        if !(0.0..1.0).contains(part) {
            return Err(Diag::new(format!("the option '{}' is from 0 to 99 percent", option.name)));
        }
    }
    Ok(settings)
}

/// In which order the units of each site go, by the samples or, without any, by the weights alone.
fn measured(g: &Graph, sites: &[Site], settings: &StructuredSettings) -> Result<Vec<Order>, Diag> {
    let mut first = None;
    for samples in &settings.samples {
        let mut orders: BTreeMap<usize, Order> = BTreeMap::new();
        let done = walk(g, samples, &mut |v, x| {
            for (i, site) in sites.iter().enumerate().filter(|(_, s)| s.output == v) {
                let mut m = Moments::new(site.k);
                m.add(x);
                let h = |a: usize, b: usize| m.squares[a * site.k + b];
                orders.insert(i, greedy(site, &output_weights(g, site), h));
            }
            Ok(Replaced::new())
        });
        match done {
            Ok(_) => return Ok(orders.into_values().collect()),
            Err(d) => first = first.or(Some(d)),
        }
    }
    match first {
        Some(d) if !settings.synthetic => Err(d.note("while measuring what heads and neurons matter")),
        _ => {
            let alike = |a: usize, b: usize| f64::from(u8::from(a == b));
            Ok(sites.iter().map(|s| greedy(s, &output_weights(g, s), alike)).collect())
        }
    }
}

/// The units of each site that go, in order.
fn chosen(sites: &[Site], orders: &[Order], settings: &StructuredSettings) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new(); sites.len()];
    for (kind, part) in [(Kind::Heads, settings.heads), (Kind::Neurons, settings.ffn)] {
        let of_kind: Vec<usize> = (0..sites.len()).filter(|&i| sites[i].kind == kind).collect();
        let total: usize = of_kind.iter().map(|&i| sites[i].units).sum();
        let of: Vec<&Order> = of_kind.iter().map(|&i| &orders[i]).collect();
        let counts = share(&of, (part * total as f64).round() as usize);
        for (&i, n) in of_kind.iter().zip(counts) {
            all[i] = orders[i].units[..n].to_vec();
            all[i].sort_unstable();
        }
    }
    all
}

/// The weights of the product behind a site, `[outputs, inputs]`.
fn output_weights(g: &Graph, site: &Site) -> Vec<f32> {
    let all = constant(g, site.matrix).map(floats).unwrap_or_default();
    if site.axis == 0 { all } else { transposed(&all, site.n) }
}

/// The products behind the sites, with the weights that are left fitted.
#[derive(Default)]
struct Fitted {
    /// `[outputs, inputs]`, 0 where units went.
    weights: BTreeMap<usize, Vec<f32>>,
    biases: BTreeMap<usize, Tensor>,
    errors: BTreeMap<usize, f64>,
    tokens: usize,
}

/// Fits site by site, on what the ones before it give.
fn fit(g: &Graph, sites: &[Site], gone: &[Vec<usize>], settings: &StructuredSettings) -> Result<Fitted, Diag> {
    let mut first = None;
    for samples in &settings.samples {
        let mut fitted = Fitted::default();
        let done = walk(g, samples, &mut |v, x| {
            let at = sites.iter().position(|s| s.output == v);
            let Some(i) = at.filter(|&i| !gone[i].is_empty()) else { return Ok(Replaced::new()) };
            fit_site(g, &sites[i], i, &gone[i], x, &mut fitted)
        });
        match done {
            Ok(_) => return Ok(fitted),
            Err(d) => first = first.or(Some(d)),
        }
    }
    match first {
        Some(d) if !settings.synthetic => Err(d.note("while fitting what is left of heads and neurons")),
        _ => Ok(Fitted::default()),
    }
}

fn fit_site(
    g: &Graph,
    site: &Site,
    i: usize,
    gone: &[usize],
    x: &[&Tensor],
    fitted: &mut Fitted,
) -> Result<Replaced, Diag> {
    let mut m = Moments::new(site.k);
    m.add(x);
    fitted.tokens = fitted.tokens.max(m.rows as usize);
    let bias = site.bias.and_then(|b| g.as_const(b)).filter(|t| t.dtype() == DType::F32);
    let Some(h) = (if bias.is_some() { Hessian::new(&m.centred()) } else { Hessian::new(&m) }) else {
        return Ok(Replaced::new());
    };
    let w0 = output_weights(g, site);
    let width = site.k / site.units;
    let free: Vec<bool> = (0..w0.len()).map(|at| !gone.contains(&(at % site.k / width))).collect();
    let w = h.solve(&w0, &free);
    fitted.errors.insert(i, h.error(&w, &w0));
    let stored = if site.axis == 0 { w.clone() } else { transposed(&w, site.k) };
    let shape = if site.axis == 0 { vec![site.n, site.k] } else { vec![site.k, site.n] };
    let mut replaced = vec![(1, Tensor::from_f32(shape, &stored))];
    if let (Some(bias), Some(at)) = (bias, site.bias_at) {
        let mean = m.mean();
        let lost = |n: usize| -> f64 {
            (0..site.k).map(|c| (f64::from(w0[n * site.k + c]) - f64::from(w[n * site.k + c])) * mean[c]).sum()
        };
        let new: Vec<f32> = floats(bias).iter().enumerate().map(|(n, b)| b + lost(n) as f32).collect();
        let new = Tensor::from_f32(bias.shape().to_vec(), &new);
        fitted.biases.insert(i, new.clone());
        replaced.push((at, new));
    }
    fitted.weights.insert(i, w);
    Ok(replaced)
}

/// Some rows (`axis` 0) or columns of a matrix, or elements of a vector.
fn select(t: &Tensor, axis: usize, of: &[usize]) -> Option<Tensor> {
    let size = t.dtype().size();
    let mut shape = t.shape().to_vec();
    let inner = shape[axis + 1..].iter().product::<usize>() * size;
    let outer = shape[..axis].iter().product::<usize>();
    let whole = shape[axis] * inner;
    let mut bytes = Vec::with_capacity(outer * of.len() * inner);
    for o in 0..outer {
        of.iter().for_each(|i| bytes.extend_from_slice(&t.bytes()[o * whole + i * inner..][..inner]));
    }
    shape[axis] = of.len();
    Tensor::new(t.dtype(), shape, bytes.into())
}

/// A constant in the place of `old`, under its names.
fn renewed(g: &mut Graph, ctx: &mut PassContext, old: ValueId, t: Option<Tensor>) -> Result<ValueId, Diag> {
    let t = t.ok_or_else(|| Diag::new("a matrix was lost"))?;
    if let Some(was) = constant(g, old).cloned() {
        ctx.rename(&was, &t);
    }
    let loc = g.node(old).loc.clone();
    let new = g.add_const(t, &loc)?;
    match *g.op(old) {
        Op::Cast(dtype) => g.add(Op::Cast(dtype), &[new], &loc),
        _ => Ok(new),
    }
}

/// The product before a site with some of its outputs, in blocks of `width` for each unit.
fn narrowed(g: &mut Graph, ctx: &mut PassContext, v: ValueId, units: usize, left: &[usize]) -> Result<ValueId, Diag> {
    let node = g.node(v).clone();
    let axis = sites::outputs_axis(&node.op);
    let matrix = constant(g, node.operands[1]).cloned().ok_or_else(|| Diag::new("a matrix was lost"))?;
    let width = matrix.shape()[axis] / units;
    let outputs: Vec<usize> = left.iter().flat_map(|u| u * width..(u + 1) * width).collect();
    let mut operands = node.operands.clone();
    operands[1] = renewed(g, ctx, node.operands[1], select(&matrix, axis, &outputs))?;
    if let Some(at) = sites::bias_at(&node.op) {
        let bias = g.as_const(operands[at]).and_then(|b| select(b, 0, &outputs));
        operands[at] = renewed(g, ctx, operands[at], bias)?;
    }
    g.add(node.op, &operands, &node.loc)
}

/// Puts a smaller site in the place of one.
fn rebuild(
    g: &mut Graph,
    ctx: &mut PassContext,
    site: &Site,
    left: &[usize],
    weights: Option<&Vec<f32>>,
    bias: Option<&Tensor>,
) -> Result<(), Diag> {
    let source = g.operands(site.output)[0];
    let middle = match *g.op(source) {
        Op::Attention(a) => {
            let node = g.node(source).clone();
            let mut operands = node.operands.clone();
            for operand in operands.iter_mut().take(3) {
                *operand = narrowed(g, ctx, *operand, site.units, left)?;
            }
            g.add(Op::Attention(Attention { heads: left.len(), ..a }), &operands, &node.loc)?
        }
        _ => narrowed(g, ctx, source, site.units, left)?,
    };
    let width = site.k / site.units;
    let inputs: Vec<usize> = left.iter().flat_map(|u| u * width..(u + 1) * width).collect();
    let old = constant(g, site.matrix).cloned().ok_or_else(|| Diag::new("a matrix was lost"))?;
    let fitted = weights.map(|w| {
        let stored = if site.axis == 0 { w.clone() } else { transposed(w, site.k) };
        let elements = stored.iter().map(|&x| Scalar::Float(f64::from(x)));
        Tensor::from_scalars(old.dtype(), old.shape().to_vec(), elements)
    });
    let matrix = select(fitted.as_ref().unwrap_or(&old), 1 - site.axis, &inputs);
    let node = g.node(site.output).clone();
    let mut operands = node.operands.clone();
    operands[0] = middle;
    operands[1] = renewed(g, ctx, site.matrix, matrix)?;
    if let (Some(at), Some(bias)) = (site.bias_at, bias) {
        operands[at] = g.add_const(bias.clone(), &node.loc)?;
    }
    let new = g.add(node.op, &operands, &node.loc)?;
    g.replace(site.output, new)
}

#[cfg(test)]
mod tests;
