//! Evaluates graphs for measuring: as the evaluator does, but with fast products with matrices. Passes that measure what
//! they cost share this, and what matrices are called.

pub mod constants;
pub mod names;
pub mod product;

use std::collections::BTreeMap;

use bertc_ir::eval::eval_op;
use bertc_ir::{BinaryOp, DType, Diag, Graph, Linear, Op, Tensor, TensorType, ValueId};

use product::{product, wide};

/// Inputs of a graph, and the values of its symbols.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The value of each symbol.
    pub dims: Vec<i64>,
    /// The inputs in order.
    pub inputs: Vec<Tensor>,
}

/// How near one result is to another.
#[derive(Clone, Copy, Default, Debug)]
pub struct Nearness {
    signal: f64,
    noise: f64,
    both: f64,
    other: f64,
}

impl Nearness {
    /// Takes elements of the true result and of the other one.
    pub fn add(&mut self, x: f32, y: f32) {
        let (x, y) = (f64::from(x), f64::from(y));
        self.signal += x * x;
        self.noise += (x - y) * (x - y);
        self.both += x * y;
        self.other += y * y;
    }

    /// Of two tensors.
    pub fn of(x: &Tensor, y: &Tensor) -> Nearness {
        let mut n = Nearness::default();
        wide(x).into_iter().zip(wide(y)).for_each(|(x, y)| n.add(x, y));
        n
    }

    /// Signal to noise in dB; infinite where there is no noise.
    pub fn snr(&self) -> f64 {
        if self.noise == 0.0 { f64::INFINITY } else { 10.0 * (self.signal / self.noise).log10() }
    }

    /// The cosine of the angle between them; 1 of two zeros, and 0 where something is not finite.
    pub fn cosine(&self) -> f64 {
        match self.both / (self.signal.sqrt() * self.other.sqrt()) {
            _ if self.signal == 0.0 && self.other == 0.0 => 1.0,
            c if c.is_finite() => c,
            _ => 0.0,
        }
    }
}

/// The mean of so many errors is an eighth of them, if it is none of the method.
const ROWS: f64 = 64.0;

/// Compares results `[…, n]` of several samples, and what they differ by in each column.
#[derive(Clone, Default, Debug)]
pub struct Columns {
    pub near: Nearness,
    rows: f64,
    /// Of the true results and of the others.
    sums: Vec<[f64; 2]>,
}

impl Columns {
    /// Takes the true result and the other one, of the same shape.
    pub fn add(&mut self, x: &Tensor, y: &Tensor) {
        let n = x.shape().last().copied().unwrap_or(0).max(1);
        self.sums.resize(n, [0.0; 2]);
        for (x, y) in wide(x).chunks_exact(n).zip(wide(y).chunks_exact(n)) {
            self.rows += 1.0;
            for ((&x, &y), sum) in x.iter().zip(y).zip(&mut self.sums) {
                self.near.add(x, y);
                sum[0] += f64::from(x);
                sum[1] += f64::from(y);
            }
        }
    }

    /// What the other results lack in each column, in the mean; nothing where rows are too few to tell.
    pub fn shift(&self) -> Option<Vec<f32>> {
        let mean = |[x, y]: &[f64; 2]| ((x - y) / self.rows) as f32;
        (self.rows >= ROWS).then(|| self.sums.iter().map(mean).collect())
    }

    /// How near the other results are with [`Columns::shift`] added.
    pub fn shifted(&self) -> Nearness {
        let mut near = self.near;
        for (&[x, y], shift) in self.sums.iter().zip(self.shift().unwrap_or_default()) {
            let d = f64::from(shift);
            let square = self.rows * d * d;
            near.noise = (near.noise - 2.0 * d * (x - y) + square).max(0.0);
            near.both += d * x;
            near.other += 2.0 * d * y + square;
        }
        near
    }
}

/// Hears of a value that is computed, with its operands.
pub type Watch<'a> = dyn FnMut(ValueId, &[&Tensor], &Tensor) + 'a;

/// The outputs of `g`. `watch` is told of each value that it computes, with its operands and, of a product with a constant
/// matrix, that alone.
///
/// # Errors
/// As those of the evaluator.
pub fn outputs(g: &Graph, s: &Sample, watch: &mut Watch<'_>) -> Result<Vec<Tensor>, Diag> {
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    for v in g.topo() {
        let node = g.node(v);
        if let Op::Input { index } = node.op {
            values.insert(v, input(s, index)?);
            continue;
        }
        let x: Vec<&Tensor> =
            node.operands.iter().map(|o| values.get(o).ok_or_else(missing)).collect::<Result<_, _>>()?;
        let y = value(g, s, v, &x, watch)?;
        values.insert(v, y);
    }
    g.outputs().iter().map(|o| values.get(&o.value).cloned().ok_or_else(missing)).collect()
}

/// Operands of a node that others take the places of, by position.
pub type Replaced = Vec<(usize, Tensor)>;

/// What [`walk`] asks.
pub type Replace<'a> = dyn FnMut(ValueId, &[&Tensor]) -> Result<Replaced, Diag> + 'a;

/// The outputs of `g` for all samples, a value of all of them after another, so that what is decided at one value holds for
/// all that follow. `replace` is asked at each value, with the first operand of each sample, for operands to take instead.
///
/// # Errors
/// As those of the evaluator, and of `replace`.
pub fn walk(g: &Graph, samples: &[Sample], replace: &mut Replace<'_>) -> Result<Vec<Vec<Tensor>>, Diag> {
    let mut values: BTreeMap<ValueId, Vec<Tensor>> = BTreeMap::new();
    let mut readers: BTreeMap<ValueId, usize> = BTreeMap::new();
    let order = g.topo();
    let read = order.iter().flat_map(|&v| g.operands(v).iter().copied()).chain(g.outputs().iter().map(|o| o.value));
    read.for_each(|v| *readers.entry(v).or_default() += 1);
    for v in order {
        let node = g.node(v);
        let all = match (&node.op, node.operands.first()) {
            (Op::Input { index }, _) => samples.iter().map(|s| input(s, *index)).collect::<Result<_, _>>()?,
            (_, None) => {
                // Constants are one for all samples, unless dims are in them.
                let of = |s| value(g, s, v, &[], &mut |_, _, _| {});
                samples.iter().map(of).collect::<Result<Vec<_>, _>>()?
            }
            (_, Some(first)) => {
                let heads: Vec<&Tensor> = values.get(first).ok_or_else(missing)?.iter().collect();
                let replaced = replace(v, &heads)?;
                let of = |i: usize, s: &Sample| {
                    let mut x: Vec<&Tensor> = node
                        .operands
                        .iter()
                        .map(|o| values.get(o).map(|all| &all[i]).ok_or_else(missing))
                        .collect::<Result<_, _>>()?;
                    replaced.iter().for_each(|(at, t)| x[*at] = t);
                    value(g, s, v, &x, &mut |_, _, _| {})
                };
                in_parallel(samples, &of)?
            }
        };
        for o in &node.operands {
            let left = readers.entry(*o).or_default();
            *left = left.saturating_sub(1);
            if *left == 0 {
                values.remove(o);
            }
        }
        values.insert(v, all);
    }
    let of = |i: usize| {
        g.outputs().iter().map(|o| values.get(&o.value).map(|all| all[i].clone()).ok_or_else(missing)).collect()
    };
    (0..samples.len()).map(of).collect()
}

/// `of` for each sample, by all cores.
fn in_parallel(
    samples: &[Sample],
    of: &(dyn Fn(usize, &Sample) -> Result<Tensor, Diag> + Sync),
) -> Result<Vec<Tensor>, Diag> {
    let workers = std::thread::available_parallelism().map_or(1, usize::from).min(samples.len().max(1));
    let share = samples.len().div_ceil(workers).max(1);
    std::thread::scope(|scope| {
        let work = |(part, samples): (usize, &[Sample])| {
            let all = samples.iter().enumerate().map(|(i, s)| of(part * share + i, s));
            all.collect::<Result<Vec<_>, _>>()
        };
        let running: Vec<_> = samples.chunks(share).enumerate().map(|part| scope.spawn(move || work(part))).collect();
        let parts = running.into_iter().map(|r| r.join().unwrap_or_else(|p| std::panic::resume_unwind(p)));
        parts.collect::<Result<Vec<_>, _>>().map(|parts| parts.concat())
    })
}

fn missing() -> Diag {
    Diag::new("an operand has no value")
}

fn input(s: &Sample, index: usize) -> Result<Tensor, Diag> {
    s.inputs.get(index).cloned().ok_or_else(|| Diag::new(format!("there is no input {index}")))
}

/// The value of a node that is no input.
fn value(g: &Graph, s: &Sample, v: ValueId, x: &[&Tensor], watch: &mut Watch<'_>) -> Result<Tensor, Diag> {
    let node = g.node(v);
    let fail = |m: String| Diag::new(format!("{}: {m}", node.op.name())).at(node.loc.clone());
    let linear = match node.op {
        Op::Linear(l) => Some(l),
        Op::MatMul { trans_b } if g.ty(v).dtype == DType::F32 => Some(Linear { trans_b, ..Linear::default() }),
        _ => None,
    };
    let fast = linear.filter(|l| is_fast(l, x));
    Ok(match fast {
        Some(l) => {
            let y = sums(&l, x).ok_or_else(missing)?;
            watch(v, x, &y);
            epilogue(&l, y, x).map_err(fail)?
        }
        None => {
            let y = eval_op(&node.op, &node.ty, &s.dims, x).map_err(fail)?;
            watch(v, x, &y);
            y
        }
    })
}

/// Whether [`sums`] does a product.
fn is_fast(l: &Linear, x: &[&Tensor]) -> bool {
    let f32s = x[0].dtype() == DType::F32 && x[1].dtype() == DType::F32;
    x[1].shape().len() == 2 && (f32s && !l.int8 || l.int8 && l.offset && !l.zero && x[0].dtype() == DType::I8)
}

/// A product in f32, or one of integers with its scales and offsets.
pub fn sums(l: &Linear, x: &[&Tensor]) -> Option<Tensor> {
    let n = x[1].shape()[usize::from(!l.trans_b)];
    let mut y = product(&wide(x[0]), x[1], l.trans_b);
    if let (Some(at), Some(offset)) = (l.scales_at(), l.offset_at()) {
        let k = x[1].shape()[usize::from(l.trans_b)];
        let columns = product(&vec![1.0; k], x[1], l.trans_b);
        let [rows, scales, offsets] = [at, at + 1, offset].map(|i| wide(x[i]));
        for (row, (s, o)) in y.chunks_exact_mut(n.max(1)).zip(rows.iter().zip(&offsets)) {
            let each = row.iter_mut().zip(&scales).zip(&columns);
            each.for_each(|((y, w), c)| *y = *y * w * s + c * w * o);
        }
    }
    let shape = [&x[0].shape()[..x[0].shape().len() - 1], &[n]].concat();
    f32s(shape, &y)
}

/// A tensor of f32.
fn f32s(shape: Vec<usize>, data: &[f32]) -> Option<Tensor> {
    Tensor::new(DType::F32, shape, data.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>().into())
}

/// What a linear does with its product.
fn epilogue(l: &Linear, mut y: Tensor, x: &[&Tensor]) -> Result<Tensor, String> {
    let of = |dtype, y: &Tensor| TensorType::new(dtype, y.shape().iter().map(|&d| (d as i64).into()).collect());
    let apply = |op: Op, x: &[&Tensor]| eval_op(&op, &of(DType::F32, x[0]), &[], x);
    if let Some(at) = l.bias_at() {
        y = apply(Op::Binary(BinaryOp::Add), &[&y, x[at]])?;
    }
    if let Some(act) = l.act {
        y = apply(Op::Unary(act), &[&y])?;
    }
    if let Some(at) = l.residual_at() {
        let residual = apply(Op::Cast(DType::F32), &[x[at]])?;
        y = apply(Op::Binary(BinaryOp::Add), &[&y, &residual])?;
    }
    if let Some((eps, at)) = l.norm.zip(l.gamma_at()) {
        y = apply(Op::LayerNorm { eps }, &[&y, x[at], x[at + 1]])?;
    }
    if let (Some(at), &[.., m, n]) = (l.lengths_at(), y.shape()) {
        let mut all = wide(&y);
        for (matrix, length) in all.chunks_exact_mut((m * n).max(1)).zip(x[at].iter()) {
            matrix[length.to_int().clamp(0, m as i128) as usize * n..].fill(0.0);
        }
        y = f32s(y.shape().to_vec(), &all).ok_or("rows were lost")?;
    }
    if l.bf16 { eval_op(&Op::Cast(DType::BF16), &of(DType::BF16, &y), &[], &[&y]) } else { Ok(y) }
}
