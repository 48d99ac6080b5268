//! What a graph costs to run: its multiply-adds, its elementwise work and its constants, as polynomials of its dims.
//!
//! Counted are the products: `matmul` and `linear` M·K·N, `attention` B·H·S·T·(D + E) in the names of
//! [`crate::op::Attention`]. Everything else counts 0, because its work grows with the elements alone. So the count of a
//! graph is that of the model it computes, fused or not, unless a pass removes products.
//!
//! [`Work`] adds what a rewrite of arithmetic needs to know: the elements that elementwise ops write, and the bytes of
//! constants. Fused ops count as their products; what they do on the way is free.

use std::collections::BTreeSet;

use crate::dims::{Dim, Symbols};
use crate::graph::{Graph, ValueId};
use crate::op::Op;

/// The multiply-adds of all products of a graph; `None` on overflow.
pub fn multiply_adds(g: &Graph) -> Option<Dim> {
    g.topo().into_iter().try_fold(Dim::default(), |sum, v| sum.add(&multiply_adds_of(g, v)?))
}

/// The multiply-adds of one live value; `None` on overflow.
pub fn multiply_adds_of(g: &Graph, v: ValueId) -> Option<Dim> {
    let elements = |v: ValueId| Dim::product(&g.ty(v).shape);
    let o = g.operands(v);
    match g.op(v) {
        Op::MatMul { .. } | Op::Linear(_) => elements(v)?.mul(g.ty(o[0]).shape.last()?),
        Op::Attention(_) => {
            // q·kᵀ costs T for each element of q, and the weighted sum T for each element of the result.
            let keys = g.ty(o[1]).shape.get(1)?;
            elements(o[0])?.add(&elements(v)?)?.mul(keys)
        }
        _ => Some(Dim::default()),
    }
}

/// What some values cost.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Work {
    /// Multiply-adds of products and elements of elementwise ops.
    pub steps: Dim,
    /// Bytes of constants.
    pub bytes: u64,
    /// Values that are computed at run time.
    pub ops: usize,
}

impl Work {
    /// The cost of `values`; `None` on overflow.
    pub fn of(g: &Graph, values: impl IntoIterator<Item = ValueId>) -> Option<Work> {
        let mut sum = Work::default();
        for v in values {
            match g.op(v) {
                Op::Constant(t) => sum.bytes = sum.bytes.checked_add(t.bytes().len() as u64)?,
                Op::Input { .. } => {}
                op => {
                    sum.ops += 1;
                    let steps = match op {
                        Op::Unary(_) | Op::Binary(_) | Op::Compare(_) | Op::Select | Op::Cast(_) => {
                            Dim::product(&g.ty(v).shape)?
                        }
                        _ => multiply_adds_of(g, v)?,
                    };
                    sum.steps = sum.steps.add(&steps)?;
                }
            }
        }
        Some(sum)
    }
}

/// The values that exist for `v` alone: `v`, and what nothing but those values uses. Inputs are not among them, nor
/// are outputs other than `v`.
pub fn exclusive(g: &Graph, v: ValueId) -> BTreeSet<ValueId> {
    let mut all = BTreeSet::from([v]);
    let mut stack = vec![v];
    while let Some(x) = stack.pop() {
        for &o in g.operands(x) {
            let kept = g.is_output(o) || matches!(g.op(o), Op::Input { .. });
            if !kept && !all.contains(&o) && g.users(o).iter().all(|u| all.contains(u)) {
                all.insert(o);
                stack.push(o);
            }
        }
    }
    all
}

/// Whether `a >= b` for all dims in range; `false` means "not proven". Proves more than [`Dim::proven_ge`]: with every
/// symbol written as its smallest value and a rest, no coefficient of the difference is negative.
pub fn never_less(a: &Dim, b: &Dim, symbols: &Symbols) -> bool {
    let proof = || {
        let mut d = a.sub(b)?;
        for (id, s) in symbols.iter() {
            d = d.substitute(id, &Dim::symbol(id).add(&s.min.max(0).into())?)?;
        }
        Some(d.iter().all(|(c, _)| c >= 0))
    };
    a.proven_ge(b, symbols) || proof().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::Loc;
    use crate::op::{Attention, Linear, UnaryOp};
    use crate::tensor::Tensor;
    use crate::types::{DType, TensorType};

    struct Builder(Graph);

    impl Builder {
        fn weights(&mut self, k: usize, n: usize) -> ValueId {
            let bytes = vec![0; 4 * k * n];
            let t = Tensor::new(DType::F32, vec![k, n], bytes.into()).unwrap();
            self.0.add_const(t, &Loc::Unknown).unwrap()
        }

        fn linear(&mut self, x: ValueId, k: usize, n: usize) -> ValueId {
            let w = self.weights(k, n);
            self.0.add(Op::Linear(Linear::default()), &[x, w], &Loc::Unknown).unwrap()
        }

        fn matmul(&mut self, a: ValueId, b: ValueId, trans_b: bool) -> ValueId {
            self.0.add(Op::MatMul { trans_b }, &[a, b], &Loc::Unknown).unwrap()
        }
    }

    fn input(shape: impl Fn(Dim, Dim) -> Vec<Dim>) -> (Builder, ValueId) {
        let mut g = Graph::new("f");
        let b = Dim::symbol(g.symbols.intern("batch", 1, 64));
        let s = Dim::symbol(g.symbols.intern("seq", 1, 512));
        let x = g.add_input("x", TensorType::new(DType::F32, shape(b, s)));
        (Builder(g), x)
    }

    #[test]
    fn a_layer_of_bert_base_has_its_formula() {
        let (mut g, x) = input(|b, s| vec![b, s, 768.into()]);
        let [q, k, v] = [0; 3].map(|_| g.linear(x, 768, 768));
        let op = Attention { heads: 12, scale: 0.125, ..Attention::default() };
        let a = g.0.add(Op::Attention(op), &[q, k, v], &Loc::Unknown).unwrap();
        let a = g.linear(a, 768, 768);
        let h = g.linear(a, 768, 3072);
        let h = g.0.add(Op::Unary(UnaryOp::Gelu), &[h], &Loc::Unknown).unwrap();
        let y = g.linear(h, 3072, 768);
        g.0.add_output("y", y);
        let n = multiply_adds(&g.0).unwrap();
        assert_eq!(n.display(&g.0.symbols).to_string(), "1536*batch*seq^2 + 7077888*batch*seq");
        // Twelve such layers are the 11.17 G of BERT base at a length of 128.
        assert_eq!(n.eval(&[1, 128]), Some(128 * (4 * 768 * 768 + 2 * 768 * 3072) + 2 * 128 * 128 * 768));
        assert_eq!(12 * n.eval(&[1, 128]).unwrap(), 11_173_625_856);
        assert_eq!(multiply_adds_of(&g.0, a).unwrap().eval(&[2, 3]), Some(2 * 3 * 768 * 768));
    }

    #[test]
    fn attention_counts_as_its_two_products() {
        let (mut g, x) = input(|b, s| vec![b, 4.into(), s, 16.into()]);
        let scores = g.matmul(x, x, true);
        g.matmul(scores, x, false);
        let (mut f, y) = input(|b, s| vec![b, s, 64.into()]);
        let op = Attention { heads: 4, scale: 1.0, ..Attention::default() };
        f.0.add(Op::Attention(op), &[y, y, y], &Loc::Unknown).unwrap();
        assert_eq!(multiply_adds(&g.0), multiply_adds(&f.0));
        assert_eq!(multiply_adds(&f.0).unwrap().display(&f.0.symbols).to_string(), "128*batch*seq^2");
    }

    #[test]
    fn other_ops_are_free_and_overflow_is_told() {
        let (mut g, x) = input(|b, s| vec![b, s]);
        g.0.add(Op::Unary(UnaryOp::Exp), &[x], &Loc::Unknown).unwrap();
        assert_eq!(multiply_adds(&g.0), Some(Dim::default()));
        let huge = i64::MAX / 2;
        let (mut g, x) = input(|b, _| vec![b, 3.into(), huge.into()]);
        g.matmul(x, x, true);
        assert_eq!(multiply_adds(&g.0), None);
    }

    #[test]
    fn work_counts_what_a_value_has_for_itself() {
        let (mut g, x) = input(|b, s| vec![b, s, 4.into()]);
        let w = g.weights(4, 8);
        let product = g.matmul(x, w, false);
        let bias = g.weights(1, 8);
        let sum = g.0.add(Op::Binary(crate::op::BinaryOp::Add), &[product, bias], &Loc::Unknown).unwrap();
        let other = g.0.add(Op::Unary(UnaryOp::Exp), &[product], &Loc::Unknown).unwrap();
        assert_eq!(exclusive(&g.0, sum), BTreeSet::from([sum, bias]));
        g.0.add_output("sum", sum);
        let work = Work::of(&g.0, exclusive(&g.0, sum)).unwrap();
        assert_eq!((work.steps.eval(&[2, 3]), work.bytes, work.ops), (Some(48), 32, 1));
        g.0.replace(other, sum).unwrap();
        g.0.remove_dead();
        let all = exclusive(&g.0, sum);
        assert_eq!(all, BTreeSet::from([product, w, sum, bias]));
        assert_eq!(Work::of(&g.0, all).unwrap().steps.eval(&[2, 3]), Some(48 + 6 * 32));
    }

    #[test]
    fn less_is_proven_from_the_smallest_dims() {
        let mut s = Symbols::default();
        let (b, q) = (Dim::symbol(s.intern("batch", 1, 64)), Dim::symbol(s.intern("seq", 1, 512)));
        let both = b.mul(&q).unwrap();
        assert!(!both.proven_ge(&q, &s) && never_less(&both, &q, &s) && never_less(&both, &b, &s));
        assert!(!never_less(&q, &both, &s) && !never_less(&b, &q, &s));
        let zero = Dim::symbol(s.intern("zero", 0, 3));
        assert!(!never_less(&zero.mul(&q).unwrap(), &q, &s));
    }
}
