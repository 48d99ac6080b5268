//! Products with sparse matrices ([`crate::sparse`]), in place of the template's own loops over columns and k.
//!
//! A task first copies its rows of the left operand so that the elements of one k are neighbours, in strips of rows: which
//! k a block takes is known only where its index is read. Blocks of 16 outputs then work as a packed operand does, outputs
//! in the lanes: one load of the block, and one multiplication for each row of a tile, whose element is spread.
//!
//! Other blocks have rows of the strip in the lanes, and their own elements are spread. Blocks of one step add to the sums
//! of their outputs, in registers. Those of several steps lie input by input: the rows' elements stay in registers for all
//! outputs that take them, and the sums are in the first cache. Where several multiplications share a sum, that costs less
//! than to load the rows' elements again for each output. Either way 16 outputs are then turned around, and the rest is
//! that of any tile.

use bertc_ir::kernel::{Bin, DotKind, Elem, Place, Reg};
use bertc_ir::{CmpOp, DType};

use super::super::ctx::Ctx;
use super::super::matmul::PANEL;
use super::super::micro::{Group, Spot, multiply_add, round_down, row_spots, row_tiles};
use super::super::nest::{fold_over, loop_over, transpose, when};
use super::tile::At;
use super::{Base, Gemm, Tile, ceil_div};
use crate::plan::{ALIGN, Arg};
use crate::sparse::{Blocks, GROUP};
use crate::target::Target;

/// How a target works on blocks of a size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockPlan {
    /// The blocks.
    pub blocks: Blocks,
    /// Registers of rows that are worked on together: of blocks whose rows are in the lanes.
    pub vectors: i64,
    /// Rows of a strip.
    pub width: i64,
}

impl BlockPlan {
    /// The plan that fills the registers.
    pub fn new(blocks: Blocks, tile: &Tile, group: Group, target: &Target) -> BlockPlan {
        let lanes = i64::from(tile.lanes);
        let registers = tile.registers(target);
        if blocks.rows == 16 {
            return BlockPlan { blocks, vectors: 1, width: PANEL };
        }
        // What takes several instructions takes registers too.
        let native = match group {
            Group::One => true,
            Group::Pair => lanes == 16 && target.has("avx512bf16"),
            Group::Quad(kind) => target.has_int8() && kind == DotKind::U8I8,
        };
        let room = if native { registers } else { registers / 2 };
        let (rows, steps) = (i64::from(blocks.rows), i64::from(blocks.steps));
        let most = match blocks.by_inputs() {
            true => room * 5 / 8 / (steps + 1),
            false => room / 2 / rows,
        };
        let vectors = 1 << most.clamp(1, STRIP / lanes).ilog2();
        BlockPlan { blocks, vectors, width: vectors * lanes }
    }

    /// Outputs whose sums are made together.
    fn outputs(&self) -> i64 {
        if self.blocks.by_inputs() { GROUP as i64 } else { PANEL }
    }
}

/// Most rows of a strip.
const STRIP: i64 = 64;

/// A sparse right operand: parameter numbers.
pub(super) struct Sparse {
    pub plan: BlockPlan,
    /// Starts, indices and values.
    arrays: [usize; 3],
    /// The rows of a task, and lanes of a worker.
    packed: usize,
    packed_lanes: i64,
    /// Sums of a strip's rows, where these are in the lanes: first as they are made, then those of 16 outputs turned around.
    /// And lanes of a worker.
    sums: Option<(usize, i64)>,
    /// Lanes of k, and those behind them that blocks take too.
    k: [i64; 2],
    /// Number of runs.
    runs: i64,
}

impl Sparse {
    /// `None` on overflow, or if k isn't constant.
    pub fn bind(c: &mut Ctx, plan: BlockPlan, arrays: [Arg; 3], g: &super::Spec<'_>, rows: i64) -> Option<Sparse> {
        let k = g.shape.k.as_const()? / g.group.size();
        let steps = i64::from(plan.blocks.steps);
        let padded = k.checked_add(steps - 1)? / steps * steps;
        let lane = if g.group == Group::One { DType::F32 } else { DType::I32 };
        let [starts, indices, values] = arrays;
        let arrays = [c.input(starts, DType::I32), c.input(indices, DType::U16), c.input(values, lane)];
        let rows = if plan.blocks.rows == 16 { (rows + PANEL - 1) / PANEL * PANEL } else { plan.width };
        let bytes = |lanes: i64| Some(u64::try_from(lanes.checked_mul(4)?).ok()?.next_multiple_of(ALIGN));
        let scratch = |c: &mut Ctx, lanes: i64, dtype: DType| {
            let bytes = bytes(lanes)?;
            Some((c.output(Arg::Scratch(bytes), dtype), (bytes / 4) as i64))
        };
        let (packed, packed_lanes) = scratch(c, padded.checked_mul(rows)?, lane)?;
        let sums = match plan.blocks.rows {
            16 => None,
            _ => {
                let dtype = if let Group::Quad(_) = g.group { DType::I32 } else { DType::F32 };
                Some(scratch(c, (plan.outputs() + PANEL) * plan.width, dtype)?)
            }
        };
        let size = [usize::try_from(k).ok()?, usize::try_from(g.shape.n.as_const()?).ok()?];
        let runs = i64::try_from(plan.blocks.runs(size, 1)).ok()?;
        Some(Sparse { plan, arrays, packed, packed_lanes, sums, k: [k, padded], runs })
    }

    /// Where a worker's own lanes begin.
    fn own(c: &mut Ctx, ptr: usize, lanes: i64) -> Reg {
        let (zero, worker) = (c.b.int(0), c.b.worker());
        let at = c.mul_add(zero, worker, &lanes.into());
        c.b.address(ptr, at, 0)
    }

    /// Where what block `at` points to begins in rows of a width.
    fn index(&self, c: &mut Ctx, at: Reg, width: i64) -> Reg {
        let i = c.b.load(self.arrays[1], at, 0, 1);
        let i = c.b.convert_sign(i, Elem::I64, true);
        shifted(c, i, width, false)
    }

    fn start(&self, c: &mut Ctx, run: Reg, behind: i64) -> Reg {
        let at = c.b.load(self.arrays[0], run, behind, 1);
        c.b.convert_sign(at, Elem::I64, true)
    }

    /// The columns of a task that is number `share` of so many, in groups: with about as many blocks as the others have.
    pub fn columns_of(&self, c: &mut Ctx, n: Reg, [share, shares]: [Reg; 2]) -> [Reg; 2] {
        let group = GROUP as i64;
        let runs = match self.plan.blocks.by_inputs() {
            true => self.k[1] / i64::from(self.plan.blocks.steps),
            false => group / i64::from(self.plan.blocks.rows),
        };
        let (zero, one, two) = (c.b.int(0), c.b.int(1), c.b.int(2));
        let last = c.b.int(self.runs);
        let total = self.start(c, last, 0);
        let width = c.b.int(group);
        let groups = ceil_div(c, n, width);
        // The first group with this part of the blocks, or more, before it.
        let cut = |c: &mut Ctx, share: Reg| {
            let wanted = c.b.mul(share, total);
            let steps = c.b.int(i64::from(self.runs.max(1).ilog2()) + 1);
            let found = fold_over(c, zero, steps, 1, &[zero, groups], |c, _, ends| {
                let sum = c.b.add(ends[0], ends[1]);
                let middle = c.b.bin(Bin::DivU, sum, two);
                let run = c.mul_add(zero, middle, &runs.into());
                let run = c.b.min(run, last);
                let before = self.start(c, run, 0);
                let before = c.b.mul(before, shares);
                let fewer = c.b.cmp(CmpOp::Lt, before, wanted);
                let open = c.b.cmp(CmpOp::Lt, ends[0], ends[1]);
                let up = c.b.bin(Bin::And, fewer, open);
                let behind = c.b.add(middle, one);
                vec![c.b.select(up, behind, ends[0]), c.b.select(fewer, ends[1], middle)]
            });
            let column = c.mul_add(zero, found[0], &group.into());
            c.b.min(column, n)
        };
        let next = c.b.add(share, one);
        let (n0, n1) = (cut(c, share), cut(c, next));
        // Groups without blocks are the last one's.
        let end = c.b.cmp(CmpOp::Eq, next, shares);
        [n0, c.b.select(end, n, n1)]
    }

    /// A lane of a block, in all lanes.
    fn value(&self, c: &mut Ctx, from: Reg, lane: i64, lanes: u8) -> Reg {
        let x = c.b.load(self.arrays[2], from, lane, 1);
        c.b.splat(x, lanes)
    }

    /// The sums of a tile, of blocks of 16 outputs.
    pub fn outputs_in_lanes(&self, c: &mut Ctx, g: &Gemm<'_>, base: &Base, at: At, init: &[Reg]) -> Vec<Reg> {
        let lanes = g.tile.lanes;
        // Strip s begins s·16·K lanes behind the first one.
        let row = c.b.sub(at.row, base.first);
        let (high, low) = (c.b.int(-PANEL), c.b.int(PANEL - 1));
        let strip = c.b.bin(Bin::And, row, high);
        let inside = c.b.bin(Bin::And, row, low);
        let from = c.mul_add(inside, strip, &self.k[1].into());
        let worker = c.b.worker();
        let from = c.mul_add(from, worker, &self.packed_lanes.into());
        let rows = c.b.address(self.packed, from, 0);
        let column = c.b.bin(Bin::And, at.col, low);
        let values = c.b.address(self.arrays[2], column, 0);
        let run = shifted(c, at.col, PANEL, true);
        let (lo, hi) = (self.start(c, run, 0), self.start(c, run, 1));
        fold_over(c, lo, hi, 1, init, |c, block, acc| {
            let (k, block) = (self.index(c, block, PANEL), shifted(c, block, PANEL, false));
            let mut acc = acc.to_vec();
            let at_value = |v: usize| Place {
                ptr: self.arrays[2],
                base: Some(values),
                index: block,
                offset: v as i64 * i64::from(lanes),
                active: None,
            };
            let row: Vec<Reg> = (0..at.vectors as usize).map(|v| c.b.load_at(at_value(v), lanes)).collect();
            for (r, acc) in (0..).zip(acc.chunks_mut(row.len())) {
                let x = Place { ptr: self.packed, base: Some(rows), index: k, offset: r, active: None };
                let x = c.b.load_at(x, 1);
                let x = c.b.splat(x, lanes);
                acc.iter_mut().zip(&row).for_each(|(acc, &w)| *acc = multiply_add(c, g.spec.group, x, w, *acc));
            }
            acc
        })
    }
}

/// `x` times a power of two, or divided by it.
fn shifted(c: &mut Ctx, x: Reg, by: i64, right: bool) -> Reg {
    if by == 1 {
        return x;
    }
    let bits = c.b.int(by.ilog2().into());
    c.b.bin(if right { Bin::ShrU } else { Bin::Shl }, x, bits)
}

/// What a worker works on: rows with their sums.
struct Strip<'a> {
    of: &'a Sparse,
    /// Where the copied rows begin.
    packed: Reg,
    /// The memory of sums, and where the worker's begin.
    sums: (usize, Reg),
}

impl Strip<'_> {
    /// A lane of the copied rows.
    fn row_lane(&self, index: Reg, offset: i64) -> Place {
        Place { ptr: self.of.packed, base: Some(self.packed), index, offset, active: None }
    }

    /// A lane of the sums.
    fn sum(&self, index: Reg, offset: i64) -> Place {
        Place { ptr: self.sums.0, base: Some(self.sums.1), index, offset, active: None }
    }

    /// A lane of the sums that are turned around.
    fn turned(&self, index: Reg, offset: i64) -> Place {
        self.sum(index, self.of.plan.outputs() * self.of.plan.width + offset)
    }
}

impl Gemm<'_> {
    /// All results of rows `m` and columns `n`, which begin where sums that are made together do.
    pub(super) fn blocks(&self, c: &mut Ctx, base: &Base, s: &Sparse, [m0, m1]: [Reg; 2], [n0, n1]: [Reg; 2]) {
        let packed = Sparse::own(c, s.packed, s.packed_lanes);
        let Some((ptr, lanes)) = s.sums else {
            self.pack_rows(c, base, s, packed, [m0, m1]);
            return self.panels(c, base, [m0, m1], [n0, n1]);
        };
        let strip = Strip { of: s, packed, sums: (ptr, Sparse::own(c, ptr, lanes)) };
        let (width, outputs) = (s.plan.width, s.plan.outputs());
        loop_over(c, m0, m1, width, |c, row| {
            let all = c.b.int(width);
            let end = c.b.add(row, all);
            let end = c.b.min(end, m1);
            self.pack_rows(c, base, s, packed, [row, end]);
            let rows = c.b.sub(end, row);
            loop_over(c, n0, n1, outputs, |c, first| {
                self.sums_of_outputs(c, &strip, first, rows);
                let group = c.b.int(outputs);
                let last = c.b.add(first, group);
                let last = c.b.min(last, n1);
                loop_over(c, first, last, PANEL, |c, panel| {
                    let column = c.b.sub(panel, first);
                    self.turn_sums(c, &strip, column, rows);
                    self.strips(c, panel, n1, |c, col, vectors| {
                        let inside = c.b.sub(col, panel);
                        row_tiles(c, [row, end], &self.spec.shape.m, self.tile.rows, |c, r, height| {
                            let at = At { row: r, rows: height, col, vectors };
                            self.tile_with_sums(c, base, at, |c| {
                                let from = c.b.sub(r, row);
                                let from = shifted(c, from, PANEL, false);
                                let from = c.b.add(from, inside);
                                let load = |i: i64| {
                                    let (r, v) = (i / vectors, i % vectors);
                                    let offset = r * PANEL + v * i64::from(self.tile.lanes);
                                    c.b.load_at(strip.turned(from, offset), self.tile.lanes)
                                };
                                (0..height * vectors).map(load).collect()
                            });
                        });
                    });
                });
            });
        });
    }

    /// The sums of the outputs from `first` on that are made together, with as many registers of rows as there are.
    fn sums_of_outputs(&self, c: &mut Ctx, s: &Strip<'_>, first: Reg, rows: Reg) {
        let plan = &s.of.plan;
        let lanes = i64::from(self.tile.lanes);
        let mut vectors = plan.vectors;
        while vectors > 0 {
            let least = c.b.int(vectors / 2 * lanes);
            let mut fits = c.b.cmp(CmpOp::Gt, rows, least);
            if vectors < plan.vectors {
                let most = c.b.int(vectors * lanes);
                let less = c.b.cmp(CmpOp::Le, rows, most);
                fits = c.b.bin(Bin::And, fits, less);
            }
            when(c, fits, |c| match plan.blocks.by_inputs() {
                true => self.sums_by_input(c, s, first, vectors),
                false => self.sums_by_output(c, s, first, vectors),
            });
            vectors /= 2;
        }
    }

    /// Copies rows so that the lanes of one k are neighbours: strip by strip, each as `[k][rows]`.
    fn pack_rows(&self, c: &mut Ctx, base: &Base, s: &Sparse, packed: Reg, [lo, hi]: [Reg; 2]) {
        let (lanes, width) = (i64::from(self.tile.lanes), s.plan.width);
        let group = self.spec.group;
        let [k, padded] = s.k;
        let stride = self.left_stride();
        let place = |index, offset| Place { ptr: s.packed, base: Some(packed), index, offset, active: None };
        // Where row `from`, counted from the first one, begins.
        let target = |c: &mut Ctx, from: Reg| {
            let (high, low) = (c.b.int(-width), c.b.int(width - 1));
            let strip = c.b.bin(Bin::And, from, high);
            let inside = c.b.bin(Bin::And, from, low);
            c.mul_add(inside, strip, &padded.into())
        };
        let squares = |c: &mut Ctx, to: Reg, rows: &[Spot]| {
            let (first, end) = (c.b.int(0), c.b.int(k / lanes * lanes));
            let load = |c: &mut Ctx, spot: &Spot, x: Reg, active: Option<Reg>| {
                let index = c.mul_add(first, x, &group.size().into());
                let place = Place { ptr: self.a, base: Some(spot.base), index, offset: spot.offset, active };
                group.load(c, place, self.tile.lanes)
            };
            loop_over(c, first, end, lanes, |c, x| {
                let square: Vec<Reg> = rows.iter().map(|r| load(c, r, x, None)).collect();
                let at = c.mul_add(to, x, &width.into());
                let square = transpose(c, square);
                (0..).zip(square).for_each(|(i, v)| c.b.store_at(place(at, i * width), v));
            });
            if k % lanes > 0 {
                let left = c.b.int(k % lanes);
                let square: Vec<Reg> = rows.iter().map(|r| load(c, r, end, Some(left))).collect();
                let at = c.mul_add(to, end, &width.into());
                let square = transpose(c, square);
                (0..k % lanes).zip(square).for_each(|(i, v)| c.b.store_at(place(at, i * width), v));
            }
            // Blocks that reach beyond k hold zeros there, and so must the rows.
            let none = c.imm(Elem::of(c.b.dtype_of(s.packed)), self.tile.lanes, 0.0);
            (k..padded).for_each(|i| c.b.store_at(place(to, i * width), none));
        };
        let all = c.b.sub(hi, lo);
        let whole = round_down(c, all, lanes);
        let zero = c.b.int(0);
        let origin = c.mul_add(base.a, lo, stride);
        loop_over(c, zero, whole, lanes, |c, from| {
            let start = c.mul_add(origin, from, stride);
            let rows = row_spots(c, self.a, start, stride, lanes);
            let to = target(c, from);
            squares(c, to, &rows);
        });
        // Of the last rows the last one stands for those that are missing.
        loop_over(c, whole, all, lanes, |c, from| {
            let one = c.b.int(1);
            let last = c.b.sub(all, one);
            let mut rows = Vec::new();
            for i in 0..lanes {
                let i = c.b.int(i);
                let row = c.b.add(from, i);
                let row = c.b.min(row, last);
                let start = c.mul_add(origin, row, stride);
                rows.push(Spot { base: c.b.address(self.a, start, 0), offset: 0 });
            }
            let to = target(c, from);
            squares(c, to, &rows);
        });
    }

    /// Sums of 16 outputs from `first` on, rows in the lanes: of blocks of one step.
    fn sums_by_output(&self, c: &mut Ctx, s: &Strip<'_>, first: Reg, vectors: i64) {
        let (lanes, width) = (self.tile.lanes, s.of.plan.width);
        let rows = i64::from(s.of.plan.blocks.rows);
        let group = self.spec.group;
        let (zero, runs) = (c.b.int(0), c.b.int(PANEL / rows));
        let first = shifted(c, first, rows, true);
        loop_over(c, zero, runs, 1, |c, run| {
            let at = c.b.add(first, run);
            let (lo, hi) = (s.of.start(c, at, 0), s.of.start(c, at, 1));
            let init = vec![c.imm(self.elem, lanes, 0.0); (rows * vectors) as usize];
            let acc = fold_over(c, lo, hi, 1, &init, |c, block, acc| {
                let k = s.of.index(c, block, width);
                let value = shifted(c, block, rows, false);
                let load = |c: &mut Ctx, v: i64| c.b.load_at(s.row_lane(k, v * i64::from(lanes)), lanes);
                let mut acc = acc.to_vec();
                if rows == 1 {
                    // Each is read once: it needs a register only then.
                    let w = s.of.value(c, value, 0, lanes);
                    for (v, acc) in (0..).zip(&mut acc) {
                        let x = load(c, v);
                        *acc = multiply_add(c, group, x, w, *acc);
                    }
                    return acc;
                }
                let x: Vec<Reg> = (0..vectors).map(|v| load(c, v)).collect();
                for (r, acc) in (0..).zip(acc.chunks_mut(x.len())) {
                    let w = s.of.value(c, value, r, lanes);
                    acc.iter_mut().zip(&x).for_each(|(acc, &x)| *acc = multiply_add(c, group, x, w, *acc));
                }
                acc
            });
            let to = shifted(c, run, rows * width, false);
            for (i, x) in (0..).zip(acc) {
                c.b.store_at(s.sum(to, i / vectors * width + i % vectors * i64::from(lanes)), x);
            }
        });
    }

    /// Sums of the outputs of a group from `first` on, rows in the lanes: of blocks of several steps.
    fn sums_by_input(&self, c: &mut Ctx, s: &Strip<'_>, first: Reg, vectors: i64) {
        let (lanes, width) = (self.tile.lanes, s.of.plan.width);
        let steps = i64::from(s.of.plan.blocks.steps);
        let at_vector = |v: i64| v * i64::from(lanes);
        let none = c.imm(self.elem, lanes, 0.0);
        let (zero, all) = (c.b.int(0), c.b.int(s.of.plan.outputs() * width));
        loop_over(c, zero, all, width, |c, i| {
            (0..vectors).for_each(|v| c.b.store_at(s.sum(i, at_vector(v)), none));
        });
        let inputs = s.of.k[1] / steps;
        let group = shifted(c, first, GROUP as i64, true);
        let run = c.mul_add(zero, group, &inputs.into());
        let begin = s.of.start(c, run, 0);
        let end = c.b.int(inputs);
        fold_over(c, zero, end, 1, &[begin], |c, input, at| {
            let from = shifted(c, input, width * steps, false);
            let load = |i: i64| c.b.load_at(s.row_lane(from, i / vectors * width + at_vector(i % vectors)), lanes);
            let x: Vec<Reg> = (0..steps * vectors).map(load).collect();
            let own = c.b.add(run, input);
            let behind = s.of.start(c, own, 1);
            loop_over(c, at[0], behind, 1, |c, block| {
                let to = s.of.index(c, block, width);
                let value = shifted(c, block, steps, false);
                let mut acc: Vec<Reg> = (0..vectors).map(|v| c.b.load_at(s.sum(to, at_vector(v)), lanes)).collect();
                for (step, x) in (0..).zip(x.chunks(vectors as usize)) {
                    let w = s.of.value(c, value, step, lanes);
                    acc.iter_mut().zip(x).for_each(|(acc, &x)| *acc = multiply_add(c, self.spec.group, x, w, *acc));
                }
                (0..).zip(acc).for_each(|(v, x)| c.b.store_at(s.sum(to, at_vector(v)), x));
            });
            vec![behind]
        });
    }

    /// Turns the sums of 16 outputs from `column` of the group on around, so that those of a row are neighbours.
    fn turn_sums(&self, c: &mut Ctx, s: &Strip<'_>, column: Reg, rows: Reg) {
        let (lanes, width) = (i64::from(self.tile.lanes), s.of.plan.width);
        let zero = c.b.int(0);
        let from = shifted(c, column, width, false);
        loop_over(c, zero, rows, lanes, |c, row| {
            let from = c.b.add(from, row);
            let to = shifted(c, row, PANEL, false);
            for first in (0..PANEL).step_by(lanes as usize) {
                let load = |i: i64| c.b.load_at(s.sum(from, (first + i) * width), self.tile.lanes);
                let square = (0..lanes).map(load).collect();
                let square = transpose(c, square);
                (0..).zip(square).for_each(|(i, v)| c.b.store_at(s.turned(to, i * PANEL + first), v));
            }
        });
    }
}
