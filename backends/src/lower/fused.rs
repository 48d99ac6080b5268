//! Lowering of the fused ops: operands become views, so that slices, reshapes and concatenated weights cost nothing.

use bertc_ir::kernel::DotKind;
use bertc_ir::{Attention, DType, Diag, Dim, Linear, Op, SumNorm, ValueId};

use super::ctx::Ctx;
use super::gemm::{self, RightArg, gemm};
use super::matmul::{self, Shape};
use super::micro::Group;
use super::nest::strides;
use super::norm::Norm;
use super::quantise::{RowArgs, RowQuantiser};
use super::sum_norm::{self, Term, sum_norm};
use super::{Lowering, attention};
use crate::plan::{Arg, ConstLayout, Lane};
use crate::tuning::Product;

/// Rows in memory that need not be dense.
struct Rows {
    arg: Arg,
    start: Dim,
    stride: Dim,
}

impl Lowering<'_> {
    /// Whether a slice is read in place by everything that uses it: it takes columns, and its users take rows at any
    /// distance.
    pub(super) fn is_view(&self, v: ValueId) -> bool {
        let Op::Slice { axis, step: 1, .. } = self.g.op(v) else { return false };
        let columns = *axis + 1 == self.g.ty(v).rank() && self.g.ty(v).dtype.is_float();
        let output = self.g.outputs().iter().any(|o| o.value == v);
        columns
            && !output
            && self.g.users(v).iter().all(|&u| match self.g.op(u) {
                Op::Attention(_) => !self.g.operands(u)[3..].contains(&v),
                Op::Linear(_) => !self.g.operands(u)[1..].contains(&v),
                _ => false,
            })
    }

    /// Whether everything that reads `v` does so at a position that `at` accepts, and no output is it.
    pub(super) fn read_only_at(&self, v: ValueId, at: impl Fn(ValueId, usize) -> bool) -> bool {
        let users = self.g.users(v);
        let reads = |&u: &ValueId| self.g.operands(u).iter().enumerate().all(|(i, &o)| o != v || at(u, i));
        !users.is_empty() && users.iter().all(reads) && !self.g.outputs().iter().any(|o| o.value == v)
    }

    /// Whether a concatenation of constants is only ever a packed matrix.
    pub(super) fn is_packed_concat(&self, v: ValueId) -> bool {
        self.parts(v).is_some()
            && self.read_only_at(v, |u, i| match self.g.op(u) {
                Op::Linear(l) => i == 1 && self.concat_axis(v) == Some(usize::from(!l.trans_b)),
                _ => self.is_packed_cast(u),
            })
    }

    /// Whether a cast of constants to bf16 is only ever what the object holds: a packed matrix or a table.
    pub(super) fn is_packed_cast(&self, v: ValueId) -> bool {
        matches!(self.g.op(v), Op::Cast(DType::BF16))
            && self.read_only_at(v, |u, i| match self.g.op(u) {
                Op::Linear(_) => i == 1 && self.pairs(u).is_some(),
                Op::SumNorm(s) => !s.int8 && i < s.addends_at() && i % 2 == 0 && self.table(v).is_some(),
                _ => false,
            })
    }

    /// The constant that a cast of a table rounds.
    fn table(&self, v: ValueId) -> Option<ValueId> {
        let Op::Cast(DType::BF16) = self.g.op(v) else { return None };
        let root = self.roots[&self.g.operands(v)[0]];
        let float = self.g.as_const(root).is_some_and(|t| matches!(t.dtype(), DType::F32 | DType::F16));
        (float && self.g.ty(root).shape == self.g.ty(v).shape).then_some(root)
    }

    /// The matrix of a `linear` on bf16 that can be packed in pairs, before it is rounded: a constant or a concatenation of
    /// constants.
    fn pairs(&self, v: ValueId) -> Option<ValueId> {
        let (Op::Linear(l), &[a, b, ..]) = (self.g.op(v), self.g.operands(v)) else { return None };
        let matrix = match self.g.op(b) {
            Op::Cast(DType::BF16) => self.g.operands(b)[0],
            _ => b,
        };
        let k = self.g.ty(a).shape.last()?.as_const()?;
        if self.g.ty(a).dtype != DType::BF16 || k % 2 != 0 {
            return None;
        }
        if self.parts(matrix).is_some() {
            return (self.concat_axis(matrix) == Some(usize::from(!l.trans_b))).then_some(matrix);
        }
        let root = self.roots[&matrix];
        let float = self.g.as_const(root).is_some_and(|t| matches!(t.dtype(), DType::F32 | DType::F16 | DType::BF16));
        (float && self.g.ty(root).shape == self.g.ty(b).shape).then_some(root)
    }

    fn concat_axis(&self, v: ValueId) -> Option<usize> {
        if let Op::Concat { axis } = self.g.op(v) { Some(*axis) } else { None }
    }

    /// The constants that a value is the concatenation of, whole panels each but the last one.
    pub(super) fn parts(&self, v: ValueId) -> Option<Vec<ValueId>> {
        let axis = self.concat_axis(v)?;
        let parts = self.g.operands(v).to_vec();
        let whole = |&p: &ValueId| self.g.ty(p).shape[axis].as_const().is_some_and(|n| n % matmul::PANEL == 0);
        let constant = parts.iter().all(|&p| self.g.as_const(p).is_some());
        (constant && parts[..parts.len() - 1].iter().all(whole)).then_some(parts)
    }

    /// A value's rows along its last dim.
    fn rows_of(&mut self, v: ValueId) -> Rows {
        let last = |s: &Self, v: ValueId| s.g.ty(v).shape.last().cloned().unwrap_or_else(|| 1.into());
        if self.is_view(v)
            && let Op::Slice { start, .. } = self.g.op(v).clone()
        {
            let source = self.g.operands(v)[0];
            let stride = last(self, source);
            return Rows { arg: self.arg(source), start, stride };
        }
        let stride = last(self, v);
        Rows { arg: self.arg(v), start: 0.into(), stride }
    }

    pub(super) fn linear(&mut self, v: ValueId, l: Linear) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let overflow = self.overflow(v);
        let operand = |at: Option<usize>| at.map(|i| node.operands[i]);
        let (ta, n) = (self.g.ty(node.operands[0]).clone(), node.ty.shape[node.ty.rank() - 1].clone());
        let lead = Dim::product(&ta.shape[..ta.rank() - 1]).ok_or_else(|| overflow.clone())?;
        let mut shape = Shape { batch: 1.into(), m: lead, k: ta.shape[ta.rank() - 1].clone(), n };
        let at_product = self.group_at_product(node.operands[0]);
        let source = at_product.as_ref().map_or(node.operands[0], |g| self.g.operands(g.integers)[0]);
        let mut a = self.rows_of(source);
        let b = node.operands[1];
        let pairs = self.pairs(v);
        let (matrix, lane) = match pairs {
            Some(m) => (Some(m), Lane::Bf16x2),
            None => (self.constant_matrix(b), if l.int8 { Lane::I8x4 } else { Lane::One }),
        };
        if l.int8 {
            self.count_in_fours(v, &mut shape, &mut a)?;
        }
        let bias = operand(l.bias_at()).map(|o| self.arg(o));
        let residual = operand(l.residual_at()).map(|o| self.arg(o));
        let norm = l.gamma_at().map(|i| [self.arg(node.operands[i]), self.arg(node.operands[i + 1])]);
        let lengths = operand(l.lengths_at()).map(|o| self.arg(o));
        let (y, quantised) = self.results(v)?;
        let scaling = if l.int8 { Some(self.scaling(v, &l, at_product.is_some())?) } else { None };
        let group = match (&scaling, pairs) {
            (Some(s), _) => Group::Quad(self.dot_kind(node.operands[0], node.operands[1], s.added)),
            (None, Some(_)) => Group::Pair,
            (None, None) => Group::One,
        };
        let left = at_product.and_then(|g| Some((g.how.rows()?, g.factor.map(|f| self.arg(f)))));
        let spec = gemm::Spec {
            shape: &shape,
            shared: true,
            row_stride: a.stride,
            dtype: self.g.ty(source).dtype,
            group,
            residual: l.residual_at().map_or(DType::F32, |at| self.g.ty(node.operands[at]).dtype),
            y: node.ty.dtype,
            act: l.act,
            norm: l.norm,
            matrix_rows: Some(node.ty.shape[node.ty.rank() - 2].clone()),
        };
        let mut tile = match (group, ta.dtype) {
            (Group::Quad(DotKind::U8I8), _) => self.quads_tile,
            // Signs take registers, of which eight lanes have few.
            (Group::Quad(_), _) if self.quads_tile.lanes == 8 => self.quads_tile.even(),
            (Group::Quad(_), _) => self.quads_tile,
            (Group::Pair, _) => self.pairs_tile,
            (Group::One, DType::F32) => self.tile,
            (Group::One, _) => self.narrow,
        };
        let b = match matrix {
            Some(m) => match self.sparse(m, l.trans_b, lane, (tile, group), &shape) {
                Some((plan, arrays)) => {
                    tile = tile.even();
                    RightArg::Sparse(plan, arrays)
                }
                None => {
                    let layout = ConstLayout::Packed { trans: l.trans_b, lane };
                    RightArg::Packed(Arg::Const(self.constant(m, layout)))
                }
            },
            None if l.int8 => return Err(self.needs_constant(v)),
            None => RightArg::Packed(self.pack(v, b, &shape, l.trans_b, ta.dtype)?),
        };
        if let (false, RightArg::Packed(Arg::Const(_)), Some(k), Some(n)) =
            (l.int8, &b, shape.k.as_const(), shape.n.as_const())
        {
            let product = Product { k, n, bf16: pairs.is_some(), lanes: tile.lanes };
            if let Some(choice) = self.target.tuning.get(&product) {
                let registers = tile.registers(self.target);
                choice.check(tile.lanes, registers).map_err(|d| {
                    let what = format!("the tuning of products of {k} x {n} with {} lanes: {}", tile.lanes, d.message);
                    Diag::new(what).at(node.loc.clone())
                })?;
                tile = choice.apply(tile);
            }
            self.product = Some((product, tile));
        }
        let mut c = Ctx::new("linear");
        let a = (a.arg, a.start);
        let args = gemm::Args { a, b, bias, residual, norm, lengths, scaling, left, quantised, y };
        let tasks = gemm(&mut c, tile, &spec, args);
        self.step(v, c, tasks)
    }

    /// Memory of a result, if anything reads it, and of what its rows become in the same step.
    fn results(&mut self, v: ValueId) -> Result<(Option<Arg>, Option<RowArgs>), Diag> {
        let group = self.fused_group(v);
        // What is rounded is made of the rounded result.
        let needed = group.as_ref().is_none_or(|g| {
            let other = self.g.users(v).iter().any(|&u| !g.values().any(|made| made == u));
            other || self.g.is_output(v) || self.g.ty(v).dtype != DType::F32
        });
        let y = if needed { Some(self.define(v)?) } else { None };
        Ok((y, group.map(|g| self.define_group(&g)).transpose()?))
    }

    /// Counts the inner size of a product of integers in fours, and so distances at its left.
    fn count_in_fours(&self, v: ValueId, shape: &mut Shape, a: &mut Rows) -> Result<(), Diag> {
        let k = shape.k.as_const().filter(|k| k % 4 == 0).ok_or_else(|| self.needs_constant(v))?;
        shape.k = (k / 4).into();
        // Rows that are integers already are dense.
        if self.group_at_product(self.g.operands(v)[0]).is_none() {
            a.stride = shape.k.clone();
        }
        Ok(())
    }

    fn needs_constant(&self, v: ValueId) -> Diag {
        let what = "a 'linear' of int8 needs a constant matrix with a multiple of 4 rows in compiled code";
        Diag::new(what).at(self.g.node(v).loc.clone())
    }

    /// What makes floats of the sums of a product of integers.
    fn scaling(&mut self, v: ValueId, l: &Linear, at_product: bool) -> Result<gemm::Scaling, Diag> {
        let o = self.g.operands(v).to_vec();
        let at = l.scales_at().ok_or_else(|| self.overflow(v))?;
        let per_row = !self.g.ty(o[at]).shape.is_empty();
        let units = if at_product { None } else { Some((self.arg(o[at]), per_row)) };
        let offsets = l.offset_at().filter(|_| !at_product).map(|at| self.arg(o[at]));
        let matrix = self.constant_matrix(o[1]).ok_or_else(|| self.needs_constant(v))?;
        let sums = Arg::Const(self.constant(matrix, ConstLayout::Sums { trans: l.trans_b }));
        Ok(gemm::Scaling {
            units,
            offsets,
            columns: self.arg(o[at + 1]),
            sums,
            zero: l.zero_at().map(|at| self.arg(o[at])),
            added: self.added(o[0]),
        })
    }

    /// The instruction for integers `a`, of which `added` more are stored, and the constant matrix `b`.
    fn dot_kind(&self, a: ValueId, b: ValueId, added: i64) -> DotKind {
        let unsigned = match self.g.ty(a).dtype {
            DType::U8 => added == 0,
            _ => added == 128,
        };
        if unsigned {
            return DotKind::U8I8;
        }
        let parts = self.parts_of(self.constant_matrix(b).unwrap_or(b));
        let least = |&p: &ValueId| self.g.as_const(p).is_some_and(|t| t.bytes().contains(&0x80));
        if parts.iter().any(least) { DotKind::I8Full } else { DotKind::I8 }
    }

    /// The value that has the elements of a matrix that is constant, or a concatenation of constants.
    fn constant_matrix(&self, b: ValueId) -> Option<ValueId> {
        if self.is_packed_concat(b) {
            return Some(b);
        }
        let root = self.roots[&b];
        (self.g.ty(root).shape == self.g.ty(b).shape && self.g.as_const(root).is_some()).then_some(root)
    }

    /// The constants that a constant matrix consists of.
    pub(super) fn parts_of(&self, v: ValueId) -> Vec<ValueId> {
        self.parts(v).unwrap_or_else(|| vec![v])
    }

    pub(super) fn attention(&mut self, v: ValueId, a: Attention) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let [q, k, value] = [node.operands[0], node.operands[1], node.operands[2]];
        let dims = |s: &Self, v: ValueId| s.g.ty(v).shape.clone();
        let (tq, tk, tv) = (dims(self, q), dims(self, k), dims(self, value));
        let per_head = |d: &Dim| d.as_const().map(|n| Dim::constant(n / a.heads as i64));
        let (Some(head), Some(value_head)) = (per_head(&tq[2]), per_head(&tv[2])) else {
            return Err(Diag::new("'attention' needs heads of a constant size").at(node.loc));
        };
        let spec = attention::Spec {
            batch: tq[0].clone(),
            queries: tq[1].clone(),
            keys: tk[1].clone(),
            heads: a.heads as i64,
            head,
            value_head,
            scale: a.scale,
            nan_to_zero: a.nan_to_zero,
            dtype: self.g.ty(q).dtype,
            // Without an instruction for it, a pair is two multiplications, and widens both operands each time.
            pairs: self.g.ty(q).dtype == DType::BF16 && self.tile.lanes == 16 && self.target.has("avx512bf16"),
            y: node.ty.dtype,
        };
        let heads = |s: &mut Self, v: ValueId| {
            let r = s.rows_of(v);
            attention::Heads { arg: r.arg, start: r.start, stride: r.stride }
        };
        let (q, k, value) = (heads(self, q), heads(self, k), heads(self, value));
        let mask = match a.mask_at().map(|at| node.operands[at]) {
            None => None,
            Some(m) => {
                let shape = dims(self, m);
                let own = strides(&shape).ok_or_else(|| self.overflow(v))?;
                let one = Dim::constant(1);
                let mut at = own.into_iter().zip(&shape).map(|(s, d)| if *d == one { 0.into() } else { s });
                let mut next = || at.next().unwrap_or_else(|| 0.into());
                Some(attention::Mask { arg: self.arg(m), strides: [next(), next(), next(), next()] })
            }
        };
        let lengths = a.lengths_at().map(|at| self.arg(node.operands[at]));
        let y = self.define(v)?;
        let mut c = Ctx::new("attention");
        let args = attention::Args { q, k, v: value, mask, lengths, y };
        let tasks = attention::attention(&mut c, self.tile.even(), &spec, args);
        self.step(v, c, tasks)
    }

    pub(super) fn sum_norm(&mut self, v: ValueId, s: SumNorm) -> Result<(), Diag> {
        let node = self.g.node(v).clone();
        let overflow = self.overflow(v);
        let (n, lead) = node.ty.shape.split_last().ok_or_else(|| overflow.clone())?;
        let one = Dim::constant(1);
        let mut c = Ctx::new("sum_norm");
        // Strides of a shape that broadcasts to the leading dims, times `unit`.
        let leading = |shape: &[Dim], unit: &Dim| -> Option<Vec<Dim>> {
            let own = strides(shape)?;
            let skip = lead.len() - shape.len();
            (0..lead.len())
                .map(|i| match i.checked_sub(skip) {
                    Some(j) if shape[j] != one => own[j].mul(unit),
                    _ => Some(0.into()),
                })
                .collect()
        };
        let mut terms = Vec::new();
        for pair in node.operands[..s.addends_at()].chunks(s.per_table()) {
            let (table, ids) = (self.g.ty(pair[0]).clone(), self.g.ty(pair[1]).clone());
            let strides = leading(&ids.shape, &one).ok_or_else(|| overflow.clone())?;
            let t = match self.table(pair[0]).filter(|_| self.is_packed_cast(pair[0])) {
                Some(root) => Arg::Const(self.constant(root, ConstLayout::Rounded)),
                None => self.arg(pair[0]),
            };
            let i = self.arg(pair[1]);
            let ptr = c.input(t, table.dtype);
            let repeated = table.shape[1] == one && *n != one;
            let ids = Some((c.input(i, ids.dtype), table.shape[0].clone()));
            let scales = pair.get(2).map(|&s| self.arg(s)).map(|s| c.input(s, DType::F32));
            terms.push(Term { ptr, ids, scales, strides, repeated });
        }
        for &o in &node.operands[s.addends_at()..s.addends_at() + s.addends] {
            let shape = self.g.ty(o).shape.clone();
            let (last, rest) = shape.split_last().map_or((&one, &[][..]), |(l, r)| (l, r));
            let strides = leading(rest, last).ok_or_else(|| overflow.clone())?;
            let arg = self.arg(o);
            let (ptr, repeated) = (c.input(arg, DType::F32), *last == one && *n != one);
            terms.push(Term { ptr, ids: None, scales: None, strides, repeated });
        }
        let norm = s.gamma_at().zip(s.norm).map(|(i, eps)| {
            let [gamma, beta] = [i, i + 1].map(|i| self.arg(node.operands[i]));
            Norm { gamma: c.input(gamma, DType::F32), beta: c.input(beta, DType::F32), eps }
        });
        let (y, quantised) = self.results(v)?;
        let y = y.map(|y| c.output(y, node.ty.dtype));
        let quantiser = quantised.map(|q| RowQuantiser::bind(&mut c, &q));
        let spec = sum_norm::Spec { lanes: self.tile.lanes, lead, n, dtype: node.ty.dtype };
        let tasks = sum_norm(&mut c, &spec, &terms, norm.as_ref(), y, quantiser.as_ref());
        self.step(v, c, tasks)
    }
}
