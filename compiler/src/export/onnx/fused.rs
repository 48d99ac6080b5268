//! Fused ops, by the parts that they stand for.

use bertc_ir::{Attention, DType, Dim, Linear, SumNorm, ValueId};

use super::plan::How;
use super::{Writer, Written};
use crate::export::onnx::out::{int, stem};

impl Writer<'_> {
    pub(super) fn linear(&mut self, v: ValueId, l: &Linear, how: Option<&How>) -> Written {
        let (g, x) = (self.g, self.g.operands(v));
        let whole = self.begin_at(x[1]);
        let bias = l.bias_at().map(|at| self.operand(x[at], "bias"));
        let mut y = match how {
            Some(how) => self.integers_as_floats(v, l, how, bias.as_deref()),
            None if l.int8 => {
                let y = self.integer_product(v, l);
                self.plus(y, bias.as_deref())
            }
            None => {
                let (a, b) = (self.operand(x[0], "constant"), self.operand(x[1], "weight"));
                self.product(&a, &b, g.ty(x[0]).rank(), l.trans_b, bias.as_deref())
            }
        };
        self.out.begin(whole);
        if let Some(act) = l.act {
            y = self.unary(act, &y, DType::F32, DType::F32);
        }
        if let Some(at) = l.residual_at() {
            let residual = self.operand(x[at], "residual");
            y = self.out.node("Add", &[&y, &residual], vec![]);
        }
        if let (Some(eps), Some(at)) = (l.norm, l.gamma_at()) {
            y = self.norm(&y, x[at], x[at + 1], eps);
        }
        if let Some(at) = l.lengths_at() {
            y = self.cut(&y, &g.ty(v).shape.clone(), x[at])?;
        }
        Ok(if l.bf16 { self.out.rounded(&y) } else { y })
    }

    /// Names the nodes to come like the one that a constant was made for. Returns what they were named like.
    fn begin_at(&mut self, constant: ValueId) -> String {
        let stem = stem(&self.g.node(constant).loc, self.out.stem());
        self.out.begin(stem)
    }

    /// a·b + bias of floats; a has `rank` dims, b two.
    pub(super) fn product(&mut self, a: &str, b: &str, rank: usize, trans_b: bool, bias: Option<&str>) -> String {
        if let (2, Some(bias)) = (rank, bias) {
            let attributes = if trans_b { vec![int("transB", 1)] } else { vec![] };
            return self.out.node("Gemm", &[a, b, bias], attributes);
        }
        let b = if trans_b { self.transposed(b, 2) } else { b.to_string() };
        let y = self.out.node("MatMul", &[a, &b], vec![]);
        self.plus(y, bias)
    }

    fn plus(&mut self, y: String, bias: Option<&str>) -> String {
        match bias {
            Some(bias) => self.out.node("Add", &[&y, bias], vec![]),
            None => y,
        }
    }

    fn norm(&mut self, y: &str, gamma: ValueId, beta: ValueId, eps: f32) -> String {
        let (gamma, beta) = (self.operand(gamma, "gamma"), self.operand(beta, "beta"));
        self.layer_norm(&[y, &gamma, &beta], eps)
    }

    /// Rows that are not below their matrix's length become 0, whatever was in them.
    fn cut(&mut self, y: &str, shape: &[Dim], lengths: ValueId) -> Written {
        let lengths = self.operand(lengths, "lengths");
        let rows = self.sizes.scalar(self.g, &mut self.out, &shape[shape.len() - 2])?;
        let (from, step) = (self.out.scalar(DType::I64, 0.0), self.out.scalar(DType::I64, 1.0));
        let rows = self.out.node("Range", &[&from, &rows, &step], vec![]);
        let last = self.out.ints(&[-1]);
        let rows = self.out.node("Unsqueeze", &[&rows, &last], vec![]);
        let both = self.out.ints(&[-2, -1]);
        let lengths = self.out.node("Unsqueeze", &[&lengths, &both], vec![]);
        let below = self.out.node("Less", &[&rows, &lengths], vec![]);
        let zero = self.out.scalar(DType::F32, 0.0);
        Ok(self.out.node("Where", &[&below, y, &zero], vec![]))
    }

    /// `[B, S, H·D]` to `[B, H, S, D]`, with `keys` to `[B, H, D, S]`.
    fn split_heads(&mut self, v: ValueId, heads: usize, keys: bool) -> Written {
        let shape = self.g.ty(v).shape.clone();
        let x = self.operand(v, "constant");
        let width = shape[2].as_const().unwrap_or(0) / heads.max(1) as i64;
        let to = [shape[0].clone(), shape[1].clone(), (heads as i64).into(), width.into()];
        let x = self.reshape(&x, &shape, &to)?;
        let perm = if keys { [0, 2, 3, 1] } else { [0, 2, 1, 3] };
        Ok(self.out.transpose(&x, &perm))
    }

    pub(super) fn attention(&mut self, v: ValueId, a: &Attention) -> Written {
        let x = self.g.operands(v);
        let q = self.split_heads(x[0], a.heads, false)?;
        let k = self.split_heads(x[1], a.heads, true)?;
        let mut s = self.out.node("MatMul", &[&q, &k], vec![]);
        if a.scale.to_bits() != 1.0f32.to_bits() {
            let scale = self.out.scalar(DType::F32, a.scale.into());
            s = self.out.node("Mul", &[&s, &scale], vec![]);
        }
        if let Some(at) = a.mask_at() {
            let mask = self.operand(x[at], "mask");
            s = self.out.node("Add", &[&s, &mask], vec![]);
        }
        let mut p = self.out.node("Softmax", &[&s], vec![int("axis", 3)]);
        if a.nan_to_zero {
            let (none, zero) = (self.out.node("IsNaN", &[&p], vec![]), self.out.scalar(DType::F32, 0.0));
            p = self.out.node("Where", &[&none, &zero, &p], vec![]);
        }
        let values = self.split_heads(x[2], a.heads, false)?;
        let y = self.out.node("MatMul", &[&p, &values], vec![]);
        let y = self.out.transpose(&y, &[0, 2, 1, 3]);
        let to = self.g.ty(v).shape.clone();
        let width = to[2].as_const().unwrap_or(0) / a.heads.max(1) as i64;
        let from = [to[0].clone(), to[1].clone(), (a.heads as i64).into(), width.into()];
        let mut y = self.reshape(&y, &from, &to)?;
        if let Some(at) = a.lengths_at() {
            y = self.cut(&y, &to, x[at])?;
        }
        Ok(if a.bf16 { self.out.rounded(&y) } else { y })
    }

    pub(super) fn sum_norm(&mut self, v: ValueId, n: &SumNorm) -> String {
        let x = self.g.operands(v);
        let (tables, rest) = x.split_at(n.addends_at());
        let mut terms = Vec::new();
        for part in tables.chunks_exact(n.per_table()) {
            let whole = self.begin_at(part[0]);
            let (table, ids) = (self.operand(part[0], "table"), self.operand(part[1], "ids"));
            let rows = self.out.node("Gather", &[&table, &ids], vec![int("axis", 0)]);
            let Some(&scales) = part.get(2) else {
                terms.push(rows);
                self.out.begin(whole);
                continue;
            };
            // Rows first: a table of integers is much larger than what is read of it.
            let rows = self.out.cast(&rows, DType::F32);
            let scales = self.operand(scales, "scale");
            let scales = self.out.node("Gather", &[&scales, &ids], vec![int("axis", 0)]);
            let last = self.out.ints(&[-1]);
            let scales = self.out.node("Unsqueeze", &[&scales, &last], vec![]);
            terms.push(self.out.node("Mul", &[&rows, &scales], vec![]));
            self.out.begin(whole);
        }
        terms.extend(rest[..n.addends].iter().map(|&t| self.operand(t, "constant")));
        let mut terms = terms.into_iter();
        // Inference refuses sums of nothing.
        let mut y = terms.next().unwrap_or_default();
        for t in terms {
            y = self.out.node("Add", &[&y, &t], vec![]);
        }
        if let (Some(eps), Some(at)) = (n.norm, n.gamma_at()) {
            y = self.norm(&y, x[at], x[at + 1], eps);
        }
        if n.bf16 { self.out.rounded(&y) } else { y }
    }
}
