//! Compiles kernels into an object, links it with `driver.c`, runs it and hands back what is in the buffers.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use bertc_backends::emit::clif::{compile, emit_kernel};
use bertc_backends::target::Target;
use bertc_ir::kernel::Kernel;
use cranelift_module::{Linkage, Module, ModuleReloc, default_libcall_names};
use cranelift_object::{ObjectBuilder, ObjectModule};
use object::{Object, ObjectSymbol};

/// What is passed for a kernel's parameter.
#[derive(Clone)]
pub enum Arg {
    Int(i64),
    Buffer(Vec<u8>),
}

/// The buffers after a run, in the order of the parameters, and the error flag.
pub struct Outcome {
    pub flag: i32,
    pub buffers: Vec<Vec<u8>>,
}

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

/// Names that the object expects from elsewhere.
pub fn undefined(bytes: &[u8]) -> Vec<String> {
    let file = object::File::parse(bytes).unwrap();
    file.symbols().filter(|s| s.is_undefined()).map(|s| s.name().unwrap_or("?").to_string()).collect::<Vec<_>>()
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

fn input(cases: &[Case]) -> Vec<u8> {
    let mut v = (cases.len() as u64).to_le_bytes().to_vec();
    for c in cases {
        v.extend(c.tasks.to_le_bytes());
        v.extend((c.args.len() as u64).to_le_bytes());
        for a in &c.args {
            match a {
                Arg::Int(i) => v.extend([0u64.to_le_bytes(), i.to_le_bytes()].concat()),
                Arg::Buffer(b) => {
                    v.extend([1u64.to_le_bytes(), (b.len() as u64).to_le_bytes()].concat());
                    v.extend(b);
                }
            }
        }
    }
    v
}

fn link(dir: &Path, cc: &str, object: &[u8], count: usize) {
    let mut table =
        String::from("#include <stdint.h>\ntypedef void (*kernel_fn)(const uint64_t *, uint64_t, uint32_t);\n");
    let names: Vec<String> = (0..count).map(|i| format!("k{i}")).collect();
    for n in &names {
        writeln!(table, "void {n}(const uint64_t *, uint64_t, uint32_t);").unwrap();
    }
    writeln!(table, "const kernel_fn kernels[] = {{{}}};", names.join(", ")).unwrap();
    std::fs::write(dir.join("table.c"), table).unwrap();
    std::fs::write(dir.join("driver.c"), include_str!("driver.c")).unwrap();
    std::fs::write(dir.join("kernels.o"), object).unwrap();
    let args = ["-O1", "-Wall", "-Wextra", "-Werror", "-Wl,-z,noexecstack", "-o", "run"];
    let out = Command::new(cc).current_dir(dir).args(args).args(["driver.c", "table.c", "kernels.o"]).output().unwrap();
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
}

fn execute(dir: &Path, emulator: Option<&str>, input: Vec<u8>) -> Vec<u8> {
    let exe = dir.join("run");
    let mut command = match emulator {
        Some(e) => {
            let mut c = Command::new(e);
            c.args(["-L", "/usr/aarch64-linux-gnu"]).arg(&exe);
            c
        }
        None => Command::new(&exe),
    };
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().expect("a piped input");
    // From another thread: the child writes results while it still reads. A child that dies shows in its status.
    let writer = std::thread::spawn(move || stdin.write_all(&input).is_ok());
    let out = child.wait_with_output().unwrap();
    let written = writer.join().unwrap();
    assert!(out.status.success() && written, "{}: {}", out.status, String::from_utf8_lossy(&out.stderr));
    out.stdout
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
    let dir = tempfile::tempdir().unwrap();
    link(dir.path(), cc, &bytes, cases.len());
    let out = execute(dir.path(), emulator, input(cases));
    let mut rest = &out[..];
    let mut take = |n: usize| {
        let (a, b) = rest.split_at(n);
        rest = b;
        a.to_vec()
    };
    for c in cases {
        let flag = i32::from_le_bytes(take(4).try_into().expect("four bytes"));
        let sizes = c.args.iter().filter_map(|a| if let Arg::Buffer(b) = a { Some(b.len()) } else { None });
        let buffers = sizes.map(&mut take).collect();
        (c.check)(&Outcome { flag, buffers }, target);
    }
}

/// Compiles and runs the cases on every target.
pub fn run_all(cases: &[Case]) {
    for (triple, cpu) in TARGETS {
        let target = Target::parse(triple, cpu).unwrap();
        run_on(&target, cases);
    }
}
