//! What computes on 8-bit integers, against the evaluator.

use bertc_ir::RowQuant;

use super::*;

const F: DType = DType::F32;

impl Case {
    /// A constant matrix of integers from the least one that kernels expect on, or with `full` from -128 on.
    fn bytes(&mut self, shape: &[usize], full: bool) -> ValueId {
        let n = shape.iter().product();
        let least = if full { 128 } else { 127 };
        let v = self.random(F, n).into_iter().map(|v| Scalar::Int((v.to_f64() * 64.0) as i128 % (least + 1)));
        self.add(Op::Constant(Tensor::from_scalars(DType::I8, shape.to_vec(), v)), &[])
    }

    /// Integers, unit and offset of `x`'s rows.
    fn quantised(&mut self, q: RowQuant, x: &[ValueId]) -> [ValueId; 3] {
        [Op::QuantiseRows(q), Op::RowScale(q), Op::RowOffset(q)].map(|op| self.add(op, x))
    }

    /// A product of what `x` becomes by a matrix of `n` columns, with a bias and what else `l` says.
    fn product(&mut self, l: Linear, x: ValueId, k: usize, n: usize, more: &[ValueId]) -> ValueId {
        let q = RowQuant { offset: l.offset, factor: false };
        let [x, unit, offset] = self.quantised(q, &[x]);
        let w = self.bytes(&if l.trans_b { [n, k] } else { [k, n] }, false);
        let mut operands = vec![x, w, unit, self.constant(F, &[n])];
        operands.extend(l.offset.then_some(offset));
        operands.extend(l.bias.then(|| self.constant(F, &[n])));
        operands.extend(more);
        self.add(Op::Linear(Linear { int8: true, ..l }), &operands)
    }
}

/// Rows as integers by themselves: every form, odd sizes, all or some of what one look gives.
#[test]
fn rows() {
    for (a, b, n) in [(1, 1, "1"), (3, 5, "18"), (2, 3, "64"), (2, 7, "b")] {
        for offset in [false, true] {
            for dtype in [F, DType::BF16] {
                let mut c = Case::new(a, b);
                let x = c.input(dtype, &["a", "b", n]);
                let mut all = c.quantised(RowQuant { offset, factor: false }, &[x]).to_vec();
                if n != "b" {
                    let factor = c.constant(F, &[n.parse().unwrap()]);
                    all.push(c.quantised(RowQuant { offset, factor: true }, &[x, factor])[1]);
                }
                c.check(&all, 1e-6);
            }
        }
    }
}

/// Tensors as integers, of both signs, as products of integers read them too.
#[test]
fn tensors() {
    for to in [DType::I8, DType::U8] {
        let mut c = Case::new(3, 5);
        let x = c.input(F, &["a", "b", "12"]);
        let scale = c.add(Op::Constant(Tensor::from_f32(vec![], &[1.0 / 64.0])), &[]);
        let zero = c.add(Op::Constant(Tensor::scalar(DType::I32, Scalar::Int(100))), &[]);
        let y = c.add(Op::Quantise { to }, &[x, scale, zero]);
        let q = c.add(Op::Quantise { to }, &[x, scale, zero]);
        for full in [false, true] {
            let mut c = Case { g: c.g.clone(), dims: c.dims.clone(), seed: 9, sparsity: c.sparsity };
            let (w, columns, point) = (c.bytes(&[12, 20], full), c.constant(F, &[20]), c.input(DType::I32, &[]));
            let l = Linear { int8: true, zero: true, ..Linear::default() };
            let z = c.add(Op::Linear(l), &[q, w, scale, columns, zero]);
            let u = c.add(Op::Linear(l), &[q, w, scale, columns, point]);
            // Integers that come from elsewhere are stored as they are.
            let given = c.input(to, &["a", "b", "12"]);
            let v = c.add(Op::Linear(l), &[given, w, scale, columns, point]);
            c.check(&[y, z, u, v], 1e-5);
        }
    }
}

/// Products of integers with every epilogue, and what makes integers of their results.
#[test]
fn linears() {
    for (a, b) in [(1, 1), (3, 17)] {
        for (k, n) in [(4, 1), (12, 20), (64, 34), (452, 18)] {
            for (act, residual, norm, lengths, half, offset) in [
                (None, false, false, false, false, true),
                (Some(UnaryOp::Gelu), false, false, false, false, false),
                (Some(UnaryOp::Tanh), true, true, false, true, true),
                (None, true, true, true, false, true),
                (None, true, false, true, true, false),
            ] {
                let mut c = Case::new(a, b);
                let x = c.input(F, &["a", "b", &k.to_string()]);
                let mut more = Vec::new();
                if residual {
                    more.push(c.input(F, &["a", "b", &n.to_string()]));
                }
                if norm {
                    more.extend([c.constant(F, &[n]), c.constant(F, &[n])]);
                }
                if lengths {
                    more.push(c.lengths("a"));
                }
                let trans_b = k % 8 == 0;
                let norm = norm.then_some(0.1);
                let l = Linear {
                    trans_b,
                    bias: true,
                    act,
                    residual,
                    norm,
                    lengths,
                    bf16: half,
                    offset,
                    ..Linear::default()
                };
                let y = c.product(l, x, k, n, &more);
                c.check(&[y], if half { 5e-3 } else { 2e-5 });
            }
        }
    }
}

/// A chain in which each product's result is made integers by the step that computes it or by the one that reads it, with
/// and without anybody else who reads it.
#[test]
fn chains() {
    for offset in [false, true] {
        for lengths in [false, true] {
            let mut c = Case::new(3, 11);
            let (table, ids) = (c.constant(F, &[9, 32]), c.input(DType::I64, &["a", "b"]));
            let (gamma, beta) = (c.constant(F, &[32]), c.constant(F, &[32]));
            let s = SumNorm { tables: 1, norm: Some(0.1), ..SumNorm::default() };
            let x = c.add(Op::SumNorm(s), &[table, ids, gamma, beta]);
            let l = Linear { bias: true, offset, ..Linear::default() };
            let qkv = c.product(l, x, 32, 96, &[]);
            let part = |c: &mut Case, i: i64| {
                c.add(Op::Slice { axis: 2, start: (32 * i).into(), len: 32.into(), step: 1 }, &[qkv])
            };
            let operands = [part(&mut c, 0), part(&mut c, 1), part(&mut c, 2)];
            let op = Attention { heads: 2, scale: 0.5, ..Attention::default() };
            let y = c.add(Op::Attention(op), &operands);
            let length = lengths.then(|| c.lengths("a"));
            let l = Linear { residual: true, norm: Some(0.1), lengths, ..l };
            let mut more = vec![x, gamma, beta];
            more.extend(length);
            let y = c.product(l, y, 32, 32, &more);
            let l = Linear { act: Some(UnaryOp::Gelu), residual: false, norm: None, ..l };
            let up = c.product(l, y, 32, 64, &length.into_iter().collect::<Vec<_>>());
            let l = Linear { act: None, residual: true, norm: Some(0.1), ..l };
            let mut more = vec![y, gamma, beta];
            more.extend(length);
            let z = c.product(l, up, 64, 32, &more);
            let steps = |outputs: &[ValueId]| {
                let mut g = c.g.clone();
                outputs.iter().for_each(|&o| g.add_output("y", o));
                g.remove_dead();
                let p = lower(&g, &Target::parse("x86_64", "icelake-server").unwrap()).unwrap();
                p.steps.iter().map(|s| p.kernels[s.kernel].name.clone()).collect::<Vec<_>>()
            };
            let names = steps(&[z]);
            // Embeddings, merged product, attention, and three more products: nothing is read to be made integers only.
            assert_eq!(names.len(), 6, "{names:?}");
            c.check(&[z, up], 1e-2);
        }
    }
}

/// Tensors that become integers with constant scales where they are computed; not so with rows of padding among them, whose
/// integers are not 0.
#[test]
fn constant_scales() {
    for (lengths, steps) in [(false, 3), (true, 4)] {
        let mut c = Case::new(3, 11);
        let (x, gamma, beta) = (c.input(F, &["a", "b", "32"]), c.constant(F, &[32]), c.constant(F, &[32]));
        let s = SumNorm { addends: 1, norm: Some(0.1), ..SumNorm::default() };
        let x = c.add(Op::SumNorm(s), &[x, gamma, beta]);
        let length = lengths.then(|| c.lengths("a"));
        let mut product = |x: ValueId, to: DType, k: usize, n: usize, l: Linear, more: &[ValueId]| {
            let scale = c.add(Op::Constant(Tensor::from_f32(vec![], &[1.0 / 64.0])), &[]);
            let zero = c.add(
                Op::Constant(Tensor::scalar(DType::I32, Scalar::Int(if to == DType::U8 { 120 } else { -3 }))),
                &[],
            );
            let q = c.add(Op::Quantise { to }, &[x, scale, zero]);
            let (w, columns) = (c.bytes(&[k, n], false), c.constant(F, &[n]));
            let operands = [&[q, w, scale, columns, zero], more].concat();
            c.add(Op::Linear(Linear { int8: true, zero: true, ..l }), &operands)
        };
        let l = Linear { act: Some(UnaryOp::Gelu), lengths, ..Linear::default() };
        let y = product(x, DType::U8, 32, 52, l, &length.into_iter().collect::<Vec<_>>());
        let z = product(y, DType::I8, 52, 34, Linear::default(), &[]);
        let mut g = c.g.clone();
        g.add_output("z", z);
        g.remove_dead();
        let p = lower(&g, &Target::parse("x86_64", "icelake-server").unwrap()).unwrap();
        let names: Vec<_> = p.steps.iter().map(|s| p.kernels[s.kernel].name.clone()).collect();
        assert_eq!(names.len(), steps, "{names:?}");
        c.check(&[z], 2e-2);
    }
}

/// Results that are bf16 and integers: the integers are of what was rounded.
#[test]
fn rounded_results() {
    for (act, norm) in [(None, false), (Some(UnaryOp::Gelu), false), (Some(UnaryOp::Tanh), true), (None, true)] {
        let mut c = Case::new(3, 11);
        let x = c.input(F, &["a", "b", "32"]);
        let (gamma, beta) = (c.constant(F, &[32]), c.constant(F, &[32]));
        let l = Linear { bias: true, bf16: true, offset: true, act, norm: norm.then_some(0.1), ..Linear::default() };
        let more = if norm { vec![gamma, beta] } else { Vec::new() };
        let y = c.product(l, x, 32, 32, &more);
        let l = Linear { bias: true, offset: true, ..Linear::default() };
        let z = c.product(l, y, 32, 20, &[]);
        let s = SumNorm { addends: 1, norm: norm.then_some(0.1), bf16: true, ..SumNorm::default() };
        let operands = if norm { vec![x, gamma, beta] } else { vec![x] };
        let sum = c.add(Op::SumNorm(s), &operands);
        let u = c.product(l, sum, 32, 20, &[]);
        c.check(&[z, u], 1e-2);
    }
}

/// Tables of integers.
#[test]
fn sums() {
    let mut c = Case::new(3, 5);
    let (table, scales) = (c.bytes(&[9, 18], true), c.constant(F, &[9]));
    let (ids, rest) = (c.input(DType::I64, &["a", "b"]), c.input(F, &["1", "b", "18"]));
    let s = SumNorm { tables: 1, int8: true, addends: 1, ..SumNorm::default() };
    let y = c.add(Op::SumNorm(s), &[table, ids, scales, rest]);
    let norm = [c.constant(F, &[18]), c.constant(F, &[18])];
    let s = SumNorm { norm: Some(0.1), bf16: true, ..s };
    let z = c.add(Op::SumNorm(s), &[table, ids, scales, rest, norm[0], norm[1]]);
    c.check(&[y, z], 5e-3);
}

/// What no kernel takes is an error that says so.
#[test]
fn what_is_not_compiled() {
    for (k, constant) in [(6, true), (8, false)] {
        let mut c = Case::new(1, 1);
        let x = c.input(F, &["a", "b", &k.to_string()]);
        let [q, unit, _] = c.quantised(RowQuant::default(), &[x]);
        let w = if constant { c.bytes(&[k, 16], false) } else { c.input(DType::I8, &[&k.to_string(), "16"]) };
        let columns = c.constant(F, &[16]);
        let l = Linear { int8: true, ..Linear::default() };
        let y = c.add(Op::Linear(l), &[q, w, unit, columns]);
        c.g.add_output("y", y);
        let e = lower(&c.g, &Target::parse("x86_64", "generic").unwrap()).unwrap_err();
        assert!(e[0].message.contains("needs a constant matrix with a multiple of 4 rows"), "{e:?}");
    }
}
