//! Emits kernels with AVX-512 or AVX2, runs them, and compares what they leave in memory with the interpreter.

use std::cell::Cell;
use std::process::Command;

use bertc_backends::emit::x86::{self, emit_kernel};
use bertc_backends::target::Target;
use bertc_ir::DType;
use bertc_ir::kernel::interp::{self, Memory};
use bertc_ir::kernel::{Kernel, Param};
use cranelift_module::{Linkage, Module, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use half::{bf16, f16};

#[path = "../common/native.rs"]
mod native;

use crate::evex;
pub use native::Arg;
use native::{Call, Outcome, undefined};

/// A kernel and what it is called with.
pub struct Case {
    pub kernel: Kernel,
    pub args: Vec<Arg>,
    pub tasks: u64,
}

impl Case {
    pub fn new(kernel: Kernel, args: Vec<Arg>) -> Case {
        Case { kernel, args, tasks: 1 }
    }
}

/// Instructions that code is made of, by name and with the least CPU that has all of them.
pub const ISAS: [(&str, &str); 2] = [("avx512", "x86-64-v4"), ("avx2", "x86-64-v3")];

/// The same for code that has instructions for bf16.
pub const BF16_ISA: (&str, &str) = ("avx512bf16", "znver4");

/// The same for code that has instructions for products of bytes, in EVEX and in VEX forms.
pub const INT8_ISAS: [(&str, &str); 2] = [("avx512vnni", "cascadelake"), ("avxvnni", "alderlake")];

thread_local! {
    static CPU: Cell<&'static str> = const { Cell::new(ISAS[0].1) };
}

/// Sets the CPU of the tests that this thread runs from now on.
pub fn set_cpu(cpu: &'static str) {
    CPU.set(cpu);
}

/// The target of this thread's tests.
pub fn target() -> Target {
    Target::parse("x86_64", CPU.get()).unwrap()
}

/// Lanes of its widest registers.
pub fn widest() -> u8 {
    x86::lanes(&target()).expect("an emitter")
}

/// The numbers of lanes that its vectors have.
pub fn vectors() -> Vec<u8> {
    [4, 8, 16].into_iter().filter(|&n| n <= widest()).collect()
}

fn runs_here(cpu: &str) -> bool {
    Target::parse("x86_64", cpu).unwrap().runs_here()
}

/// Whether code for a CPU runs here only with its EVEX forms in the place of others.
fn in_evex(cpu: &str) -> bool {
    let [(_, evex), (_, vex)] = INT8_ISAS;
    cpu == vex && !runs_here(vex) && runs_here(evex)
}

/// Why kernels for a CPU can't run here, if they can't.
pub fn obstacle(cpu: &str) -> Option<String> {
    if !runs_here(cpu) && !in_evex(cpu) {
        return Some(format!("this machine is no {cpu}"));
    }
    let cc = Command::new("cc").arg("--version").output().is_ok_and(|o| o.status.success());
    (!cc).then(|| "no cc".to_string())
}

fn object(codes: &[Vec<u8>]) -> Vec<u8> {
    let builder = ObjectBuilder::new(target().isa().unwrap(), "test", default_libcall_names()).unwrap();
    let mut module = ObjectModule::new(builder);
    for (i, code) in codes.iter().enumerate() {
        let signature = module.make_signature();
        let id = module.declare_function(&format!("k{i}"), Linkage::Export, &signature).unwrap();
        module.define_function_bytes(id, 64, code, &[]).unwrap();
    }
    module.finish().emit().unwrap()
}

/// What the interpreter makes of a case.
fn expected(case: &Case) -> Result<Outcome, String> {
    let mut memory = Memory::default();
    let args: Vec<interp::Arg> = case
        .args
        .iter()
        .map(|a| match a {
            Arg::Int(i) => interp::Arg::Int(*i),
            Arg::Buffer(b) => interp::Arg::buffer(memory.add(b.clone())),
        })
        .collect();
    let ran = interp::run(&case.kernel, &mut memory, &args, 0..case.tasks)?;
    Ok(Outcome { flag: i32::from(ran.failed), buffers: memory.buffers })
}

/// The bits of an element, with one NaN for all.
fn canonical(dtype: DType, b: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..b.len()].copy_from_slice(b);
    let bits = u64::from_le_bytes(word);
    let nan = match dtype {
        DType::F32 => f32::from_bits(bits as u32).is_nan(),
        DType::F64 => f64::from_bits(bits).is_nan(),
        DType::F16 => f16::from_bits(bits as u16).is_nan(),
        DType::BF16 => bf16::from_bits(bits as u16).is_nan(),
        _ => false,
    };
    if nan { u64::MAX } else { bits }
}

fn compare(case: &Case, want: &Outcome, have: &Outcome) -> Result<(), String> {
    let name = &case.kernel.name;
    if want.flag != have.flag {
        return Err(format!("kernel '{name}': flag {}, expected {}\n{}", have.flag, want.flag, case.kernel));
    }
    let pointers = case.kernel.params.iter().filter_map(|p| match p {
        Param::Ptr { name, dtype, .. } => Some((name, *dtype)),
        Param::Int { .. } => None,
    });
    for ((param, dtype), (w, h)) in pointers.zip(want.buffers.iter().zip(&have.buffers)) {
        let size = dtype.size();
        for (i, (x, y)) in w.chunks(size).zip(h.chunks(size)).enumerate() {
            if canonical(dtype, x) != canonical(dtype, y) {
                let what = format!("kernel '{name}': {param}[{i}] is {y:x?}, expected {x:x?} ({dtype})");
                return Err(format!("{what}\n{}", case.kernel));
            }
        }
    }
    Ok(())
}

/// Emits the kernels of all cases.
pub fn emit(cases: &[Case]) -> Vec<Vec<u8>> {
    cases.iter().map(|c| emit_kernel(&c.kernel, &target()).unwrap_or_else(|e| panic!("{e}\n{}", c.kernel))).collect()
}

/// Runs the cases natively and by the interpreter.
pub fn run(cases: &[Case]) -> Result<(), String> {
    run_codes(cases, &emit(cases))
}

/// As [`run`], of kernels that are emitted already.
pub fn run_codes(cases: &[Case], codes: &[Vec<u8>]) -> Result<(), String> {
    let bytes = if in_evex(CPU.get()) {
        object(&codes.iter().map(|c| evex::in_evex(c)).collect::<Vec<_>>())
    } else {
        object(codes)
    };
    assert_eq!(undefined(&bytes), Vec::<String>::new());
    let calls: Vec<Call<'_>> = cases.iter().map(|c| Call { args: &c.args, tasks: c.tasks }).collect();
    let have = native::run(&bytes, &calls, "cc", None);
    for (case, have) in cases.iter().zip(&have) {
        compare(case, &expected(case)?, have)?;
    }
    Ok(())
}
