//! `legalise`: spells out what the backend doesn't do implicitly. Runs last at every optimisation level.
//!
//! After it, the second operand of every `matmul` has rank 2, or both operands have equal batch dims:
//!
//! ```text
//! matmul %a, %b : (tensor<batch x 1 x s x d>, tensor<1 x h x d x n>)
//!   => %a1 = broadcast %a : tensor<batch x h x s x d>
//!      %b1 = broadcast %b : tensor<batch x h x d x n>
//!      matmul %a1, %b1
//! ```

use bertc_ir::{Diag, Graph, Op};

use crate::build::{broadcast, is_one, reshape};
use crate::pass::{Pass, PassContext};

/// The pass.
pub struct Legalise;

impl Pass for Legalise {
    fn name(&self) -> &'static str {
        "legalise"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut changed = false;
        for v in g.topo() {
            let node = g.node(v).clone();
            let Op::MatMul { .. } = node.op else { continue };
            let (mut a, mut b) = (node.operands[0], node.operands[1]);
            let (ashape, bshape) = (g.ty(a).shape.clone(), g.ty(b).shape.clone());
            let ((ab, am), (bb, bm)) = (ashape.split_at(ashape.len() - 2), bshape.split_at(bshape.len() - 2));
            let batch = &node.ty.shape[..node.ty.rank() - 2];
            if bb.is_empty() || (ab == bb && ab == batch) {
                continue;
            }
            let fail = || Diag::new("the batch dims of a matmul can't be made explicit").at(node.loc.clone());
            if bb.iter().all(is_one) {
                // One matrix for all: no copies of it.
                b = reshape(g, b, bm.to_vec(), &node.loc).ok_or_else(fail)?;
                // Unit dims that only the second operand had.
                let full = [&vec![1.into(); batch.len() - ab.len()][..], ab, am].concat();
                a = reshape(g, a, full, &node.loc).ok_or_else(fail)?;
            } else {
                a = broadcast(g, a, [batch, am].concat(), &node.loc).ok_or_else(fail)?;
                b = broadcast(g, b, [batch, bm].concat(), &node.loc).ok_or_else(fail)?;
            }
            let new = g.add(node.op.clone(), &[a, b], &node.loc)?;
            g.replace(v, new)?;
            ctx.counters.applied += 1;
            changed = true;
        }
        if changed {
            g.remove_dead();
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use bertc_ir::{DType, Op};

    use crate::testing::{T, check_same, count, run};

    #[test]
    fn batch_dims_become_explicit() {
        let mut t = T::new();
        let a = t.input(DType::F32, &["batch", "1", "seq", "4"]);
        let b = t.input(DType::F32, &["3", "4", "2"]);
        let c = t.input(DType::F32, &["1", "1", "1", "2", "5"]);
        let m = t.add(Op::MatMul { trans_b: false }, &[a, b]);
        let n = t.add(Op::MatMul { trans_b: false }, &[m, c]);
        t.g.add_output("n", n);
        let before = t.g.clone();
        assert!(run(&mut t.g, "legalise"));
        assert_eq!((count(&t.g, "broadcast"), count(&t.g, "reshape")), (2, 2));
        check_same(&before, &t.g);
        assert!(!run(&mut t.g, "legalise"));
    }

    #[test]
    fn legal_ones_stay() {
        let mut t = T::new();
        let a = t.input(DType::F32, &["batch", "seq", "4"]);
        let b = t.input(DType::F32, &["batch", "2", "4"]);
        let c = t.input(DType::F32, &["2", "2"]);
        let m = t.add(Op::MatMul { trans_b: true }, &[a, b]);
        let n = t.add(Op::MatMul { trans_b: false }, &[m, c]);
        t.g.add_output("n", n);
        assert!(!run(&mut t.g, "legalise"));
    }
}
