//! From a program to machine code: the list of functions, and their compilation on all cores.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use bertc_ir::Diag;
use cranelift_codegen::ir::Function;
use cranelift_codegen::isa::TargetIsa;
use cranelift_module::{FuncId, ModuleReloc, ModuleRelocTarget};

use super::check::internal;
use super::cpuid;
use crate::emit::clif::{self, emit_kernel};
use crate::emit::{driver, x86};
use crate::plan::Program;
use crate::target::Target;

/// A function of the object. Its position in the list is its index in references.
pub(crate) struct Item {
    /// Its symbol.
    pub name: String,
    /// Whether it is part of the C interface.
    pub export: bool,
    /// Whether it is a kernel.
    pub kernel: bool,
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
        /// Its bytes, without references to anything.
        code: Vec<u8>,
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
}

/// All functions of `program`: kernels in their order, then the CPU check if any, then the driver. `profile` is that of
/// [`super::EmitOptions`].
pub(crate) fn functions(
    program: &Program,
    target: &Target,
    isa: &dyn TargetIsa,
    consts: &[u64],
    profile: bool,
) -> Result<Vec<Item>, Vec<Diag>> {
    let bodies = parallel(&program.kernels, |k| {
        // Cranelift has no registers of more than 128 bits.
        if k.regs.iter().any(|r| r.lanes > 4) {
            return Ok(Body::Bytes { code: x86::emit_kernel(k, target)?, align: x86::ALIGN });
        }
        Ok(Body::Clif { func: Box::new(emit_kernel(k, isa, target)?), ordered: k.ordered })
    });
    let mut items = Vec::new();
    let mut errors = Vec::new();
    let mut names = std::collections::BTreeSet::new();
    for (k, body) in program.kernels.iter().zip(bodies) {
        let clean: String = k.name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '_' }).collect();
        let mut name = format!("{}_k_{clean}", program.name);
        if !names.insert(name.clone()) {
            name = (2..).map(|i| format!("{name}_{i}")).find(|n| names.insert(n.clone())).expect("a free name");
        }
        match body {
            Ok(body) => items.push(Item { name, export: false, kernel: true, body }),
            Err(d) => errors.push(d),
        }
    }
    if !errors.is_empty() {
        return Err(errors);
    }
    let mut cpu_check = None;
    let features = target.required_x86_features();
    if !features.is_empty() {
        let body = Body::Bytes { code: cpuid::check_function(&features).map_err(|d| vec![d])?, align: 16 };
        cpu_check = Some(items.len());
        items.push(Item { name: format!("{}_cpu_check", program.name), export: false, kernel: false, body });
    }
    let driver = driver::Options { cpu_check, profile };
    for f in driver::emit(program, isa, consts, items.len(), driver) {
        let name = format!("{}_{}", program.name, f.name);
        items.push(Item {
            name,
            export: f.export,
            kernel: false,
            body: Body::Clif { func: Box::new(f.body), ordered: false },
        });
    }
    Ok(items)
}

/// Compiles all functions, in the order given.
pub(crate) fn compile(items: Vec<Item>, isa: &dyn TargetIsa, listing: bool) -> Result<Vec<(Item, Code)>, Vec<Diag>> {
    let codes = parallel(&items, |item| match &item.body {
        Body::Bytes { code, align } => Ok(Code {
            bytes: code.clone(),
            align: *align,
            relocs: Vec::new(),
            listing: listing.then(|| x86::disassemble(code)),
        }),
        Body::Clif { func, ordered } => compile_one(item, func, *ordered, isa, listing),
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
    Ok(Code {
        bytes: code.buffer.data().to_vec(),
        align: code.buffer.alignment.into(),
        relocs,
        listing: code.vcode.clone(),
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
