//! The evaluator: executes a graph on host tensors, one op at a time. It is the oracle of every test and the engine of
//! constant folding, so it favours accuracy and the same bits on every host over speed.
//!
//! Numerics: every op rounds its result once to its dtype. Arithmetic on f32, f16 and bf16 is that of f32; a
//! transcendental function is computed in f64 (by the `libm` crate, so hosts agree) and rounded once. Sums inside
//! reductions, matrix products, softmax and layer norm are f64, in ascending order of the index.

mod data;
mod elementwise;
mod fused;
mod matmul;
mod movement;
mod quant;
mod reduce;
mod scatter;

use std::collections::BTreeMap;

use crate::diag::Diag;
use crate::dims::Dim;
use crate::graph::{Graph, ValueId};
use crate::op::Op;
use crate::tensor::{Scalar, Tensor};
use crate::types::{DType, TensorType};

/// The largest tensor that the evaluator makes, in bytes.
const MAX_BYTES: usize = 1 << 36;

/// The values of the graph's symbols that the inputs' shapes imply, one per symbol.
///
/// # Errors
/// Inputs that disagree on a symbol, and symbols that no input has as a whole dim.
pub fn solve_dims(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<i64>, Diag> {
    let mut dims: Vec<Option<i64>> = vec![None; graph.symbols.len()];
    for (port, t) in graph.inputs().iter().zip(inputs) {
        for (d, &n) in graph.ty(port.value).shape.iter().zip(t.shape()) {
            let Some(s) = d.as_symbol() else { continue };
            let known = dims[s.0 as usize].get_or_insert(n as i64);
            if *known != n as i64 {
                let name = &graph.symbols.get(s).name;
                return Err(Diag::new(format!("dim '{name}' is {known}, but input '{}' has {n}", port.name)));
            }
        }
    }
    let unknown = |i: usize| &graph.symbols.get(crate::dims::SymbolId(i as u32)).name;
    let value = |(i, d): (usize, Option<i64>)| {
        d.ok_or_else(|| Diag::new(format!("no input's shape tells the value of dim '{}'", unknown(i))))
    };
    dims.into_iter().enumerate().map(value).collect()
}

/// Evaluates a graph; returns its outputs in order. `dims[i]` is the value of symbol `i`.
///
/// # Errors
/// Dims out of range; inputs whose count, type or shape is not the graph's; an index out of range at run time.
pub fn eval(graph: &Graph, dims: &[i64], inputs: &[Tensor]) -> Result<Vec<Tensor>, Diag> {
    let mut uses: BTreeMap<ValueId, usize> = BTreeMap::new();
    let order = graph.topo();
    for &v in &order {
        graph.operands(v).iter().for_each(|&o| *uses.entry(o).or_default() += 1);
    }
    graph.outputs().iter().for_each(|o| *uses.entry(o.value).or_default() += 1);
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    check(graph, dims, inputs)?;
    for &v in &order {
        let t = step(graph, v, dims, inputs, &values)?;
        for o in graph.operands(v) {
            // A value goes with its last use, so memory stays near the graph's own need.
            let left = uses.get_mut(o).map_or(0, |n| {
                *n -= 1;
                *n
            });
            if left == 0 {
                values.remove(o);
            }
        }
        if uses.contains_key(&v) {
            values.insert(v, t);
        }
    }
    let missing = || Diag::new("an output has no value");
    graph.outputs().iter().map(|o| values.get(&o.value).cloned().ok_or_else(missing)).collect()
}

/// Evaluates a graph and returns every value in it.
///
/// # Errors
/// As [`eval`].
pub fn eval_all(graph: &Graph, dims: &[i64], inputs: &[Tensor]) -> Result<BTreeMap<ValueId, Tensor>, Diag> {
    check(graph, dims, inputs)?;
    let mut values = BTreeMap::new();
    for v in graph.topo() {
        let t = step(graph, v, dims, inputs, &values)?;
        values.insert(v, t);
    }
    Ok(values)
}

/// Evaluates one op other than `input`. `ty` is its result's type as inferred; `dims[i]` is the value of symbol `i`
/// (constants need none).
///
/// # Errors
/// An index out of range, a negative or unknown dim, a result too large to hold.
pub fn eval_op(op: &Op, ty: &TensorType, dims: &[i64], x: &[&Tensor]) -> Result<Tensor, String> {
    let shape = concrete_shape(ty, dims)?;
    let dim = |d: &Dim| d.eval(dims).ok_or_else(|| "a dim has no value in 64 bits".to_string());
    if op.arity().is_some_and(|n| n != x.len()) || x.is_empty() && op.arity().is_none() {
        return Err(format!("'{}' got {} operands", op.name(), x.len()));
    }
    let data = match op {
        Op::Input { .. } => return Err("an input has no value of its own".to_string()),
        Op::Constant(t) => return Ok(t.clone()),
        Op::Dim(d) => return Ok(Tensor::scalar(DType::I64, Scalar::Int(dim(d)?.into()))),
        Op::Iota { start, step, .. } => {
            let (start, step) = (dim(start)?, dim(step)?);
            let n = shape.first().copied().unwrap_or(0);
            (0..n).flat_map(|i| start.wrapping_add(step.wrapping_mul(i as i64)).to_le_bytes()).collect()
        }
        Op::Unary(u) => elementwise::unary(*u, x[0]),
        Op::Binary(b) => {
            elementwise::binary(*b, &movement::broadcast(x[0], &shape), &movement::broadcast(x[1], &shape))
        }
        Op::Compare(c) => {
            elementwise::compare(*c, &movement::broadcast(x[0], &shape), &movement::broadcast(x[1], &shape))
        }
        Op::Select => {
            let [c, a, b] = [0, 1, 2].map(|i| movement::broadcast(x[i], &shape));
            elementwise::select(&c, &a, &b)
        }
        Op::Cast(d) => elementwise::cast(x[0], *d),
        Op::Reduce { op, axes, .. } => reduce::reduce(*op, axes, x[0]),
        Op::ArgMax { axis, min } => reduce::arg_max(*axis, *min, x[0]),
        Op::CumSum { axis, exclusive, reverse } => reduce::cum_sum(*axis, *exclusive, *reverse, x[0]),
        Op::Softmax { axis } => reduce::softmax(*axis, x[0]),
        Op::LayerNorm { eps } => reduce::layer_norm(*eps, x[0], x[1], x[2]),
        Op::RmsNorm { eps } => reduce::rms_norm(*eps, x[0], x[1]),
        Op::MatMul { trans_b } => matmul::matmul(*trans_b, x[0], x[1], &shape),
        Op::Transpose { perm } => movement::transpose(perm, x[0]),
        Op::Reshape { .. } => {
            return x[0].reshaped(shape).ok_or_else(|| "the number of elements changes".to_string());
        }
        Op::Broadcast { .. } => return Ok(movement::broadcast(x[0], &shape)),
        Op::Slice { axis, start, len, step } => movement::slice(*axis, dim(start)?, dim(len)?, *step, x[0])?,
        Op::Concat { axis } => movement::concat(*axis, x),
        Op::Gather { axis } => movement::gather(*axis, x[0], x[1])?,
        Op::GatherElements { axis } => movement::gather_elements(*axis, x[0], x[1])?,
        Op::GatherNd { batch_dims } => movement::gather_nd(*batch_dims, x[0], x[1])?,
        Op::ScatterElements { axis, combine } => scatter::elements(*axis, *combine, x[0], x[1], x[2])?,
        Op::ScatterNd { combine } => scatter::nd(*combine, x[0], x[1], x[2])?,
        Op::TopK { axis, k, smallest } => {
            let k = usize::try_from(dim(k)?).map_err(|_| "the number of elements is negative")?;
            scatter::top_k(*axis, k, *smallest, x[0])
        }
        Op::RowScale(q) => quant::row_scale(q, x),
        Op::RowOffset(q) => quant::row_offset(q, x),
        Op::QuantiseRows(q) => quant::quantise_rows(q, x),
        Op::Quantise { to } => quant::quantise(*to, x),
        Op::Linear(l) => fused::linear(l, x, &shape),
        Op::Attention(a) => fused::attention(a, x),
        Op::SumNorm(n) => fused::sum_norm(n, x, &shape)?,
    };
    let len = data.len();
    Tensor::new(ty.dtype, shape, data.into()).ok_or_else(|| format!("'{}' gave {len} bytes", op.name()))
}

/// The shape of a type for given values of the symbols.
fn concrete_shape(ty: &TensorType, dims: &[i64]) -> Result<Vec<usize>, String> {
    let mut shape = Vec::with_capacity(ty.rank());
    let mut bytes = ty.dtype.size();
    for d in &ty.shape {
        let v = d.eval(dims).ok_or("a dim has no value in 64 bits")?;
        let v = usize::try_from(v).map_err(|_| format!("a dim is negative: {v}"))?;
        bytes = bytes.saturating_mul(v);
        shape.push(v);
    }
    if bytes > MAX_BYTES {
        return Err(format!("a tensor of shape {shape:?} is too large to evaluate"));
    }
    Ok(shape)
}

fn check(graph: &Graph, dims: &[i64], inputs: &[Tensor]) -> Result<(), Diag> {
    if dims.len() != graph.symbols.len() {
        return Err(Diag::new(format!("expected {} dims, got {}", graph.symbols.len(), dims.len())));
    }
    for ((_, s), &v) in graph.symbols.iter().zip(dims) {
        if v < s.min || v > s.max {
            return Err(Diag::new(format!("dim '{}' is {v}, outside of {}..={}", s.name, s.min, s.max)));
        }
    }
    let ports = graph.inputs();
    if inputs.len() != ports.len() {
        return Err(Diag::new(format!("expected {} inputs, got {}", ports.len(), inputs.len())));
    }
    for (p, t) in ports.iter().zip(inputs) {
        let ty = graph.ty(p.value);
        let shape = concrete_shape(ty, dims).map_err(|m| Diag::new(format!("input '{}': {m}", p.name)))?;
        if t.dtype() != ty.dtype || t.shape() != shape {
            return Err(Diag::new(format!(
                "input '{}' is {} {:?}, expected {} {shape:?}",
                p.name,
                t.dtype(),
                t.shape(),
                ty.dtype
            ))
            .note(format!("its type is {}", ty.display(&graph.symbols))));
        }
    }
    Ok(())
}

fn step(
    graph: &Graph,
    v: ValueId,
    dims: &[i64],
    inputs: &[Tensor],
    values: &BTreeMap<ValueId, Tensor>,
) -> Result<Tensor, Diag> {
    let node = graph.node(v);
    if let Op::Input { index } = node.op {
        return inputs.get(index).cloned().ok_or_else(|| Diag::new(format!("there is no input {index}")));
    }
    let missing = |o: &ValueId| Diag::new(format!("operand %{} has no value", o.0)).at(node.loc.clone());
    let x: Vec<&Tensor> =
        node.operands.iter().map(|o| values.get(o).ok_or_else(|| missing(o))).collect::<Result<_, _>>()?;
    eval_op(&node.op, &node.ty, dims, &x)
        .map_err(|m| Diag::new(format!("{}: {m}", node.op.name())).at(node.loc.clone()))
}

#[cfg(test)]
mod tests;
