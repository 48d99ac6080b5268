//! Blocks of a matrix, and which of all matrices matter least.

use std::ops::Range;

/// How a matrix of `n` outputs and `k` inputs falls into blocks. Those at the edges may be smaller.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    pub n: usize,
    pub k: usize,
    /// Outputs and inputs of a block.
    pub block: [usize; 2],
}

impl Grid {
    pub fn new(n: usize, k: usize, block: [usize; 2]) -> Grid {
        Grid { n, k, block }
    }

    /// Blocks below one another, and side by side.
    pub fn counts(&self) -> [usize; 2] {
        [self.n.div_ceil(self.block[0]), self.k.div_ceil(self.block[1])]
    }

    /// How many blocks there are.
    pub fn len(&self) -> usize {
        self.counts().iter().product()
    }

    /// The outputs of row `i` of blocks.
    pub fn outputs(&self, i: usize) -> Range<usize> {
        let start = i * self.block[0];
        start..(start + self.block[0]).min(self.n)
    }

    /// The inputs of column `j` of blocks.
    pub fn inputs(&self, j: usize) -> Range<usize> {
        let start = j * self.block[1];
        start..(start + self.block[1]).min(self.k)
    }

    /// How many weights a block has.
    pub fn size(&self, block: usize) -> usize {
        let columns = self.counts()[1];
        self.outputs(block / columns).len() * self.inputs(block % columns).len()
    }

    /// Tells the outputs and inputs of each block of a mask.
    pub fn each(&self, mask: &[bool], mut of: impl FnMut(Range<usize>, Range<usize>)) {
        let columns = self.counts()[1].max(1);
        for (b, _) in mask.iter().enumerate().filter(|m| *m.1) {
            of(self.outputs(b / columns), self.inputs(b % columns));
        }
    }

    /// The weights in the blocks of a mask.
    pub fn elements(&self, mask: &[bool]) -> usize {
        let mut sum = 0;
        self.each(mask, |n, k| sum += n.len() * k.len());
        sum
    }

    /// The sum of squares of each block of weights `[n, k]`.
    pub fn squares(&self, w: &[f32]) -> Vec<f64> {
        let mut sums = vec![0.0; self.len()];
        let columns = self.counts()[1];
        for (i, row) in w.chunks_exact(self.k.max(1)).enumerate() {
            let of_row = &mut sums[i / self.block[0] * columns..][..columns];
            for (sum, block) in of_row.iter_mut().zip(row.chunks(self.block[1])) {
                *sum += block.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>();
            }
        }
        sums
    }
}

/// The part of its even share that a matrix keeps: one that matters little by its scores may be an output of the model.
const SHARE: f64 = 0.1;

/// Which blocks go so that a part of all weights does, to within a block: those with the least score for each of their
/// weights; of equal ones the first. Scores are not negative. No matrix goes as a whole: it keeps at least [`SHARE`] of what
/// it would if all kept the same part.
pub fn choose(grids: &[Grid], scores: &[Vec<f64>], part: f64) -> Vec<Vec<bool>> {
    let total: usize = grids.iter().map(|g| g.n * g.k).sum();
    let caps: Vec<f64> = grids.iter().map(|g| (g.n * g.k) as f64 * (1.0 - (1.0 - part) * SHARE)).collect();
    pick(grids, scores, part * total as f64, &caps)
}

/// [`choose`], for a number of weights in all and one that each matrix loses at most.
pub fn pick(grids: &[Grid], scores: &[Vec<f64>], target: f64, caps: &[f64]) -> Vec<Vec<bool>> {
    // The score's bits in the upper half order as the scores do, and numbers of blocks behind them tell equals apart.
    let mut order: Vec<u64> = Vec::with_capacity(grids.iter().map(Grid::len).sum());
    let (mut starts, mut start) = (Vec::new(), 0u64);
    for (grid, scores) in grids.iter().zip(scores) {
        starts.push(start);
        for (b, score) in scores.iter().enumerate() {
            let each = (score / grid.size(b).max(1) as f64) as f32;
            order.push((u64::from(each.max(0.0).to_bits()) << 32) | (start + b as u64));
        }
        start += grid.len() as u64;
    }
    order.sort_unstable();
    let mut masks: Vec<Vec<bool>> = grids.iter().map(|g| vec![false; g.len()]).collect();
    let mut gone = 0.0;
    let mut of_each = vec![0.0; grids.len()];
    // The shares are given up only where the part can't be met with them.
    for capped in [true, false] {
        for &key in &order {
            let block = key & u64::from(u32::MAX);
            let m = starts.partition_point(|&s| s <= block) - 1;
            let b = (block - starts[m]) as usize;
            let size = grids[m].size(b) as f64;
            // The last one only if that is nearer than without it.
            if gone + size / 2.0 > target {
                return masks;
            }
            // What is 0 already costs nothing.
            if masks[m][b] || capped && key >> 32 > 0 && of_each[m] + size > caps[m] {
                continue;
            }
            masks[m][b] = true;
            gone += size;
            of_each[m] += size;
        }
    }
    masks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_at_the_edges_are_smaller() {
        let grid = Grid::new(5, 7, [4, 4]);
        assert_eq!((grid.counts(), grid.len()), ([2, 2], 4));
        assert_eq!((0..4).map(|b| grid.size(b)).collect::<Vec<_>>(), [16, 12, 4, 3]);
        assert_eq!(grid.elements(&[true; 4]), 35);
        let w: Vec<f32> = (0..35).map(|i| i as f32).collect();
        let sums = grid.squares(&w);
        assert_eq!(sums.iter().sum::<f64>(), (0..35).map(|i| f64::from(i * i)).sum::<f64>());
        assert_eq!(sums[3], f64::from(32 * 32 + 33 * 33 + 34 * 34));
    }

    #[test]
    fn a_part_is_met_to_within_a_block() {
        for block in [[1, 4], [4, 1], [4, 4], [16, 1], [16, 4], [3, 5]] {
            let grids = [Grid::new(33, 18, block), Grid::new(16, 64, block), Grid::new(1, 3, block)];
            let scores: Vec<Vec<f64>> = grids
                .iter()
                .map(|g| (0..g.len()).map(|b| ((b * 37 + g.n) % 101) as f64 * g.size(b) as f64).collect())
                .collect();
            let total = 33 * 18 + 16 * 64 + 3;
            for part in [0.0, 0.125, 0.5, 0.8, 0.99] {
                let masks = choose(&grids, &scores, part);
                let gone: usize = grids.iter().zip(&masks).map(|(g, m)| g.elements(m)).sum();
                let off = (gone as f64 - part * f64::from(total)).abs();
                assert!(off <= (block[0] * block[1]) as f64 / 2.0, "{block:?} {part}: {gone}");
            }
            assert!(choose(&grids, &scores, 0.0).concat().iter().all(|m| !m));
        }
    }

    #[test]
    fn the_least_go_first_wherever_they_are() {
        let grids = [Grid::new(2, 2, [1, 1]), Grid::new(2, 2, [1, 1])];
        let masks = choose(&grids, &[vec![5.0, 1.0, 6.0, 7.0], vec![0.5, 8.0, 0.25, 1.0]], 0.5);
        assert_eq!(masks, [[false, true, false, false], [true, false, true, true]]);
        // Of the two of one, the first.
        let masks = choose(&grids, &[vec![5.0, 1.0, 6.0, 7.0], vec![0.5, 8.0, 0.25, 1.0]], 0.375);
        assert_eq!(masks, [[false, true, false, false], [true, false, true, false]]);
    }

    #[test]
    fn no_matrix_goes_as_a_whole() {
        let grids = [Grid::new(16, 16, [1, 1]), Grid::new(16, 16, [1, 1])];
        let scores = |low: f64| vec![vec![low; 256], vec![2.0; 256]];
        let gone = |low: f64, part: f64| {
            choose(&grids, &scores(low), part).iter().map(|m| m.iter().filter(|x| **x).count()).collect::<Vec<_>>()
        };
        assert_eq!(gone(1.0, 0.5), [243, 13], "a tenth of the half that it would keep");
        assert_eq!(gone(0.0, 0.5), [256, 0], "unless there is nothing in it");
    }
}
