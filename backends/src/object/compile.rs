//! From a program to machine code: the list of functions, and their compilation on all cores.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bertc_ir::Diag;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::unwind::UnwindInfo;
use cranelift_codegen::isa::{OwnedTargetIsa, TargetIsa};
use cranelift_module::{FuncId, ModuleReloc, ModuleRelocTarget};

use super::check::internal;
use super::unwind::{self, Unwind};
use super::{Variant, cpuid};
use crate::emit::clif::{self, emit_kernel};
use crate::emit::driver::{self, DriverFunction};
use crate::emit::x86::{self, Frame, MachineCode};

/// A function of the object. Its position in the list is its index in references.
pub(crate) struct Item {
    /// Its symbol.
    pub name: String,
    /// Whether it is part of the C interface.
    pub export: bool,
    /// Whether it is a kernel.
    pub kernel: bool,
    /// The variant that it belongs to; what belongs to none has the first one's instructions.
    pub variant: usize,
    /// What it does.
    pub body: Body,
}

/// Code of a function.
pub(crate) enum Body {
    /// To be compiled.
    Clif {
        /// The function.
        func: Box<Function>,
        /// Whether its instructions keep their order.
        ordered: bool,
    },
    /// Already machine code.
    Bytes {
        /// Its bytes, without references to anything, and its frame.
        code: MachineCode,
        /// Alignment in bytes.
        align: u64,
    },
}

/// Machine code of a function.
pub(crate) struct Code {
    /// Its bytes.
    pub bytes: Vec<u8>,
    /// Alignment in bytes.
    pub align: u64,
    /// References to other functions and data, in the name spaces of [`driver`].
    pub relocs: Vec<ModuleReloc>,
    /// The listing, if asked for.
    pub listing: Option<String>,
    /// How to unwind, where the object's format says so.
    pub unwind: Option<Unwind>,
}

/// All functions of an object: of each variant the kernels in their order, the CPU check if any, and the driver; those of
/// several variants are chosen from by the CPU. `consts` are the offsets of each one's constants, `profile` is that of
/// [`super::EmitOptions`].
pub(crate) fn functions(
    variants: &[Variant<'_>],
    isas: &[OwnedTargetIsa],
    consts: &[Vec<u64>],
    profile: bool,
) -> Result<Vec<Item>, Vec<Diag>> {
    let several = variants.len() > 1;
    let mut list = List::default();
    let mut checks = Vec::new();
    let mut first_kernels = Vec::new();
    for (i, v) in variants.iter().enumerate() {
        let prefix = if several { format!("{}_{}", v.program.name, v.level()) } else { v.program.name.clone() };
        first_kernels.push(list.items.len());
        list.kernels(v, i, &*isas[i], &prefix)?;
        let features = v.target.required_x86_features();
        let check = if features.is_empty() {
            None
        } else {
            let code = cpuid::check_function(&features).map_err(|d| vec![d])?;
            Some(list.add(i, format!("{prefix}_cpu_check"), Body::Bytes { code, align: 16 }) as u32)
        };
        checks.push(check);
    }
    let (program, isa) = (variants[0].program, &*isas[0]);
    let cpu_level = checks.iter().any(Option::is_some).then(|| {
        let f = driver::cpu_level(isa, &checks, list.items.len());
        list.driver(0, &program.name, vec![f]);
        list.items.len() - 1
    });
    let options = driver::Options { cpu_level, profile, ..driver::Options::default() };
    if !several {
        let options = driver::Options { first: list.items.len(), ..options };
        list.driver(0, &program.name, driver::emit(program, isa, &consts[0], options));
        return Ok(list.items);
    }
    let mut entries = Vec::new();
    for (i, v) in variants.iter().enumerate() {
        // Which variant runs has been decided before its driver is called.
        let options = driver::Options { kernels: first_kernels[i], first: list.items.len(), cpu_level: None, profile };
        let functions = driver::emit_variant(v.program, &*isas[i], &consts[i], options);
        list.driver(i, &format!("{}_{}", program.name, v.level()), functions);
        let end = list.items.len() as u32;
        entries.push([end - 2, end - 1]);
    }
    let options = driver::Options { first: list.items.len(), ..options };
    list.driver(0, &program.name, driver::emit_dispatch(program, isa, &entries, &checks, options));
    Ok(list.items)
}

/// The list of functions as it grows.
#[derive(Default)]
struct List {
    items: Vec<Item>,
    kernels: BTreeSet<String>,
}

impl List {
    /// Adds a local function; its position.
    fn add(&mut self, variant: usize, name: String, body: Body) -> usize {
        self.items.push(Item { name, export: false, kernel: false, variant, body });
        self.items.len() - 1
    }

    fn driver(&mut self, variant: usize, prefix: &str, functions: Vec<DriverFunction>) {
        for f in functions {
            let body = Body::Clif { func: Box::new(f.body), ordered: false };
            let at = self.add(variant, format!("{prefix}_{}", f.name), body);
            self.items[at].export = f.export;
        }
    }

    fn kernels(&mut self, v: &Variant<'_>, variant: usize, isa: &dyn TargetIsa, prefix: &str) -> Result<(), Vec<Diag>> {
        let bodies = parallel(&v.program.kernels, |k| {
            // Cranelift has no registers of more than 128 bits.
            if k.regs.iter().any(|r| r.lanes > 4) {
                return Ok(Body::Bytes { code: x86::emit(k, v.target)?, align: x86::ALIGN });
            }
            Ok(Body::Clif { func: Box::new(emit_kernel(k, isa, v.target)?), ordered: k.ordered })
        });
        let mut errors = Vec::new();
        for (k, body) in v.program.kernels.iter().zip(bodies) {
            let clean: String = k.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
            let mut name = format!("{prefix}_k_{clean}");
            if !self.kernels.insert(name.clone()) {
                let free = (2..).map(|i| format!("{name}_{i}")).find(|n| self.kernels.insert(n.clone()));
                name = free.expect("a free name");
            }
            match body {
                Ok(body) => {
                    let at = self.add(variant, name, body);
                    self.items[at].kernel = true;
                }
                Err(d) => errors.push(d),
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}

/// Compiles all functions, in the order given; `isas` are those of the variants.
pub(crate) fn compile(
    items: Vec<Item>,
    isas: &[OwnedTargetIsa],
    listing: bool,
) -> Result<Vec<(Item, Code)>, Vec<Diag>> {
    let codes = parallel(&items, |item| match &item.body {
        Body::Bytes { code, align } => Ok(Code {
            bytes: code.bytes.clone(),
            align: *align,
            relocs: Vec::new(),
            listing: listing.then(|| x86::disassemble(&code.bytes)),
            unwind: Some(own_unwind(code)),
        }),
        Body::Clif { func, ordered } => compile_one(item, func, *ordered, &*isas[item.variant], listing),
    });
    let mut out = Vec::with_capacity(items.len());
    let mut errors = Vec::new();
    for (item, code) in items.into_iter().zip(codes) {
        match code {
            Ok(c) => out.push((item, c)),
            Err(d) => errors.push(d),
        }
    }
    if errors.is_empty() { Ok(out) } else { Err(errors) }
}

/// What a frame is in the terms of unwinders.
fn own_unwind(code: &MachineCode) -> Unwind {
    use gimli::write::CallFrameInstruction as Cfi;
    // The numbers of the psABI.
    let register = |number: u8| match number {
        1 => gimli::X86_64::RCX,
        2 => gimli::X86_64::RDX,
        3 => gimli::X86_64::RBX,
        5 => gimli::X86_64::RBP,
        6 => gimli::X86_64::RSI,
        7 => gimli::X86_64::RDI,
        n => gimli::Register(n.into()),
    };
    let step = |&(at, frame): &(u32, Frame)| {
        let cfi = match frame {
            Frame::Depth(bytes) => Cfi::CfaOffset(bytes as i32),
            Frame::Saved(r, below) => Cfi::Offset(register(r), -(below as i32)),
            Frame::Restored(r) => Cfi::Restore(register(r)),
        };
        (at, cfi)
    };
    Unwind::Own { len: code.bytes.len() as u32, steps: code.frame.iter().map(step).collect() }
}

fn compile_one(item: &Item, f: &Function, ordered: bool, isa: &dyn TargetIsa, listing: bool) -> Result<Code, Diag> {
    let failed = |e: &dyn std::fmt::Display| internal(format!("'{}' doesn't compile: {e}", item.name));
    let code = clif::compile(f, ordered, isa, listing).map_err(|e| failed(&e))?;
    // A function's own number only matters for references into itself, which nothing here makes.
    let this = FuncId::from_u32(0);
    let relocs: Vec<ModuleReloc> =
        code.buffer.relocs().iter().map(|r| ModuleReloc::from_mach_reloc(r, f, this)).collect();
    for r in &relocs {
        if !matches!(r.name, ModuleRelocTarget::User { .. }) {
            return Err(failed(&format_args!("it needs the library function {}", r.name)));
        }
    }
    let unwind = match code.create_unwind_info(isa).map_err(|e| failed(&e))? {
        Some(UnwindInfo::SystemV(info)) if unwind::supported(isa.triple().binary_format) => Some(Unwind::Clif(info)),
        _ => None,
    };
    Ok(Code {
        unwind,
        bytes: code.buffer.data().to_vec(),
        align: code.buffer.alignment.into(),
        relocs,
        // What Cranelift tells unwinders stands between the instructions, and is none.
        listing: code
            .vcode
            .as_ref()
            .map(|l| l.lines().filter(|l| !l.starts_with("  unwind ")).map(|l| format!("{l}\n")).collect()),
    })
}

/// `f` of every item, on all cores; results in the items' order.
fn parallel<T: Sync, R: Send>(items: &[T], f: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(items.len());
    if threads <= 1 {
        return items.iter().map(f).collect();
    }
    let next = AtomicUsize::new(0);
    let done = Mutex::new(Vec::with_capacity(items.len()));
    std::thread::scope(|s| {
        for _ in 0..threads {
            s.spawn(|| {
                while let Some((i, item)) =
                    Some(next.fetch_add(1, Ordering::Relaxed)).and_then(|i| Some((i, items.get(i)?)))
                {
                    let r = f(item);
                    done.lock().unwrap_or_else(PoisonError::into_inner).push((i, r));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    done.sort_by_key(|d| d.0);
    done.into_iter().map(|d| d.1).collect()
}
