//! What a step can't be faster than: its multiply-adds at this machine's peak, and the bytes that it has to move at the
//! rate at which this machine reads.
//!
//! Counted is what every implementation must move at least once: the step's constants, operands and results, whatever
//! its tiles read again. `docs/performance.md` tells which of it has to come from memory.

use std::collections::{BTreeMap, BTreeSet};

use bertc_backends::lower::Traced;
use bertc_backends::pack;
use bertc_backends::plan::{Arg, Program, Step};
use bertc_ir::kernel::{Block, DotKind, Inst, Kernel};
use bertc_ir::{DType, Graph, Op, TensorType, ValueId};

use super::PeakRate;
use super::bandwidth::Bandwidth;
use super::peak::PeakKind;

/// Bytes that a step moves at least.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Traffic {
    /// Of constants.
    pub weights: u64,
    /// Of operands and results.
    pub data: u64,
}

impl Traffic {
    /// All of it.
    pub fn bytes(self) -> u64 {
        self.weights.saturating_add(self.data)
    }
}

/// What a program moves.
pub(super) struct Moved {
    /// Of each step, in order.
    pub steps: Vec<Traffic>,
    /// Constants that a run reads, each once.
    pub weights: u64,
}

/// The bytes that the steps of `traced`, lowered from `g`, move at `dims`.
pub(super) fn moved(g: &Graph, traced: &Traced, dims: &[i64]) -> Moved {
    let p = &traced.program;
    let mut constants: BTreeMap<usize, u64> = BTreeMap::new();
    let steps = p.steps.iter().zip(&traced.values).map(|(step, &v)| {
        // Of a table no more rows are taken than there are in the result.
        let rows = matches!(
            g.op(v),
            Op::Slice { .. } | Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } | Op::SumNorm(_)
        );
        let most = if rows { type_bytes(g.ty(v), dims) } else { u64::MAX };
        let mut t = Traffic::default();
        let mut seen: Vec<&Arg> = Vec::new();
        for arg in &step.args {
            if seen.contains(&arg) {
                continue;
            }
            seen.push(arg);
            let bytes = arg_bytes(p, arg, dims).min(most);
            if let Arg::Const(c) = arg {
                let known = constants.entry(*c).or_default();
                *known = bytes.max(*known);
                t.weights = t.weights.saturating_add(bytes);
            } else {
                t.data = t.data.saturating_add(bytes);
            }
        }
        // Of a buffer that several values share, a step may read a part: no more than its op's operands and result.
        if !rows && traced.values.iter().filter(|&&other| other == v).count() == 1 {
            t.data = t.data.min(op_bytes(g, v, dims));
        }
        t
    });
    let steps = steps.collect();
    Moved { steps, weights: constants.values().fold(0, |a, &b| a.saturating_add(b)) }
}

/// Size of what an argument points to.
fn arg_bytes(p: &Program, arg: &Arg, dims: &[i64]) -> u64 {
    match arg {
        Arg::Buffer(b) => p.buffers[*b].bytes.eval(dims).and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        Arg::Input(i) => type_bytes(&p.inputs[*i].ty, dims),
        Arg::Output(o) => type_bytes(&p.outputs[*o].ty, dims),
        Arg::Const(c) => pack::packed_size(&p.consts[*c]).unwrap_or(0),
        Arg::Scratch(_) | Arg::Again(_) | Arg::Int(_) | Arg::Chunk(..) => 0,
    }
}

fn type_bytes(ty: &TensorType, dims: &[i64]) -> u64 {
    let elements = ty.elements().and_then(|n| n.eval(dims)).and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
    elements.saturating_mul(ty.dtype.size() as u64)
}

/// An op's result and its operands that are no constants.
fn op_bytes(g: &Graph, v: ValueId, dims: &[i64]) -> u64 {
    let operands: BTreeSet<ValueId> = g.operands(v).iter().copied().filter(|&o| g.as_const(o).is_none()).collect();
    operands.into_iter().chain([v]).fold(0, |sum, v| sum.saturating_add(type_bytes(g.ty(v), dims)))
}

/// The peak that a kernel's products are measured against.
pub(super) fn kind(kernel: &Kernel) -> PeakKind {
    // Four lanes are the least that any target's vectors have.
    let lanes = kernel.regs.iter().map(|r| r.lanes).max().unwrap_or(1).max(4);
    PeakKind { dtype: factors(&kernel.body).unwrap_or(DType::F32), bits: 32 * u32::from(lanes) }
}

/// What a block has dot products of, if it has. Where there are no instructions for bf16, it is widened to f32: the emitter
/// knows, and no peak of it was measured.
fn factors(block: &Block) -> Option<DType> {
    block.insts.iter().find_map(|i| match i {
        Inst::Dot { kind: DotKind::Bf16, .. } => Some(DType::BF16),
        Inst::Dot { kind: DotKind::I8 | DotKind::I8Full | DotKind::U8I8, .. } => Some(DType::I8),
        Inst::For { body, .. } => factors(body),
        Inst::If { then, otherwise, .. } => factors(then).or_else(|| factors(otherwise)),
        _ => None,
    })
}

/// The kernel of a step.
pub(super) fn kernel<'a>(p: &'a Program, step: &Step) -> &'a Kernel {
    &p.kernels[step.kernel]
}

/// What was measured of the machine, with as many threads as the steps have.
pub(super) struct Machine<'a> {
    pub peaks: &'a [PeakRate],
    pub bandwidth: Bandwidth,
    /// Bytes of the last-level cache.
    pub last_level: u64,
}

/// What keeps a step from being faster.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Binding {
    /// The peak of multiply-adds.
    Compute,
    /// Reading from memory.
    Memory,
    /// Reading from the caches.
    Cache,
}

impl Binding {
    /// For tables.
    pub fn name(self) -> &'static str {
        match self {
            Binding::Compute => "multiply-adds",
            Binding::Memory => "memory",
            Binding::Cache => "cache",
        }
    }
}

/// The least times of a step or of several, in seconds.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Bound {
    /// For the multiply-adds.
    pub compute: f64,
    /// For the bytes that have to come from memory.
    pub memory: f64,
    /// For all bytes.
    pub cache: f64,
    /// The longest of the three; of several steps, the sum of theirs.
    pub time: f64,
}

impl Bound {
    /// The longest of the three; None where there is nothing to do.
    pub fn by(&self) -> Option<Binding> {
        let all = [(self.compute, Binding::Compute), (self.memory, Binding::Memory), (self.cache, Binding::Cache)];
        let longest = all.into_iter().reduce(|a, b| if b.0 > a.0 { b } else { a })?;
        (longest.0 > 0.0).then_some(longest.1)
    }

    /// Steps one after the other.
    pub fn and(&self, o: &Bound) -> Bound {
        Bound {
            compute: self.compute + o.compute,
            memory: self.memory + o.memory,
            cache: self.cache + o.cache,
            time: self.time + o.time,
        }
    }
}

impl Machine<'_> {
    /// Multiply-adds a second of a kind. If that one was not measured: of the same factors in other vectors, of f32 in such
    /// vectors, or of the fastest kind.
    pub fn peak(&self, kind: PeakKind) -> f64 {
        let of = |wanted: &dyn Fn(PeakKind) -> bool| {
            self.peaks.iter().filter(|p| wanted(p.kind)).map(|p| p.rate).reduce(f64::max)
        };
        let f32s = PeakKind { dtype: DType::F32, ..kind };
        let exact = of(&|k| k == kind);
        let like = || if kind.dtype == DType::F32 { None } else { of(&|k| k.dtype == kind.dtype) };
        exact.or_else(like).or_else(|| of(&|k| k == f32s)).or_else(|| of(&|_| true)).unwrap_or(0.0)
    }

    /// The bound of a step in a run that reads `weights` bytes of constants.
    pub fn bound(&self, multiply_adds: u64, kind: PeakKind, moved: Traffic, weights: u64) -> Bound {
        let cached = self.last_level as f64;
        // What of the last run's weights may still be in the cache, taken as an even share of each.
        let cold = (1.0 - cached / (weights as f64).max(1.0)).max(0.0);
        // What the cache can't hold while the step runs.
        let spilled = (moved.data as f64 - cached).max(0.0);
        let seconds = |n: f64, rate: f64| if rate > 0.0 { n / rate } else { 0.0 };
        let compute = seconds(multiply_adds as f64, self.peak(kind));
        let memory = seconds(moved.weights as f64 * cold + spilled, self.bandwidth.memory);
        let cache = seconds(moved.bytes() as f64, self.bandwidth.cache);
        Bound { compute, memory, cache, time: compute.max(memory).max(cache) }
    }
}

#[cfg(test)]
mod tests {
    use bertc_ir::kernel::{Elem, KernelBuilder, RegType};

    use super::*;

    const WIDE: PeakKind = PeakKind { dtype: DType::F32, bits: 512 };
    const NARROW: PeakKind = PeakKind { dtype: DType::F32, bits: 128 };

    fn machine(peaks: &[PeakRate]) -> Machine<'_> {
        Machine { peaks, bandwidth: Bandwidth { memory: 10.0, cache: 100.0 }, last_level: 1000 }
    }

    #[test]
    fn the_longest_of_the_three_binds() {
        let peaks = [PeakRate { kind: NARROW, rate: 25.0 }, PeakRate { kind: WIDE, rate: 100.0 }];
        let m = machine(&peaks);
        let moved = |weights, data| Traffic { weights, data };
        // All in the cache: nothing of it need come from memory.
        let b = m.bound(1000, WIDE, moved(200, 300), 1000);
        assert_eq!((b.compute, b.memory, b.cache, b.time), (10.0, 0.0, 5.0, 10.0));
        assert_eq!(b.by(), Some(Binding::Compute));
        assert_eq!(m.bound(1000, NARROW, moved(200, 300), 1000).time, 40.0);
        // Three quarters of the weights don't fit.
        let b = m.bound(1000, WIDE, moved(200, 300), 4000);
        assert_eq!((b.memory, b.by()), (15.0, Some(Binding::Memory)));
        let b = m.bound(0, WIDE, moved(0, 300), 4000);
        assert_eq!((b.time, b.by()), (3.0, Some(Binding::Cache)));
        assert_eq!(m.bound(0, WIDE, moved(0, 1100), 0).memory, 10.0);
        let both = b.and(&m.bound(1000, WIDE, Traffic::default(), 0));
        assert_eq!((both.time, both.by()), (13.0, Some(Binding::Compute)));
        assert_eq!(m.bound(0, WIDE, Traffic::default(), 0).by(), None);
        // Kinds that were not measured.
        assert_eq!(m.peak(PeakKind { dtype: DType::F32, bits: 256 }), 100.0);
        assert_eq!(m.peak(PeakKind { dtype: DType::BF16, bits: 128 }), 25.0);
        let bytes = PeakKind { dtype: DType::I8, bits: 512 };
        let peaks = [PeakRate { kind: NARROW, rate: 25.0 }, PeakRate { kind: bytes, rate: 400.0 }];
        assert_eq!(machine(&peaks).peak(PeakKind { bits: 128, ..bytes }), 400.0);
    }

    #[test]
    fn a_kernel_is_measured_against_its_own_kind() {
        for (dot, dtype) in [
            (None, DType::F32),
            (Some(DotKind::Bf16), DType::BF16),
            (Some(DotKind::I8), DType::I8),
            (Some(DotKind::I8Full), DType::I8),
            (Some(DotKind::U8I8), DType::I8),
        ] {
            let mut b = KernelBuilder::new("k");
            let (zero, a) = (b.int(0), b.const_i(RegType::vector(Elem::I32, 8), 1));
            b.for_loop(zero, zero, 1, &[], |b, _, _| {
                if let Some(kind) = dot {
                    let c = b.convert(a, kind.sum());
                    b.dot(kind, a, a, c);
                }
                vec![]
            });
            assert_eq!(kind(&b.finish()), PeakKind { dtype, bits: 256 });
        }
    }
}
