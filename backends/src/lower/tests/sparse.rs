//! Products with sparse matrices, against the evaluator.

use bertc_ir::RowQuant;

use super::*;

/// Which blocks of a matrix are not zero.
#[derive(Clone, Copy, Debug)]
pub(super) enum Pattern {
    /// One of so many, of outputs × inputs, after an empty row of blocks and a full one.
    Blocks(usize, usize, usize),
    /// None.
    Zero,
    /// All.
    Full,
}

impl Pattern {
    /// Whether the element of an output and an input may be something else than zero.
    fn keeps(self, output: usize, input: usize) -> bool {
        match self {
            Pattern::Zero => false,
            Pattern::Full => true,
            Pattern::Blocks(rows, cols, one_of) => match (output / rows, input / cols) {
                (1, _) => false,
                (2, _) => true,
                // Some numbers without a pattern of their own.
                (o, i) => (o * 7919 + i * 104_729 + o * i * 31) % 65_537 % one_of == 0,
            },
        }
    }
}

impl Case {
    /// A constant matrix with zeros; `[n, k]` with `trans`.
    fn sparse(&mut self, dtype: DType, p: Pattern, [k, n]: [usize; 2], trans: bool) -> ValueId {
        let values = self.random(dtype, k * n).into_iter().enumerate().map(|(i, v)| {
            let (output, input) = if trans { (i / k, i % k) } else { (i % n, i / n) };
            match (p.keeps(output, input), dtype.is_float()) {
                (true, _) => v,
                (false, true) => Scalar::Float(if i % 3 == 0 { -0.0 } else { 0.0 }),
                (false, false) => Scalar::Int(0),
            }
        });
        let shape = if trans { vec![n, k] } else { vec![k, n] };
        self.add(Op::Constant(Tensor::from_scalars(dtype, shape, values)), &[])
    }
}

const PATTERNS: [Pattern; 6] = [
    Pattern::Blocks(16, 1, 4),
    Pattern::Blocks(4, 4, 5),
    Pattern::Blocks(1, 4, 4),
    Pattern::Blocks(1, 1, 40),
    Pattern::Zero,
    Pattern::Full,
];

/// Every order of blocks is met, with one matrix and with several side by side, on floats.
#[test]
fn floats() {
    let mut met = BTreeSet::new();
    for (a, b) in [(1, 1), (3, 7), (2, 41)] {
        for (k, n) in [(1, 1), (6, 20), (33, 16), (40, 150)] {
            for p in PATTERNS {
                for (dtype, bf16) in [(DType::F32, false), (DType::F16, false), (DType::F32, true)] {
                    let mut c = Case::new(a, b);
                    let k = if bf16 { 2 * k } else { k };
                    let on = if bf16 { DType::BF16 } else { DType::F32 };
                    let x = c.input(on, &["a", "b", &k.to_string()]);
                    let trans_b = n % 3 == 0;
                    let mut w = match n {
                        150 => {
                            let parts = [48, 102].map(|n| c.sparse(DType::F32, p, [k, n], trans_b));
                            c.add(Op::Concat { axis: usize::from(!trans_b) }, &parts)
                        }
                        _ => c.sparse(if bf16 { DType::F32 } else { dtype }, p, [k, n], trans_b),
                    };
                    if c.g.ty(w).dtype != on {
                        w = c.add(Op::Cast(on), &[w]);
                    }
                    let bias = c.constant(DType::F32, &[n]);
                    let l = Linear { trans_b, bias: true, ..Linear::default() };
                    let y = c.add(Op::Linear(l), &[x, w, bias]);
                    c.sparsity = Sparsity::Always;
                    met.extend(c.blocks(y));
                    c.check(&[y], 1e-5);
                }
            }
        }
    }
    assert_eq!(met.into_iter().collect::<Vec<_>>(), [(1, 1), (1, 2), (1, 4), (4, 1), (16, 1)]);
}

/// Every epilogue, with and without lengths.
#[test]
fn epilogues() {
    for p in [Pattern::Blocks(16, 1, 3), Pattern::Blocks(4, 1, 4), Pattern::Blocks(1, 4, 4)] {
        for (a, b) in [(3, 17), (4, 30)] {
            for (k, n) in [(20, 34), (12, 80)] {
                for (act, residual, norm, lengths) in [
                    (Some(UnaryOp::Gelu), false, false, false),
                    (Some(UnaryOp::Tanh), true, true, false),
                    (None, true, true, true),
                    (None, true, false, true),
                ] {
                    let mut c = Case::new(a, b);
                    let x = c.input(DType::F32, &["a", "b", &k.to_string()]);
                    let mut operands = vec![x, c.sparse(DType::F32, p, [k, n], false)];
                    operands.push(c.constant(DType::F32, &[n]));
                    if residual {
                        operands.push(c.input(DType::F32, &["a", "b", &n.to_string()]));
                    }
                    if norm {
                        operands.extend([c.constant(DType::F32, &[n]), c.constant(DType::F32, &[n])]);
                    }
                    if lengths {
                        operands.push(c.lengths("a"));
                    }
                    let norm = norm.then_some(0.1);
                    let l = Linear { bias: true, act, residual, norm, lengths, ..Linear::default() };
                    let y = c.add(Op::Linear(l), &operands);
                    c.sparsity = Sparsity::Always;
                    c.check(&[y], 2e-5);
                }
            }
        }
    }
}

/// Sums that are rounded go through memory of the worker's own where an activation comes late: as many as a task has.
#[test]
fn rounded_results() {
    for p in [Pattern::Blocks(16, 1, 3), Pattern::Blocks(4, 1, 4), Pattern::Blocks(1, 4, 4)] {
        for act in [None, Some(UnaryOp::Relu)] {
            let mut c = Case::new(3, 23);
            let x = c.input(DType::BF16, &["a", "b", "20"]);
            let w = c.sparse(DType::F32, p, [20, 300], false);
            let w = c.add(Op::Cast(DType::BF16), &[w]);
            let bias = c.constant(DType::F32, &[300]);
            let y = c.add(Op::Linear(Linear { bias: true, act, bf16: true, ..Linear::default() }), &[x, w, bias]);
            c.sparsity = Sparsity::Always;
            c.check(&[y], 5e-3);
        }
    }
}

/// On integers, made by the step before, by the product itself, or given; and of all values.
#[test]
fn integers() {
    let mut met = BTreeSet::new();
    for p in PATTERNS {
        for (a, b) in [(1, 1), (3, 25)] {
            for (k, n) in [(4, 1), (44, 70), (64, 34)] {
                for (norm, offset) in [(false, true), (true, true), (true, false)] {
                    let mut c = Case::new(a, b);
                    let x = c.input(DType::F32, &["a", "b", &k.to_string()]);
                    let q = RowQuant { offset, factor: false };
                    let [x, unit, shift] =
                        [Op::QuantiseRows(q), Op::RowScale(q), Op::RowOffset(q)].map(|op| c.add(op, &[x]));
                    let trans_b = n == 34;
                    let w = c.sparse(DType::I8, p, [k, n], trans_b);
                    let mut operands = vec![x, w, unit, c.constant(DType::F32, &[n])];
                    operands.extend(offset.then_some(shift));
                    operands.push(c.constant(DType::F32, &[n]));
                    if norm {
                        operands.extend([c.constant(DType::F32, &[n]), c.constant(DType::F32, &[n])]);
                    }
                    let l = Linear {
                        int8: true,
                        bias: true,
                        trans_b,
                        offset,
                        norm: norm.then_some(0.1),
                        ..Linear::default()
                    };
                    let y = c.add(Op::Linear(l), &operands);
                    c.sparsity = Sparsity::Always;
                    met.extend(c.blocks(y));
                    c.check(&[y], 2e-5);
                }
            }
        }
    }
    assert_eq!(met.into_iter().collect::<Vec<_>>(), [(1, 1), (4, 1), (16, 1)]);
    // A given operand with a zero point, and a matrix with the least integer.
    for full in [false, true] {
        let mut c = Case::new(3, 9);
        let x = c.input(DType::U8, &["a", "b", "24"]);
        let w = (0..24 * 40).map(|i| Scalar::Int(if i % 11 == 0 { i % 127 - if full { 128 } else { 64 } } else { 0 }));
        let w = Tensor::from_scalars(DType::I8, vec![24, 40], w);
        let w = c.add(Op::Constant(w), &[]);
        let (scale, columns) = (c.input(DType::F32, &[]), c.constant(DType::F32, &[40]));
        let point = c.input(DType::I32, &[]);
        let l = Linear { int8: true, zero: true, ..Linear::default() };
        let y = c.add(Op::Linear(l), &[x, w, scale, columns, point]);
        c.sparsity = Sparsity::Always;
        c.check(&[y], 1e-5);
    }
}

/// What isn't worth it stays packed, and says so.
#[test]
fn decisions() {
    for (p, sparsity, zeros, want) in [
        (Pattern::Full, Sparsity::Auto, None, false),
        (Pattern::Blocks(16, 4, 8), Sparsity::Auto, Some(true), true),
        (Pattern::Blocks(16, 4, 8), Sparsity::Never, None, false),
        (Pattern::Full, Sparsity::Always, Some(true), true),
        // Half of the elements, but of every block some.
        (Pattern::Blocks(1, 1, 2), Sparsity::Auto, Some(false), false),
    ] {
        let mut c = Case::new(1, 1);
        let x = c.input(DType::F32, &["a", "b", "256"]);
        let w = c.sparse(DType::F32, p, [256, 256], false);
        let y = c.add(Op::Linear(Linear::default()), &[x, w]);
        c.sparsity = sparsity;
        let mut g = c.g.clone();
        g.add_output("y", y);
        let mut target = Target::parse("x86_64", "znver4").unwrap();
        target.sparsity = sparsity;
        let traced = crate::lower::lower_traced(&g, &target).unwrap();
        assert_eq!(traced.sparse[0].map(|d| d.sparse), zeros, "{p:?} {sparsity:?}");
        assert_eq!(c.blocks(y).len(), usize::from(want), "{p:?} {sparsity:?}");
    }
}
