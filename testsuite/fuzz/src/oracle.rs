//! Comparison of floats that were computed in different orders.
//!
//! Random graphs are full of cancellation and of jumps (a comparison of two nearly equal numbers), where a difference in
//! the last bit of an intermediate result changes everything. So the evaluator runs several times with the results of
//! inexact ops disturbed by a few units in the last place, and what the outputs then differ by is what an
//! implementation may differ by.

use std::collections::BTreeMap;

use bertc_ir::eval::eval_op;
use bertc_ir::{BinaryOp, DType, Graph, Op, ReduceOp, Scalar, Tensor, UnaryOp, ValueId};

use crate::random::Random;

/// Relative size of a disturbance.
const NOISE: f64 = 1.0 / (1 << 20) as f64;

/// Disturbed runs: so many that a jump that is missed in half of them is missed in all once in a thousand times.
const RUNS: u64 = 10;

/// What an implementation may differ by, as a multiple of the largest difference among the disturbed runs.
const FACTOR: f64 = 64.0;

/// What an implementation may differ by, as a multiple of what integers give that are one more or less where they are close to
/// that. Few of them are at once.
const STEPS: f64 = 4.0;

/// How close to another integer is close: sums of several terms come before.
const CLOSE: f64 = 1.0 / 256.0;

/// Results smaller than this may be 0 in another form of a computation: the smallest normal number, and some more.
const TINY: f64 = 1e-36;

/// The difference that is always allowed, relative to the largest value.
const TOLERANCE: f64 = 1e-4;

/// Expected outputs with the error that each element may have; a NaN allows anything.
#[derive(Clone, Debug)]
pub struct Expected {
    /// The outputs.
    pub outputs: Vec<Tensor>,
    errors: Vec<Vec<f64>>,
    /// The same from integers that are one more or less.
    steps: Vec<Vec<f64>>,
    /// Something overflowed on the way.
    wild: bool,
}

/// What only moves or picks elements, or computes exactly.
fn exact(op: &Op) -> bool {
    match op {
        Op::Unary(u) => matches!(
            u,
            UnaryOp::Neg
                | UnaryOp::Abs
                | UnaryOp::Sign
                | UnaryOp::Relu
                | UnaryOp::Floor
                | UnaryOp::Ceil
                | UnaryOp::Round
                | UnaryOp::Not
                | UnaryOp::IsNan
                | UnaryOp::IsInf
        ),
        Op::Reduce { op, .. } => matches!(op, ReduceOp::Max | ReduceOp::Min),
        Op::Binary(b) => matches!(b, BinaryOp::Min | BinaryOp::Max),
        Op::ScatterElements { combine, .. } | Op::ScatterNd { combine } => {
            combine.is_none_or(|c| matches!(c, BinaryOp::Min | BinaryOp::Max))
        }
        Op::Compare(_)
        | Op::Select
        | Op::Cast(_)
        | Op::Input { .. }
        | Op::Constant(_)
        | Op::Dim(_)
        | Op::Iota { .. }
        | Op::ArgMax { .. }
        | Op::TopK { .. }
        | Op::Transpose { .. }
        | Op::Reshape { .. }
        | Op::Broadcast { .. }
        | Op::Slice { .. }
        | Op::Concat { .. }
        | Op::Gather { .. }
        | Op::GatherElements { .. }
        | Op::GatherNd { .. } => true,
        _ => false,
    }
}

/// Results smaller than this may be 0: a gelu's factor of 1 + erf or 1 + tanh cancels where it is spelled out.
fn tiny(op: &Op) -> f64 {
    let gelu = |u: UnaryOp| matches!(u, UnaryOp::Gelu | UnaryOp::GeluTanh);
    match op {
        Op::Unary(u) if gelu(*u) => NOISE,
        Op::Linear(l) if l.act.is_some_and(gelu) => NOISE,
        _ => TINY,
    }
}

fn disturbed(t: &Tensor, tiny: f64, r: &mut Random) -> Tensor {
    if !t.dtype().is_float() {
        return t.clone();
    }
    // Narrow types round on their own: a disturbance that shows is one of their last bit.
    let noise = match t.dtype() {
        DType::F16 => 1.0 / 1024.0,
        DType::BF16 => 1.0 / 128.0,
        _ => NOISE,
    };
    let mut next = |x: Scalar| {
        let by = 1.0 + noise * (r.below(2001) as f64 / 1000.0 - 1.0);
        match x.to_f64() {
            // The sign of a zero is not kept by every form of a computation, nor is what nearly underflows.
            0.0 if r.one_in(2) => Scalar::Float(-x.to_f64()),
            v if v.abs() < tiny && r.one_in(2) => Scalar::Float(0.0),
            v => Scalar::Float(v * by),
        }
    };
    let elements: Vec<Scalar> = t.iter().map(&mut next).collect();
    Tensor::from_scalars(t.dtype(), t.shape().to_vec(), elements)
}

/// Values above are as good as infinite: their squares, of which a variance is made, are nearly so.
const HUGE: f64 = 1e15;

/// Whether an op made something infinite or huge, or no number, of ordinary values. What comes of a constant infinity,
/// such as a mask's, is well defined; an overflow is not.
fn overflows(x: &[&Tensor], y: &Tensor) -> bool {
    let all = |t: &Tensor, f: fn(f64) -> bool| !t.dtype().is_float() || t.iter().all(|v| f(v.to_f64()));
    if !all(y, |v| !v.is_nan()) && x.iter().all(|t| all(t, |v| !v.is_nan())) {
        return true;
    }
    !all(y, |v| v.abs() < HUGE) && x.iter().all(|t| all(t, |v| v.abs() < HUGE))
}

/// Whether the last bits of a softmax's operand decide between its largest elements.
fn tied(x: &Tensor, axis: usize) -> bool {
    let (len, inner) = (x.shape()[axis], x.shape()[axis + 1..].iter().product::<usize>());
    let x: Vec<f64> = x.iter().map(|v| v.to_f64()).collect();
    let row = |first: usize| (0..len).map(move |k| first + k * inner);
    (0..x.len()).filter(|i| i / inner % len == 0).any(|first| {
        let top = row(first).map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
        let noise = FACTOR * NOISE * top.abs();
        // A mask's constant is exact, however large.
        noise > 1.0 && top.abs() < HUGE && row(first).any(|i| x[i] != top && top - x[i] < noise)
    })
}

/// Whether a quotient may be so large that the remainder in compiled code is not exact: it divides and multiplies.
fn far(x: &Tensor, y: &Tensor) -> bool {
    let magnitudes = |t: &Tensor| t.iter().map(|v| v.to_f64().abs()).collect::<Vec<_>>();
    let largest = magnitudes(x).into_iter().fold(0.0, f64::max);
    let smallest = magnitudes(y).into_iter().fold(f64::INFINITY, f64::min);
    x.dtype().is_float() && largest > smallest * (1 << 20) as f64
}

/// What is made integers, with elements that are close to the edge between two on either side of it.
fn on_the_edge(op: &Op, x: &[&Tensor], r: &mut Random) -> Tensor {
    let of: Vec<f64> = x[0].iter().map(|v| v.to_f64()).collect();
    let row = match op {
        Op::Quantise { .. } => 1,
        _ => x[0].shape().last().copied().unwrap_or(1).max(1),
    };
    let elements = of.chunks(row).flat_map(|row| {
        let step = match op {
            Op::Quantise { .. } => x[1].get(0).to_f64(),
            _ => row.iter().fold(0.0f64, |m, v| m.max(v.abs())) / 127.0,
        };
        let noise = step * CLOSE;
        row.iter().map(|v| Scalar::Float(v + noise * (r.below(2001) as f64 / 1000.0 - 1.0))).collect::<Vec<_>>()
    });
    Tensor::from_scalars(x[0].dtype(), x[0].shape().to_vec(), elements.collect::<Vec<_>>())
}

/// Evaluates with integers that are one more or less.
fn run_steps(g: &Graph, dims: &[i64], inputs: &[Tensor], r: &mut Random) -> Result<Vec<Tensor>, String> {
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    for v in g.topo() {
        let node = g.node(v);
        let t = match node.op {
            Op::Input { index } => inputs[index].clone(),
            ref op => {
                let mut x: Vec<&Tensor> = node.operands.iter().map(|o| &values[o]).collect();
                let edge = is_quantised(op).then(|| on_the_edge(op, &x, r));
                if let Some(edge) = &edge {
                    x[0] = edge;
                }
                eval_op(op, &node.ty, dims, &x)?
            }
        };
        values.insert(v, t);
    }
    Ok(g.outputs().iter().map(|o| values[&o.value].clone()).collect())
}

/// Whether an op makes integers of floats, by steps of any size.
fn is_quantised(op: &Op) -> bool {
    matches!(op, Op::Quantise { .. } | Op::QuantiseRows(_))
}

/// The largest difference of two results; NaN where nothing can be said.
fn difference(x: Scalar, y: Scalar) -> f64 {
    let (x, y) = (x.to_f64(), y.to_f64());
    let same = x == y || x.is_nan() && y.is_nan();
    let d = if same { 0.0 } else { (x - y).abs() };
    // On the edge to infinity or to no number: nothing is said about it.
    if d.is_finite() { d } else { f64::NAN }
}

/// The larger one; NaN if either is.
fn larger(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() { f64::NAN } else { a.max(b) }
}

/// Evaluates with disturbances; whether something overflowed, too.
fn run(g: &Graph, dims: &[i64], inputs: &[Tensor], r: &mut Random) -> Result<(Vec<Tensor>, bool), String> {
    let mut values: BTreeMap<ValueId, Tensor> = BTreeMap::new();
    let mut wild = false;
    for v in g.topo() {
        let node = g.node(v);
        let t = match node.op {
            Op::Input { index } => inputs[index].clone(),
            ref op if exact(op) => {
                let x: Vec<&Tensor> = node.operands.iter().map(|o| &values[o]).collect();
                let y = eval_op(op, &node.ty, dims, &x)?;
                // Narrower floats overflow early.
                wild |= matches!(op, Op::Cast(_)) && overflows(&x, &y);
                y
            }
            Op::Binary(BinaryOp::Rem | BinaryOp::Mod)
                if far(&values[&node.operands[0]], &values[&node.operands[1]]) =>
            {
                return Err("a remainder of a large quotient".to_string());
            }
            Op::Softmax { axis } if tied(&values[&node.operands[0]], axis) => {
                return Err("a softmax of rounding errors".to_string());
            }
            Op::QuantiseRows(_) if node.operands.iter().any(|o| values[o].iter().any(|v| !v.to_f64().is_finite())) => {
                return Err("integers of a row without a unit".to_string());
            }
            ref op => {
                // The operands, too: sums of large terms cancel.
                let x: Vec<Tensor> = node.operands.iter().map(|o| disturbed(&values[o], TINY, r)).collect();
                let x: Vec<&Tensor> = x.iter().collect();
                let y = eval_op(op, &node.ty, dims, &x)?;
                wild |= overflows(&x, &y);
                disturbed(&y, tiny(op), r)
            }
        };
        values.insert(v, t);
    }
    Ok((g.outputs().iter().map(|o| values[&o.value].clone()).collect(), wild))
}

/// Whether small differences can become large ones.
fn jumps(g: &Graph) -> bool {
    use UnaryOp::{Ceil, Floor, Round, Sign};
    g.topo().into_iter().any(|v| match g.op(v) {
        Op::Compare(_) | Op::ArgMax { .. } | Op::Binary(BinaryOp::Rem | BinaryOp::Mod) => true,
        Op::Unary(Floor | Ceil | Round | Sign) => true,
        Op::Cast(to) => !to.is_float(),
        op => is_quantised(op),
    })
}

/// Evaluates a graph; `None` where it fails (an index out of range).
pub fn expect(g: &Graph, dims: &[i64], inputs: &[Tensor], r: &mut Random) -> Option<Expected> {
    let outputs = bertc_ir::eval::eval(g, dims, inputs).ok()?;
    let errors: Vec<Vec<f64>> = outputs.iter().map(|t| vec![0.0; t.len()]).collect();
    let mut e = Expected { outputs, steps: errors.clone(), errors, wild: false };
    let own = e.outputs.clone();
    e.disturb(g, &own, dims, inputs, r);
    Some(e)
}

impl Expected {
    /// Allows for the errors of `g`, too, another form of the same graph: where errors of the one cancel, those of the
    /// other may not.
    pub fn allow(&mut self, g: &Graph, dims: &[i64], inputs: &[Tensor], r: &mut Random) {
        if let Ok(own) = bertc_ir::eval::eval(g, dims, inputs) {
            self.disturb(g, &own, dims, inputs, r);
        }
    }

    fn disturb(&mut self, g: &Graph, own: &[Tensor], dims: &[i64], inputs: &[Tensor], r: &mut Random) {
        let jumps = jumps(g);
        for _ in 0..RUNS {
            let Ok((other, wild)) = run(g, dims, inputs, r) else {
                // An index depends on rounding, or a result is not known.
                self.errors.iter_mut().flatten().for_each(|e| *e = f64::NAN);
                return;
            };
            self.wild |= wild;
            for ((a, b), e) in own.iter().zip(&other).zip(&mut self.errors) {
                for ((x, y), e) in a.iter().zip(b.iter()).zip(e.iter_mut()) {
                    *e = larger(*e, difference(x, y));
                }
                // Few runs may miss a jump of one element, but not those of all.
                if jumps {
                    let worst = e.iter().copied().fold(0.0, larger);
                    e.fill(worst);
                }
            }
        }
        if !g.topo().into_iter().any(|v| is_quantised(g.op(v))) {
            return;
        }
        for _ in 0..RUNS {
            let Ok(other) = run_steps(g, dims, inputs, r) else { continue };
            for ((a, b), e) in own.iter().zip(&other).zip(&mut self.steps) {
                let worst = a.iter().zip(b.iter()).map(|(x, y)| difference(x, y)).fold(0.0, larger);
                e.iter_mut().for_each(|e| *e = larger(*e, worst));
            }
        }
    }

    /// Whether something overflowed on the way: then only types and shapes are compared.
    pub fn overflows(&self) -> bool {
        self.wild
    }

    /// Compares outputs with what is expected.
    ///
    /// # Errors
    /// The first difference.
    pub fn compare(&self, got: &[Tensor]) -> Result<(), String> {
        if got.len() != self.outputs.len() {
            return Err(format!("{} outputs, expected {}", got.len(), self.outputs.len()));
        }
        let errors = self.errors.iter().zip(&self.steps);
        for (i, ((a, b), (errors, steps))) in self.outputs.iter().zip(got).zip(errors).enumerate() {
            if a.dtype() != b.dtype() || a.shape() != b.shape() {
                let t = |t: &Tensor| format!("{} {:?}", t.dtype(), t.shape());
                return Err(format!("output {i} is {}, expected {}", t(b), t(a)));
            }
            if self.wild {
                continue;
            }
            let finite = a.iter().map(|x| x.to_f64().abs()).filter(|x| x.is_finite());
            let largest = finite.fold(0.0, f64::max);
            let relative = match a.dtype() {
                DType::F16 => 5e-3,
                DType::BF16 => 3e-2,
                d if d.is_float() => TOLERANCE,
                _ => 0.0,
            };
            for (k, ((x, y), (e, step))) in a.iter().zip(b.iter()).zip(errors.iter().zip(steps)).enumerate() {
                let (x, y) = (x.to_f64(), y.to_f64());
                // An error as large as the values says that nothing is known; a pole may be on either side of it.
                if e.is_nan() || step.is_nan() || *e > largest || x == y || x.is_nan() && y.is_nan() {
                    continue;
                }
                let allowed = FACTOR * e + STEPS * step + relative * largest;
                // A NaN on one side only is a difference, too.
                if (x - y).abs() > allowed || x.is_nan() != y.is_nan() {
                    return Err(format!("output {i}, element {k} is {y:e}, expected {x:e} within {allowed:e}"));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::f32::consts::E;

    use super::*;
    use bertc_ir::text::{no_resources, parse};

    fn expected(src: &str, x: &[f32]) -> Expected {
        let g = parse(src, &no_resources).expect("a graph");
        let x = Tensor::from_f32(vec![x.len()], x);
        expect(&g, &[], &[x], &mut Random::new(1, 1)).expect("a value")
    }

    #[test]
    fn rounding_passes_and_errors_do_not() {
        let e = expected(
            "func @f(%x: tensor<2 x f32>) -> (\"y\": tensor<2 x f32>) {\n  %y = exp %x\n  return %y\n}\n",
            &[0.0, 1.0],
        );
        let near = Tensor::from_f32(vec![2], &[1.00001, 2.71829]);
        assert_eq!(e.compare(&[near]), Ok(()));
        for wrong in [[1.0, 2.72], [1.0, f32::NAN], [f32::INFINITY, E]] {
            assert!(e.compare(&[Tensor::from_f32(vec![2], &wrong)]).is_err(), "{wrong:?}");
        }
        assert!(e.compare(&[Tensor::from_f32(vec![1, 2], &[1.0, E])]).is_err());
    }

    #[test]
    fn a_softmax_of_rounding_errors_says_nothing() {
        let softmax = |x: &[f32]| {
            expected(
                "func @f(%x: tensor<2 x f32>) -> (\"y\": tensor<2 x f32>) {\n  %y = softmax %x {axis = 0}\n  return %y\n}\n",
                x,
            )
        };
        let other = Tensor::from_f32(vec![2], &[1.0, 0.0]);
        assert_eq!(softmax(&[1e9, 1.000_001e9]).compare(std::slice::from_ref(&other)), Ok(()));
        for known in [[-1e4, -1e4], [0.0, 1e9]] {
            assert!(softmax(&known).compare(std::slice::from_ref(&other)).is_err(), "{known:?}");
        }
    }

    /// A row of which one element lies half a step from -128, up to rounding: it may be -128 or -127, and nothing far
    /// from them; one that is not on the edge may only be what it is.
    #[test]
    fn an_integer_may_be_one_more_or_less() {
        let src = "func @f(%x: tensor<4 x f32>) -> (\"y\": tensor<4 x f32>) {
  %q = quantise_rows %x {offset = true}
  %y = cast %q {to = f32}
  return %y
}
";
        let compare = |half: f32, got: [f32; 4]| {
            expected(src, &[0.0, half, 100.0, 255.0]).compare(&[Tensor::from_f32(vec![4], &got)])
        };
        for edge in [-128.0, -127.0] {
            assert_eq!(compare(0.5, [-128.0, edge, -28.0, 127.0]), Ok(()));
        }
        assert!(compare(0.5, [-128.0, -20.0, -28.0, 127.0]).is_err());
        assert!(compare(0.25, [-128.0, -127.0, -28.0, 127.0]).is_err());
    }

    #[test]
    fn jumps_are_forgiven() {
        // floor(exp(0)·k) for a k that makes it an integer: a bit less is one less.
        let e = expected(
            "func @f(%x: tensor<1 x f32>) -> (\"y\": tensor<1 x f32>) {\n  %e = exp %x\n  %y = floor %e\n  return %y\n}\n",
            &[0.0],
        );
        assert_eq!(e.compare(&[Tensor::from_f32(vec![1], &[0.0])]), Ok(()));
    }
}
