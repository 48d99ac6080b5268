//! Writes a program as an object file: ELF, Mach-O or COFF.
//!
//! Architecture invariant: the file has no undefined symbol, and the same program gives the same bytes. Exported are
//! `P_model` and the functions it points to, of several variants also `P_variants` and `P_select_variant`; everything else is
//! local. Kernels keep their names for profilers.

mod check;
mod compile;
mod cpuid;
mod descriptor;
mod unwind;
mod weights;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bertc_ir::Diag;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_module::{DataDescription, DataId, FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget};
use cranelift_object::object::write::Object;
use cranelift_object::object::{BinaryFormat, SectionKind, SymbolScope};
use cranelift_object::{ObjectBuilder, ObjectModule};

use self::check::internal;
use self::compile::{Body, Code, Item};
use self::descriptor::{Entries, Tables};
use self::weights::Layout;
use crate::emit::driver;
use crate::plan::{ALIGN, Program};
use crate::target::Target;

/// Options of [`emit_object`].
#[derive(Clone, Debug, Default)]
pub struct EmitOptions {
    /// Hash of the model and the flags, in hex; goes into the descriptor.
    pub hash: String,
    /// Folder for a temporary file as large as the weights; the system's by default.
    pub temp_dir: Option<PathBuf>,
    /// Every step calls the caller's `parallel_for` once, also one of a single task or with a single worker, so that the
    /// caller can time it.
    pub profile: bool,
}

/// What an object consists of. All sizes are in bytes.
#[derive(Clone, Debug, Default)]
pub struct ObjectStats {
    /// Code, without padding between functions.
    pub text: u64,
    /// Descriptor, names and messages.
    pub rodata: u64,
    /// Packed constants.
    pub consts: u64,
    /// What debuggers and profilers read to find callers.
    pub unwind: u64,
    /// Each kernel's symbol and code size, in the program's order.
    pub kernels: Vec<(String, u64)>,
}

/// A model's program for one CPU.
#[derive(Clone, Copy, Debug)]
pub struct Variant<'a> {
    /// The program.
    pub program: &'a Program,
    /// The CPU that it was lowered for.
    pub target: &'a Target,
}

impl Variant<'_> {
    /// The CPU's name as a part of symbols.
    fn level(&self) -> String {
        self.target.cpu.replace('-', "_")
    }
}

/// [`emit_variants`] of one.
///
/// # Errors
/// As [`emit_variants`].
pub fn emit_object(
    program: &Program,
    target: &Target,
    opts: &EmitOptions,
    out: &mut dyn Write,
) -> Result<ObjectStats, Vec<Diag>> {
    emit_variants(&[Variant { program, target }], opts, out)
}

/// Writes an object file to `out` with `variants` of one model, over one copy of equal constants. Where there are several,
/// the object runs the last one that the CPU has the instructions for; the first one suits every CPU of the architecture.
///
/// # Errors
/// A program that can't be emitted for its target, variants of which the first doesn't suit every CPU, and what `out`
/// returns.
pub fn emit_variants(
    variants: &[Variant<'_>],
    opts: &EmitOptions,
    out: &mut dyn Write,
) -> Result<ObjectStats, Vec<Diag>> {
    let (mut isas, layout, items) = front(variants, opts.profile)?;
    let code = compile::compile(items, &isas, false)?;
    let one = |d: Diag| vec![d];
    let program = variants[0].program;
    let name = program.name.clone();
    let isa = Arc::clone(&isas[0]);
    let builder = ObjectBuilder::new(isas.swap_remove(0), name, cranelift_module::default_libcall_names())
        .map_err(|e| one(Diag::new(format!("no object file can be written for the target: {e}"))))?;
    let mut module = ObjectModule::new(builder);
    let (mut stats, weights, ids) = fill(&mut module, variants, opts, &code).map_err(one)?;

    let product = module.finish();
    let symbol = weights.map(|w| product.data_symbol(w));
    let functions = code.into_iter().zip(&ids).map(|((_, c), &id)| (product.function_symbol(id), c.unwind));
    let functions: Vec<_> = functions.collect();
    let map;
    // The object only now takes the lifetime of the map that it borrows from.
    let mut object: Object<'_> = product.object;
    stats.unwind = unwind::add(&mut object, &*isa, &functions).map_err(one)?;
    if let Some(symbol) = symbol {
        let programs: Vec<&Program> = variants.iter().map(|v| v.program).collect();
        map = layout.write(&programs, opts.temp_dir.as_deref()).map_err(|e| {
            one(Diag::new(format!("can't write the temporary file of {} bytes of weights: {e}", layout.size)))
        })?;
        let (segment, section) = match object.format() {
            BinaryFormat::MachO => ("__TEXT", "__bertc_weights".to_string()),
            BinaryFormat::Coff => ("", ".rdata$w".to_string()),
            _ => ("", format!(".rodata.{}_weights", program.name)),
        };
        let section = object.add_section(segment.into(), section.into(), SectionKind::ReadOnlyData);
        object.set_section_data(section, Cow::Borrowed(&map[..]), ALIGN);
        // Declared as an import, because the module had no data for it.
        object.symbol_mut(symbol).scope = SymbolScope::Compilation;
        object.set_symbol_data(symbol, section, 0, layout.size);
        stats.consts = layout.size;
    }
    let mut out = BufWriter::with_capacity(1 << 18, out);
    object.write_stream(&mut out).map_err(|e| one(Diag::new(format!("can't write the object: {e}"))))?;
    Ok(stats)
}

/// The CLIF of every function of an object, kernels first.
///
/// # Errors
/// As [`emit_variants`].
pub fn emit_clif(variants: &[Variant<'_>]) -> Result<String, Vec<Diag>> {
    let (_, _, items) = front(variants, false)?;
    let mut text = String::new();
    for (i, item) in items.iter().enumerate() {
        if let Body::Clif { func, .. } = &item.body {
            listing(&mut text, i, &item.name, func.display());
        }
    }
    Ok(text)
}

/// The assembly of every function of an object, kernels first, as Cranelift writes it, that of wide kernels
/// in Intel's syntax.
///
/// # Errors
/// As [`emit_variants`].
pub fn emit_asm(variants: &[Variant<'_>]) -> Result<String, Vec<Diag>> {
    let (isas, _, items) = front(variants, false)?;
    let code = compile::compile(items, &isas, true)?;
    let mut text = String::new();
    for (i, (item, c)) in code.iter().enumerate() {
        if let Some(l) = &c.listing {
            listing(&mut text, i, &item.name, l);
        }
    }
    Ok(text)
}

/// A function's text under its symbol and the name by which other functions refer to it.
fn listing(text: &mut String, index: usize, name: &str, body: impl std::fmt::Display) {
    let body = body.to_string();
    // Writing to a string can't fail.
    let _ = writeln!(text, "; {name} (u{}:{index})\n{}\n", driver::FUNCTIONS, body.trim_end());
}

/// Checks `variants` and makes the functions.
fn front(variants: &[Variant<'_>], profile: bool) -> Result<(Vec<OwnedTargetIsa>, Layout, Vec<Item>), Vec<Diag>> {
    let errors: Vec<Diag> = variants.iter().flat_map(|v| check::check(v.program)).collect();
    if !errors.is_empty() {
        return Err(errors);
    }
    check::variants(variants).map_err(|d| vec![d])?;
    let mut isas = Vec::with_capacity(variants.len());
    for v in variants {
        let isa = v.target.isa().map_err(|d| vec![d])?;
        if isa.pointer_bits() != 64 {
            return Err(vec![Diag::new(format!("the target {} is not a 64-bit one", isa.triple()))]);
        }
        isas.push(isa);
    }
    let layout = Layout::new(variants.iter().map(|v| v.program))?;
    let items = compile::functions(variants, &isas, &layout.offsets, profile)?;
    Ok((isas, layout, items))
}

/// Puts code and descriptor into `module`. The symbol of the weights, if there are any, stays to be defined. With it,
/// the functions in the order of `code`.
fn fill(
    module: &mut ObjectModule,
    variants: &[Variant<'_>],
    opts: &EmitOptions,
    code: &[(Item, Code)],
) -> Result<(ObjectStats, Option<DataId>, Vec<FuncId>), Diag> {
    let program = variants[0].program;
    let p = &program.name;
    // Our own references are checked by index, so the module need not know any signature.
    let signature = Signature::new(CallConv::SystemV);
    let mut ids = Vec::with_capacity(code.len());
    for (item, _) in code {
        let linkage = if item.export { Linkage::Export } else { Linkage::Local };
        ids.push(module.declare_function(&item.name, linkage, &signature).map_err(module_error)?);
    }
    let tables = Tables::declare(module, p, variants.len() > 1)?;
    let weights = if variants.iter().all(|v| v.program.consts.is_empty()) {
        None
    } else {
        let name = format!("{p}_weights");
        Some(module.declare_data(&name, Linkage::Import, false, false).map_err(module_error)?)
    };
    let level = if code.iter().any(|(_, c)| c.relocs.iter().any(|r| names(r) == Some((driver::DATA, driver::LEVEL)))) {
        Some(define_level(module, p)?)
    } else {
        None
    };
    let data = [(driver::ERRORS, Some(tables.tables)), (driver::WEIGHTS, weights), (driver::LEVEL, level)];

    let mut stats = ObjectStats::default();
    for ((item, c), &id) in code.iter().zip(&ids) {
        let relocs = c
            .relocs
            .iter()
            .map(|r| Ok(ModuleReloc { name: resolve(r, &ids, &data)?, ..r.clone() }))
            .collect::<Result<Vec<_>, Diag>>()?;
        module.define_function_bytes(id, c.align, &c.bytes, &relocs).map_err(module_error)?;
        stats.text += c.bytes.len() as u64;
        if item.kernel {
            stats.kernels.push((item.name.clone(), c.bytes.len() as u64));
        }
    }
    let entry = |name: &str| {
        let full = format!("{p}_{name}");
        let at = code.iter().position(|(item, _)| item.export && item.name == full);
        at.map(|i| ids[i]).ok_or_else(|| internal(format!("no function '{full}'")))
    };
    let entries = Entries {
        workspace_size: entry("workspace_size")?,
        run: entry("run")?,
        strerror: entry("strerror")?,
        output_shape: entry("output_shape")?,
    };
    let names: Vec<&str> = variants.iter().map(|v| v.target.cpu.as_str()).collect();
    stats.rodata = tables.define(module, program, &opts.hash, &entries, &names)?;
    Ok((stats, weights, ids))
}

/// Four bytes for the CPU's level: all that an object ever writes of its own.
fn define_level(module: &mut ObjectModule, name: &str) -> Result<DataId, Diag> {
    let id = module.declare_data(&format!("{name}_cpu"), Linkage::Local, true, false).map_err(module_error)?;
    let mut zeros = DataDescription::new();
    zeros.define_zeroinit(4);
    zeros.set_align(4);
    module.define_data(id, &zeros).map_err(module_error)?;
    Ok(id)
}

/// Name space and index of a reference of ours.
fn names(r: &ModuleReloc) -> Option<(u32, u32)> {
    match r.name {
        ModuleRelocTarget::User { namespace, index } => Some((namespace, index)),
        _ => None,
    }
}

/// The module's name for the target of a reference.
fn resolve(r: &ModuleReloc, functions: &[FuncId], data: &[(u32, Option<DataId>)]) -> Result<ModuleRelocTarget, Diag> {
    let (namespace, index) = names(r).ok_or_else(|| internal(format!("a reference to {}", r.name)))?;
    let found = match namespace {
        driver::FUNCTIONS => functions.get(index as usize).map(|&f| f.into()),
        driver::DATA => data.iter().find(|d| d.0 == index).and_then(|d| d.1).map(Into::into),
        _ => None,
    };
    found.ok_or_else(|| internal(format!("a reference to u{namespace}:{index}")))
}

fn module_error(e: impl std::fmt::Display) -> Diag {
    internal(format!("the object file can't be made: {e}"))
}
