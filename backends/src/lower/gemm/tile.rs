//! One tile of results: its registers before and after k has run over them.

use bertc_ir::kernel::{Bin, Place, Reg};
use bertc_ir::{DType, Dim, UnaryOp};

use super::super::ctx::Ctx;
use super::super::elementwise;
use super::super::matmul::PANEL;
use super::super::micro::{self, Left, Right, Spot, row_spots};
use super::super::quantise::RowQuantiser;
use super::{Base, Block, Gemm, Operand};

/// Where a tile's results are: its first row, number of rows, first column, registers of columns.
#[derive(Clone, Copy)]
pub(super) struct At {
    pub row: Reg,
    pub rows: i64,
    pub col: Reg,
    pub vectors: i64,
}

impl Gemm<'_> {
    /// A tile of results, for a block of k.
    pub(super) fn tile(&self, c: &mut Ctx, base: &Base, at: At, k: &Block) {
        let edge = Edge::new(self, c, base, at);
        let init = match k.first {
            None => self.fresh(c, at, &edge),
            Some(first) => {
                let zeros = self.fresh(c, at, &edge);
                c.b.begin_if(first);
                c.b.begin_else(zeros);
                let yields = edge.load_all(c);
                c.b.end_if(yields)
            }
        };
        let acc = match &self.right {
            Operand::Packed(b) => self.packed(c, base, at, k, *b, init),
            Operand::Blocks(s) => s.outputs_in_lanes(c, self, base, at, &init),
        };
        let acc = match k.last {
            None => self.complete(c, base, at, &edge, &acc),
            Some(last) => {
                c.b.begin_if(last);
                let yields = self.complete(c, base, at, &edge, &acc);
                c.b.begin_else(yields);
                c.b.end_if(acc)
            }
        };
        edge.store_all(c, &acc);
    }

    /// A tile of results whose sums are there already, but for what they start with.
    pub(super) fn tile_with_sums(&self, c: &mut Ctx, base: &Base, at: At, sums: impl FnOnce(&mut Ctx) -> Vec<Reg>) {
        let edge = Edge::new(self, c, base, at);
        let mut acc = sums(c);
        if self.scaling.as_ref().is_some_and(|s| !s.starts_at_zero()) {
            let first = self.fresh(c, at, &edge);
            acc.iter_mut().zip(first).for_each(|(x, first)| *x = c.b.add(*x, first));
        }
        let acc = self.complete(c, base, at, &edge, &acc);
        edge.store_all(c, &acc);
    }

    /// What sums start with.
    fn fresh(&self, c: &mut Ctx, at: At, edge: &Edge) -> Vec<Reg> {
        match self.scaling.as_ref().and_then(|s| s.first(c, self.tile.lanes).zip(Some(s))) {
            None => vec![c.imm(self.elem, self.tile.lanes, 0.0); (at.rows * at.vectors) as usize],
            Some((factor, s)) => {
                let spot = Spot { base: c.b.address(s.sums, at.col, 0), offset: 0 };
                let first = |v: i64| {
                    let sums = edge.load(c, s.sums, spot, v);
                    c.b.mul(sums, factor)
                };
                (0..at.vectors).map(first).collect::<Vec<_>>().repeat(at.rows as usize)
            }
        }
    }

    /// Sums over a block of k of a packed right operand.
    fn packed(&self, c: &mut Ctx, base: &Base, at: At, k: &Block, b: usize, init: Vec<Reg>) -> Vec<Reg> {
        let (lanes, vectors) = (i64::from(self.tile.lanes), at.vectors);
        let left = self.left(c, base, at.row, at.rows);
        // Panel p starts at p·16·K; inside it a row of 16 columns per group of k.
        let g = self.spec.group.size();
        let (mask, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
        let panel = c.b.bin(Bin::And, at.col, mask);
        let inside = c.b.bin(Bin::And, at.col, low);
        let mut from = c.b.mul(panel, base.k);
        from = c.mul_add(from, inside, &g.into());
        from = c.b.add(from, base.b);
        let mut panels = vec![c.b.address(b, from, 0)];
        for _ in 1..vectors * lanes / PANEL {
            let sixteen = c.b.int(PANEL);
            from = c.mul_add(from, sixteen, &self.spec.shape.k);
            panels.push(c.b.address(b, from, 0));
        }
        let spot = |v: i64| Spot { base: panels[(v * lanes / PANEL) as usize], offset: v * lanes % PANEL * g };
        // The strip behind this one is next, and comes from far away if it is a weight: there its lines are asked for at an
        // even pace.
        let ahead = self.spec.shape.k.as_const().map(|k| k.saturating_mul(vectors * lanes)).filter(|n| *n < 1 << 24);
        let right = Right { ptr: b, vectors: (0..vectors).map(spot).collect(), stride: PANEL.into(), ahead };
        micro::accumulate(c, &self.tile, self.spec.group, &left, &right, k.range, init)
    }

    /// Rows of the left operand. Those that the task has made integers lie one behind the other.
    pub(super) fn left(&self, c: &mut Ctx, base: &Base, row: Reg, rows: i64) -> Left {
        let stride = self.left_stride();
        let start = c.mul_add(base.a, row, stride);
        Left { ptr: self.a, rows: row_spots(c, self.a, start, stride, rows) }
    }

    /// Elements between them.
    pub(super) fn left_stride(&self) -> &Dim {
        if self.own_left { &self.spec.shape.k } else { &self.spec.row_stride }
    }

    /// What becomes of sums, in the order of the ops that became one: first the bias, then the activation, then the residual.
    fn complete(&self, c: &mut Ctx, base: &Base, at: At, edge: &Edge, acc: &[Reg]) -> Vec<Reg> {
        let At { row, rows, col, vectors } = at;
        let mut acc = match &self.scaling {
            Some(s) => {
                let vector = |c: &mut Ctx, ptr: usize, v: i64| {
                    let spot = Spot { base: c.b.address(ptr, col, 0), offset: 0 };
                    edge.load(c, ptr, spot, v)
                };
                s.scale(c, acc, [base.rows, row], vectors, self.bias, vector)
            }
            None => acc.to_vec(),
        };
        if let Some(b) = self.bias.filter(|_| self.scaling.is_none()) {
            let spot = Spot { base: c.b.address(b, col, 0), offset: 0 };
            let bias: Vec<Reg> = (0..vectors).map(|v| edge.load(c, b, spot, v)).collect();
            acc.iter_mut().enumerate().for_each(|(i, x)| *x = c.b.add(*x, bias[i % bias.len()]));
        }
        if let Some(act) = self.spec.act.filter(|_| self.late_act().is_none()) {
            acc.iter_mut().for_each(|x| *x = self.activate(c, act, *x));
        }
        if let Some(residual) = self.residual.filter(|_| self.late_act().is_none()) {
            let start = c.mul_add(col, row, &self.spec.shape.n);
            let start = c.b.add(start, base.y);
            let spots = row_spots(c, residual, start, &self.spec.shape.n, rows);
            for (row, spot) in acc.chunks_mut(vectors as usize).zip(spots) {
                for (v, x) in row.iter_mut().enumerate() {
                    let r = edge.load(c, residual, spot, v as i64);
                    *x = c.b.add(*x, r);
                }
            }
        }
        acc
    }

    /// The number of columns from each register of a strip on, where the last strip may be partly filled.
    fn columns_left(&self, c: &mut Ctx, base: &Base, col: Reg, vectors: i64) -> Vec<Option<Reg>> {
        let lanes = i64::from(self.tile.lanes);
        if self.spec.shape.n.as_const().is_some_and(|n| n % (vectors * lanes) == 0) {
            return vec![None; vectors as usize];
        }
        let left = |v: i64| {
            let at = c.b.int(v * lanes);
            let at = c.b.add(col, at);
            Some(c.b.sub(base.n, at))
        };
        (0..vectors).map(left).collect()
    }

    /// An activation, as exact as what reads its results can tell.
    pub(super) fn activate(&self, c: &mut Ctx, act: UnaryOp, x: Reg) -> Reg {
        // Not where more follows that could make much of a little, nor where a model says what the integers are.
        let of_rows = self.quantiser.as_ref().is_some_and(RowQuantiser::is_of_rows);
        let only = of_rows && self.y.is_none() && self.residual.is_none() && self.spec.norm.is_none();
        if only { elementwise::coarse(c, act, x) } else { elementwise::unary(c, act, DType::F32, x) }
    }

    /// The activation, if it doesn't belong to the tile.
    pub(super) fn late_act(&self) -> Option<UnaryOp> {
        self.spec.act.filter(|_| !self.tile.has_room())
    }
}

/// A tile's place among the results.
struct Edge {
    ptr: usize,
    rows: Vec<Spot>,
    /// The number of columns from each register on, where there may be fewer than lanes.
    active: Vec<Option<Reg>>,
    lanes: u8,
    zero: Reg,
}

impl Edge {
    fn new(g: &Gemm<'_>, c: &mut Ctx, base: &Base, at: At) -> Edge {
        let zero = c.b.int(0);
        let (ptr, stride) = g.sums();
        let start = c.mul_add(at.col, at.row, &stride);
        let start = c.b.add(start, base.sums);
        let rows = row_spots(c, ptr, start, &stride, at.rows);
        let active = g.columns_left(c, base, at.col, at.vectors);
        Edge { ptr, rows, active, lanes: g.tile.lanes, zero }
    }

    fn place(&self, ptr: usize, s: Spot, v: i64) -> Place {
        let offset = s.offset + v * i64::from(self.lanes);
        Place { ptr, base: Some(s.base), index: self.zero, offset, active: self.active[v as usize] }
    }

    /// Register `v` of a row of the tile's columns.
    fn load(&self, c: &mut Ctx, ptr: usize, row: Spot, v: i64) -> Reg {
        c.b.load_at(self.place(ptr, row, v), self.lanes)
    }

    /// What the results' memory holds.
    fn load_all(&self, c: &mut Ctx) -> Vec<Reg> {
        let vectors = self.active.len() as i64;
        let all = self.rows.iter().flat_map(|&r| (0..vectors).map(move |v| (r, v)));
        all.map(|(r, v)| self.load(c, self.ptr, r, v)).collect()
    }

    fn store_all(&self, c: &mut Ctx, acc: &[Reg]) {
        for (row, accs) in self.rows.iter().zip(acc.chunks(self.active.len())) {
            for (v, &x) in (0..).zip(accs) {
                c.b.store_at(self.place(self.ptr, *row, v), x);
            }
        }
    }
}
