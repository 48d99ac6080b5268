//! `cse`: merges operations with equal operands and attributes. Constants are equal when type, shape and bytes are.
//!
//! Cost: linear in the number of nodes. A constant's hash reads a sample of its bytes; contents are compared in full
//! only between constants that agree on it, and not at all where they share memory.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::fmt::Write;
use std::hash::{Hash, Hasher};

use bertc_ir::{BinaryOp, CmpOp, Diag, Graph, Op, ValueId};

use crate::pass::{Pass, PassContext};

/// The pass.
pub struct Cse;

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag> {
        let mut seen: HashMap<u64, Vec<ValueId>> = HashMap::new();
        let mut changed = false;
        for v in g.topo() {
            if matches!(g.op(v), Op::Input { .. }) {
                continue;
            }
            // Operands were merged before their users are looked at.
            let bucket = seen.entry(key(g, v)).or_default();
            if let Some(&first) = bucket.iter().find(|&&o| equal(g, o, v)) {
                g.replace(v, first)?;
                ctx.counters.applied += 1;
                changed = true;
            } else {
                bucket.push(v);
            }
        }
        if changed {
            g.remove_dead();
        }
        Ok(changed)
    }
}

/// Operands in an order that doesn't matter to the op.
fn operands(g: &Graph, v: ValueId) -> Vec<ValueId> {
    use BinaryOp::{Add, And, Max, Min, Mul, Or, Xor};
    let mut o = g.operands(v).to_vec();
    if matches!(g.op(v), Op::Binary(Add | Mul | Min | Max | And | Or | Xor) | Op::Compare(CmpOp::Eq | CmpOp::Ne)) {
        o.sort_unstable();
    }
    o
}

fn equal(g: &Graph, a: ValueId, b: ValueId) -> bool {
    g.ty(a) == g.ty(b) && operands(g, a) == operands(g, b) && g.op(a) == g.op(b)
}

fn key(g: &Graph, v: ValueId) -> u64 {
    let mut h = Hashed(DefaultHasher::new());
    operands(g, v).hash(&mut h.0);
    match g.op(v) {
        Op::Constant(t) => {
            (t.dtype(), t.shape()).hash(&mut h.0);
            let b = t.bytes();
            // 64 words spread over the tensor tell weights apart.
            let stride = (b.len() / 64).max(8);
            for chunk in b.chunks(stride) {
                chunk[..chunk.len().min(8)].hash(&mut h.0);
            }
        }
        // The text of the other ops names all attributes, and hashing into `Hashed` can't fail.
        op => {
            let _ = write!(h, "{op:?}");
        }
    }
    h.0.finish()
}

struct Hashed(DefaultHasher);

impl Write for Hashed {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        self.0.write(s.as_bytes());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bertc_ir::{BinaryOp, DType, Op, Tensor, UnaryOp};

    use crate::testing::{T, check_same, run};

    #[test]
    fn merges_equal_trees_and_constants() {
        let mut t = T::new();
        let x = t.input(DType::F32, &["seq", "4"]);
        let (c, d) = (t.f32(&[4], &[1., 2., 3., 4.]), t.f32(&[4], &[1., 2., 3., 4.]));
        let (a, b) = (t.bin(BinaryOp::Add, x, c), t.bin(BinaryOp::Add, d, x));
        let (e, f) = (t.add(Op::Unary(UnaryOp::Exp), &[a]), t.add(Op::Unary(UnaryOp::Exp), &[b]));
        let m = t.bin(BinaryOp::Mul, e, f);
        t.g.add_output("m", m);
        let before = t.g.clone();
        assert!(run(&mut t.g, "cse"));
        assert_eq!(t.g.len(), 5);
        check_same(&before, &t.g);
        assert!(!run(&mut t.g, "cse"));
    }

    #[test]
    fn near_misses_stay() {
        let mut t = T::new();
        let x = t.input(DType::F32, &["4"]);
        // Same bytes, other type or shape; same operands, other order or attribute.
        let c = t.constant(Tensor::from_f32(vec![4], &[0.0; 4]));
        let d = t.constant(Tensor::from_f32(vec![1, 4], &[0.0; 4]));
        let e = t.constant(Tensor::from_f32(vec![4], &[-0.0; 4]));
        for (n, (a, b)) in [(x, c), (c, x), (x, e), (x, d)].into_iter().enumerate() {
            let s = t.bin(BinaryOp::Sub, a, b);
            t.g.add_output(format!("o{n}"), s);
        }
        assert!(!run(&mut t.g, "cse"));
    }
}
