//! Attentions and feed-forward layers whose heads and neurons can go.

use bertc_ir::{DType, Graph, Linear, Op, Tensor, ValueId};

use crate::measure::constants::constant;
use crate::measure::names;

/// What a site consists of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Heads of an attention.
    Heads,
    /// Neurons between two products.
    Neurons,
}

/// A product, and the heads or neurons that it reads.
#[derive(Clone, Debug)]
pub struct Site {
    pub kind: Kind,
    /// The product.
    pub output: ValueId,
    /// Its matrix, and the axis of its outputs.
    pub matrix: ValueId,
    pub axis: usize,
    /// Its outputs and inputs.
    pub n: usize,
    pub k: usize,
    /// Heads or neurons.
    pub units: usize,
    /// Its bias and where it is.
    pub bias: Option<ValueId>,
    pub bias_at: Option<usize>,
    /// What the model calls its matrix and those before it.
    pub names: Vec<String>,
}

/// The axis of a product's matrix that its outputs lie along.
pub fn outputs_axis(op: &Op) -> usize {
    match op {
        Op::Linear(Linear { trans_b, .. }) | Op::MatMul { trans_b } => usize::from(!trans_b),
        _ => 1,
    }
}

/// Where a product has its bias.
pub fn bias_at(op: &Op) -> Option<usize> {
    if let Op::Linear(l) = op { l.bias_at() } else { None }
}

/// Checks for a product in floats whose constant matrix nothing else reads.
fn owns(g: &Graph, v: ValueId) -> bool {
    let product = matches!(g.op(v), Op::Linear(Linear { int8: false, .. }) | Op::MatMul { .. });
    product && {
        let b = g.operands(v)[1];
        let read = |v: ValueId| g.users(v).len() == 1 && !g.is_output(v);
        let cast = |v: ValueId| !matches!(g.op(v), Op::Cast(_)) || read(g.operands(v)[0]);
        g.ty(g.operands(v)[0]).dtype == DType::F32
            && constant(g, b).is_some_and(|t| t.shape().len() == 2)
            && read(b)
            && cast(b)
    }
}

/// Checks for a product before heads or neurons: nothing may come behind its activation.
fn feeds(g: &Graph, v: ValueId, users: usize) -> bool {
    let plain = match g.op(v) {
        Op::Linear(l) => !l.residual && l.norm.is_none(),
        _ => true,
    };
    let constant_bias = bias_at(g.op(v)).is_none_or(|at| g.as_const(g.operands(v)[at]).is_some());
    owns(g, v) && plain && constant_bias && !g.is_output(v) && g.users(v).len() == users
}

/// All sites in order, and what is none, with the reason.
pub fn find(g: &Graph, known: &[(Tensor, String)]) -> (Vec<Site>, Vec<(ValueId, &'static str)>) {
    let (mut sites, mut missed) = (Vec::new(), Vec::new());
    for v in g.topo() {
        if !matches!(g.op(v), Op::Linear(_) | Op::MatMul { .. }) || !owns(g, v) {
            continue;
        }
        let source = g.operands(v)[0];
        let (kind, units, before) = match g.op(source) {
            Op::Attention(a) => (Kind::Heads, a.heads, g.operands(source)[..3].to_vec()),
            Op::Linear(l) if l.act.is_some() => {
                let n = g.ty(source).shape.last().and_then(bertc_ir::Dim::as_const).unwrap_or(0);
                (Kind::Neurons, usize::try_from(n).unwrap_or(0), vec![source])
            }
            _ => continue,
        };
        if let Err(reason) = fits(g, source, kind, &before) {
            missed.push((v, reason));
            continue;
        }
        let Some(&[x, y]) = constant(g, g.operands(v)[1]).map(Tensor::shape) else { continue };
        let axis = outputs_axis(g.op(v));
        let (n, k) = if axis == 0 { (x, y) } else { (y, x) };
        if units == 0 || k % units != 0 {
            continue;
        }
        let bias_at = bias_at(g.op(v));
        let all = [v].into_iter().chain(before);
        let names = all.flat_map(|v| {
            let constants: Vec<&Tensor> = constant(g, g.operands(v)[1]).into_iter().collect();
            names::of(g, known, &constants, [v].into_iter(), false)
        });
        let mut names: Vec<String> = names.collect();
        if names.is_empty() {
            names.push(format!("%{}", v.0));
        }
        let matrix = g.operands(v)[1];
        let bias = bias_at.map(|at| g.operands(v)[at]);
        sites.push(Site { kind, output: v, matrix, axis, n, k, units, bias, bias_at, names });
    }
    (sites, missed)
}

/// Checks what lies before a product.
fn fits(g: &Graph, source: ValueId, kind: Kind, before: &[ValueId]) -> Result<(), &'static str> {
    if g.users(source).len() != 1 || g.is_output(source) {
        return Err("something else reads the heads or neurons");
    }
    if kind == Kind::Neurons {
        return if feeds(g, source, 1) {
            Ok(())
        } else {
            Err("the neurons are not those of a product with its own matrix")
        };
    }
    let Op::Attention(a) = g.op(source) else { return Err("it reads no attention") };
    let unlike = |at: usize| {
        let shape = &g.ty(g.operands(source)[at]).shape;
        shape.len() > 3 && shape[shape.len() - 3].as_const() != Some(1)
    };
    if a.mask_at().is_some_and(unlike) {
        return Err("the mask differs by head");
    }
    let divides = |v: &ValueId| {
        let n = g.ty(*v).shape.last().and_then(bertc_ir::Dim::as_const);
        n.and_then(|n| usize::try_from(n).ok()).is_some_and(|n| n % a.heads == 0)
    };
    let distinct = before[0] != before[1] && before[1] != before[2] && before[0] != before[2];
    if !distinct || !before.iter().all(|v| feeds(g, *v, 1) && divides(v)) {
        return Err("queries, keys and values are not products with matrices of their own");
    }
    Ok(())
}
