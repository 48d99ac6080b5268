//! Products of 8-bit integers: the ops that compute them, what quantised models write for them, and products of floats
//! that `--int8` can make integers.

use bertc_ir::{
    Attention, BinaryOp, CmpOp, DType, Dim, Linear, Op, RowQuant, Scalar, SumNorm, Tensor, TensorType, UnaryOp,
    ValueId, op,
};

use super::Gen;

/// Name of the input that masks are made of.
const MASK: &str = "mask";

/// Integers that stand for floats: x = (integers - zero)·scale.
#[derive(Clone, Copy)]
struct Quantised {
    integers: ValueId,
    scale: ValueId,
    zero: ValueId,
}

impl Gen<'_> {
    /// Adds something about products of bytes, if its operands are found.
    pub(super) fn bytes(&mut self) {
        match self.c.below(8) {
            0 | 1 => self.integer_linear(),
            2 => self.quantised_product(),
            3 => self.integer_product(),
            4 => self.integer_tables(),
            5 => self.row_op(),
            6 => self.wide_dense(),
            _ => self.masked_layer(),
        };
    }

    /// An input with a number for each token, 0 at padding.
    pub(super) fn mask(&mut self) {
        let dims = self.dims.clone();
        let [seq, batch] = [dims.first(), dims.get(1)].map(|d| d.cloned().unwrap_or(Dim::constant(1)));
        let v = self.g.add_input(MASK, TensorType::new(DType::I64, vec![batch, seq]));
        self.values.push(v);
    }

    /// A constant of bytes: all there are, only the largest in magnitude, or few.
    fn byte_constant(&mut self, dtype: DType, shape: &[Dim]) -> Option<ValueId> {
        let sizes: Vec<usize> = shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect::<Option<_>>()?;
        let mut state = self.c.below(1 << 16) as u64 + 1;
        let kind = self.c.below(4);
        let mut element = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let r = i128::from(state >> 33);
            let (low, high) = if dtype == DType::U8 { (0, 255) } else { (-128, 127) };
            Scalar::Int(match kind {
                0 => low + r % 256,
                // As of matrices that `--int8` makes: none is -128.
                1 => (low + 1 + r % 255).min(high),
                2 => [low, high][(r % 2) as usize],
                _ => r % 3,
            })
        };
        let elements: Vec<Scalar> = (0..sizes.iter().product()).map(|_| element()).collect();
        self.g.add_const(Tensor::from_scalars(dtype, sizes, elements), &bertc_ir::Loc::Unknown).ok()
    }

    /// Positive scales.
    fn scales(&mut self, shape: &[Dim]) -> Option<ValueId> {
        let sizes: Vec<usize> = shape.iter().map(|d| usize::try_from(d.as_const()?).ok()).collect::<Option<_>>()?;
        let first = self.c.below(16);
        let scale = |i: usize| Scalar::Float([0.015_625, 0.1, 0.031, 0.25, 0.007][(first + i) % 5]);
        let elements: Vec<Scalar> = (0..sizes.iter().product()).map(scale).collect();
        self.g.add_const(Tensor::from_scalars(DType::F32, sizes, elements), &bertc_ir::Loc::Unknown).ok()
    }

    fn zero_point(&mut self, dtype: DType) -> Option<ValueId> {
        let zero = if dtype == DType::U8 { [128, 0, 3, 255] } else { [0, 5, -128, -1] };
        let zero = zero[self.c.below(4)];
        self.g.add_const(Tensor::scalar(DType::I32, Scalar::Int(zero)), &bertc_ir::Loc::Unknown).ok()
    }

    /// Floats with rows of a known size, 4 times something if there are such.
    fn rows(&mut self) -> Option<ValueId> {
        let n = |t: &TensorType| t.shape.last().and_then(Dim::as_const).unwrap_or(0);
        let floats = |t: &TensorType| t.dtype == DType::F32 && t.rank() >= 2 && n(t) > 0;
        self.value_that(|t| floats(t) && n(t) % 4 == 0).or_else(|| self.value_that(floats))
    }

    fn columns(&mut self) -> Dim {
        Dim::constant([16, 32, 20, 33, 64, 5][self.c.below(6)])
    }

    /// Integers of rows, or what they mean, alone.
    fn row_op(&mut self) -> Option<ValueId> {
        let x = self.rows()?;
        let q = RowQuant { offset: self.c.one_in(2), factor: self.c.one_in(4) };
        let op = [Op::QuantiseRows(q), Op::RowScale(q), Op::RowOffset(q)][self.c.below(3)].clone();
        let operands = self.row_operands(q, x)?;
        self.add(op, &operands)
    }

    fn row_operands(&mut self, q: RowQuant, x: ValueId) -> Option<Vec<ValueId>> {
        let n = self.ty(x).shape.last()?.clone();
        let factor = if q.factor { Some(self.filled(DType::F32, &[n])?) } else { None };
        Some([x].into_iter().chain(factor).collect())
    }

    /// `x` quantised with constants, as one op or as importers spell it.
    fn quantised(&mut self, x: ValueId) -> Option<Quantised> {
        let dtype = if self.c.one_in(2) { DType::I8 } else { DType::U8 };
        let (scale, zero) = (self.scales(&[])?, self.zero_point(dtype)?);
        let integers = if self.c.one_in(2) {
            self.add(Op::Quantise { to: dtype }, &[x, scale, zero])?
        } else {
            let y = self.add(Op::Binary(BinaryOp::Div), &[x, scale])?;
            let y = self.add(Op::Unary(UnaryOp::Round), &[y])?;
            let point = self.add(Op::Cast(DType::F32), &[zero])?;
            let mut y = self.add(Op::Binary(BinaryOp::Add), &[y, point])?;
            let bounds = if dtype == DType::U8 { [0.0, 255.0] } else { [-128.0, 127.0] };
            for (op, at) in [BinaryOp::Max, BinaryOp::Min].into_iter().zip(bounds) {
                let at = self.scalar(DType::F32, at)?;
                y = self.add(Op::Binary(op), &[y, at])?;
            }
            self.add(Op::Cast(dtype), &[y])?
        };
        Some(Quantised { integers, scale, zero })
    }

    /// The integers less their zero point, as 32-bit ones.
    fn centred(&mut self, q: Quantised) -> Option<ValueId> {
        let x = self.add(Op::Cast(DType::I32), &[q.integers])?;
        self.add(Op::Binary(BinaryOp::Sub), &[x, q.zero])
    }

    fn dequantised(&mut self, q: Quantised) -> Option<ValueId> {
        let x = self.centred(q)?;
        let x = self.add(Op::Cast(DType::F32), &[x])?;
        self.add(Op::Binary(BinaryOp::Mul), &[x, q.scale])
    }

    /// A linear on integers, of whatever kind.
    fn integer_linear(&mut self) -> Option<ValueId> {
        let x = self.rows()?;
        let mut l = Linear {
            int8: true,
            trans_b: self.c.one_in(2),
            bias: self.c.one_in(2),
            act: if self.c.one_in(2) { self.c.pick(&op::ACTIVATIONS) } else { None },
            residual: self.c.one_in(4),
            norm: self.c.one_in(3).then_some(1e-5),
            ..Linear::default()
        };
        let rows = RowQuant { offset: self.c.one_in(2), factor: self.c.one_in(4) };
        let bytes = |t: &TensorType| matches!(t.dtype, DType::I8 | DType::U8) && t.rank() >= 2;
        let mut more = Vec::new();
        let (a, scale) = match self.c.below(4) {
            0 => {
                let q = self.quantised(x)?;
                l.zero = true;
                more.push(q.zero);
                (q.integers, q.scale)
            }
            1 => (self.value_that(bytes)?, self.scales(&[])?),
            _ => {
                let operands = self.row_operands(rows, x)?;
                let scale = self.add(Op::RowScale(rows), &operands)?;
                if rows.offset {
                    l.offset = true;
                    more.push(self.add(Op::RowOffset(rows), &operands)?);
                }
                (self.add(Op::QuantiseRows(rows), &operands)?, scale)
            }
        };
        let (k, n) = (self.ty(a).shape.last()?.clone(), self.columns());
        let mut shape = self.ty(a).shape.clone();
        *shape.last_mut()? = n.clone();
        let b = self.byte_constant(DType::I8, &if l.trans_b { [n.clone(), k] } else { [k, n.clone()] })?;
        let mut operands = vec![a, b, scale, self.scales(std::slice::from_ref(&n))?];
        operands.extend(more);
        operands.extend(self.epilogue(&l, &n, &shape)?);
        self.add(Op::Linear(l), &operands)
    }

    /// A matrix of bytes with its scale or scales and maybe a zero point.
    fn matrix(&mut self, k: Dim, n: &Dim) -> Option<Quantised> {
        let dtype = if self.c.one_in(4) { DType::U8 } else { DType::I8 };
        let integers = self.byte_constant(dtype, &[k, n.clone()])?;
        let scale = if self.c.one_in(2) { self.scales(&[])? } else { self.scales(std::slice::from_ref(n))? };
        let zero = if dtype == DType::U8 || self.c.one_in(8) { [128, 0, 1][self.c.below(3)] } else { 0 };
        let zero = Tensor::scalar(DType::I32, Scalar::Int(zero));
        Some(Quantised { integers, scale, zero: self.g.add_const(zero, &bertc_ir::Loc::Unknown).ok()? })
    }

    /// DequantizeLinear at both sides of a product, and what may follow.
    fn quantised_product(&mut self) -> Option<ValueId> {
        let x = self.rows()?;
        let (k, n) = (self.ty(x).shape.last()?.clone(), self.columns());
        let q = self.quantised(x)?;
        let x = self.dequantised(q)?;
        let w = self.matrix(k, &n)?;
        let w = self.dequantised(w)?;
        let mut y = self.add(Op::MatMul { trans_b: false }, &[x, w])?;
        if self.c.one_in(2) {
            let b = self.filled(DType::F32, std::slice::from_ref(&n))?;
            y = self.add(Op::Binary(BinaryOp::Add), &[y, b])?;
        }
        if self.c.one_in(2) {
            let q = self.quantised(y)?;
            y = self.dequantised(q)?;
        }
        Some(y)
    }

    /// MatMulInteger with the factors behind it.
    fn integer_product(&mut self) -> Option<ValueId> {
        let x = self.rows()?;
        let (k, n) = (self.ty(x).shape.last()?.clone(), self.columns());
        let q = self.quantised(x)?;
        let w = self.matrix(k, &n)?;
        let (a, b) = (self.centred(q)?, self.centred(w)?);
        let y = self.add(Op::MatMul { trans_b: false }, &[a, b])?;
        let y = self.add(Op::Cast(DType::F32), &[y])?;
        let scale = self.add(Op::Binary(BinaryOp::Mul), &[q.scale, w.scale])?;
        self.add(Op::Binary(BinaryOp::Mul), &[y, scale])
    }

    /// Rows of tables of bytes.
    fn integer_tables(&mut self) -> Option<ValueId> {
        let n = Dim::constant([16, 4, 20, 64][self.c.below(4)]);
        let ids = self.value_that(|t| matches!(t.dtype, DType::I32 | DType::I64) && t.rank() <= 2)?;
        let mut operands = Vec::new();
        let tables = 1 + self.c.below(2);
        for _ in 0..tables {
            let table = self.byte_constant(DType::I8, &[6.into(), n.clone()])?;
            operands.extend([table, ids, self.scales(&[6.into()])?]);
        }
        let norm = self.c.one_in(2).then_some(1e-5);
        for _ in 0..2 * usize::from(norm.is_some()) {
            operands.push(self.filled(DType::F32, std::slice::from_ref(&n))?);
        }
        self.add(Op::SumNorm(SumNorm { tables, int8: true, norm, ..SumNorm::default() }), &operands)
    }

    /// Layers of floats, one after the other, as `--int8` likes them.
    fn wide_dense(&mut self) -> Option<ValueId> {
        let mut y = self.rows()?;
        for _ in 0..1 + self.c.below(3) {
            let (k, n) = (self.ty(y).shape.last()?.clone(), Dim::constant([16, 32, 20, 64][self.c.below(4)]));
            let l = Linear {
                bias: self.c.one_in(2),
                act: if self.c.one_in(2) { self.c.pick(&op::ACTIVATIONS) } else { None },
                norm: self.c.one_in(2).then_some(1e-5),
                ..Linear::default()
            };
            let mut operands = vec![y, self.filled(DType::F32, &[k, n.clone()])?];
            for _ in 0..usize::from(l.bias) + 2 * usize::from(l.norm.is_some()) {
                operands.push(self.filled(DType::F32, std::slice::from_ref(&n))?);
            }
            y = self.add(Op::Linear(l), &operands)?;
        }
        Some(y)
    }

    /// An attention of merged queries, keys and values that skips padding, with products around it.
    pub(super) fn masked_layer(&mut self) -> Option<ValueId> {
        let mask = self.g.inputs().iter().find(|p| p.name == MASK)?.value;
        let lead = self.ty(mask).shape.clone();
        let fits = |t: &TensorType| {
            let width = t.shape.last().and_then(Dim::as_const).unwrap_or(0);
            t.dtype == DType::F32 && t.rank() == 3 && t.shape[..2] == lead && width > 0
        };
        let x = match self.value_that(fits) {
            Some(x) => x,
            None => {
                let ids = self.add(Op::Cast(DType::I32), &[mask])?;
                let table = self.filled(DType::F32, &[6.into(), 32.into()])?;
                self.add(Op::SumNorm(SumNorm { tables: 1, ..SumNorm::default() }), &[table, ids])?
            }
        };
        let zero = self.scalar(DType::I64, 0.0)?;
        let padding = self.add(Op::Compare(CmpOp::Eq), &[mask, zero])?;
        let low = if self.c.one_in(2) { -1e4 } else { -3.4e38 };
        let (low, none) = (self.scalar(DType::F32, low)?, self.scalar(DType::F32, 0.0)?);
        let m = self.add(Op::Select, &[padding, low, none])?;
        let m = self.add(Op::Reshape { shape: vec![lead[0].clone(), 1.into(), 1.into(), lead[1].clone()] }, &[m])?;
        // As good as an infinity, but arithmetic on it is no different from that on others, and overflows unseen.
        self.values.retain(|v| ![padding, low, none, m].contains(v) && !self.g.users(padding).contains(v));
        let width = Dim::constant([16, 32][self.c.below(2)]);
        let k = self.ty(x).shape[2].clone();
        let mut of = [x; 3];
        for o in &mut of {
            let w = self.filled(DType::F32, &[k.clone(), width.clone()])?;
            *o = self.add(Op::MatMul { trans_b: false }, &[x, w])?;
        }
        let attention = Attention { heads: [1, 2][self.c.below(2)], scale: 0.25, mask: true, ..Attention::default() };
        let y = self.add(Op::Attention(attention), &[of[0], of[1], of[2], m])?;
        let l = Linear { norm: Some(1e-5), residual: self.ty(x).shape[2] == width, ..Linear::default() };
        let mut operands = vec![y, self.filled(DType::F32, &[width.clone(), width.clone()])?];
        operands.extend(l.residual.then_some(x));
        for _ in 0..2 {
            operands.push(self.filled(DType::F32, std::slice::from_ref(&width))?);
        }
        let y = self.add(Op::Linear(l), &operands)?;
        if self.c.one_in(2) {
            return self.add(Op::Slice { axis: 1, start: 0.into(), len: 1.into(), step: 1 }, &[y]);
        }
        Some(y)
    }
}
