//! The machine's peak of multiply-adds, of f32, of bf16 or of bytes, as a program: what no kernel can be faster than.
//!
//! Each task runs a loop of multiply-adds over as many independent sums as registers hold, so that neither latency nor
//! memory limits it, only how many such instructions the CPU starts in a cycle.

use bertc_ir::kernel::{DotKind, Elem, Kernel, KernelBuilder, Reg, RegType};
use bertc_ir::{DType, Dim, Symbols, TensorType};

use crate::emit::x86;
use crate::plan::{Arg, Chunk, PortSpec, Program, Step};
use crate::target::Target;

/// Most tasks of a run.
pub const MAX_TASKS: i64 = 1 << 16;

/// Iterations of a task's loop: some 50 µs.
const ITERATIONS: i64 = 1 << 12;

/// Multiply-adds on each register in an iteration.
const UNROLL: usize = 8;

/// Registers that the sums leave to the factors, and to the emitter.
const SPARE: usize = 4;

/// A program that does nothing but multiply-adds.
#[derive(Clone, Debug)]
pub struct Peak {
    /// No inputs, one output, and one dim, which is the number of tasks, 1 to [`MAX_TASKS`].
    pub program: Program,
    /// Multiply-adds of a task.
    pub multiply_adds: u64,
}

/// The vectors that a peak is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Width {
    /// Lanes of 32 bits.
    pub lanes: u8,
    /// How many such registers there are.
    pub registers: usize,
    /// What is multiplied: f32, pairs of bf16, or with i8 four bytes, in the fastest way that the target has.
    pub dtype: DType,
}

/// Registers of AVX-512.
const WIDE: Width = Width { lanes: 16, registers: 32, dtype: DType::F32 };

impl Width {
    /// The registers that Cranelift uses: 128 bits.
    pub fn narrow(target: &Target) -> Width {
        Width { lanes: target.lanes(), registers: target.vector_registers(), dtype: DType::F32 }
    }

    /// Every width that there is an emitter for, narrow first; of bf16 where there are instructions for it, of bytes the
    /// widest.
    pub fn all(target: &Target) -> Vec<Width> {
        let mut all = vec![Width::narrow(target)];
        let most = x86::lanes(target).unwrap_or(0);
        let half = Width { lanes: 8, registers: 16, dtype: DType::F32 };
        all.extend([half, WIDE].into_iter().filter(|w| w.lanes <= most));
        if most == WIDE.lanes && target.has("avx512bf16") {
            all.push(Width { dtype: DType::BF16, ..WIDE });
        }
        let widest = all.iter().rfind(|w| w.dtype == DType::F32).copied();
        all.extend(widest.map(|w| Width { dtype: DType::I8, ..w }));
        all
    }
}

/// The program for such vectors; its symbols start with `name`.
pub fn peak(name: &str, target: &Target, width: Width) -> Peak {
    let Width { lanes, registers: _, dtype } = width;
    let sums = sums(width, target);
    let mut symbols = Symbols::default();
    let tasks = Dim::symbol(symbols.intern("tasks", 1, MAX_TASKS));
    let of_sums = if dtype == DType::I8 { DType::I32 } else { DType::F32 };
    let ty = TensorType::new(of_sums, vec![tasks.clone(), i64::from(lanes).into()]);
    let program = Program {
        name: name.to_string(),
        symbols,
        inputs: Vec::new(),
        outputs: vec![PortSpec { name: "sums".into(), ty }],
        kernels: vec![match dtype {
            DType::BF16 => pairs(lanes, sums),
            DType::I8 => quads(lanes, sums, target.fastest_int8()),
            _ => kernel(lanes, sums, target.is_x86_64()),
        }],
        consts: Vec::new(),
        buffers: Vec::new(),
        slots: Vec::new(),
        steps: vec![Step {
            kernel: 0,
            args: vec![Arg::Output(0)],
            tasks: vec![(tasks, Chunk::Fixed(1))],
            fallible: false,
            in_place: Vec::new(),
            source: "peak".into(),
        }],
    };
    let of_lane = match dtype {
        DType::BF16 => 2,
        DType::I8 => 4,
        _ => 1,
    };
    Peak { program, multiply_adds: ITERATIONS as u64 * (UNROLL * sums * usize::from(lanes) * of_lane) as u64 }
}

/// How many sums a kernel has.
fn sums(Width { registers, dtype, .. }: Width, target: &Target) -> usize {
    // Without an instruction for them, bytes are widened on their way.
    let widened = dtype == DType::I8 && !target.has_int8();
    let spare = if widened { 2 * SPARE } else { SPARE };
    registers.saturating_sub(spare).max(1)
}

/// `overwrite`: whether the target's multiply-add overwrites a factor (else the addend), which then is the sum, so that
/// no copies are needed.
fn kernel(lanes: u8, sums: usize, overwrite: bool) -> Kernel {
    let mut b = KernelBuilder::new("multiply_adds");
    let y = b.output("sums", DType::F32);
    // In order, neighbours are independent; an optimiser may put each sum's chain together.
    b.keep_order();
    let ty = RegType::vector(Elem::F32, lanes);
    // With these, sums stay near 0 to 1: neither infinite nor subnormal, which some CPUs are slow on.
    let (p, q) = if overwrite { (0.875, 0.125) } else { (1.0 / 1024.0, 1.0 / 1024.0) };
    // Carried around the loop, the factors are no constants to an emitter, which may keep those in memory.
    let mut init = vec![b.const_f(ty, p), b.const_f(ty, q)];
    init.extend((0..sums).map(|i| b.const_f(ty, i as f64 / sums as f64)));
    let (zero, end) = (b.int(0), b.int(ITERATIONS));
    let all = b.for_loop(zero, end, 1, &init, |b, _, carried| {
        let mut next = carried.to_vec();
        let (p, q) = (carried[0], carried[1]);
        for _ in 0..UNROLL {
            for s in &mut next[2..] {
                *s = if overwrite { b.fma(*s, p, q) } else { b.fma(p, q, *s) };
            }
        }
        next
    });
    store_sum(&mut b, y, &all[2..], lanes);
    b.finish()
}

/// The same on pairs of bf16.
fn pairs(lanes: u8, sums: usize) -> Kernel {
    let mut b = KernelBuilder::new("dot_products");
    let y = b.output("sums", DType::F32);
    b.keep_order();
    let (int, float) = (RegType::vector(Elem::I32, lanes), RegType::vector(Elem::F32, lanes));
    // Two halves of 2^-10 each: sums stay small.
    let mut init = vec![b.const_i(int, 0x3a80_3a80), b.const_i(int, 0x3a80_3a80)];
    init.extend((0..sums).map(|i| b.const_f(float, i as f64 / sums as f64)));
    let (zero, end) = (b.int(0), b.int(ITERATIONS));
    let all = b.for_loop(zero, end, 1, &init, |b, _, carried| {
        let mut next = carried.to_vec();
        for _ in 0..UNROLL {
            next[2..].iter_mut().for_each(|s| *s = b.dot(DotKind::Bf16, carried[0], carried[1], *s));
        }
        next
    });
    store_sum(&mut b, y, &all[2..], lanes);
    b.finish()
}

/// The same on four bytes at a time.
fn quads(lanes: u8, sums: usize, kind: DotKind) -> Kernel {
    let mut b = KernelBuilder::new("byte_products");
    let y = b.output("sums", DType::I32);
    b.keep_order();
    let int = RegType::vector(Elem::I32, lanes);
    let mut init = vec![b.const_i(int, 0x0102_0304), b.const_i(int, 0x0506_0708)];
    init.extend((0..sums).map(|i| b.const_i(int, i as i64)));
    let (zero, end) = (b.int(0), b.int(ITERATIONS));
    let all = b.for_loop(zero, end, 1, &init, |b, _, carried| {
        let mut next = carried.to_vec();
        for _ in 0..UNROLL {
            next[2..].iter_mut().for_each(|s| *s = b.dot(kind, carried[0], carried[1], *s));
        }
        next
    });
    store_sum(&mut b, y, &all[2..], lanes);
    b.finish()
}

/// Stores the sum of all `sums` as the task's vector of `y`, so that none of them is dead.
pub(crate) fn store_sum(b: &mut KernelBuilder, y: usize, sums: &[Reg], lanes: u8) {
    let sum = sums[1..].iter().fold(sums[0], |sum, &x| b.add(sum, x));
    let (width, task) = (b.int(lanes.into()), b.task());
    let at = b.mul(task, width);
    b.store(y, at, 0, sum);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object;

    #[test]
    fn the_loop_is_multiply_adds_alone() {
        for (arch, cpu, width, op) in [
            ("x86_64", "x86-64-v3", None, "vfmadd"),
            ("x86_64", "x86-64-v3", Some(Width { lanes: 8, registers: 16, dtype: DType::F32 }), "ymm"),
            ("x86_64", "sapphirerapids", Some(Width { dtype: DType::BF16, ..WIDE }), "vdpbf16ps"),
            ("x86_64", "x86-64-v4", Some(WIDE), "zmm"),
            ("x86_64", "cascadelake", Some(Width { dtype: DType::I8, ..WIDE }), "vpdpbusd"),
            ("x86_64", "alderlake", Some(Width { lanes: 8, registers: 16, dtype: DType::I8 }), "vpdpbusd"),
            ("aarch64", "generic", None, "fmla"),
            ("aarch64", "cortex-a76", Some(Width { lanes: 4, registers: 32, dtype: DType::I8 }), "sdot"),
        ] {
            let target = Target::parse(arch, cpu).unwrap();
            let width = width.unwrap_or(Width::narrow(&target));
            let p = peak("peak", &target, width);
            let asm = object::emit_asm(&[object::Variant { program: &p.program, target: &target }]).unwrap();
            let kernel = asm.split("\n\n").next().unwrap();
            let lines: Vec<&str> = kernel.lines().collect();
            let is = |l: &&str| {
                l.contains(op) && ["fmadd", "fmla", "vdpbf16ps", "vpdpbusd", "sdot"].iter().any(|op| l.contains(op))
            };
            let (first, last) = (lines.iter().position(&is), lines.iter().rposition(&is));
            let body = &lines[first.unwrap()..=last.unwrap()];
            let sums = width.registers - SPARE;
            assert_eq!(body.iter().filter(|l| is(l)).count(), UNROLL * sums, "{kernel}");
            assert_eq!(body.len(), UNROLL * sums, "copies or spills in\n{kernel}");
            let of_lane = match width.dtype {
                DType::BF16 => 2,
                DType::I8 => 4,
                _ => 1,
            };
            assert_eq!(p.multiply_adds, 4096 * 8 * sums as u64 * u64::from(width.lanes) * of_lane);
        }
    }

    #[test]
    fn wide_needs_the_cpu() {
        let widths = |cpu: &str| Width::all(&Target::parse("x86_64", cpu).unwrap());
        assert_eq!(widths("x86-64-v3").iter().map(|w| w.lanes).collect::<Vec<_>>(), [4, 8, 8]);
        let kinds: Vec<_> = widths("znver4").iter().map(|w| (w.lanes, w.dtype)).collect();
        let wide = [DType::F32, DType::BF16, DType::I8].map(|d| (16, d));
        assert_eq!(kinds, [&[(4, DType::F32), (8, DType::F32)], &wide[..]].concat());
    }

    /// Without spills, where the emitter has none: as many products as there are, and the least that each takes.
    #[test]
    fn bytes_are_multiplied_without_an_instruction_too() {
        for (arch, cpu, want) in [
            ("x86_64", "x86-64-v2", &[("pmaddwd", 2), ("psrlw", 0)][..]),
            ("x86_64", "x86-64-v3", &[("vpmaddwd", 2), ("vpsrlw", 0)]),
            ("x86_64", "x86-64-v4", &[("vpmaddwd", 2), ("vpsrlw", 0)]),
        ] {
            let target = Target::parse(arch, cpu).unwrap();
            let width = Width::all(&target).into_iter().find(|w| w.dtype == DType::I8).unwrap();
            let p = peak("peak", &target, width);
            let asm = object::emit_asm(&[object::Variant { program: &p.program, target: &target }]).unwrap();
            let kernel = asm.split("\n\n").next().unwrap();
            for (op, each) in want {
                let found = kernel.lines().filter(|l| l.split_whitespace().any(|w| w == *op)).count();
                let dots = UNROLL * sums(width, &target);
                let fits = if *each == 0 { found <= 4 } else { found == each * dots };
                assert!(fits, "{found} {op} for {dots} products on {cpu}\n{kernel}");
            }
        }
    }
}
