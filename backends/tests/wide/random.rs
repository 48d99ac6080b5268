//! Arbitrary valid kernels against the interpreter.

use bertc_backends::emit::x86::emit_kernel;
use bertc_ir::kernel::{Bin, Block, Elem, Inst, Kernel, Reg, RegType, verify};
use bertc_ir::{CmpOp, DType};

use crate::Test;
use crate::machine::{Arg, Case, run_codes, target, widest};

#[path = "../../../ir/tests/kernel_gen/mod.rs"]
mod kernel_gen;

pub const TESTS: &[Test] = &[("short_kernels", short_kernels), ("long_kernels", long_kernels)];

/// A sequence of numbers by its seed (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u32 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ z >> 31) as u32
    }
}

/// Makes what emitters may do in different ways the same for all: NaN is one when its bits are looked at, and extremes
/// are +0 where they are a zero. Registers of two lanes, which no code has, get four, and those of more than the target's get as many.
struct Settle<'a> {
    kernel: &'a mut Kernel,
}

impl Settle<'_> {
    fn new_reg(&mut self, ty: RegType) -> Reg {
        self.kernel.regs.push(ty);
        Reg(self.kernel.regs.len() as u32 - 1)
    }

    fn block(&mut self, b: Block) -> Block {
        let mut insts = Vec::new();
        for i in b.insts {
            self.inst(i, &mut insts);
        }
        Block { insts, yields: b.yields }
    }

    fn inst(&mut self, i: Inst, out: &mut Vec<Inst>) {
        let float = |k: &Kernel, r: Reg| matches!(k.ty(r).elem, Elem::F32 | Elem::F64);
        match i {
            Inst::For { dst, var, args, lo, hi, step, init, body } => {
                let body = self.block(body);
                out.push(Inst::For { dst, var, args, lo, hi, step, init, body });
            }
            Inst::If { dst, cond, then, otherwise } => {
                let (then, otherwise) = (self.block(then), self.block(otherwise));
                out.push(Inst::If { dst, cond, then, otherwise });
            }
            Inst::Bitcast { dst, a } if float(self.kernel, a) => {
                let t = self.kernel.ty(dst);
                let (bits, nan) = (self.new_reg(t), self.new_reg(t));
                let m = self.new_reg(RegType::vector(Elem::Mask, t.lanes));
                out.push(Inst::Bitcast { dst: bits, a });
                out.push(Inst::Cmp { dst: m, op: CmpOp::Ne, unsigned: false, a, b: a });
                out.push(Inst::ConstI { dst: nan, value: 77 });
                out.push(Inst::Select { dst, m, a: nan, b: bits });
            }
            Inst::Bin { op: Bin::Min | Bin::Max, .. } | Inst::Reduce { op: Bin::Min | Bin::Max, .. } => {
                let mut i = i;
                let (Inst::Bin { dst, .. } | Inst::Reduce { dst, .. }) = &mut i else { return };
                let result = *dst;
                if !float(self.kernel, result) {
                    out.push(i);
                    return;
                }
                let t = self.kernel.ty(result);
                let (extreme, zero) = (self.new_reg(t), self.new_reg(t));
                *dst = extreme;
                out.push(i);
                out.push(Inst::ConstF { dst: zero, value: 0.0 });
                out.push(Inst::Bin { dst: result, op: Bin::Add, a: extreme, b: zero });
            }
            Inst::Extract { dst, a, lane } => {
                let lane = lane % self.kernel.ty(a).lanes;
                out.push(Inst::Extract { dst, a, lane });
            }
            other => out.push(other),
        }
    }
}

fn settled(mut kernel: Kernel) -> Kernel {
    for t in &mut kernel.regs {
        if t.lanes == 2 {
            t.lanes = 4;
        }
        t.lanes = t.lanes.min(widest());
    }
    let body = std::mem::take(&mut kernel.body);
    let body = Settle { kernel: &mut kernel }.block(body);
    kernel.body = body;
    assert_eq!(verify(&kernel), Ok(()), "{kernel}");
    kernel
}

fn case(seed: u64, length: u32) -> Case {
    let mut numbers = Numbers(seed);
    let n = numbers.next() % length;
    let choices: Vec<u32> = (0..n).map(|_| numbers.next() >> 16).collect();
    let mut kernel = settled(kernel_gen::kernel(&choices));
    kernel.name = format!("seed {seed} of {length}");
    let mut args = Vec::new();
    for d in DType::ALL {
        for step in [3, 5] {
            args.push(Arg::Buffer((0..kernel_gen::LEN * d.size()).map(|i| (i * step) as u8).collect()));
        }
    }
    args.extend([Arg::Int(5), Arg::Int(-3)]);
    Case { kernel, args, tasks: 3 }
}

/// Runs the kernels that fit the registers; these must be most.
fn run_many(seeds: std::ops::Range<u64>, length: u32) -> Result<(), String> {
    let (mut cases, mut codes) = (Vec::new(), Vec::new());
    let all = seeds.end - seeds.start;
    for seed in seeds {
        let c = case(seed, length);
        match emit_kernel(&c.kernel, &target()) {
            Ok(code) => {
                cases.push(c);
                codes.push(code);
            }
            Err(e) if e.message.contains("are live at once") => (),
            Err(e) => return Err(format!("{e}\n{}", c.kernel)),
        }
    }
    if (cases.len() as u64) * 10 < all * 9 {
        return Err(format!("only {} of {all} kernels fit the registers", cases.len()));
    }
    run_codes(&cases, &codes)
}

fn short_kernels() -> Result<(), String> {
    run_many(0..400, 60)
}

fn long_kernels() -> Result<(), String> {
    run_many(1000..1200, 400)
}
