//! What computes on bf16, against the evaluator.

use super::*;

/// Products of bf16 in pairs, with every epilogue; and what can't be in pairs: an odd K, a matrix known at run time, and
/// rows at an odd distance.
#[test]
fn linears_on_bf16() {
    let (f32, bf16) = (DType::F32, DType::BF16);
    for (a, b) in [(1, 1), (3, 17)] {
        for (k, n) in [(2, 1), (10, 20), (7, 18), (450, 34)] {
            for (act, residual, norm, lengths, half) in [
                (None, None, false, false, false),
                (Some(UnaryOp::Gelu), None, false, false, true),
                (Some(UnaryOp::Tanh), Some(f32), true, false, true),
                (None, Some(bf16), true, true, true),
                (None, Some(bf16), false, true, true),
                (None, Some(f32), false, false, true),
            ] {
                let mut c = Case::new(a, b);
                let x = c.input(bf16, &["a", "b", &k.to_string()]);
                let w = c.constant(f32, &[n, k]);
                let w = c.add(Op::Cast(bf16), &[w]);
                let mut operands = vec![x, w, c.constant(f32, &[n])];
                operands.extend(residual.map(|d| c.input(d, &["a", "b", &n.to_string()])));
                if norm {
                    operands.extend([c.constant(f32, &[n]), c.constant(f32, &[n])]);
                }
                if lengths {
                    operands.push(c.lengths("a"));
                }
                let (norm, residual) = (norm.then_some(0.1), residual.is_some());
                let l =
                    Linear { trans_b: true, bias: true, act, residual, norm, lengths, bf16: half, ..Linear::default() };
                let y = c.add(Op::Linear(l), &operands);
                c.check(&[y], if half { 5e-3 } else { 2e-5 });
            }
        }
    }
    let mut c = Case::new(3, 2);
    let x = c.input(bf16, &["a", "b", "12"]);
    let parts = [c.constant(f32, &[12, 16]), c.constant(f32, &[12, 5])];
    let w = c.add(Op::Concat { axis: 1 }, &parts);
    let w = c.add(Op::Cast(bf16), &[w]);
    let l = Linear { bf16: true, ..Linear::default() };
    let y = c.add(Op::Linear(l), &[x, w]);
    let own = c.constant(bf16, &[4, 9]);
    let columns = |c: &mut Case, start: i64| {
        let s = c.add(Op::Slice { axis: 2, start: start.into(), len: 4.into(), step: 1 }, &[y]);
        c.add(Op::Linear(l), &[s, own])
    };
    let (z, u) = (columns(&mut c, 5), columns(&mut c, 6));
    let late = c.input(bf16, &["12", "b"]);
    let v = c.add(Op::Linear(l), &[x, late]);
    c.check(&[y, z, u, v], 5e-3);
}

/// Attention on bf16: heads that go in pairs and heads that don't, numbers of keys that are odd and of several blocks,
/// merged operands.
#[test]
fn attentions_on_bf16() {
    for (queries, keys) in [("1", "b"), ("b", "b"), ("b", "140"), ("131", "3"), ("5", "257")] {
        for (heads, d, e) in [(1, 2, 4), (2, 3, 6), (3, 18, 20)] {
            for (mask, bf16) in [(false, true), (true, true), (true, false)] {
                let mut c = Case::new(2, 5);
                let (hd, he) = ((heads * d).to_string(), (heads * e).to_string());
                let mut operands = vec![
                    c.input(DType::BF16, &["a", queries, &hd]),
                    c.input(DType::BF16, &["a", keys, &hd]),
                    c.input(DType::BF16, &["a", keys, &he]),
                ];
                operands.extend(mask.then(|| c.input(DType::F32, &["a", "1", "1", keys])));
                let mut op = Attention { heads, scale: 0.4, mask, bf16, ..Attention::default() };
                let y = c.add(Op::Attention(op), &operands);
                op.lengths = true;
                op.nan_to_zero = true;
                operands.push(c.lengths("a"));
                let z = c.add(Op::Attention(op), &operands);
                c.check(&[y, z], 1e-2);
            }
        }
    }
    let mut c = Case::new(2, 7);
    let x = c.input(DType::BF16, &["a", "b", "24"]);
    let part = |c: &mut Case, i: i64| c.add(Op::Slice { axis: 2, start: (8 * i).into(), len: 8.into(), step: 1 }, &[x]);
    let operands = [part(&mut c, 0), part(&mut c, 1), part(&mut c, 2)];
    let op = Attention { heads: 2, scale: 0.5, bf16: true, ..Attention::default() };
    let y = c.add(Op::Attention(op), &operands);
    c.check(&[y], 1e-2);
}

/// Tables that the object holds rounded, and sums that are.
#[test]
fn sums_on_bf16() {
    for norm in [None, Some(1e-3)] {
        let mut c = Case::new(3, 5);
        let table = c.constant(DType::F32, &[9, 18]);
        let (table, ids) = (c.add(Op::Cast(DType::BF16), &[table]), c.input(DType::I64, &["a", "b"]));
        let mut operands = vec![table, ids, c.input(DType::F32, &["1", "b", "18"])];
        if norm.is_some() {
            operands.extend([c.constant(DType::F32, &[18]), c.constant(DType::F32, &[18])]);
        }
        let s = SumNorm { tables: 1, addends: 1, norm, bf16: true, ..SumNorm::default() };
        let y = c.add(Op::SumNorm(s), &operands);
        c.check(&[y], 5e-3);
    }
}

/// A matrix that is bf16 already, or parts of one, is in the object once.
#[test]
fn a_matrix_of_bf16_is_packed_once() {
    let mut c = Case::new(3, 2);
    let x = c.input(DType::BF16, &["a", "b", "12"]);
    let w = c.constant(DType::BF16, &[12, 16]);
    let parts = [w, c.constant(DType::BF16, &[12, 5])];
    let both = c.add(Op::Concat { axis: 1 }, &parts);
    for (matrix, columns) in [(w, 16), (both, 32)] {
        let mut g = c.g.clone();
        let y = g.add(Op::Linear(Linear::default()), &[x, matrix], &Loc::Unknown).unwrap();
        g.add_output("y", y);
        g.remove_dead();
        let p = lower(&g, &Target::parse("x86_64", "generic").unwrap()).unwrap();
        let bytes: u64 = p.consts.iter().map(|c| crate::pack::packed_size(c).unwrap()).sum();
        assert_eq!(bytes, 2 * 12 * columns);
    }
}
