//! Single random ops.

use bertc_ir::{Attention, BinaryOp, CmpOp, DType, Dim, Linear, Op, ReduceOp, SumNorm, UnaryOp, ValueId, op};

use super::Gen;

impl Gen<'_> {
    /// Adds a random op, if its operands are found.
    pub(super) fn op(&mut self) {
        match self.c.below(26) {
            0 | 1 => self.unary(),
            2..=5 => self.binary(),
            6 => self.compare(),
            7 => self.select(),
            8 => self.cast(),
            9 => self.reduce(),
            10 => self.scan(),
            11 => self.softmax(),
            12 => self.layer_norm(),
            13 | 14 => self.matmul(),
            15 => self.transpose(),
            16 => self.reshape(),
            17 => self.broadcast(),
            18 => self.slice(),
            19 => self.concat(),
            20 | 21 => self.gather(),
            22 => self.index(),
            23 => self.scatter(),
            24 => self.top_k(),
            _ => self.fused(),
        };
    }

    fn unary(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let u = self.c.pick(UnaryOp::ALL)?;
        self.add(Op::Unary(u), &[x])
    }

    /// A second operand for `x` of its type, that broadcasts with it.
    fn partner(&mut self, x: ValueId) -> Option<ValueId> {
        let ty = self.ty(x).clone();
        let symbols = self.g.symbols.clone();
        match self.c.below(4) {
            0 | 1 => {
                let fits = |t: &bertc_ir::TensorType| {
                    t.dtype == ty.dtype && bertc_ir::infer::broadcast_shapes(&t.shape, &ty.shape, &symbols).is_ok()
                };
                self.value_that(fits)
            }
            2 => {
                let k = self.c.below(ty.rank() + 1);
                self.filled(ty.dtype, &ty.shape[k..])
            }
            _ => {
                let v = [1.0, 0.0, 2.0, 0.5, -1.0, 3.0, 0.125, -3.0][self.c.below(8)];
                self.scalar(ty.dtype, v)
            }
        }
    }

    fn binary(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let y = self.partner(x)?;
        let b = match self.c.below(3) {
            0 => self.c.pick(&[BinaryOp::Add, BinaryOp::Mul, BinaryOp::Sub, BinaryOp::Div])?,
            _ => self.c.pick(BinaryOp::ALL)?,
        };
        let pair = if self.c.one_in(2) { [y, x] } else { [x, y] };
        self.add(Op::Binary(b), &pair)
    }

    fn compare(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let y = self.partner(x)?;
        let c = self.c.pick(CmpOp::ALL)?;
        self.add(Op::Compare(c), &[x, y])
    }

    fn select(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let y = self.partner(x)?;
        let shape = self.ty(x).shape.clone();
        let c = match self.value_that(|t| t.dtype == DType::Bool) {
            Some(c) if self.c.below(3) > 0 => c,
            _ => self.filled(DType::Bool, &shape)?,
        };
        self.add(Op::Select, &[c, x, y])
    }

    fn cast(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let d = self.dtype();
        self.add(Op::Cast(d), &[x])
    }

    fn axis(&mut self, x: ValueId) -> Option<usize> {
        let rank = self.ty(x).rank();
        (rank > 0).then(|| if self.c.one_in(2) { self.c.below(rank) } else { rank - 1 })
    }

    fn reduce(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let op = self.c.pick(ReduceOp::ALL)?;
        let last = self.axis(x)?;
        let mut axes = vec![last];
        if self.c.one_in(3) {
            axes.push(self.c.below(self.ty(x).rank()));
        }
        axes.sort_unstable();
        axes.dedup();
        let keep = self.c.below(2) == 0;
        self.add(Op::Reduce { op, axes, keep }, &[x])
    }

    fn scan(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let axis = self.axis(x)?;
        if self.c.one_in(2) {
            let min = self.c.one_in(2);
            return self.add(Op::ArgMax { axis, min }, &[x]);
        }
        let (exclusive, reverse) = (self.c.one_in(2), self.c.one_in(2));
        self.add(Op::CumSum { axis, exclusive, reverse }, &[x])
    }

    fn softmax(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.dtype.is_float() && t.rank() > 0)?;
        let axis = self.axis(x)?;
        self.add(Op::Softmax { axis }, &[x])
    }

    pub(super) fn layer_norm(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.dtype.is_float() && t.shape.last().is_some_and(|d| d.as_const().is_some()))?;
        let (dtype, n) = (self.ty(x).dtype, self.ty(x).shape.last()?.clone());
        let (gamma, beta) = (self.filled(dtype, std::slice::from_ref(&n))?, self.filled(dtype, &[n])?);
        let eps = [1e-5, 1e-12, 0.1][self.c.below(3)];
        self.add(Op::LayerNorm { eps }, &[x, gamma, beta])
    }

    fn matmul(&mut self) -> Option<ValueId> {
        let a = self.value_that(|t| t.rank() >= 2 && t.dtype == DType::F32)?;
        let ty = self.ty(a).clone();
        let k = ty.shape[ty.rank() - 1].clone();
        let trans_b = self.c.one_in(3);
        let inner = move |t: &bertc_ir::TensorType| {
            let at = if trans_b { 1 } else { 2 };
            t.dtype == ty.dtype && t.rank() >= 2 && t.shape[t.rank() - at] == k
        };
        let b = match if self.c.below(2) == 0 { self.value_that(inner) } else { None } {
            Some(b) => b,
            None => {
                let k = self.ty(a).shape.last()?.clone();
                let n = [3, 16, 1, 20, 33, 4][self.c.below(6)];
                let shape = if trans_b { vec![n.into(), k] } else { vec![k, n.into()] };
                self.filled(DType::F32, &shape)?
            }
        };
        self.add(Op::MatMul { trans_b }, &[a, b])
    }

    pub(super) fn transpose(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.rank() >= 2)?;
        let mut perm: Vec<usize> = (0..self.ty(x).rank()).collect();
        for i in 0..perm.len() {
            let j = i + self.c.below(perm.len() - i);
            perm.swap(i, j);
        }
        self.add(Op::Transpose { perm }, &[x])
    }

    fn reshape(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let mut shape = self.ty(x).shape.clone();
        for _ in 0..1 + self.c.below(2) {
            let at = self.c.below(shape.len() + 1);
            match self.c.below(3) {
                0 if shape.len() < 6 => shape.insert(at, 1.into()),
                1 if at + 1 < shape.len() => {
                    let d = shape.remove(at);
                    shape[at] = shape[at].mul(&d)?;
                }
                _ => {
                    let Some(n) = shape.get(at).and_then(Dim::as_const) else { continue };
                    let by = [2, 4, 3, 8][self.c.below(4)];
                    if n % by == 0 {
                        shape[at] = (n / by).into();
                        shape.insert(at + self.c.below(2), by.into());
                    }
                }
            }
        }
        self.add(Op::Reshape { shape }, &[x])
    }

    fn broadcast(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let mut shape = self.ty(x).shape.clone();
        for d in &mut shape {
            if d.as_const() == Some(1) && self.c.below(2) == 0 {
                *d = self.dims[self.c.below(self.dims.len())].clone();
            }
        }
        if self.c.below(2) == 0 && shape.len() < 5 {
            let d = self.dim();
            shape.insert(0, d);
        }
        self.add(Op::Broadcast { shape }, &[x])
    }

    fn slice(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let axis = self.axis(x)?;
        let n = self.ty(x).shape[axis].clone();
        let step = [1, 1, 2, -1, -2][self.c.below(5)];
        let (start, len) = match n.as_const() {
            Some(n) => {
                let start = self.c.below(n.max(1) as usize) as i64;
                let most = if step > 0 { (n - start + step - 1) / step } else { start / -step + 1 };
                (Dim::constant(start), Dim::constant(self.c.below(most.max(0) as usize + 1) as i64))
            }
            // The first row, the last one, all but the first.
            None => match self.c.below(3) {
                0 => (0.into(), 1.into()),
                1 => (n.sub(&1.into())?, 1.into()),
                _ => (1.into(), n.sub(&1.into())?),
            },
        };
        self.add(Op::Slice { axis, start, len, step }, &[x])
    }

    fn concat(&mut self) -> Option<ValueId> {
        let x = self.value()?;
        let axis = self.axis(x)?;
        let ty = self.ty(x).clone();
        let mut parts = vec![x];
        for _ in 0..1 + self.c.below(2) {
            let like = |t: &bertc_ir::TensorType| {
                t.dtype == ty.dtype
                    && t.rank() == ty.rank()
                    && (0..t.rank()).all(|i| i == axis || t.shape[i] == ty.shape[i])
            };
            match self.value_that(like) {
                Some(p) if self.c.below(3) > 0 => parts.push(p),
                _ => {
                    let mut shape = ty.shape.clone();
                    shape[axis] = (self.c.below(3) as i64).into();
                    parts.push(self.filled(ty.dtype, &shape)?);
                }
            }
        }
        self.add(Op::Concat { axis }, &parts)
    }

    /// Indices of a shape below `n`, some of them negative.
    fn indices(&mut self, shape: &[usize], n: usize) -> Option<ValueId> {
        let dtype = self.c.pick(&[DType::I64, DType::I32])?;
        let negative = self.c.one_in(4);
        let bad = self.c.one_in(40);
        let elements: Vec<bertc_ir::Scalar> = (0..shape.iter().product::<usize>())
            .map(|_| {
                let i = self.c.below(n + usize::from(bad)) as i128;
                bertc_ir::Scalar::Int(if negative { i - n as i128 } else { i })
            })
            .collect();
        let t = bertc_ir::Tensor::from_scalars(dtype, shape.to_vec(), elements);
        self.g.add_const(t, &bertc_ir::Loc::Unknown).ok()
    }

    fn gather(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.rank() > 0)?;
        let axis = self.axis(x)?;
        let shape = self.ty(x).shape.clone();
        let size = |d: &Dim| d.as_const().and_then(|c| usize::try_from(c).ok()).filter(|&c| c > 0);
        match self.c.below(5) {
            0 => {
                // Indices that are computed or given: out of range now and then.
                let ids = self.value_that(|t| matches!(t.dtype, DType::I32 | DType::I64))?;
                self.add(Op::Gather { axis }, &[x, ids])
            }
            1 => {
                let sizes: Vec<usize> = shape.iter().map(size).collect::<Option<_>>()?;
                let mut to = sizes.clone();
                to[axis] = 1 + self.c.below(3);
                let ids = self.indices(&to, sizes[axis])?;
                self.add(Op::GatherElements { axis }, &[x, ids])
            }
            2 => {
                let sizes: Vec<usize> = shape.iter().map_while(size).collect();
                let k = self.c.below(sizes.len()) + 1;
                let least = *sizes.iter().take(k).min()?;
                let count = 1 + self.c.below(3);
                let ids = self.indices(&[count, k], least)?;
                self.add(Op::GatherNd { batch_dims: 0 }, &[x, ids])
            }
            _ => {
                let n = size(&shape[axis])?;
                let to: &[usize] = [&[][..], &[1], &[3], &[2, 2]][self.c.below(4)];
                let ids = self.indices(to, n)?;
                self.add(Op::Gather { axis }, &[x, ids])
            }
        }
    }

    fn scatter(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.rank() > 0)?;
        let ty = self.ty(x).clone();
        let size = |d: &Dim| d.as_const().and_then(|c| usize::try_from(c).ok()).filter(|&c| c > 0);
        let combine = match self.c.below(6) {
            0 => Some(BinaryOp::Add),
            1 => Some(BinaryOp::Mul),
            2 => Some(BinaryOp::Min),
            3 => Some(BinaryOp::Max),
            _ => None,
        };
        if self.c.one_in(2) {
            let axis = self.axis(x)?;
            let sizes: Vec<usize> = ty.shape.iter().map(size).collect::<Option<_>>()?;
            let mut to = sizes.clone();
            to[axis] = 1 + self.c.below(3);
            let ids = self.indices(&to, sizes[axis])?;
            let shape: Vec<Dim> = to.iter().map(|&d| (d as i64).into()).collect();
            let updates = self.filled(ty.dtype, &shape)?;
            return self.add(Op::ScatterElements { axis, combine }, &[x, ids, updates]);
        }
        let sizes: Vec<usize> = ty.shape.iter().map_while(size).collect();
        let k = self.c.below(sizes.len()) + 1;
        let least = *sizes.iter().take(k).min()?;
        let count = 1 + self.c.below(3);
        let ids = self.indices(&[count, k], least)?;
        let shape = [&[Dim::constant(count as i64)], &ty.shape[k..]].concat();
        let updates = self.filled(ty.dtype, &shape)?;
        self.add(Op::ScatterNd { combine }, &[x, ids, updates])
    }

    fn top_k(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.rank() > 0)?;
        let axis = self.axis(x)?;
        let k = if self.c.one_in(2) { 1.into() } else { self.ty(x).shape[axis].clone() };
        let smallest = self.c.one_in(2);
        self.add(Op::TopK { axis, k, smallest }, &[x])
    }

    fn index(&mut self) -> Option<ValueId> {
        let d = self.dim();
        if self.c.one_in(3) {
            return self.add(Op::Dim(d), &[]);
        }
        let start = Dim::constant(self.c.below(4) as i64 - 1);
        let step = Dim::constant([1, 2, -1, 0][self.c.below(4)]);
        self.add(Op::Iota { len: d, start, step }, &[])
    }

    fn fused(&mut self) -> Option<ValueId> {
        match self.c.below(3) {
            0 => self.linear(),
            1 => self.attention(),
            _ => self.sum_norm(),
        }
    }

    fn linear(&mut self) -> Option<ValueId> {
        let a = self.value_that(|t| t.rank() >= 2 && t.dtype == DType::F32)?;
        let k = self.ty(a).shape.last()?.clone();
        let n = Dim::constant([16, 3, 20, 33, 1][self.c.below(5)]);
        let mut shape = self.ty(a).shape.clone();
        *shape.last_mut()? = n.clone();
        let l = Linear {
            trans_b: self.c.one_in(2),
            bias: self.c.one_in(2),
            act: if self.c.one_in(2) { self.c.pick(&op::ACTIVATIONS) } else { None },
            residual: self.c.one_in(2),
            norm: self.c.one_in(2).then_some(1e-5),
            ..Linear::default()
        };
        let b = if l.trans_b { [n.clone(), k] } else { [k, n.clone()] };
        let mut operands = vec![a, self.filled(DType::F32, &b)?];
        operands.extend(self.epilogue(&l, &n, &shape)?);
        self.add(Op::Linear(l), &operands)
    }

    /// What a product of `n` columns, whose result has that shape, takes behind its sums.
    pub(super) fn epilogue(&mut self, l: &Linear, n: &Dim, shape: &[Dim]) -> Option<Vec<ValueId>> {
        let mut operands = Vec::new();
        if l.bias {
            operands.push(self.filled(DType::F32, std::slice::from_ref(n))?);
        }
        if l.residual {
            operands.push(self.filled(DType::F32, shape)?);
        }
        for _ in 0..2 * usize::from(l.norm.is_some()) {
            operands.push(self.filled(DType::F32, std::slice::from_ref(n))?);
        }
        Some(operands)
    }

    fn attention(&mut self) -> Option<ValueId> {
        let heads = [1, 2, 4][self.c.below(3)];
        let fits = |t: &bertc_ir::TensorType| {
            let width = t.shape.last().and_then(Dim::as_const);
            t.dtype == DType::F32 && t.rank() == 3 && width.is_some_and(|w| w > 0 && (w as usize).is_multiple_of(heads))
        };
        let q = self.value_that(fits)?;
        let ty = self.ty(q).clone();
        let [k, v] = [0, 1].map(|_| self.value_that(|t| *t == ty).unwrap_or(q));
        let mut operands = vec![q, k, v];
        let mask = self.c.one_in(2);
        if mask {
            let [b, t] = [ty.shape[0].clone(), ty.shape[1].clone()];
            let shape = [if self.c.one_in(2) { 1.into() } else { b }, 1.into(), 1.into(), t];
            operands.push(self.filled(DType::F32, &shape)?);
        }
        let nan_to_zero = self.c.one_in(3);
        self.add(Op::Attention(Attention { heads, scale: 0.25, mask, nan_to_zero, ..Attention::default() }), &operands)
    }

    fn sum_norm(&mut self) -> Option<ValueId> {
        let x = self.value_that(|t| t.dtype == DType::F32 && t.shape.last().is_some_and(|d| d.as_const() > Some(0)))?;
        let n = self.ty(x).shape.last()?.clone();
        let mut operands = Vec::new();
        let tables = self.c.below(2);
        for _ in 0..tables {
            let table = self.filled(DType::F32, &[5.into(), n.clone()])?;
            operands.extend([table, self.indices(&[1], 5)?]);
        }
        operands.push(x);
        let norm = self.c.one_in(2).then_some(1e-5);
        for _ in 0..2 * usize::from(norm.is_some()) {
            operands.push(self.filled(DType::F32, std::slice::from_ref(&n))?);
        }
        self.add(Op::SumNorm(SumNorm { tables, addends: 1, norm, ..SumNorm::default() }), &operands)
    }
}
