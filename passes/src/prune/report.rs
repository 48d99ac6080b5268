//! What `prune` is asked for, and what it tells.

use super::calibrate::Fitted;
use super::matrices::Found;
use crate::measure::Sample;

/// What `prune` is asked for.
#[derive(Clone, Debug, Default)]
pub struct PruneSettings {
    /// The part of the weights that becomes 0, from 0 to less than 1.
    pub sparsity: f64,
    /// Outputs and inputs of a block.
    pub block: [usize; 2],
    /// Matrices that are pruned, all if empty: names of nodes, beginnings of such up to a `/` or `.`, or patterns with `*`.
    pub only: Vec<String>,
    /// Matrices that stay as they are, likewise.
    pub keep: Vec<String>,
    /// Names in `keep` that nothing has are errors; others may be for another pass.
    pub strict: bool,
    /// What to calibrate on: the first set that the graph can be evaluated on. None: by magnitude.
    pub samples: Vec<Vec<Sample>>,
}

/// What became of a matrix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fate {
    /// It was pruned.
    Pruned,
    /// It was named, or others were.
    Named,
    /// It has elements that are not finite.
    Strange,
}

/// A matrix that could be pruned.
#[derive(Clone, PartialEq, Debug)]
pub struct Matrix {
    /// The model's node.
    pub name: String,
    /// Inputs and outputs.
    pub shape: [usize; 2],
    /// How many weights became 0.
    pub zeros: usize,
    /// The error of the product's results on the samples, relative to their energy.
    pub error: Option<f64>,
    /// What became of it.
    pub fate: Fate,
}

/// What was pruned.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct PruneReport {
    /// The part of the weights that was to become 0.
    pub asked: f64,
    /// Outputs and inputs of a block.
    pub block: [usize; 2],
    /// All matrices that could be pruned.
    pub matrices: Vec<Matrix>,
    /// How many rows of inputs it was calibrated on; 0: by magnitude.
    pub rows: usize,
}

impl PruneReport {
    /// The part of the chosen matrices' weights that became 0.
    pub fn reached(&self) -> f64 {
        let chosen = self.matrices.iter().filter(|m| m.fate == Fate::Pruned);
        let (zeros, all) = chosen.fold((0, 0), |(z, n), m| (z + m.zeros, n + m.shape[0] * m.shape[1]));
        zeros as f64 / all.max(1) as f64
    }
}

/// The report.
pub fn report(settings: &PruneSettings, found: &[Found], fates: &[Fate], fitted: &Fitted) -> PruneReport {
    let row = |(i, (m, &fate)): (usize, (&Found, &Fate))| {
        let fit = fitted.matrices.get(&i);
        Matrix {
            name: m.name().to_string(),
            shape: [m.k, m.n],
            zeros: fit.map_or(0, |f| f.zeros),
            error: fit.and_then(|f| f.error),
            fate,
        }
    };
    let matrices = found.iter().zip(fates).enumerate().map(row).collect();
    PruneReport { asked: settings.sparsity, block: settings.block, matrices, rows: fitted.rows }
}
