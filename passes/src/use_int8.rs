//! `use-int8`: products with constant matrices become products of 8-bit integers, and embedding tables become i8.
//!
//! ```text
//! %1 = linear %0, %w, %b {bias = true, act = gelu}
//!   => %s = row_scale %0 {offset = true}
//!      %o = row_offset %0 {offset = true}
//!      %q = quantise_rows %0 {offset = true}
//!      %1 = linear %q, %w8, %s, %ws, %o, %b {int8 = true, offset = true, bias = true, act = gelu}
//! %2 = sum_norm %t, %ids {tables = 1, addends = 0}
//!   => %2 = sum_norm %t8, %ids, %ts {tables = 1, int8 = true, addends = 0}
//! ```
//!
//! Not exact: it runs where `--int8` asks for it. A weight is rounded to one of 255 multiples of its column's unit, a
//! product's left operand to one of 256 steps between the least and the greatest element of its row. The sums are exact;
//! all else stays in f32. The integers of an operand are made once for all its products. Products with few columns, as in
//! classifiers, stay as they are. Runs on fused ops, before `use-bf16`.
//!
//! With settings, the graph is evaluated on samples: channels get factors, and outliers and matrices that cost too much stay
//! floats (`search`, with the formulas in `plan`); `budget` tells names and reports.

mod budget;
mod matrices;
mod plan;
mod search;
mod weights;

use bertc_ir::{
    BinaryOp, DType, Diag, Graph, Linear, MAX_INT8_K, Node, Op, RowQuant, SumNorm, Tensor, UnaryOp, ValueId,
};

pub use budget::{Decision, Int8Report, Int8Settings, MatrixRow};

use crate::pass::{Pass, PassContext};
use crate::pattern::{applied, remark};
use matrices::{Made, Matrices};
use plan::Plan;

/// The pass.
pub struct UseInt8;

/// Products with fewer columns stay in f32: one panel of packed weights.
const MIN_COLUMNS: i64 = 16;

/// Columns of a panel of packed weights: matrices side by side are packed from whole ones.
const PANEL: i64 = 16;

/// A lane of the dot products takes so many rows of the matrix at a time.
const GROUP: i64 = 4;

/// How operands become integers: measured on sentence encoders, the error is half that of steps around 0.
const ROWS: RowQuant = RowQuant { offset: true, factor: false };

impl Pass for UseInt8 {
    fn name(&self) -> &'static str {
        "use-int8"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut matrices = Matrices::default();
        let mut plan = Plan::default();
        if let Some(settings) = &ctx.settings.int8 {
            let (decided, report) = budget::decide(g, &mut matrices, settings, &ctx.names)?;
            plan = decided;
            ctx.reports.int8 = Some(report);
        }
        transform(g, &mut matrices, &plan, &mut |g, v, done| match done {
            Ok(()) => applied(g, ctx, self.name(), v, "reads i8"),
            Err(reason) => remark(g, ctx, self.name(), v, reason),
        })
    }
}

/// Hears of a candidate: what became of it, or why it stays.
type Told<'a> = dyn FnMut(&Graph, ValueId, Result<(), &'static str>) + 'a;

/// Rewrites what can be as planned; `told` hears of each candidate. Tells whether anything changed.
fn transform(g: &mut Graph, matrices: &mut Matrices, plan: &Plan, told: &mut Told<'_>) -> Result<bool, Diag> {
    let mut made = Made::new(matrices);
    let mut changed = false;
    for v in g.topo() {
        let done = match g.op(v) {
            Op::Linear(_) | Op::MatMul { .. } | Op::SumNorm(SumNorm { tables: 1.., .. }) if plan.kept.contains(&v) => {
                Ok(Err("it is kept as it is"))
            }
            Op::Linear(_) | Op::MatMul { .. } => product(g, &mut made, plan, v),
            Op::SumNorm(s) if s.tables > 0 => tables(g, &mut made, v),
            _ => continue,
        }?;
        told(g, v, done);
        changed |= done.is_ok();
    }
    if changed {
        g.remove_dead();
    }
    Ok(changed)
}

/// What a rewrite did: `Err` inside tells why nothing.
type Outcome = Result<Result<(), &'static str>, Diag>;

/// A matmul or linear on f32 as a linear, with the axis of the matrix that its columns lie along, or why it can't be one of
/// integers.
fn candidate(g: &Graph, v: ValueId) -> Result<(Linear, usize), &'static str> {
    let linear = match *g.op(v) {
        Op::Linear(l) => l,
        Op::MatMul { trans_b } => Linear { trans_b, ..Linear::default() },
        _ => return Err("it is no product"),
    };
    let [a, b] = [g.operands(v)[0], g.operands(v)[1]];
    let axis = usize::from(!linear.trans_b);
    if [a, b].iter().any(|&o| g.ty(o).dtype != DType::F32) {
        return Err("its operands are not f32");
    }
    side_by_side(g, b, axis)?;
    let (k, n) = (&g.ty(b).shape[1 - axis], &g.ty(b).shape[axis]);
    match k.as_const() {
        Some(k) if k <= 0 || k % GROUP != 0 => Err("the inner dim is not a multiple of 4"),
        Some(k) if k > MAX_INT8_K => Err("the inner dim is so large that sums may overflow"),
        Some(_) if n.as_const().is_some_and(|n| n >= MIN_COLUMNS) => Ok((linear, axis)),
        Some(_) => Err("it has few columns"),
        None => Err("the inner dim is not a constant"),
    }
}

/// Checks for a constant matrix, or several whose columns lie side by side.
fn side_by_side(g: &Graph, b: ValueId, columns: usize) -> Result<(), &'static str> {
    if g.ty(b).rank() != 2 {
        return Err("the matrix is not of rank 2");
    }
    let Op::Concat { axis } = *g.op(b) else {
        return weights::constant(g, b).map(|_| ()).ok_or("the matrix is not an f32 constant");
    };
    let parts = g.operands(b);
    let whole = |&&v: &&ValueId| g.ty(v).shape[columns].as_const().is_some_and(|n| n % PANEL == 0);
    if parts.iter().any(|&v| weights::constant(g, v).is_none()) {
        Err("the matrix is not an f32 constant")
    } else if axis != columns || parts.iter().rev().skip(1).any(|v| !whole(&v)) {
        Err("the matrix is put together otherwise than from panels of 16 columns")
    } else {
        Ok(())
    }
}

fn product(g: &mut Graph, made: &mut Made<'_>, plan: &Plan, v: ValueId) -> Outcome {
    let (linear, axis) = match candidate(g, v) {
        Ok(found) => found,
        Err(reason) => return Ok(Err(reason)),
    };
    let (linear, node) = shifted(g, plan, v, linear)?;
    let [x, b] = [node.operands[0], node.operands[1]];
    let channels = plan.channels(g, v);
    let (matrix, scales) = match made.matrix(g, b, axis, channels.as_ref())? {
        Ok(matrix) => matrix,
        Err(reason) => return Ok(Err(reason)),
    };
    let scales = g.add_const(Tensor::from_f32(vec![scales.len()], &scales), &g.node(b).loc.clone())?;
    let [rows, scale, offset] = made.rows(g, x, channels.as_ref())?;
    let integers = [rows, matrix, scale, scales, offset];
    let new = match plan.outliers.get(&v) {
        None => {
            let operands = [&integers, &node.operands[2..]].concat();
            g.add(Op::Linear(Linear { int8: true, offset: true, ..linear }), &operands, &node.loc)?
        }
        Some(outliers) => {
            let Some(own) = weights::channels(g, b, axis, outliers) else { return Ok(Err("its outliers are none")) };
            with_outliers(g, &node, &linear, integers, (outliers, own))?
        }
    };
    g.replace(v, new).map(Ok)
}

/// Whether a product can be a sum of two, each of some channels: what it does with rows of padding must come out the same.
fn splits(l: &Linear) -> bool {
    let kept_zero = !matches!(l.act, Some(UnaryOp::Sigmoid)) && !l.residual && l.norm.is_none();
    l.act.is_none() || !l.lengths || kept_zero
}

/// The product `v`, where its bias has taken up what is planned to be added to its columns.
fn shifted(g: &mut Graph, plan: &Plan, v: ValueId, mut linear: Linear) -> Result<(Linear, Node), Diag> {
    let mut node = g.node(v).clone();
    if let Some(shift) = plan.shifts.get(&v) {
        let shift = g.add_const(Tensor::from_f32(vec![shift.len()], shift), &node.loc)?;
        match linear.bias_at() {
            Some(at) => node.operands[at] = g.add(Op::Binary(BinaryOp::Add), &[node.operands[at], shift], &node.loc)?,
            None => {
                linear.bias = true;
                node.operands.insert(2, shift);
            }
        }
    }
    Ok((linear, node))
}

/// A product as one of integers plus one of floats, of the channels `outliers` with that part of the matrix.
fn with_outliers(
    g: &mut Graph,
    node: &Node,
    l: &Linear,
    integers: [ValueId; 5],
    (outliers, matrix): (&[usize], Tensor),
) -> Result<ValueId, Diag> {
    let (loc, at) = (&node.loc, |i: Option<usize>, n: usize| i.map_or(&[][..], |i| &node.operands[i..i + n]));
    let x = node.operands[0];
    let ids: Vec<i64> = outliers.iter().map(|&c| c as i64).collect();
    let ids = g.add_const(Tensor::from_i64(vec![ids.len()], &ids), loc)?;
    let axis = g.ty(x).rank().saturating_sub(1);
    let floats = g.add(Op::Gather { axis }, &[x, ids], loc)?;
    let matrix = g.add_const(matrix, loc)?;
    // The activation is of the whole sum, and the residual comes after it.
    let late = l.act.is_some();
    let part = Linear { bias: l.bias, residual: l.residual && !late, ..Linear::default() };
    let residual = at(l.residual_at(), 1);
    let operands = [&[floats, matrix][..], at(l.bias_at(), 1), if late { &[] } else { residual }].concat();
    let part = g.add(Op::Linear(part), &operands, loc)?;
    let norm = l.norm.filter(|_| !late);
    let (trans_b, lengths) = (l.trans_b, l.lengths);
    let whole = Linear { trans_b, int8: true, offset: true, residual: true, norm, lengths, ..Linear::default() };
    let affine = at(l.gamma_at(), 2);
    let operands = [&integers[..], &[part], if late { &[] } else { affine }, at(l.lengths_at(), 1)].concat();
    let mut y = g.add(Op::Linear(whole), &operands, loc)?;
    let Some(act) = l.act else { return Ok(y) };
    y = g.add(Op::Unary(act), &[y], loc)?;
    if let [r] = residual {
        y = g.add(Op::Binary(BinaryOp::Add), &[y, *r], loc)?;
    }
    match (l.norm, affine) {
        (Some(eps), [gamma, beta]) => g.add(Op::LayerNorm { eps }, &[y, *gamma, *beta], loc),
        _ => Ok(y),
    }
}

/// Tables of constants that a sum takes rows of.
fn tables(g: &mut Graph, made: &mut Made<'_>, v: ValueId) -> Outcome {
    let Op::SumNorm(s) = *g.op(v) else { return Ok(Err("it is no sum")) };
    let node = g.node(v).clone();
    if s.int8 || node.operands[..s.addends_at()].chunks_exact(2).any(|pair| weights::constant(g, pair[0]).is_none()) {
        return Ok(Err("its tables are not f32 constants"));
    }
    let mut operands = Vec::new();
    for pair in node.operands[..s.addends_at()].chunks_exact(2) {
        match made.matrix(g, pair[0], 0, None)? {
            Ok((table, scales)) => {
                let scales = Tensor::from_f32(vec![scales.len()], &scales);
                let scales = g.add_const(scales, &g.node(pair[0]).loc.clone())?;
                operands.extend([table, pair[1], scales]);
            }
            Err(reason) => return Ok(Err(reason)),
        }
    }
    operands.extend(&node.operands[s.addends_at()..]);
    let new = g.add(Op::SumNorm(SumNorm { int8: true, ..s }), &operands, &node.loc)?;
    g.replace(v, new).map(Ok)
}

#[cfg(test)]
mod tests;
