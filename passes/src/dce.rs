//! `dce`: removes operations that no output needs. Inputs stay: they are the function's signature.

use bertc_ir::{Diag, Graph};

use crate::pass::{Pass, PassContext};

/// The pass.
pub struct Dce;

impl Pass for Dce {
    fn name(&self) -> &'static str {
        "dce"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let removed = g.remove_dead();
        ctx.counters.applied += removed;
        Ok(removed > 0)
    }
}

#[cfg(test)]
mod tests {
    use bertc_ir::{DType, Loc, Op, UnaryOp};

    use crate::testing::{T, run};

    #[test]
    fn removes_the_dead_and_keeps_the_inputs() {
        let mut t = T::new();
        let (x, _unused) = (t.input(DType::F32, &["batch"]), t.input(DType::F32, &["seq"]));
        let y = t.add(Op::Unary(UnaryOp::Exp), &[x]);
        t.add(Op::Unary(UnaryOp::Neg), &[y]);
        t.g.add_output("y", y);
        assert!(run(&mut t.g, "dce"));
        assert_eq!(t.g.len(), 3);
        assert!(!run(&mut t.g, "dce"));
        assert_eq!(t.g.node(y).loc, Loc::Unknown);
    }
}
