//! Arithmetic on constants, and which of them may move.

use bertc_ir::eval::eval_op;
use bertc_ir::infer::infer;
use bertc_ir::{BinaryOp, Graph, Op, Scalar, Symbols, Tensor, TensorType, ValueId};

use super::chain::Kind;

/// Elementwise constants of more elements than this are left alone.
const MAX_ELEMENTS: usize = 1 << 24;

/// From here on, a constant in a sum masks or rounds.
const MAX_ADDEND: f64 = (1 << 20) as f64;

/// The range of the factors that may move.
const FACTORS: std::ops::RangeInclusive<f64> = 1e-18..=1e18;

/// From here on, two of a number may overflow.
const HUGE: f64 = 1e30;

/// A bound on the values that [`huge`] looks at.
const MAX_SEARCH: usize = 256;

/// `op` of two constants, if all of the result is finite.
pub fn constant(op: BinaryOp, x: &Tensor, y: &Tensor) -> Option<Tensor> {
    let ty = |t: &Tensor| {
        let shape = t.shape().iter().map(|&d| i64::try_from(d).map(Into::into)).collect::<Result<_, _>>().ok()?;
        Some(TensorType::new(t.dtype(), shape))
    };
    let op = Op::Binary(op);
    let result = infer(&op, &[&ty(x)?, &ty(y)?], &Symbols::default()).ok()?;
    let t = eval_op(&op, &result, &[], &[x, y]).ok()?;
    let finite = |s: Scalar| match s {
        Scalar::Float(f) => f.is_finite(),
        Scalar::Int(_) => true,
    };
    let all = t.iter().all(finite);
    all.then_some(t)
}

/// Whether a constant may move in a chain of `kind`.
pub fn movable(t: &Tensor, kind: Kind) -> bool {
    let fine = |s: Scalar| match (s, kind) {
        (Scalar::Int(_), _) => true,
        (Scalar::Float(f), Kind::Sum) => f.abs() < MAX_ADDEND,
        (Scalar::Float(f), Kind::Product) => f == 0.0 || FACTORS.contains(&f.abs()),
    };
    t.len() <= MAX_ELEMENTS && t.iter().all(fine)
}

/// Whether all elements are 0, or 1.
pub fn all(t: &Tensor, value: i32) -> bool {
    !t.is_empty()
        && t.iter().all(|s| match s {
            Scalar::Float(f) => f == value.into(),
            Scalar::Int(i) => i == value.into(),
        })
}

/// Whether `v` is computed elementwise from a float of 1e30 or more, or not finite; or it takes too long to tell.
pub fn huge(g: &Graph, v: ValueId) -> bool {
    let mut seen = std::collections::BTreeSet::from([v]);
    let mut stack = vec![v];
    while let Some(x) = stack.pop() {
        let passes = match g.op(x) {
            Op::Constant(t) => {
                let large = |s: Scalar| matches!(s, Scalar::Float(f) if f.is_nan() || f.abs() >= HUGE);
                if t.dtype().is_float() && (t.len() > MAX_ELEMENTS || t.iter().any(large)) {
                    return true;
                }
                false
            }
            Op::Unary(_) | Op::Binary(_) | Op::Select | Op::Cast(_) => true,
            Op::Reshape { .. } | Op::Transpose { .. } | Op::Broadcast { .. } | Op::Slice { .. } => true,
            Op::Concat { .. } | Op::Gather { .. } => true,
            _ => false,
        };
        if passes {
            stack.extend(g.operands(x).iter().filter(|o| seen.insert(**o)));
        }
        if seen.len() > MAX_SEARCH {
            return true;
        }
    }
    false
}
