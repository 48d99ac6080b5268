//! Compiles kernels through Cranelift and runs them on every target.

use std::process::Command;

use bertc_backends::emit::clif::{compile, emit_kernel};
use bertc_backends::target::Target;
use bertc_ir::kernel::Kernel;
use cranelift_module::{Linkage, Module, ModuleReloc, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};

#[path = "../common/native.rs"]
mod native;

use native::Call;
pub use native::{Arg, Outcome, undefined};

type Check = Box<dyn Fn(&Outcome, &Target)>;

/// A kernel, its arguments, how often it is called, and what must hold afterwards.
pub struct Case {
    pub kernel: Kernel,
    pub args: Vec<Arg>,
    pub tasks: u64,
    pub check: Check,
}

impl Case {
    pub fn new(kernel: Kernel, args: Vec<Arg>, check: impl Fn(&Outcome, &Target) + 'static) -> Case {
        Case { kernel, args, tasks: 1, check: Box::new(check) }
    }
}

/// Baseline, SSE4.1 without VEX, AVX2 with FMA, this machine, and AArch64.
pub const TARGETS: &[(&str, &str)] = &[
    ("x86_64", "generic"),
    ("x86_64", "x86-64-v2"),
    ("x86_64", "x86-64-v3"),
    ("native", "native"),
    ("aarch64", "generic"),
    ("aarch64", "cortex-a76"),
];

/// The object with every kernel as `k0`, `k1`, …
pub fn object(kernels: &[&Kernel], target: &Target) -> Vec<u8> {
    let isa = target.isa().unwrap();
    let builder = ObjectBuilder::new(isa.clone(), "test", default_libcall_names()).unwrap();
    let mut module = ObjectModule::new(builder);
    for (i, k) in kernels.iter().enumerate() {
        let func = emit_kernel(k, &*isa, target).unwrap();
        let id = module.declare_function(&format!("k{i}"), Linkage::Export, &func.signature).unwrap();
        let code = compile(&func, k.ordered, &*isa, false).unwrap_or_else(|e| panic!("kernel '{}': {e:?}", k.name));
        let align = u64::from(code.buffer.alignment);
        let relocs: Vec<ModuleReloc> =
            code.buffer.relocs().iter().map(|r| ModuleReloc::from_mach_reloc(r, &func, id)).collect();
        module.define_function_bytes(id, align, code.buffer.data(), &relocs).unwrap();
    }
    module.finish().emit().unwrap()
}

/// The C compiler and the emulator for a target; `Err` is why it can't run here.
fn tools(target: &Target) -> Result<(&'static str, Option<&'static str>), String> {
    let there = |p: &str| Command::new(p).arg("--version").output().is_ok_and(|o| o.status.success());
    let need = |p: &'static str| if there(p) { Ok(p) } else { Err(format!("no {p}")) };
    if target.runs_here() {
        return Ok((need("cc")?, None));
    }
    if target.is_x86_64() {
        return Err("this machine can't run it".to_string());
    }
    Ok((need("aarch64-linux-gnu-gcc")?, Some(need("qemu-aarch64")?)))
}

/// Compiles and runs the cases on one target.
pub fn run_on(target: &Target, cases: &[Case]) {
    let kernels: Vec<&Kernel> = cases.iter().map(|c| &c.kernel).collect();
    let bytes = object(&kernels, target);
    assert_eq!(undefined(&bytes), Vec::<String>::new(), "undefined symbols on {} {}", target.triple, target.cpu);
    let (cc, emulator) = match tools(target) {
        Ok(t) => t,
        Err(why) => {
            eprintln!("skipped: kernels on {} {}: {why}", target.triple, target.cpu);
            return;
        }
    };
    let calls: Vec<Call<'_>> = cases.iter().map(|c| Call { args: &c.args, tasks: c.tasks }).collect();
    for (c, outcome) in cases.iter().zip(native::run(&bytes, &calls, cc, emulator)) {
        (c.check)(&outcome, target);
    }
}

/// Compiles and runs the cases on every target.
pub fn run_all(cases: &[Case]) {
    for (triple, cpu) in TARGETS {
        let target = Target::parse(triple, cpu).unwrap();
        run_on(&target, cases);
    }
}
