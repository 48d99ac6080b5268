//! What exporters write for the parts of an encoder, with small deviations: what fusion must recognise, or must leave
//! alone.

use bertc_ir::{BinaryOp, CmpOp, DType, Dim, Op, ReduceOp, UnaryOp, ValueId};

use super::Gen;

impl Gen<'_> {
    /// Adds a random pattern, if its operands are found.
    pub(super) fn pattern(&mut self) {
        match self.c.below(5) {
            0 => self.gelu(),
            1 => self.spelled_layer_norm(),
            2 => self.dense(),
            3 => self.spelled_attention(),
            _ => self.embeddings(),
        };
    }

    fn bin(&mut self, op: BinaryOp, x: ValueId, y: ValueId) -> Option<ValueId> {
        let pair = if self.c.one_in(4) && matches!(op, BinaryOp::Add | BinaryOp::Mul) { [y, x] } else { [x, y] };
        self.add(Op::Binary(op), &pair)
    }

    fn with(&mut self, op: BinaryOp, x: ValueId, c: f64) -> Option<ValueId> {
        // A constant that is nearly the right one must not be taken for it.
        let c = if self.c.one_in(24) { c * 1.5 } else { c };
        let c = self.scalar(DType::F32, c)?;
        self.bin(op, x, c)
    }

    fn un(&mut self, op: UnaryOp, x: ValueId) -> Option<ValueId> {
        self.add(Op::Unary(op), &[x])
    }

    fn floats(&mut self) -> Option<ValueId> {
        self.value_that(|t| t.dtype == DType::F32 && t.rank() > 0)
    }

    fn gelu(&mut self) -> Option<ValueId> {
        let x = self.floats()?;
        self.gelu_of(x)
    }

    fn gelu_of(&mut self, x: ValueId) -> Option<ValueId> {
        use BinaryOp::{Add, Div, Mul};
        if self.c.one_in(2) {
            let cube = self.bin(Mul, x, x)?;
            let cube = self.bin(Mul, cube, x)?;
            let cube = self.with(Mul, cube, f64::from(0.044_715_f32))?;
            let sum = self.bin(Add, x, cube)?;
            let scaled = self.with(Mul, sum, f64::from((2.0 / std::f32::consts::PI).sqrt()))?;
            let tanh = self.un(UnaryOp::Tanh, scaled)?;
            let plus = self.with(Add, tanh, 1.0)?;
            let half = self.with(Mul, x, 0.5)?;
            return self.bin(Mul, half, plus);
        }
        let root = f64::from(std::f32::consts::SQRT_2);
        let scaled = if self.c.one_in(2) { self.with(Mul, x, 1.0 / root)? } else { self.with(Div, x, root)? };
        let erf = self.un(UnaryOp::Erf, scaled)?;
        let plus = self.with(Add, erf, 1.0)?;
        if self.c.one_in(2) {
            let half = self.with(Mul, x, 0.5)?;
            return self.bin(Mul, half, plus);
        }
        let y = self.bin(Mul, x, plus)?;
        self.with(Mul, y, 0.5)
    }

    fn spelled_layer_norm(&mut self) -> Option<ValueId> {
        let x = self.floats()?;
        self.norm_of(x)
    }

    fn norm_of(&mut self, x: ValueId) -> Option<ValueId> {
        use BinaryOp::{Add, Div, Mul, Pow, Sub};
        let ty = self.ty(x).clone();
        let axis = if self.c.one_in(12) { 0 } else { ty.rank() - 1 };
        let mean = |s: &mut Self, v| s.add(Op::Reduce { op: ReduceOp::Mean, axes: vec![axis], keep: true }, &[v]);
        let m = mean(self, x)?;
        let centred = self.bin(Sub, x, m)?;
        let square = if self.c.one_in(2) { self.bin(Mul, centred, centred)? } else { self.with(Pow, centred, 2.0)? };
        let var = mean(self, square)?;
        let var = self.with(Add, var, 1e-3)?;
        let root = self.un(UnaryOp::Sqrt, var)?;
        let mut y = if self.c.one_in(2) {
            let r = self.un(UnaryOp::Recip, root)?;
            self.bin(Mul, centred, r)?
        } else {
            self.bin(Div, centred, root)?
        };
        let n = ty.shape.last()?.clone();
        if !self.c.one_in(6) {
            let gamma = self.filled(DType::F32, std::slice::from_ref(&n))?;
            y = self.bin(Mul, y, gamma)?;
        }
        if !self.c.one_in(6) {
            let beta = self.filled(DType::F32, &[n])?;
            y = self.bin(Add, y, beta)?;
        }
        Some(y)
    }

    /// A dense layer with what may follow it.
    fn dense(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.dtype == DType::F32 && t.rank() >= 2)?;
        let k = self.ty(x).shape.last()?.clone();
        let n = Dim::constant([16, 5, 32, 1][self.c.below(4)]);
        // Several products of one operand become one.
        let mut y = x;
        for _ in 0..1 + self.c.below(3) {
            let w = self.filled(DType::F32, &[k.clone(), n.clone()])?;
            y = self.add(Op::MatMul { trans_b: false }, &[x, w])?;
            if !self.c.one_in(4) {
                let b = self.filled(DType::F32, std::slice::from_ref(&n))?;
                y = self.bin(BinaryOp::Add, y, b)?;
            }
        }
        match self.c.below(4) {
            0 => y = self.gelu_of(y)?,
            1 => y = self.with(BinaryOp::Mul, y, 0.25)?,
            _ => {}
        }
        if self.c.one_in(2) {
            let ty = self.ty(y).clone();
            if let Some(r) = self.value_that(|t| *t == ty) {
                y = self.bin(BinaryOp::Add, y, r)?;
            }
        }
        if self.c.one_in(2) {
            y = self.norm_of(y)?;
        }
        if self.c.one_in(3) && self.ty(y).rank() == 3 {
            y = self.add(Op::Slice { axis: 1, start: 0.into(), len: 1.into(), step: 1 }, &[y])?;
        }
        Some(y)
    }

    fn heads(&mut self, x: ValueId, heads: i64, transposed: bool) -> Option<ValueId> {
        let s = self.ty(x).shape.clone();
        let d = s[2].as_const()? / heads;
        let x = self.add(Op::Reshape { shape: vec![s[0].clone(), s[1].clone(), heads.into(), d.into()] }, &[x])?;
        let perm = if transposed { vec![0, 2, 3, 1] } else { vec![0, 2, 1, 3] };
        self.add(Op::Transpose { perm }, &[x])
    }

    fn spelled_attention(&mut self) -> Option<ValueId> {
        let heads = [2, 1, 4][self.c.below(3)];
        let fits = |t: &bertc_ir::TensorType| {
            let width = t.shape.last().and_then(Dim::as_const);
            t.dtype == DType::F32 && t.rank() == 3 && width.is_some_and(|w| w > 0 && w % heads == 0)
        };
        let q = self.value_that(fits)?;
        let ty = self.ty(q).clone();
        let [k, v] = [0, 1].map(|_| self.value_that(|t| *t == ty).unwrap_or(q));
        let (q, k, v) = (self.heads(q, heads, false)?, self.heads(k, heads, true)?, self.heads(v, heads, false)?);
        let mut s = self.add(Op::MatMul { trans_b: false }, &[q, k])?;
        if !self.c.one_in(4) {
            s = self.with(BinaryOp::Mul, s, 0.25)?;
        }
        let t = ty.shape[1].clone();
        match self.c.below(4) {
            0 => {
                let m = self.filled(DType::F32, &[ty.shape[0].clone(), 1.into(), 1.into(), t])?;
                s = self.bin(BinaryOp::Add, s, m)?;
            }
            1 => {
                let m = self.filled(DType::F32, &[1.into(), 1.into(), 1.into(), t])?;
                let zero = self.scalar(DType::F32, 0.0)?;
                let c = self.add(Op::Compare(CmpOp::Gt), &[m, zero])?;
                let low = self.scalar(DType::F32, -1e4)?;
                s = self.add(Op::Select, &[c, low, s])?;
            }
            _ => {}
        }
        let axis = if self.c.one_in(16) { 2 } else { 3 };
        let p = self.add(Op::Softmax { axis }, &[s])?;
        let y = self.add(Op::MatMul { trans_b: false }, &[p, v])?;
        let y = self.add(Op::Transpose { perm: vec![0, 2, 1, 3] }, &[y])?;
        self.add(Op::Reshape { shape: ty.shape }, &[y])
    }

    fn embeddings(&mut self) -> Option<ValueId> {
        let n = Dim::constant([16, 4, 20][self.c.below(3)]);
        let ids = self.value_that(|t| matches!(t.dtype, DType::I32 | DType::I64) && t.rank() <= 2)?;
        let mut sum = None;
        for _ in 0..1 + self.c.below(3) {
            let table = self.filled(DType::F32, &[6.into(), n.clone()])?;
            let rows = self.add(Op::Gather { axis: 0 }, &[table, ids])?;
            sum = Some(match sum {
                Some(s) => self.bin(BinaryOp::Add, s, rows)?,
                None => rows,
            });
        }
        let y = sum?;
        if self.c.one_in(2) { self.norm_of(y) } else { Some(y) }
    }
}
