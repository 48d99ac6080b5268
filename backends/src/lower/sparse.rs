//! Whether a constant matrix is worth being kept as blocks: what its zeros save, and what blocks cost.

use bertc_ir::ValueId;

use super::Lowering;
use super::gemm::{BlockPlan, Tile};
use super::matmul::Shape;
use super::micro::Group;
use crate::plan::{Arg, ConstLayout, Lane, Part, SparseArray};
use crate::sparse::{Blocks, Lanes};
use crate::target::{Sparsity, VectorUnits};

/// What was found of a matrix with many zeros.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decision {
    /// Inputs and outputs.
    pub size: [usize; 2],
    /// What its lanes hold.
    pub lane: Lane,
    /// The part of its elements that are zero.
    pub zeros: f64,
    /// The blocks that suit it best.
    pub blocks: Blocks,
    /// The part of them that is not zero.
    pub kept: f64,
    /// How much faster the product is expected to be than that of the packed matrix, of 16 and of 128 rows.
    pub gains: [f64; 2],
    /// Whether it is kept as blocks.
    pub sparse: bool,
}

impl Decision {
    /// Outputs and inputs of a block, in elements.
    pub fn block(&self) -> [usize; 2] {
        [self.blocks.rows.into(), usize::from(self.blocks.steps) * self.lane.elements()]
    }
}

/// A matrix with fewer zeros isn't looked at: at most a few percent could be gained.
const FEWEST_ZEROS: f64 = 0.25;
/// What blocks must gain to be taken, with 16 rows and with 128: estimates are not exact, and few rows must lose nothing.
const LEAST_GAINS: [f64; 2] = [1.0, 1.05];

impl Lowering<'_> {
    /// A constant matrix as blocks, if they are expected to be faster.
    pub(super) fn sparse(
        &mut self,
        matrix: ValueId,
        trans: bool,
        lane: Lane,
        (tile, group): (Tile, Group),
        shape: &Shape,
    ) -> Option<(BlockPlan, [Arg; 3])> {
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
        // Indices have 16 bits.
        let lanes = Lanes::of(&parts, trans, lane).ok().filter(|l| l.inputs <= 1 << 16)?;
        let total = lanes.outputs * lanes.inputs;
        let decisive = self.target.decisive_units();
        let each = Blocks::all(lane).into_iter().map(|blocks| {
            let count = lanes.count(blocks);
            let kept = (count * blocks.lanes()) as f64 / total.max(1) as f64;
            let plan = BlockPlan::new(blocks, &tile.even(), group, self.target);
            (plan, count, kept, plan.gains(decisive, group, kept))
        });
        let (plan, count, kept, gains) = each.max_by(|a, b| a.3[1].total_cmp(&b.3[1]))?;
        let sparse =
            gains.into_iter().zip(LEAST_GAINS).all(|(gain, least)| gain >= least) || policy == Sparsity::Always;
        let size = [lanes.inputs * lane.elements(), n];
        self.decision = Some(Decision { size, lane, zeros, blocks: plan.blocks, kept, gains, sparse });
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

/// The time of a product with blocks, of which a part is kept, in those of the product with the packed matrix: `a` times the
/// part plus `c`. With 16 rows and with 128.
type Cost = [(f64, f64); 2];

/// Fitted to what `testsuite/benches/sparse/fit.py` measures: for blocks of 16, of 4, of 1 output,
/// and for those that lie input by input; the latter of four i8 don't exist. Of floats, of pairs of bf16, and of fours of i8.
type Costs = [[Cost; 4]; 3];

/// Of what there is none of.
const NEVER: Cost = [(0.0, f64::INFINITY); 2];

/// Of AVX-512 on Zen 4.
#[rustfmt::skip]
const AVX512: Costs = [
    [[(1.70, 0.00), (1.11, 0.02)], [(1.90, 0.03), (1.30, 0.03)], [(2.50, 0.12), (2.60, 0.04)], [(0.82, 0.20), (0.97, 0.08)]],
    [[(1.55, 0.02), (1.20, 0.03)], [(1.95, 0.02), (0.95, 0.13)], [(2.85, 0.22), (2.60, 0.09)], [(1.90, 0.20), (1.50, 0.12)]],
    [[(1.34, 0.04), (1.37, 0.08)], [(1.24, 0.10), (0.98, 0.15)], [(2.40, 0.18), (2.00, 0.15)], NEVER],
];

/// Of AVX-512 on Ice Lake. Fours of i8 with 16 rows are those of a model, of which more is out of the cache when it is packed; pairs of bf16 as they are worse of its own, which are widened, and Zen 4's.
#[rustfmt::skip]
const TWO_AVX512: Costs = [
    [[(1.74, 0.01), (1.78, 0.06)], [(1.60, 0.07), (1.09, 0.06)], [(2.96, 0.14), (2.11, 0.11)], [(1.45, 0.15), (1.07, 0.09)]],
    [[(1.66, 0.02), (1.20, 0.06)], [(1.95, 0.04), (1.25, 0.13)], [(2.85, 0.26), (2.60, 0.09)], [(2.15, 0.20), (1.76, 0.12)]],
    [[(2.23, 0.03), (0.95, 0.20)], [(1.72, 0.15), (1.00, 0.18)], [(4.00, 0.19), (1.80, 0.25)], NEVER],
];

/// Of code with AVX2.
#[rustfmt::skip]
const AVX2: Costs = [
    [[(2.00, 0.00), (1.55, 0.01)], [(2.05, 0.00), (1.60, 0.01)], [(3.20, 0.04), (3.00, 0.00)], [(1.35, 0.15), (1.20, 0.11)]],
    [[(1.42, 0.02), (1.25, 0.02)], [(1.60, 0.05), (1.57, 0.04)], [(3.20, 0.00), (2.30, 0.00)], [(1.95, 0.15), (2.10, 0.09)]],
    [[(1.35, 0.02), (1.20, 0.03)], [(1.40, 0.06), (1.45, 0.07)], [(1.75, 0.07), (1.58, 0.04)], NEVER],
];

/// Of 128-bit code: measured with SSE2, taken for NEON too.
#[rustfmt::skip]
const NARROW: Costs = [
    [[(1.35, 0.00), (1.35, 0.03)], [(1.30, 0.01), (1.38, 0.01)], [(1.50, 0.01), (1.90, 0.00)], [(1.12, 0.03), (1.28, 0.02)]],
    [[(1.15, 0.01), (1.20, 0.01)], [(1.40, 0.02), (1.50, 0.02)], [(1.50, 0.00), (1.50, 0.00)], [(2.10, 0.02), (2.15, 0.02)]],
    [[(1.12, 0.03), (1.10, 0.03)], [(1.55, 0.03), (1.50, 0.04)], [(1.35, 0.05), (1.40, 0.04)], NEVER],
];

impl BlockPlan {
    /// How much faster a product is expected to be with these blocks, of which a part is kept, than with the packed matrix: of
    /// 16 rows and of 128.
    fn gains(&self, units: VectorUnits, group: Group, kept: f64) -> [f64; 2] {
        let costs: &[&Costs] = match units {
            VectorUnits::Narrow => &[&NARROW],
            VectorUnits::Avx2 => &[&AVX2],
            VectorUnits::Avx512 => &[&AVX512],
            VectorUnits::TwoAvx512 => &[&TWO_AVX512],
            VectorUnits::AnyAvx512 => &[&AVX512, &TWO_AVX512],
        };
        let group = match group {
            Group::One => 0,
            Group::Pair => 1,
            Group::Quad(_) => 2,
        };
        let form = match self.blocks.rows {
            16 => 0,
            4 => 1,
            _ => 2 + usize::from(self.blocks.by_inputs()),
        };
        let gains = costs.iter().map(|all| all[group][form].map(|(a, c)| 1.0 / (kept * a + c)));
        gains.fold([f64::INFINITY; 2], |least, own| [0, 1].map(|i| f64::min(least[i], own[i])))
    }
}
