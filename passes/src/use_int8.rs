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
//! With settings, the graph is evaluated on samples, and matrices that cost too much stay as they are: see `budget`.

mod budget;
mod measure;
mod product;
mod weights;

use std::collections::{BTreeMap, BTreeSet};

use bertc_ir::eval::eval_op;
use bertc_ir::{DType, Diag, Graph, Linear, MAX_INT8_K, Op, RowQuant, SumNorm, Tensor, TensorType, ValueId};

pub use budget::{Decision, Int8Report, Int8Settings, MatrixRow};
pub use measure::{Nearness, Sample};

use crate::pass::{Pass, PassContext};
use crate::pattern::{applied, remark};

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
        let mut kept = BTreeSet::new();
        if let Some(settings) = ctx.int8.clone() {
            let (stay, report) = budget::decide(g, &mut matrices, &settings)?;
            kept = stay;
            ctx.int8_report = Some(report);
        }
        transform(g, &mut matrices, &kept, &mut |g, v, done| match done {
            Ok(()) => applied(g, ctx, self.name(), v, "reads i8"),
            Err(reason) => remark(g, ctx, self.name(), v, reason),
        })
    }
}

/// Hears of a candidate: what became of it, or why it stays.
type Told<'a> = dyn FnMut(&Graph, ValueId, Result<(), &'static str>) + 'a;

/// Rewrites what can be and is not in `kept`; `told` hears of each candidate. Tells whether anything changed.
fn transform(
    g: &mut Graph,
    matrices: &mut Matrices,
    kept: &BTreeSet<ValueId>,
    told: &mut Told<'_>,
) -> Result<bool, Diag> {
    let mut made = Made { matrices, rows: BTreeMap::new(), constants: BTreeMap::new() };
    let mut changed = false;
    for v in g.topo() {
        let done = match g.op(v) {
            Op::Linear(_) | Op::MatMul { .. } | Op::SumNorm(SumNorm { tables: 1.., .. }) if kept.contains(&v) => {
                Ok(Err("it is kept as it is"))
            }
            Op::Linear(_) | Op::MatMul { .. } => product(g, &mut made, v),
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

/// A matrix of integers and its units, or why there is none.
type Quantised = Result<(Tensor, Vec<f32>), &'static str>;

/// Constant matrices and their units along an axis, for any graph that has the same constants.
#[derive(Default)]
struct Matrices(BTreeMap<(ValueId, usize), Quantised>);

impl Matrices {
    /// The constant `v` as integers.
    fn of(&mut self, g: &Graph, v: ValueId, axis: usize) -> Quantised {
        let make = || match weights::constant(g, v) {
            Some(t) => weights::quantise(t, axis),
            None => Err("the matrix is not an f32 constant"),
        };
        self.0.entry((v, axis)).or_insert_with(make).clone()
    }

    /// A constant matrix, or several side by side, as integers.
    fn side_by_side(&mut self, g: &Graph, v: ValueId, axis: usize) -> Quantised {
        let Op::Concat { .. } = g.op(v) else { return self.of(g, v, axis) };
        let parts = g.operands(v).iter().map(|&o| self.of(g, o, axis)).collect::<Result<Vec<_>, _>>()?;
        let shape = |t: &TensorType| TensorType::new(DType::I8, t.shape.clone());
        let x: Vec<&Tensor> = parts.iter().map(|p| &p.0).collect();
        let all = eval_op(g.op(v), &shape(g.ty(v)), &[], &x).map_err(|_| "the matrix is too large")?;
        Ok((all, parts.into_iter().flat_map(|p| p.1).collect()))
    }
}

/// The integers of values of one graph.
struct Made<'a> {
    matrices: &'a mut Matrices,
    /// Rows, their units and their offsets.
    rows: BTreeMap<ValueId, [ValueId; 3]>,
    /// Constant matrices and their units along an axis.
    constants: BTreeMap<(ValueId, usize), (ValueId, Vec<f32>)>,
}

/// The rows of `x` as integers, their units and their offsets.
fn quantised_rows(g: &mut Graph, x: ValueId) -> Result<[ValueId; 3], Diag> {
    let loc = g.node(x).loc.clone();
    let scale = g.add(Op::RowScale(ROWS), &[x], &loc)?;
    let offset = g.add(Op::RowOffset(ROWS), &[x], &loc)?;
    let rows = g.add(Op::QuantiseRows(ROWS), &[x], &loc)?;
    Ok([rows, scale, offset])
}

impl Made<'_> {
    /// [`quantised_rows`], once for each value.
    fn rows(&mut self, g: &mut Graph, x: ValueId) -> Result<[ValueId; 3], Diag> {
        if let Some(&made) = self.rows.get(&x) {
            return Ok(made);
        }
        let made = quantised_rows(g, x)?;
        self.rows.insert(x, made);
        Ok(made)
    }

    /// A constant matrix, or several side by side, as integers, and their units along `axis`.
    fn matrix(
        &mut self,
        g: &mut Graph,
        v: ValueId,
        axis: usize,
    ) -> Result<Result<(ValueId, Vec<f32>), &'static str>, Diag> {
        if let Some(made) = self.constants.get(&(v, axis)) {
            return Ok(Ok(made.clone()));
        }
        let loc = g.node(v).loc.clone();
        let made = if let Op::Concat { .. } = g.op(v) {
            let (mut parts, mut scales) = (Vec::new(), Vec::new());
            for o in g.operands(v).to_vec() {
                match self.matrix(g, o, axis)? {
                    Ok((part, of_part)) => {
                        parts.push(part);
                        scales.extend(of_part);
                    }
                    Err(reason) => return Ok(Err(reason)),
                }
            }
            (g.add(Op::Concat { axis }, &parts, &loc)?, scales)
        } else {
            match self.matrices.of(g, v, axis) {
                Ok((q, scales)) => (g.add_const(q, &loc)?, scales),
                Err(reason) => return Ok(Err(reason)),
            }
        };
        self.constants.insert((v, axis), made.clone());
        Ok(Ok(made))
    }
}

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

fn product(g: &mut Graph, made: &mut Made<'_>, v: ValueId) -> Outcome {
    let (linear, axis) = match candidate(g, v) {
        Ok(found) => found,
        Err(reason) => return Ok(Err(reason)),
    };
    let node = g.node(v).clone();
    let (matrix, scales) = match made.matrix(g, node.operands[1], axis)? {
        Ok(matrix) => matrix,
        Err(reason) => return Ok(Err(reason)),
    };
    let scales = g.add_const(Tensor::from_f32(vec![scales.len()], &scales), &g.node(node.operands[1]).loc.clone())?;
    let [rows, scale, offset] = made.rows(g, node.operands[0])?;
    let op = Linear { int8: true, offset: true, ..linear };
    let operands = [&[rows, matrix, scale, scales, offset], &node.operands[2..]].concat();
    let new = g.add(Op::Linear(op), &operands, &node.loc)?;
    g.replace(v, new).map(Ok)
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
        match made.matrix(g, pair[0], 0)? {
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
