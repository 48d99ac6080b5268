//! Whether a constant matrix is worth being kept as blocks: what its zeros save, and what blocks cost.

use bertc_ir::ValueId;

use super::Lowering;
use super::gemm::{Plan, Tile};
use super::matmul::Shape;
use super::micro::Group;
use crate::plan::{Arg, ConstLayout, Lane, Part, SparseArray};
use crate::sparse::{Blocks, Lanes};
use crate::target::{Sparsity, Target};

/// What was found of a matrix with many zeros.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decision {
    /// The part of its elements that are zero.
    pub zeros: f64,
    /// The blocks that suit it best.
    pub blocks: Blocks,
    /// The part of them that is not zero.
    pub kept: f64,
    /// How much faster the product is expected to be than that of the packed matrix.
    pub gain: f64,
    /// Whether it is kept as blocks.
    pub sparse: bool,
}

/// A matrix with fewer zeros isn't looked at: at no size are blocks faster.
const FEWEST_ZEROS: f64 = 0.25;
/// What blocks must gain to be taken: estimates are not exact.
const LEAST_GAIN: f64 = 1.05;

impl Lowering<'_> {
    /// A constant matrix as blocks, if they are expected to be faster.
    pub(super) fn sparse(
        &mut self,
        matrix: ValueId,
        trans: bool,
        lane: Lane,
        (tile, group): (Tile, Group),
        shape: &Shape,
    ) -> Option<(Plan, [Arg; 3])> {
        let policy = self.target.sparsity;
        let one = shape.batch.as_const() == Some(1);
        let n = usize::try_from(shape.n.as_const().filter(|_| one && policy != Sparsity::Never)?).ok()?;
        let parts: Vec<Part> = self
            .parts_of(matrix)
            .iter()
            .map(|&p| self.g.as_const(p).cloned().map(Part::from))
            .collect::<Option<_>>()?;
        let zeros = zeros(&parts);
        if zeros < FEWEST_ZEROS && policy == Sparsity::Auto {
            return None;
        }
        let lanes = Lanes::of(&parts, trans, lane).ok()?;
        let total = lanes.outputs * lanes.inputs;
        let each = Blocks::all(lane).into_iter().map(|blocks| {
            let count = lanes.count(blocks);
            let kept = (count * blocks.lanes()) as f64 / total.max(1) as f64;
            let plan = Plan::new(blocks, &tile.even(), group, self.target);
            (plan, count, kept, plan.gain(&tile, group, kept, [lanes.inputs, n], self.target))
        });
        let (plan, count, kept, gain) = each.max_by(|a, b| a.3.total_cmp(&b.3))?;
        let sparse = gain >= LEAST_GAIN || policy == Sparsity::Always;
        self.decision = Some(Decision { zeros, blocks: plan.blocks, kept, gain, sparse });
        let count = u32::try_from(count).ok().filter(|_| sparse)?;
        let blocks = plan.blocks;
        let arrays = SparseArray::ALL.map(|array| {
            let layout = ConstLayout::Sparse { trans, lane, blocks, count, array };
            Arg::Const(self.constant(matrix, layout))
        });
        Some((plan, arrays))
    }
}

/// The part of elements that are zero.
fn zeros(parts: &[Part]) -> f64 {
    let count = |p: &Part| -> Option<(usize, usize)> {
        let (bytes, size) = (p.tensor().ok()?.bytes(), p.dtype().size());
        let float = p.dtype().is_float();
        // Of a float also the negative zero.
        let zero =
            |e: &&[u8]| e[..size - 1].iter().all(|&b| b == 0) && (e[size - 1] == 0 || float && e[size - 1] == 0x80);
        Some((bytes.chunks_exact(size).filter(zero).count(), bytes.len() / size))
    };
    let (zeros, all) = parts.iter().filter_map(count).fold((0, 0), |sum, c| (sum.0 + c.0, sum.1 + c.1));
    zeros as f64 / all.max(1) as f64
}

impl Plan {
    /// How much faster a product of `k` lanes and `n` outputs is expected to be with blocks, of which a part is kept, than
    /// with the packed matrix: fitted to measurements, see `docs/compression.md`.
    fn gain(&self, _tile: &Tile, group: Group, kept: f64, [k, n]: [usize; 2], _target: &Target) -> f64 {
        // Times of a multiplication, in those of the packed matrix.
        let slower = match (self.blocks.rows, self.blocks.by_inputs(), group) {
            (16, ..) => 1.05,
            (4, ..) => 1.1,
            (_, true, _) => 1.1,
            (_, _, Group::Quad(_)) => 1.5,
            _ => 2.2,
        };
        // Rows are copied once for all outputs, sums once for all inputs.
        let copies = 3.0 / n as f64 + if self.blocks.rows == 16 { 1.0 } else { 6.0 } / k as f64;
        1.0 / (kept * slower + copies)
    }
}
