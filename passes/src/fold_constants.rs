//! `fold-constants`: evaluates operations whose operands are all constants, with the IR's evaluator.
//!
//! Weights are not copied: a result is stored only if it is at most 4 MiB (`max-bytes`) and not larger than its operands (or
//! 64 KiB, where they are smaller). A broadcast stays an operation, whatever its size; a reshape shares its bytes. A
//! concatenation of more than 64 KiB that a `linear` reads stays: the backend packs a merged matrix from its parts.

use bertc_ir::eval::eval_op;
use bertc_ir::{Diag, Graph, Op, Tensor, ValueId};

use crate::pass::{Pass, PassContext, PassOption};

/// The pass.
pub struct FoldConstants;

/// A result of this many bytes may be larger than its operands.
const SMALL: usize = 64 << 10;

/// No result is larger.
const MAX_BYTES: PassOption =
    PassOption { name: "max-bytes", doc: "the largest result that is stored, in bytes", default: 4 << 20 };

/// No result or operand has more elements, an empty dim counted as 1.
const MAX_WALK: usize = 1 << 28;

impl Pass for FoldConstants {
    fn name(&self) -> &'static str {
        "fold-constants"
    }

    fn options(&self) -> &'static [PassOption] {
        &[MAX_BYTES]
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let max = usize::try_from(ctx.option(&MAX_BYTES)).unwrap_or(usize::MAX);
        let mut changed = false;
        for v in g.topo() {
            let Some(t) = fold(g, v, max) else { continue };
            let loc = g.node(v).loc.clone();
            let c = g.add_const(t, &loc)?;
            g.replace(v, c)?;
            ctx.counters.applied += 1;
            changed = true;
        }
        if changed {
            g.remove_dead();
        }
        Ok(changed)
    }
}

/// The value of a node, if it is constant and worth storing.
fn fold(g: &Graph, v: ValueId, max: usize) -> Option<Tensor> {
    let node = g.node(v);
    let operands = node.operands.iter().map(|&o| g.as_const(o)).collect::<Option<Vec<_>>>()?;
    let shape = node.ty.const_shape()?;
    match &node.op {
        Op::Input { .. } | Op::Constant(_) | Op::Broadcast { .. } => return None,
        Op::Reshape { .. } => return operands[0].reshaped(shape),
        // Values that depend on symbols are none yet.
        Op::Dim(d) if d.as_const().is_none() => return None,
        Op::Iota { start, step, .. } if start.as_const().is_none() || step.as_const().is_none() => return None,
        Op::Slice { start, .. } if start.as_const().is_none() => return None,
        _ => {}
    }
    let bytes = shape.iter().try_fold(node.ty.dtype.size(), |a, &d| a.checked_mul(d))?;
    let is_linear = |u: &ValueId| matches!(g.op(*u), Op::Linear(_));
    if bytes > SMALL && matches!(node.op, Op::Concat { .. }) && g.users(v).iter().any(is_linear) {
        return None;
    }
    // Without elements the other dims may be anything, and the evaluator walks over them.
    let walked = |s: &[usize]| s.iter().try_fold(1usize, |a, &d| a.checked_mul(d.max(1)));
    if operands.iter().map(|t| t.shape()).chain([&shape[..]]).any(|s| walked(s).is_none_or(|n| n > MAX_WALK)) {
        return None;
    }
    let from: usize = operands.iter().map(|t| t.bytes().len()).sum();
    if bytes > from.max(SMALL).min(max) {
        return None;
    }
    // An operation that fails is left to fail at run time.
    eval_op(&node.op, &node.ty, &[], &operands).ok().filter(|t| t.dtype() == node.ty.dtype && t.shape() == shape)
}

#[cfg(test)]
mod tests {
    use bertc_ir::{BinaryOp, DType, Linear, Op};

    use crate::testing::{T, check_same, count, run};

    #[test]
    fn trees_of_constants_become_one() {
        let mut t = T::new();
        let x = t.input(DType::F32, &["seq", "2", "3"]);
        let c = t.f32(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
        let d = t.f32(&[3], &[10., 20., 30.]);
        let e = t.bin(BinaryOp::Mul, c, d);
        let e = t.add(Op::Reshape { shape: vec![1.into(), 2.into(), 3.into()] }, &[e]);
        let y = t.bin(BinaryOp::Add, x, e);
        t.g.add_output("y", y);
        let before = t.g.clone();
        assert!(run(&mut t.g, "fold-constants"));
        assert_eq!(t.g.len(), 3);
        check_same(&before, &t.g);
        assert!(!run(&mut t.g, "fold-constants"));
    }

    #[test]
    fn a_large_concatenation_stays_in_a_product() {
        for (rows, product, folds) in [(128, true, true), (129, true, false), (129, false, true)] {
            let mut t = T::new();
            let x = t.constant(bertc_ir::Tensor::from_f32(vec![1, rows], &vec![0.25; rows]));
            let x = t.broadcast(x, &["seq", &rows.to_string()]);
            let parts = [0.5, 1.5].map(|c| t.constant(bertc_ir::Tensor::from_f32(vec![rows, 64], &vec![c; rows * 64])));
            let y = t.add(Op::Concat { axis: 1 }, &parts);
            let y = if product { t.add(Op::Linear(Linear::default()), &[x, y]) } else { y };
            t.g.add_output("y", y);
            assert_eq!(run(&mut t.g, "fold-constants"), folds);
        }
    }

    #[test]
    fn broadcasts_growth_and_symbols_stay() {
        let mut t = T::new();
        let c = t.f32(&[1], &[1.0]);
        let b = t.add(Op::Broadcast { shape: vec![4.into()] }, &[c]);
        let col = t.constant(bertc_ir::Tensor::from_f32(vec![200, 1], &[1.0; 200]));
        let row = t.constant(bertc_ir::Tensor::from_f32(vec![200], &[1.0; 200]));
        let outer = t.bin(BinaryOp::Mul, col, row);
        let seq = t.dim("seq");
        let d = t.add(Op::Dim(seq.clone()), &[]);
        let i = t.add(Op::Iota { len: 3.into(), start: seq, step: 1.into() }, &[]);
        for v in [b, outer, d, i] {
            t.g.add_output("o", v);
        }
        assert!(!run(&mut t.g, "fold-constants"));
        assert_eq!(count(&t.g, "iota"), 1);
    }
}
