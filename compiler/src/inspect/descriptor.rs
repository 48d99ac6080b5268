//! Reads the descriptor out of an object that is not linked yet, where pointers are still relocations.

use std::collections::HashMap;

use object::{File, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex};

use crate::load::{Descriptor, Extent, PortInfo, SymbolInfo, dtype_of};

/// More symbols, ports or dims than this are a broken file.
const LIMIT: u32 = 4096;

/// The descriptors of all models in an object. What doesn't read as one is left out.
pub fn read(file: &File<'_>) -> Vec<Descriptor> {
    let Some(memory) = Memory::new(file) else { return Vec::new() };
    let models = file.symbols().filter(|s| s.is_definition() && s.name().is_ok_and(|n| n.ends_with("_model")));
    models.filter_map(|s| memory.descriptor(memory.place_of(&s)?)).collect()
}

/// A place in a section.
#[derive(Clone, Copy)]
struct Place {
    section: SectionIndex,
    offset: u64,
}

impl Place {
    fn plus(self, n: u64) -> Place {
        Place { offset: self.offset.saturating_add(n), ..self }
    }
}

/// Sections with the places that their pointers point to.
struct Memory<'a> {
    file: &'a File<'a>,
    pointers: HashMap<(usize, u64), Place>,
}

impl<'a> Memory<'a> {
    fn new(file: &'a File<'a>) -> Option<Self> {
        let mut m = Memory { file, pointers: HashMap::new() };
        for s in file.sections() {
            let base = if file.format() == object::BinaryFormat::MachO { 0 } else { s.address() };
            for (at, r) in s.relocations().filter(|(_, r)| r.size() == 64) {
                let offset = at.checked_sub(base)?;
                // Mach-O and COFF keep the addend in the place itself.
                let implicit =
                    if r.has_implicit_addend() { m.int(Place { section: s.index(), offset }, 8)? } else { 0 };
                let addend = r.addend().wrapping_add(implicit);
                let target = match r.target() {
                    RelocationTarget::Symbol(i) => m.place_of(&file.symbol_by_index(i).ok()?),
                    RelocationTarget::Section(i) => {
                        let start = file.section_by_index(i).ok()?.address();
                        Some(Place { section: i, offset: 0u64.wrapping_sub(start) })
                    }
                    _ => None,
                };
                if let Some(t) = target {
                    let offset_of = t.offset.wrapping_add_signed(addend);
                    m.pointers.insert((s.index().0, offset), Place { offset: offset_of, ..t });
                }
            }
        }
        Some(m)
    }

    fn place_of<'b>(&self, s: &impl ObjectSymbol<'b>) -> Option<Place> {
        let section = s.section_index()?;
        let start = self.file.section_by_index(section).ok()?.address();
        Some(Place { section, offset: s.address().checked_sub(start)? })
    }

    fn bytes(&self, at: Place) -> Option<&'a [u8]> {
        let data = self.file.section_by_index(at.section).ok()?.data().ok()?;
        data.get(usize::try_from(at.offset).ok()?..)
    }

    fn int(&self, at: Place, size: usize) -> Option<i64> {
        let mut b = [0; 8];
        b[..size].copy_from_slice(self.bytes(at)?.get(..size)?);
        // Counts and codes fit 31 bits, so the upper half is filled with the sign of the lower.
        let v = i64::from_le_bytes(b);
        Some(if size == 4 { i64::from(v as i32) } else { v })
    }

    fn count(&self, at: Place) -> Option<u64> {
        u32::try_from(self.int(at, 4)?).ok().filter(|n| *n <= LIMIT).map(u64::from)
    }

    fn pointer(&self, at: Place) -> Option<Place> {
        self.pointers.get(&(at.section.0, at.offset)).copied()
    }

    fn text(&self, at: Place) -> Option<String> {
        let bytes = self.bytes(self.pointer(at)?)?;
        let end = bytes.iter().position(|&b| b == 0)?;
        Some(String::from_utf8_lossy(&bytes[..end]).into_owned())
    }

    /// `n` elements of `size` bytes behind the pointer at `at`.
    fn list<T>(&self, at: Place, n: u64, size: u64, element: impl Fn(Place) -> Option<T>) -> Option<Vec<T>> {
        if n == 0 {
            return Some(Vec::new());
        }
        let start = self.pointer(at)?;
        (0..n).map(|i| element(start.plus(i * size))).collect()
    }

    /// The layout is that of `bertc_model` in `bertc.h`.
    fn descriptor(&self, at: Place) -> Option<Descriptor> {
        if self.int(at, 4)? != i64::from(bertc_rt::ABI_VERSION) {
            return None;
        }
        let [n_symbols, n_inputs, n_outputs] = [24, 28, 32].map(|o| self.count(at.plus(o)));
        let symbols = self.list(at.plus(40), n_symbols?, 24, |p| {
            Some(SymbolInfo { name: self.text(p)?, min: self.int(p.plus(8), 8)?, max: self.int(p.plus(16), 8)? })
        })?;
        let dim = |p: Place| match self.int(p, 4)? {
            -1 => Some(Extent::Const(self.int(p.plus(8), 8)?)),
            -2 => Some(Extent::Computed),
            s => usize::try_from(s).ok().filter(|s| *s < symbols.len()).map(Extent::Symbol),
        };
        let port = |p: Place| {
            let dtype = dtype_of(i32::try_from(self.int(p.plus(8), 4)?).ok()?)?;
            let dims = self.list(p.plus(16), self.count(p.plus(12))?, 16, dim)?;
            Some(PortInfo { name: self.text(p)?, dtype, dims })
        };
        let inputs = self.list(at.plus(48), n_inputs?, 24, port)?;
        let outputs = self.list(at.plus(56), n_outputs?, 24, port)?;
        Some(Descriptor { name: self.text(at.plus(8))?, hash: self.text(at.plus(16))?, inputs, outputs, symbols })
    }
}
