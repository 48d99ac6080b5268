//! Rows in memory and their layer norm, for kernels that end in one.

use bertc_ir::Dim;
use bertc_ir::kernel::{Bin, Elem, Reg, RegType, Un};

use super::ctx::Ctx;
use super::nest::fold_over;

/// A part of a row: elements `lo..hi`, in registers of `lanes` and then one by one.
pub struct Row<'a> {
    /// First element.
    pub lo: Reg,
    /// End.
    pub hi: Reg,
    /// Length of the whole row, of which `hi - lo` is the remainder or a multiple of `lanes`.
    pub len: &'a Dim,
    /// Lanes of a register.
    pub lanes: u8,
}

impl Row<'_> {
    /// Runs `body` with the index and the lanes of each register, ascending.
    pub fn each(&self, c: &mut Ctx, mut body: impl FnMut(&mut Ctx, Reg, u8)) {
        self.loops(c, |c, lo, hi, lanes| {
            fold_over(c, lo, hi, lanes.into(), &[], |c, i, _| {
                body(c, i, lanes);
                Vec::new()
            });
        });
    }

    /// The sum of what `map` makes of each register.
    pub fn sum(&self, c: &mut Ctx, mut map: impl FnMut(&mut Ctx, Reg, u8) -> Reg) -> Reg {
        let mut total = c.imm(Elem::F32, 1, 0.0);
        // Four sums don't wait for each other. How many there are depends on the length alone.
        let four = 4 * i64::from(self.lanes);
        if self.len.as_const().is_some_and(|n| n % four == 0) {
            let init = vec![c.imm(Elem::F32, self.lanes, 0.0); 4];
            let sums = fold_over(c, self.lo, self.hi, four, &init, |c, i, sums| {
                let add = |(part, &sum): (i64, &Reg)| {
                    let at = c.b.int(part * i64::from(self.lanes));
                    let at = c.b.add(i, at);
                    let x = map(c, at, self.lanes);
                    c.b.add(sum, x)
                };
                (0..).zip(sums).map(add).collect()
            });
            let (a, b) = (c.b.add(sums[0], sums[1]), c.b.add(sums[2], sums[3]));
            let all = c.b.add(a, b);
            return c.b.reduce(Bin::Add, all);
        }
        self.loops(c, |c, lo, hi, lanes| {
            let init = if lanes == 1 { total } else { c.imm(Elem::F32, lanes, 0.0) };
            let sum = fold_over(c, lo, hi, lanes.into(), &[init], |c, i, acc| {
                let x = map(c, i, lanes);
                vec![c.b.add(acc[0], x)]
            });
            total = c.b.reduce(Bin::Add, sum[0]);
        });
        total
    }

    /// The least or the largest (`Bin::Min`, `Bin::Max`) of what `map` makes of each register; NaN if there is one.
    pub fn extremes<const N: usize>(
        &self,
        c: &mut Ctx,
        ops: [Bin; N],
        mut map: impl FnMut(&mut Ctx, Reg, u8) -> Reg,
    ) -> [Reg; N] {
        let worst = |c: &mut Ctx, lanes: u8| {
            ops.map(|op| c.imm(Elem::F32, lanes, if op == Bin::Min { f64::INFINITY } else { f64::NEG_INFINITY }))
        };
        let mut best = worst(c, 1);
        // Four don't wait for each other, as in sums.
        let four = 4 * i64::from(self.lanes);
        if self.len.as_const().is_some_and(|n| n % four == 0) {
            let init = worst(c, self.lanes).repeat(4);
            let all = fold_over(c, self.lo, self.hi, four, &init, |c, i, best| {
                let mut next = Vec::new();
                for (part, best) in (0..).zip(best.chunks(N)) {
                    let at = c.b.int(part * i64::from(self.lanes));
                    let at = c.b.add(i, at);
                    let x = map(c, at, self.lanes);
                    next.extend(best.iter().zip(ops).map(|(&b, op)| c.b.bin(op, b, x)));
                }
                next
            });
            for (i, (best, op)) in best.iter_mut().zip(ops).enumerate() {
                let [p, q] = [0, 2].map(|j| c.b.bin(op, all[j * N + i], all[(j + 1) * N + i]));
                let one = c.b.bin(op, p, q);
                *best = c.b.reduce(op, one);
            }
            return best;
        }
        self.loops(c, |c, lo, hi, lanes| {
            let init = if lanes == 1 { best } else { worst(c, lanes) };
            let all = fold_over(c, lo, hi, lanes.into(), &init, |c, i, best| {
                let x = map(c, i, lanes);
                best.iter().zip(ops).map(|(&b, op)| c.b.bin(op, b, x)).collect()
            });
            for ((best, &x), op) in best.iter_mut().zip(&all).zip(ops) {
                *best = c.b.reduce(op, x);
            }
        });
        best
    }

    fn loops(&self, c: &mut Ctx, mut each: impl FnMut(&mut Ctx, Reg, Reg, u8)) {
        let lanes = i64::from(self.lanes);
        if self.len.as_const().is_some_and(|n| n % lanes == 0) {
            return each(c, self.lo, self.hi, self.lanes);
        }
        let (n, mask) = (c.b.sub(self.hi, self.lo), c.b.int(-lanes));
        let n = c.b.bin(Bin::And, n, mask);
        let whole = c.b.add(self.lo, n);
        each(c, self.lo, whole, self.lanes);
        each(c, whole, self.hi, 1);
    }
}

/// A layer norm: (x - mean) / sqrt(var + eps) · gamma + beta over a row.
pub struct Norm {
    /// Parameter number of the scale, `[n]`.
    pub gamma: usize,
    /// Parameter number of the shift, `[n]`.
    pub beta: usize,
    /// Added to the variance.
    pub eps: f32,
}

impl Norm {
    /// Normalises a whole row from one place, a parameter and the element where the row begins, to another or the same. The
    /// variance is summed around the mean: a single pass would cancel.
    pub fn apply(&self, c: &mut Ctx, row: &Row<'_>, (ptr, offset): (usize, Reg), to: (usize, Reg)) {
        let one = RegType::scalar(Elem::F32);
        let n = c.dim(row.len);
        let n = c.b.convert(n, Elem::F32);
        let start = c.b.address(ptr, offset, 0);
        let target = c.b.address(to.0, to.1, 0);
        let sum = row.sum(c, |c, i, lanes| c.load_from(ptr, start, i, lanes));
        let mean = c.b.div(sum, n);
        let squares = row.sum(c, |c, i, lanes| {
            let (x, m) = (c.load_from(ptr, start, i, lanes), c.b.splat(mean, lanes));
            let d = c.b.sub(x, m);
            c.b.mul(d, d)
        });
        let variance = c.b.div(squares, n);
        let eps = c.b.const_f(one, self.eps.into());
        let v = c.b.add(variance, eps);
        let root = c.b.un(Un::Sqrt, v);
        let one = c.b.const_f(one, 1.0);
        let scale = c.b.div(one, root);
        row.each(c, |c, i, lanes| {
            let (m, s) = (c.b.splat(mean, lanes), c.b.splat(scale, lanes));
            let x = c.load_from(ptr, start, i, lanes);
            let d = c.b.sub(x, m);
            let d = c.b.mul(d, s);
            let (g, b) = (c.b.load(self.gamma, i, 0, lanes), c.b.load(self.beta, i, 0, lanes));
            let v = c.b.fma(d, g, b);
            c.store_from(to.0, target, i, v);
        });
    }
}
