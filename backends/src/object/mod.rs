//! Writes a program as an object file: ELF, Mach-O or COFF.
//!
//! Architecture invariant: the file has no undefined symbol, and the same program gives the same bytes. Exported are
//! `P_model` and the functions it points to; everything else is local. Kernels keep their names for profilers.

mod check;
mod compile;
mod cpuid;
mod descriptor;
mod weights;

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

use bertc_ir::Diag;
use cranelift_codegen::ir::Signature;
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_module::{DataId, FuncId, Linkage, Module, ModuleReloc, ModuleRelocTarget};
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
    /// Each kernel's symbol and code size, in the program's order.
    pub kernels: Vec<(String, u64)>,
}

/// Writes `program` as an object file for `target` to `out`.
pub fn emit_object(
    program: &Program,
    target: &Target,
    opts: &EmitOptions,
    out: &mut dyn Write,
) -> Result<ObjectStats, Vec<Diag>> {
    let (isa, layout, items) = front(program, target, opts.profile)?;
    let code = compile::compile(items, &*isa, false)?;
    let one = |d: Diag| vec![d];
    let name = program.name.clone();
    let builder = ObjectBuilder::new(isa, name, cranelift_module::default_libcall_names())
        .map_err(|e| one(Diag::new(format!("no object file can be written for the target: {e}"))))?;
    let mut module = ObjectModule::new(builder);
    let (mut stats, weights) = fill(&mut module, program, opts, &code).map_err(one)?;

    let product = module.finish();
    let symbol = weights.map(|w| product.data_symbol(w));
    let map;
    // The object only now takes the lifetime of the map that it borrows from.
    let mut object: Object<'_> = product.object;
    if let Some(symbol) = symbol {
        map = layout.write(program, opts.temp_dir.as_deref()).map_err(|e| {
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

/// The CLIF of every function of `program`, kernels first.
pub fn emit_clif(program: &Program, target: &Target) -> Result<String, Vec<Diag>> {
    let (_, _, items) = front(program, target, false)?;
    let mut text = String::new();
    for (i, item) in items.iter().enumerate() {
        if let Body::Clif { func, .. } = &item.body {
            listing(&mut text, i, &item.name, func.display());
        }
    }
    Ok(text)
}

/// The assembly of every function of `program`, kernels first, as Cranelift writes it, that of wide kernels
/// in Intel's syntax.
pub fn emit_asm(program: &Program, target: &Target) -> Result<String, Vec<Diag>> {
    let (isa, _, items) = front(program, target, false)?;
    let code = compile::compile(items, &*isa, true)?;
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

/// Checks `program` and makes its functions.
fn front(program: &Program, target: &Target, profile: bool) -> Result<(OwnedTargetIsa, Layout, Vec<Item>), Vec<Diag>> {
    let errors = check::check(program);
    if !errors.is_empty() {
        return Err(errors);
    }
    let isa = target.isa().map_err(|d| vec![d])?;
    if isa.pointer_bits() != 64 {
        return Err(vec![Diag::new(format!("the target {} is not a 64-bit one", isa.triple()))]);
    }
    let layout = Layout::new(program)?;
    let items = compile::functions(program, target, &*isa, &layout.offsets, profile)?;
    Ok((isa, layout, items))
}

/// Puts code and descriptor into `module`. The symbol of the weights, if there are any, stays to be defined.
fn fill(
    module: &mut ObjectModule,
    program: &Program,
    opts: &EmitOptions,
    code: &[(Item, Code)],
) -> Result<(ObjectStats, Option<DataId>), Diag> {
    let p = &program.name;
    // Our own references are checked by index, so the module need not know any signature.
    let signature = Signature::new(CallConv::SystemV);
    let mut ids = Vec::with_capacity(code.len());
    for (item, _) in code {
        let linkage = if item.export { Linkage::Export } else { Linkage::Local };
        ids.push(module.declare_function(&item.name, linkage, &signature).map_err(module_error)?);
    }
    let tables = Tables::declare(module, p)?;
    let weights = if program.consts.is_empty() {
        None
    } else {
        let name = format!("{p}_weights");
        Some(module.declare_data(&name, Linkage::Import, false, false).map_err(module_error)?)
    };

    let mut stats = ObjectStats::default();
    for ((item, c), &id) in code.iter().zip(&ids) {
        let relocs = c
            .relocs
            .iter()
            .map(|r| Ok(ModuleReloc { name: resolve(r, &ids, tables.tables, weights)?, ..r.clone() }))
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
    stats.rodata = tables.define(module, program, &opts.hash, &entries)?;
    Ok((stats, weights))
}

/// The module's name for the target of a reference.
fn resolve(
    r: &ModuleReloc,
    functions: &[FuncId],
    tables: DataId,
    weights: Option<DataId>,
) -> Result<ModuleRelocTarget, Diag> {
    let ModuleRelocTarget::User { namespace, index } = r.name else {
        return Err(internal(format!("a reference to {}", r.name)));
    };
    let found = match (namespace, index) {
        (driver::FUNCTIONS, i) => functions.get(i as usize).map(|&f| f.into()),
        (driver::DATA, driver::ERRORS) => Some(tables.into()),
        (driver::DATA, driver::WEIGHTS) => weights.map(Into::into),
        _ => None,
    };
    found.ok_or_else(|| internal(format!("a reference to u{namespace}:{index}")))
}

fn module_error(e: impl std::fmt::Display) -> Diag {
    internal(format!("the object file can't be made: {e}"))
}
