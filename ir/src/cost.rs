//! What a graph costs to run: its multiply-adds, as a polynomial of its dims.
//!
//! Counted are the products: `matmul` and `linear` M·K·N, `attention` B·H·S·T·(D + E) in the names of
//! [`crate::op::Attention`]. Everything else counts 0, because its work grows with the elements alone. So the count of a
//! graph is that of the model it computes, fused or not, unless a pass removes products.

use crate::dims::Dim;
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
}
