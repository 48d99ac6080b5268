//! The GEMM template: `y = act(a·b + bias) + residual`, its rows layer-normalised if asked for, over a packed right
//! operand (`[ceil(N/16)][K/g][16][g]` with g = 1, or 2 for pairs of bf16; zero-padded, one such block per batch). Of 8-bit
//! integers four neighbours count as one element everywhere here, an i32: K and distances are a fourth, g is 1.
//!
//! A tile of `rows` × `vectors` registers of results stays in registers while k runs over a block of K; a strip of
//! the right operand stays in the first cache for all row tiles of a task. Tiles of rows without a result are skipped
//! (`lengths.rs`). Sums run over ascending k, so a result
//! depends neither on the tile nor on how rows and columns are split into tasks.

mod scaling;
mod sparse;
mod tile;

use bertc_ir::kernel::{Bin, Elem, Reg};
use bertc_ir::{CmpOp, DType, Dim, RowQuant, UnaryOp};

pub use self::scaling::Scaling;
use self::scaling::{Quantised, Scales};
pub use self::sparse::BlockPlan;
use self::sparse::Sparse;
use self::tile::At;
use super::ctx::Ctx;
use super::lengths::{Lengths, zero as clear};
use super::matmul::{PANEL, Shape, packed_dtype};
use super::micro::{Group, Range, row_tiles, whole_passes};
use super::nest::loop_over;
use super::norm::{Norm, Row};
use super::quantise::{RowArgs, RowQuantiser};
use crate::emit::x86;
use crate::plan::{ALIGN, Arg, Chunk};
use crate::sparse::GROUP;
use crate::target::{Emitter, Target};

type Tasks = Option<Vec<(Dim, Chunk)>>;

/// The register tile of a machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Tile {
    /// Lanes of a register.
    pub lanes: u8,
    /// Rows of the left operand.
    pub rows: i64,
    /// Registers of columns; a power of two.
    pub vectors: i64,
    /// Steps of k in one pass of the loop; a power of two.
    pub unroll: i64,
    /// Whether elements of the left operand are loaded a register at a time and then spread, where loading one into
    /// all lanes costs more; the register then holds the `unroll` elements of one pass.
    pub spread: bool,
    /// The longest block of k: its strip of the right operand stays in the first cache, or of wide registers in the second
    /// one, beside the next strip and the rows of a task.
    pub block_k: i64,
    /// Rows of a task, at most. A task that normalises owns whole rows, and there may be few of them: then each worker gets
    /// its share.
    pub task_rows: i64,
    /// Columns of a task, at most: whole panels.
    pub task_columns: i64,
}

impl Tile {
    /// The tile that fills a target's registers: the accumulators, one k of the right operand, and an element of the
    /// left one.
    pub fn for_target(target: &Target) -> Tile {
        let wide = Tile { lanes: 16, rows: 8, block_k: 1536, ..NARROW };
        match x86::lanes(target).filter(|_| target.emitter == Emitter::Auto) {
            Some(16) => wide,
            Some(lanes) => Tile { lanes, rows: 6, ..wide },
            None => Tile::narrow(target),
        }
    }

    /// The tile of 128-bit code, which every target and element type has.
    pub fn narrow(target: &Target) -> Tile {
        if target.vector_registers() >= 32 { Tile { vectors: 4, spread: true, ..NARROW } } else { NARROW }
    }

    /// The tile for pairs of bf16. Where they are widened to be multiplied, halves take registers too.
    pub fn for_pairs(target: &Target) -> Tile {
        let tile = Tile::for_target(target);
        if tile.lanes == 8 { tile.even() } else { tile }
    }

    /// The tile for 8-bit integers. Where their products take several instructions, these take registers.
    pub fn for_quads(target: &Target) -> Tile {
        let tile = Tile::for_target(target);
        if tile.lanes == 8 && !target.has_int8() { tile.even() } else { tile }
    }

    /// The same with a number of rows that is a power of two, which leaves more registers too.
    pub fn even(self) -> Tile {
        Tile { rows: 1 << self.rows.ilog2(), ..self }
    }

    /// Whether an activation finds registers beside the accumulators: of 16 lanes there are 32.
    fn has_room(&self) -> bool {
        self.lanes >= 16
    }

    /// Registers of such lanes.
    pub fn registers(&self, target: &Target) -> i64 {
        match self.lanes {
            16 => 32,
            8 => 16,
            _ => target.vector_registers() as i64,
        }
    }

    /// Columns.
    pub fn width(&self) -> i64 {
        self.vectors * i64::from(self.lanes)
    }
}

/// The tile of 16 registers of 128 bits.
const NARROW: Tile = Tile {
    lanes: 4,
    rows: 4,
    vectors: 2,
    unroll: 4,
    spread: false,
    block_k: 448,
    task_rows: 32,
    task_columns: 8 * PANEL,
};

/// What is computed.
#[derive(Clone, Debug)]
pub struct Spec<'a> {
    /// Sizes.
    pub shape: &'a Shape,
    /// Whether all batches use one right operand.
    pub shared: bool,
    /// Elements between neighbouring rows of the left operand.
    pub row_stride: Dim,
    /// Element type of the left operand, before it is quantised.
    pub dtype: DType,
    /// How the right operand is packed; in pairs, the left one is bf16 and K even. Fours are i32 to the template.
    pub group: Group,
    /// Element type of the residual.
    pub residual: DType,
    /// Element type of the result.
    pub y: DType,
    /// Applied to the sum with the bias.
    pub act: Option<UnaryOp>,
    /// Epsilon of the layer norm.
    pub norm: Option<f32>,
    /// Rows of each of the matrices that have lengths.
    pub matrix_rows: Option<Dim>,
}

/// Memory of operands and result.
#[derive(Clone, Debug)]
pub struct Args {
    /// The left operand and the element where it begins.
    pub a: (Arg, Dim),
    /// The right operand.
    pub b: RightArg,
    /// `[n]`.
    pub bias: Option<Arg>,
    /// `[m, n]`.
    pub residual: Option<Arg>,
    /// Scale and shift of the norm, `[n]` each.
    pub norm: Option<[Arg; 2]>,
    /// The matrices' lengths.
    pub lengths: Option<Arg>,
    /// Of a product of integers.
    pub scaling: Option<Scaling>,
    /// How the left operand's rows become integers, if they aren't yet: a task does that with its own.
    pub left: Option<(RowQuant, Option<Arg>)>,
    /// Integers that the result's rows become.
    pub quantised: Option<RowArgs>,
    /// The result; none if only its integers are needed.
    pub y: Option<Arg>,
}

/// A right operand in memory.
#[derive(Clone, Debug)]
pub enum RightArg {
    /// Packed.
    Packed(Arg),
    /// Its blocks: starts, indices and values.
    Sparse(BlockPlan, [Arg; 3]),
}

/// Builds the kernel; its tasks are batches × row blocks × column blocks.
pub fn gemm(c: &mut Ctx, tile: Tile, s: &Spec<'_>, args: Args) -> Tasks {
    c.b.keep_order();
    let packed = match s.group {
        Group::One => packed_dtype(s.dtype),
        Group::Pair => DType::BF16,
        Group::Quad(_) => DType::I32,
    };
    let task_rows = match &args.b {
        RightArg::Packed(_) => tile.task_rows / tile.rows * tile.rows,
        // What a task copies its rows for is worth more the more it does with them.
        RightArg::Sparse(..) => SPARSE_ROWS,
    };
    let whole_rows = args.norm.is_some() || args.quantised.is_some() || args.left.is_some();
    let left = match args.left {
        None => None,
        Some((quant, factor)) => Some(Quantised::bind(c, quant, factor, args.scaling.as_ref()?, s, task_rows)?),
    };
    let source = c.input(args.a.0, if left.is_none() && packed == DType::I32 { DType::I32 } else { s.dtype });
    let right = match args.b {
        RightArg::Packed(b) => Operand::Packed(c.input(b, packed)),
        RightArg::Sparse(plan, arrays) => Operand::Blocks(Sparse::bind(c, plan, arrays, s, task_rows)?),
    };
    let bias = args.bias.map(|x| c.input(x, DType::F32));
    let residual = args.residual.map(|x| c.input(x, s.residual));
    let y = args.y.map(|y| c.output(y, s.y));
    // What comes after the sums reads them again: they are not rounded before.
    let again = s.act.is_some() && !tile.has_room() || args.norm.is_some();
    let scratch = if y.is_none() || again && s.y != DType::F32 {
        let all_columns = whole_rows || matches!(right, Operand::Blocks(_));
        let columns = if all_columns { s.shape.n.as_const()? } else { tile.task_columns };
        let bytes = u64::try_from(task_rows.checked_mul(columns)?.checked_mul(4)?).ok()?.next_multiple_of(ALIGN);
        Some(Scratch { ptr: c.output(Arg::Scratch(bytes), DType::F32), columns, elements: (bytes / 4) as i64 })
    } else {
        None
    };
    let scaling = args.scaling.map(|x| Scales::bind(c, x, left.as_ref()));
    let quantiser = args.quantised.as_ref().map(|q| RowQuantiser::bind(c, q));
    let a = left.as_ref().map_or(source, |l| l.quads);
    let elem = Elem::of(packed);
    let own_left = left.is_some();
    let g = Gemm { spec: s, tile, elem, a, own_left, right, bias, residual, y, scratch, scaling, quantiser };
    // A tile loads its elements of the residual right before it stores its sums there; no other tile has them, and the norm
    // reads the sums only. Not so if partial sums are stored before, or if an activation puts the residual off.
    let alike = g.late_act().is_none() && g.block_count() <= 1 && s.residual == s.y;
    c.in_place.extend(g.y.zip(g.residual).filter(|_| alike));
    let norm = args.norm.zip(s.norm).map(|([gamma, beta], eps)| {
        let (gamma, beta) = (c.input(gamma, DType::F32), c.input(beta, DType::F32));
        Norm { gamma, beta, eps }
    });
    let lengths = args.lengths.zip(s.matrix_rows.as_ref()).map(|(arg, rows)| Lengths::bind(c, arg, rows));
    let shape = s.shape;
    let t = c.b.task();
    let (n, k) = (c.dim(&shape.n), c.dim(&shape.k));
    let rows = match whole_rows {
        true => Chunk::Share { multiple: g.right.unit(&tile), most: task_rows },
        false => Chunk::Fixed(task_rows),
    };
    let mut tasks = vec![(shape.batch.clone(), 1.into()), (shape.m.clone(), rows)];
    // Task number → batch, column block, row block, as the driver multiplies the factors. Neighbours share columns:
    // the right operand is the larger one.
    let m = c.dim(&shape.m);
    let rows = c.chunk_size(&shape.m, rows);
    let blocks = ceil_div(c, m, rows);
    let (mut batch, block) = (c.b.bin(Bin::DivU, t, blocks), c.b.bin(Bin::RemU, t, blocks));
    let m0 = c.b.mul(block, rows);
    let end = c.b.add(m0, rows);
    let m1 = c.b.min(end, m);
    let zero = c.b.int(0);
    let (mut n0, mut n1) = (zero, n);
    if !whole_rows {
        let columns = match &g.right {
            Operand::Packed(_) => Chunk::Fixed(tile.task_columns),
            // Each copies its rows: as few as there are workers.
            Operand::Blocks(_) => {
                let most = shape.n.as_const()?.checked_add(GROUP as i64 - 1)? / GROUP as i64 * GROUP as i64;
                Chunk::Share { multiple: GROUP as i64, most }
            }
        };
        let chunk = c.chunk_size(&shape.n, columns);
        let blocks = ceil_div(c, n, chunk);
        let block = c.b.bin(Bin::RemU, batch, blocks);
        batch = c.b.bin(Bin::DivU, batch, blocks);
        [n0, n1] = match &g.right {
            Operand::Packed(_) => {
                let n0 = c.b.mul(block, chunk);
                let end = c.b.add(n0, chunk);
                [n0, c.b.min(end, n)]
            }
            Operand::Blocks(s) => s.columns_of(c, n, [block, blocks]),
        };
        tasks.push((shape.n.clone(), columns));
    }
    let mut base = Base { a: c.dim(&args.a.1), b: zero, y: zero, sums: zero, rows: zero, first: m0, k, n };
    if shape.batch.as_const() != Some(1) {
        base.a = c.mul_add(base.a, batch, &shape.m.mul(&s.row_stride)?);
        base.y = c.mul_add(base.y, batch, &shape.m.mul(&shape.n)?);
        if !s.shared {
            base.b = c.mul_add(base.b, batch, &shape.packed_elements()?);
        }
    }
    base.sums = match &g.scratch {
        None => base.y,
        // Its first element is that of the task's first row and column.
        Some(s) => {
            let worker = c.b.worker();
            let own = c.mul_add(zero, worker, &s.elements.into());
            let own = c.b.sub(own, n0);
            let skipped = c.mul_add(zero, m0, &s.columns.into());
            c.b.sub(own, skipped)
        }
    };
    let live = match &lengths {
        Some(l) => l.span(c, [m0, m1], tile.rows),
        None => [m0, m1],
    };
    if let Some(left) = &left {
        let (start, stride) = (base.a, s.row_stride.clone());
        let own = left.own(c, m0, &s.shape.k);
        (base.a, base.rows) = (own[0], own[1]);
        let len = s.shape.k.mul(&4.into())?;
        let (lo, hi) = (zero, c.dim(&len));
        let row = Row { lo, hi, len: &len, lanes: tile.lanes };
        loop_over(c, live[0], live[1], 1, |c, r| {
            let from = c.mul_add(start, r, &stride);
            let to = c.mul_add(base.a, r, &s.shape.k);
            let to = c.mul_add(zero, to, &4.into());
            let index = c.b.add(base.rows, r);
            left.quantiser.apply(c, &row, (source, from), to, index);
        });
    }
    base.first = live[0];
    match &g.right {
        Operand::Packed(_) => g.block(c, &base, live, [n0, n1]),
        Operand::Blocks(s) => g.blocks(c, &base, s, live, [n0, n1]),
    }
    g.finish(c, &base, [m0, m1], [n0, n1], norm.as_ref(), lengths.as_ref());
    Some(tasks)
}

fn ceil_div(c: &mut Ctx, size: Reg, chunk: Reg) -> Reg {
    let one = c.b.int(1);
    let up = c.b.sub(chunk, one);
    let x = c.b.add(size, up);
    c.b.bin(Bin::DivU, x, chunk)
}

struct Gemm<'a> {
    spec: &'a Spec<'a>,
    tile: Tile,
    elem: Elem,
    a: usize,
    /// Whether the task makes the left operand's integers.
    own_left: bool,
    right: Operand,
    bias: Option<usize>,
    residual: Option<usize>,
    y: Option<usize>,
    scratch: Option<Scratch>,
    scaling: Option<Scales>,
    quantiser: Option<RowQuantiser>,
}

/// The right operand: parameter numbers.
enum Operand {
    Packed(usize),
    Blocks(Sparse),
}

impl Operand {
    /// The unit of rows that tasks share, a power of two.
    fn unit(&self, tile: &Tile) -> i64 {
        match self {
            Operand::Blocks(s) if s.plan.blocks.rows < 16 => PANEL,
            _ => 1 << tile.rows.trailing_zeros(),
        }
    }
}

/// Rows of a task of a product with a sparse matrix.
const SPARSE_ROWS: i64 = 64;

/// Memory of a worker for the sums of a task, where the result can't hold them.
struct Scratch {
    ptr: usize,
    /// Elements between rows.
    columns: i64,
    /// Elements of a worker.
    elements: i64,
}

/// Element offsets of this batch's operands, and sizes.
struct Base {
    a: Reg,
    b: Reg,
    y: Reg,
    /// Where row 0 and column 0 would be among the sums.
    sums: Reg,
    /// Where row 0 would be among units and offsets of the left operand's rows.
    rows: Reg,
    /// The first row that has a result.
    first: Reg,
    k: Reg,
    n: Reg,
}

/// A block of k.
struct Block {
    range: Range,
    /// Whether the block is not the only one: then sums go through the result's memory, and this says whether it is
    /// the first one.
    first: Option<Reg>,
    /// Likewise whether it is the last one.
    last: Option<Reg>,
}

impl Gemm<'_> {
    /// All results of rows `m` and columns `n` (from a panel's begin).
    fn block(&self, c: &mut Ctx, base: &Base, m: [Reg; 2], [n0, n1]: [Reg; 2]) {
        let width = self.tile.width();
        let mut from = n0;
        if width > PANEL {
            // Whole strips first: the last panels may be too few for one.
            let columns = c.b.sub(n1, n0);
            let (up, mask) = (c.b.int(PANEL - 1), c.b.int(-width));
            let columns = c.b.add(columns, up);
            let columns = c.b.bin(Bin::And, columns, mask);
            let end = c.b.add(n0, columns);
            loop_over(c, n0, end, width, |c, col| {
                self.k_blocks(c, base, |c, k| self.rows(c, base, m, col, self.tile.vectors, k));
            });
            if self.spec.shape.n.as_const().is_some_and(|n| n % width == 0) {
                return;
            }
            from = end;
        }
        self.panels(c, base, m, [from, n1]);
    }

    /// All results of rows `m` and columns `n`, panel by panel.
    fn panels(&self, c: &mut Ctx, base: &Base, m: [Reg; 2], [n0, n1]: [Reg; 2]) {
        loop_over(c, n0, n1, PANEL, |c, panel| {
            // A block of k of a panel stays in the first cache for all its strips.
            self.k_blocks(c, base, |c, k| {
                self.strips(c, panel, n1, |c, col, vectors| self.rows(c, base, m, col, vectors, k));
            });
        });
    }

    /// Runs `body` for the strips of columns of a panel, with their registers.
    fn strips(&self, c: &mut Ctx, panel: Reg, n1: Reg, mut body: impl FnMut(&mut Ctx, Reg, i64)) {
        let vectors = self.tile.vectors.min(PANEL / i64::from(self.tile.lanes));
        let strip = vectors * i64::from(self.tile.lanes);
        if strip == PANEL {
            return body(c, panel, vectors);
        }
        let sixteen = c.b.int(PANEL);
        let end = c.b.add(panel, sixteen);
        let end = c.b.min(end, n1);
        loop_over(c, panel, end, strip, |c, col| body(c, col, vectors));
    }

    /// The number of blocks of k; between them the sums are in the result's memory.
    fn block_count(&self) -> i64 {
        // Sums can't go through memory that would round them.
        let exact = matches!(self.spec.y, DType::F32 | DType::I32) && self.scaling.is_none();
        let exact = exact && matches!(self.right, Operand::Packed(_));
        let size = self.spec.shape.k.as_const().filter(|_| exact);
        size.map_or(1, |k| (k + self.tile.block_k - 1) / self.tile.block_k)
    }

    /// Runs `body` for each block of k.
    fn k_blocks(&self, c: &mut Ctx, base: &Base, body: impl FnOnce(&mut Ctx, &Block)) {
        let unroll = self.tile.unroll * self.spec.group.size();
        let zero = c.b.int(0);
        let size = self.spec.shape.k.as_const();
        let blocks = self.block_count();
        let tail = size.is_none_or(|k| k % unroll != 0);
        let range = |c: &mut Ctx, lo: Reg, hi: Reg| {
            let whole = tail.then(|| whole_passes(c, lo, hi, unroll));
            Range { lo, whole, hi }
        };
        match size {
            Some(k) if blocks > 1 => {
                let step = ((k + blocks - 1) / blocks + unroll - 1) / unroll * unroll;
                loop_over(c, zero, base.k, step, |c, lo| {
                    let step = c.b.int(step);
                    let hi = c.b.add(lo, step);
                    let hi = c.b.min(hi, base.k);
                    let zero = c.b.int(0);
                    let first = Some(c.b.cmp(CmpOp::Eq, lo, zero));
                    let range = range(c, lo, hi);
                    let last = Some(c.b.cmp(CmpOp::Eq, hi, base.k));
                    body(c, &Block { range, first, last });
                });
            }
            _ => {
                let range = range(c, zero, base.k);
                body(c, &Block { range, first: None, last: None });
            }
        }
    }

    /// All row tiles of a strip of columns.
    fn rows(&self, c: &mut Ctx, base: &Base, m: [Reg; 2], col: Reg, vectors: i64, k: &Block) {
        row_tiles(c, m, &self.spec.shape.m, self.tile.rows, |c, row, height| {
            self.tile(c, base, At { row, rows: height, col, vectors }, k);
        });
    }

    /// What needs many registers, or whole rows: activation, residual after it, and norm; and zeros for rows without a
    /// result. The task's rows are still in cache.
    fn finish(
        &self,
        c: &mut Ctx,
        base: &Base,
        [m0, m1]: [Reg; 2],
        [n0, n1]: [Reg; 2],
        norm: Option<&Norm>,
        lengths: Option<&Lengths>,
    ) {
        if self.late_act().is_none() && norm.is_none() && lengths.is_none() && self.quantiser.is_none() {
            return;
        }
        let row = Row { lo: n0, hi: n1, len: &self.spec.shape.n, lanes: self.tile.lanes };
        loop_over(c, m0, m1, 1, |c, r| {
            let offset = c.mul_add(base.y, r, &self.spec.shape.n);
            let (ptr, stride) = self.sums();
            let sums = (ptr, c.mul_add(base.sums, r, &stride));
            let finish = |c: &mut Ctx| self.finish_row(c, &row, sums, [r, offset], norm);
            match lengths {
                Some(l) => l.row(c, r, finish, |c| {
                    self.y.iter().for_each(|&y| clear(c, &row, y, offset));
                    self.quantiser.iter().for_each(|q| q.clear(c, r));
                }),
                None => finish(c),
            }
        });
    }

    /// Where the sums are, and the elements between their rows.
    fn sums(&self) -> (usize, Dim) {
        match (&self.scratch, self.y) {
            (None, Some(y)) => (y, self.spec.shape.n.clone()),
            (Some(s), _) => (s.ptr, s.columns.into()),
            (None, None) => unreachable!("without a result there is memory for the sums"),
        }
    }

    /// What is left to do with row `r`, whose elements begin at `offset` in what has the shape of the result.
    fn finish_row(&self, c: &mut Ctx, row: &Row<'_>, sums: (usize, Reg), [r, offset]: [Reg; 2], norm: Option<&Norm>) {
        let done = self.y.map_or(sums, |y| (y, offset));
        if let Some(act) = self.late_act() {
            let (ptr, at) = if norm.is_some() { sums } else { done };
            let to = c.b.address(ptr, at, 0);
            let from = c.b.address(sums.0, sums.1, 0);
            let residual = self.residual.map(|x| (x, c.b.address(x, offset, 0)));
            row.each(c, |c, i, lanes| {
                let x = c.load_from(sums.0, from, i, lanes);
                let mut v = self.activate(c, act, x);
                if let Some((residual, at)) = residual {
                    let x = c.load_from(residual, at, i, lanes);
                    v = c.b.add(v, x);
                }
                c.store_from(ptr, to, i, v);
            });
        }
        if let Some(norm) = norm {
            norm.apply(c, row, sums, done);
        }
        if let Some(q) = &self.quantiser {
            q.apply(c, row, done, offset, r);
        }
    }
}
