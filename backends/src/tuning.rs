//! Tiles and tasks of products that were measured to be the fastest on some machine, by the products' sizes. Results don't
//! depend on them.

use std::collections::BTreeMap;

use bertc_ir::Diag;

use crate::lower::{PANEL, Tile};
use crate::target::Target;

/// Products that are tuned as one: by a constant matrix `[k, n]`, for any number of rows.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Product {
    /// Inner size.
    pub k: i64,
    /// Columns.
    pub n: i64,
    /// Whether it is on pairs of bf16, else on f32.
    pub bf16: bool,
    /// Lanes of the registers that the choice is for.
    pub lanes: u8,
}

/// How a product is computed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// Rows of the register tile.
    pub rows: i64,
    /// Registers of columns in the tile; a power of two.
    pub vectors: i64,
    /// Steps of k in a pass of the innermost loop; a power of two.
    pub unroll: i64,
    /// Rows of a task, at most.
    pub task_rows: i64,
    /// Columns of a task, at most; a multiple of 16 and of the tile's columns. Tasks that normalise have whole rows.
    pub task_columns: i64,
}

/// Choices by product.
pub type Tuning = BTreeMap<Product, Choice>;

/// Limits that keep code and scratch memory small.
const MOST_ROWS: i64 = 32;
const MOST_UNROLL: i64 = 16;
const MOST_TASK: i64 = 1 << 12;

impl Choice {
    /// What [`Tile::for_target`] does.
    pub fn of(tile: &Tile) -> Choice {
        let &Tile { rows, vectors, unroll, task_rows, task_columns, .. } = tile;
        Choice { rows, vectors, unroll, task_rows, task_columns }
    }

    /// The tile with this choice.
    pub fn apply(self, tile: Tile) -> Tile {
        let Choice { rows, vectors, unroll, task_rows, task_columns } = self;
        Tile { rows, vectors, unroll, task_rows, task_columns, ..tile }
    }

    /// Whether code can be made of it, where there are as many `registers` of so many `lanes`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self, lanes: u8, registers: i64) -> Result<(), Diag> {
        let power = |n: i64, most: i64| (1..=most).contains(&n) && n.count_ones() == 1;
        let wrong = |what: String| Err(Diag::new(what));
        if !(1..=MOST_ROWS).contains(&self.rows) {
            return wrong(format!("{} rows of a tile, expected 1 to {MOST_ROWS}", self.rows));
        }
        if !power(self.vectors, MOST_ROWS) {
            return wrong(format!("{} registers of columns, expected a power of two up to {MOST_ROWS}", self.vectors));
        }
        if !power(self.unroll, MOST_UNROLL) {
            return wrong(format!("an unrolling by {}, expected a power of two up to {MOST_UNROLL}", self.unroll));
        }
        // The sums, a row of the matrix, an element of the left operand, and one for what comes up.
        let needed = self.rows * self.vectors + self.vectors + 2;
        if needed > registers {
            let what = format!("a tile of {} rows by {} registers needs {needed} registers", self.rows, self.vectors);
            return wrong(format!("{what}, and there are {registers}"));
        }
        if !(self.rows..=MOST_TASK).contains(&self.task_rows) {
            return wrong(format!("{} rows of a task, expected {} to {MOST_TASK}", self.task_rows, self.rows));
        }
        // Whole panels, and whole strips of the tile: what is left of a strip is only looked for at the matrix's end.
        let unit = (self.vectors * i64::from(lanes)).max(PANEL);
        if !(unit..=MOST_TASK).contains(&self.task_columns) || self.task_columns % unit != 0 {
            let what = format!("{} columns of a task", self.task_columns);
            return wrong(format!("{what}, expected a multiple of {unit} up to {MOST_TASK}"));
        }
        Ok(())
    }
}

/// Changes one property of a choice.
pub type Change = fn(Choice) -> Choice;

/// Choices worth measuring for code like a tile's, each by a change of one property: tiles, unrollings, rows of tasks,
/// columns of tasks.
pub fn candidates(tile: &Tile, target: &Target) -> [Vec<Change>; 4] {
    let tiles: &[Change] = match (tile.lanes, tile.registers(target)) {
        (16, _) => &[
            |c| Choice { rows: 8, vectors: 2, ..c },
            |c| Choice { rows: 12, vectors: 2, ..c },
            |c| Choice { rows: 10, vectors: 2, ..c },
            |c| Choice { rows: 6, vectors: 4, ..c },
            |c| Choice { rows: 4, vectors: 4, ..c },
            |c| Choice { rows: 16, vectors: 1, ..c },
        ],
        (8, _) => &[
            |c| Choice { rows: 6, vectors: 2, ..c },
            |c| Choice { rows: 5, vectors: 2, ..c },
            |c| Choice { rows: 4, vectors: 2, ..c },
            |c| Choice { rows: 8, vectors: 1, ..c },
        ],
        (_, 32) => &[
            |c| Choice { rows: 4, vectors: 4, ..c },
            |c| Choice { rows: 6, vectors: 4, ..c },
            |c| Choice { rows: 8, vectors: 2, ..c },
        ],
        _ => &[|c| Choice { rows: 4, vectors: 2, ..c }, |c| Choice { rows: 6, vectors: 2, ..c }],
    };
    let unrolls: &[Change] =
        &[|c| Choice { unroll: 2, ..c }, |c| Choice { unroll: 4, ..c }, |c| Choice { unroll: 8, ..c }];
    let rows: &[Change] = &[
        |c| Choice { task_rows: c.rows.max(16), ..c },
        |c| Choice { task_rows: 32, ..c },
        |c| Choice { task_rows: 64, ..c },
        |c| Choice { task_rows: 128, ..c },
    ];
    let columns: &[Change] = &[
        |c| Choice { task_columns: 64, ..c },
        |c| Choice { task_columns: 128, ..c },
        |c| Choice { task_columns: 256, ..c },
    ];
    [tiles, unrolls, rows, columns].map(<[_]>::to_vec)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = Choice { rows: 8, vectors: 2, unroll: 4, task_rows: 32, task_columns: 128 };
        good.check(16, 32).unwrap();
        for (bad, why) in [
            (Choice { rows: 0, ..good }, "0 rows"),
            (Choice { rows: 15, ..good }, "needs 34 registers"),
            (Choice { vectors: 3, ..good }, "power of two"),
            (Choice { unroll: 0, ..good }, "unrolling by 0"),
            (Choice { task_rows: 7, ..good }, "7 rows of a task"),
            (Choice { task_columns: 100, ..good }, "multiple of 32"),
            (Choice { task_columns: 48, ..good }, "multiple of 32"),
            (Choice { rows: i64::MIN, ..good }, "rows"),
        ] {
            let e = bad.check(16, 32).unwrap_err();
            assert!(e.message.contains(why), "{e}");
        }
    }

    #[test]
    fn every_candidate_fits_its_machine() {
        for (arch, cpu) in
            [("x86_64", "x86-64-v4"), ("x86_64", "x86-64-v3"), ("x86_64", "x86-64"), ("aarch64", "generic")]
        {
            let target = Target::parse(arch, cpu).unwrap();
            let tile = Tile::for_target(&target);
            let first = Choice::of(&tile);
            first.check(tile.lanes, tile.registers(&target)).unwrap();
            for stage in candidates(&tile, &target) {
                // What there is without tuning is among them.
                assert!(stage.iter().any(|f| f(first) == first), "{cpu}: {first:?}");
                stage.iter().for_each(|f| f(first).check(tile.lanes, tile.registers(&target)).unwrap());
            }
        }
    }
}
