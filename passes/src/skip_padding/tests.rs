//! The pass on masks of every kind, by the evaluator. The cases with their IR are file tests.

use bertc_ir::eval::eval;
use bertc_ir::text::{no_resources, parse};
use bertc_ir::{Graph, Op, Tensor};

use crate::pass::PassContext;
use crate::registry;

const MODEL: &str = "
dims batch in 1..=4, seq in 1..=8
func @f(%x: tensor<batch x seq x 4 x f32>, %m: tensor<batch x seq x i64>, %w: tensor<4 x 4 x f32>, %c: tensor<4 x f32>) -> (a: tensor<batch x 1 x 4 x f32>, b: tensor<batch x seq x 4 x f32>) {
  %one = constant dense<1.0> : tensor<f32>
  %min = constant dense<-3.4e38> : tensor<f32>
  %0 = cast %m {to = f32} : tensor<batch x seq x f32>
  %1 = sub %one, %0
  %2 = mul %1, %min
  %mask = reshape %2 {shape = [batch, 1, 1, seq]}
  %3 = linear %x, %w, %c {bias = true}
  %4 = attention %3, %3, %3, %mask {heads = 2, scale = 0.5, mask = true}
  %5 = linear %4, %w, %c, %x, %c, %c {bias = true, residual = true, norm = 0.125}
  %6 = attention %5, %5, %5, %mask {heads = 1, scale = 0.5, mask = true}
  %7 = slice %6 {axis = 1, start = 0, len = 1, step = 1}
  return %7, OUTPUT
}";

/// A graph, and how many ops leave rows out once the pass has run.
fn graph(output: &str, outputs: u64) -> (Graph, Graph, usize) {
    let g = parse(&MODEL.replace("OUTPUT", output), &no_resources).unwrap();
    let mut after = g.clone();
    let mut ctx = PassContext { options: vec![("outputs", outputs)], ..PassContext::default() };
    registry::find("skip-padding").unwrap().pass.run(&mut after, &mut ctx).unwrap();
    bertc_ir::verify::verify(&after).unwrap();
    let cuts = |op: &Op| match op {
        Op::Linear(l) => l.lengths,
        Op::Attention(a) => a.lengths,
        _ => false,
    };
    let n = after.topo().into_iter().filter(|&v| cuts(after.op(v))).count();
    (g, after, n)
}

/// Outputs before and after for a mask of two batches and six tokens.
fn both(before: &Graph, after: &Graph, mask: [[i64; 6]; 2]) -> [Vec<Vec<f64>>; 2] {
    let numbers = |n: usize, k: usize| (0..n).map(|i| ((i * k) % 17) as f32 / 8.0 - 1.0).collect::<Vec<_>>();
    let inputs = [
        Tensor::from_f32(vec![2, 6, 4], &numbers(48, 5)),
        Tensor::from_i64(vec![2, 6], mask.as_flattened()),
        Tensor::from_f32(vec![4, 4], &numbers(16, 7)),
        Tensor::from_f32(vec![4], &numbers(4, 3)),
    ];
    [before, after].map(|g| eval(g, &[2, 6], &inputs).unwrap().iter().map(Tensor::to_f64_vec).collect())
}

const MASKS: [[[i64; 6]; 2]; 5] = [
    [[1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0]],
    [[1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0]],
    [[0, 0, 0, 0, 0, 0], [1, 0, 1, 0, 1, 0]],
    // The mask is largest where the input is 2.
    [[2, 2, 0, 0, 0, 0], [1, 2, 1, 0, 0, 0]],
    [[0, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 0]],
];

#[test]
fn what_nobody_reads_is_cut_and_nothing_changes() {
    let (before, after, cuts) = graph("%x", 0);
    assert_eq!(cuts, 4);
    for mask in MASKS {
        let [a, b] = both(&before, &after, mask);
        assert_eq!(a, b, "{mask:?}");
    }
}

#[test]
fn an_output_keeps_what_it_reads() {
    // All rows of %5 are read, and for them those of %4 and %3; rows of the last attention are not.
    let (before, after, cuts) = graph("%5", 0);
    assert_eq!(cuts, 1);
    for mask in MASKS {
        let [a, b] = both(&before, &after, mask);
        assert_eq!(a, b, "{mask:?}");
    }
}

#[test]
fn outputs_may_be_zero_at_padding() {
    let (before, after, cuts) = graph("%5", 1);
    assert_eq!(cuts, 4);
    for (mask, lengths) in MASKS.into_iter().zip([[6, 1], [3, 5], [6, 5], [2, 3], [2, 5]]) {
        let [a, b] = both(&before, &after, mask);
        assert_eq!(a[0], b[0], "{mask:?}");
        for (i, (x, y)) in a[1].iter().zip(&b[1]).enumerate() {
            let (batch, token) = (i / 24, i / 4 % 6);
            let want = if token < lengths[batch] { *x } else { 0.0 };
            assert_eq!(*y, want, "{mask:?} at batch {batch}, token {token}");
        }
    }
}
