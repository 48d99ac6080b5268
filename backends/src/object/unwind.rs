//! How to get from any place in the object's code to the caller, for debuggers and profilers: `.eh_frame`.
//!
//! Only ELF has it. Nothing unwinds through a model by itself: no code of its own throws, and `parallel_for` must not.
//! Entries refer to functions by their section, since a linker refuses such references to exported symbols in a shared
//! library.

use bertc_ir::Diag;
use cranelift_codegen::isa::TargetIsa;
use cranelift_codegen::isa::unwind::systemv;
use cranelift_object::object::write::{Object, Relocation, SymbolId};
use cranelift_object::object::{
    BinaryFormat, RelocationEncoding, RelocationFlags, RelocationKind, SectionKind, write::SectionId,
};
use gimli::write::{
    Address, CallFrameInstruction, EhFrame, EndianVec, FrameDescriptionEntry, FrameTable, RelocateWriter,
    RelocationTarget,
};
use gimli::{DW_EH_PE_pcrel, DW_EH_PE_sdata4, LittleEndian};

use super::check::internal;

/// What a function does to the stack and to the registers of its caller.
#[derive(Clone, Debug)]
pub(crate) enum Unwind {
    /// As Cranelift tells.
    Clif(systemv::UnwindInfo),
    /// Of code that is as long as `len`: after so many bytes this holds.
    Own { len: u32, steps: Vec<(u32, CallFrameInstruction)> },
}

impl Unwind {
    fn entry(&self, address: Address) -> FrameDescriptionEntry {
        match self {
            Unwind::Clif(info) => info.to_fde(address),
            Unwind::Own { len, steps } => {
                let mut entry = FrameDescriptionEntry::new(address, *len);
                steps.iter().for_each(|(offset, step)| entry.add_instruction(*offset, step.clone()));
                entry
            }
        }
    }
}

/// Bytes and the places in them that refer to functions, by number.
#[derive(Clone)]
struct Section {
    bytes: EndianVec<LittleEndian>,
    references: Vec<gimli::write::Relocation>,
}

impl RelocateWriter for Section {
    type Writer = EndianVec<LittleEndian>;

    fn writer(&self) -> &Self::Writer {
        &self.bytes
    }

    fn writer_mut(&mut self) -> &mut Self::Writer {
        &mut self.bytes
    }

    fn relocate(&mut self, r: gimli::write::Relocation) {
        self.references.push(r);
    }
}

/// Whether objects of this format say how to unwind.
pub(crate) fn supported(format: target_lexicon::BinaryFormat) -> bool {
    format == target_lexicon::BinaryFormat::Elf
}

/// Adds the section for `functions`, each with its symbol, in their order; the section's size in bytes.
pub(crate) fn add(
    object: &mut Object<'_>,
    isa: &dyn TargetIsa,
    functions: &[(SymbolId, Option<Unwind>)],
) -> Result<u64, Diag> {
    if object.format() != BinaryFormat::Elf {
        return Ok(0);
    }
    let Some(mut common) = isa.create_systemv_cie() else { return Ok(0) };
    common.fde_address_encoding = DW_EH_PE_pcrel | DW_EH_PE_sdata4;
    let mut table = FrameTable::default();
    let common = table.add_cie(common);
    for (symbol, (_, unwind)) in functions.iter().enumerate() {
        if let Some(unwind) = unwind {
            table.add_fde(common, unwind.entry(Address::Symbol { symbol, addend: 0 }));
        }
    }
    let mut out = EhFrame(Section { bytes: EndianVec::new(LittleEndian), references: Vec::new() });
    table.write_eh_frame(&mut out).map_err(|e| internal(format!("the unwind information can't be written: {e}")))?;
    let Section { bytes, references } = out.0;
    let bytes = bytes.into_vec();
    let section = object.add_section(Vec::new(), b".eh_frame".to_vec(), SectionKind::ReadOnlyData);
    object.append_section_data(section, &bytes, 8);
    for r in references {
        add_reference(object, section, &r, functions)?;
    }
    Ok(bytes.len() as u64)
}

fn add_reference(
    object: &mut Object<'_>,
    section: SectionId,
    r: &gimli::write::Relocation,
    functions: &[(SymbolId, Option<Unwind>)],
) -> Result<(), Diag> {
    let wrong = || internal(format!("unwind information refers to {:?}", r.target));
    let RelocationTarget::Symbol(function) = r.target else { return Err(wrong()) };
    let symbol = object.symbol(functions.get(function).ok_or_else(wrong)?.0);
    let (code, value) = (symbol.section.id().ok_or_else(wrong)?, symbol.value);
    let value = i64::try_from(value).map_err(|_| wrong())?;
    let relocation = Relocation {
        offset: r.offset as u64,
        symbol: object.section_symbol(code),
        addend: r.addend + value,
        flags: RelocationFlags::Generic {
            kind: RelocationKind::Relative,
            encoding: RelocationEncoding::Generic,
            size: 8 * r.size,
        },
    };
    let added = object.add_relocation(section, relocation);
    added.map_err(|e| internal(format!("the unwind information can't refer to code: {e}")))
}
