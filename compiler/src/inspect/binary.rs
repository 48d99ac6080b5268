//! What is in an object file, linked or not.

use std::collections::{BTreeMap, BTreeSet};

use bertc_backends::target::X86_VARIANTS;
use object::{Object, ObjectSection, ObjectSymbol, SectionIndex, SymbolKind};
use serde_json::{Value, json};

use super::{descriptor, section};
use crate::load::{Descriptor, PortInfo};
use crate::progress::size;

/// An object, or a member of an archive.
pub(super) struct Binary {
    /// The member's name.
    name: Option<String>,
    format: String,
    kind: String,
    architecture: String,
    sections: Vec<Section>,
    symbols: Vec<Symbol>,
    undefined: Vec<String>,
    models: Vec<Descriptor>,
}

struct Section {
    name: String,
    bytes: u64,
    kind: String,
    align: u64,
}

struct Symbol {
    name: String,
    bytes: u64,
    text: bool,
    kind: String,
    global: bool,
}

/// Reads every member of an archive.
pub(super) fn archive(data: &[u8]) -> object::Result<Vec<Binary>> {
    let mut out = Vec::new();
    for member in object::read::archive::ArchiveFile::parse(data)?.members() {
        let member = member?;
        let name = String::from_utf8_lossy(member.name()).into_owned();
        out.push(Binary { name: Some(name), ..object(member.data(data)?)? });
    }
    Ok(out)
}

/// Reads an object.
pub(super) fn object(data: &[u8]) -> object::Result<Binary> {
    let file = object::File::parse(data)?;
    let mut sections = Vec::new();
    let mut ends: BTreeMap<usize, u64> = BTreeMap::new();
    for s in file.sections() {
        ends.insert(s.index().0, s.address().saturating_add(s.size()));
        if s.size() > 0 {
            let kind = format!("{:?}", s.kind());
            sections.push(Section { name: s.name()?.to_string(), bytes: s.size(), kind, align: s.align() });
        }
    }
    let named = |s: &object::Symbol<'_, '_>| s.name().is_ok_and(|n| !n.is_empty());
    let starts: Vec<(SectionIndex, u64)> = file
        .symbols()
        .filter(|s| s.is_definition() && named(s) && s.kind() != SymbolKind::Section)
        .filter_map(|s| Some((s.section_index()?, s.address())))
        .collect();
    // Where a format has no sizes, a symbol goes up to the next one of its section.
    let extent = |s: &object::Symbol<'_, '_>| -> u64 {
        let Some(section) = s.section_index().filter(|_| s.size() == 0) else { return s.size() };
        let next = starts.iter().filter(|(at, a)| *at == section && *a > s.address()).map(|x| x.1).min();
        next.or_else(|| ends.get(&section.0).copied()).map_or(0, |end| end.saturating_sub(s.address()))
    };
    let (mut symbols, mut undefined) = (Vec::new(), Vec::new());
    for s in file.symbols().filter(named) {
        let name = s.name()?.to_string();
        if s.is_undefined() {
            undefined.push(name);
        } else if s.is_definition() && matches!(s.kind(), SymbolKind::Text | SymbolKind::Data | SymbolKind::Unknown) {
            symbols.push(Symbol {
                name,
                bytes: extent(&s),
                text: s.kind() == SymbolKind::Text,
                kind: format!("{:?}", s.kind()),
                global: s.is_global(),
            });
        }
    }
    symbols.sort_by(|a, b| a.name.cmp(&b.name));
    undefined.sort();
    Ok(Binary {
        name: None,
        format: format!("{:?}", file.format()),
        kind: format!("{:?}", file.kind()),
        architecture: format!("{:?}", file.architecture()),
        sections,
        symbols,
        undefined,
        models: descriptor::read(&file),
    })
}

impl Binary {
    /// The kernels of its models with the CPU that they are for, where the object chooses by it; the largest first.
    fn kernels(&self) -> Vec<(&Symbol, Option<&'static str>)> {
        let cpu = |s: &Symbol| {
            let name = s.name.strip_prefix('_').unwrap_or(&s.name);
            self.models.iter().find_map(|m| {
                let rest = name.strip_prefix(m.name.as_str()).or_else(|| s.name.strip_prefix(m.name.as_str()))?;
                if rest.starts_with("_k_") {
                    return Some(None);
                }
                let level = |cpu: &str| rest.strip_prefix(&format!("_{}", cpu.replace('-', "_")));
                let found = X86_VARIANTS.iter().find(|v| level(v.0).is_some_and(|r| r.starts_with("_k_")))?;
                Some(Some(found.0))
            })
        };
        let texts = self.symbols.iter().filter(|s| s.text);
        let mut kernels: Vec<_> = texts.filter_map(|s| Some((s, cpu(s)?))).collect();
        kernels.sort_by_key(|(s, cpu)| (*cpu, std::cmp::Reverse(s.bytes)));
        kernels
    }

    /// Bytes of code.
    fn code(&self) -> u64 {
        self.sections.iter().filter(|s| s.kind == "Text").map(|s| s.bytes).sum()
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = self.name.as_ref().map(|n| format!("{n}:\n")).unwrap_or_default();
        text += &format!("{} {} for {}\n", self.format, self.kind, self.architecture);
        let row = |s: &Section| vec![s.name.clone(), s.bytes.to_string(), s.kind.clone(), s.align.to_string()];
        text += &section("", &["section", "bytes", "kind", "align"], self.sections.iter().map(row).collect(), &[1, 3]);
        let row = |s: &Symbol| vec![s.name.clone(), s.bytes.to_string(), s.kind.clone()];
        let global = self.symbols.iter().filter(|s| s.global).map(row).collect();
        text += &section("", &["symbol", "bytes", "kind"], global, &[1]);
        let kernels = self.kernels();
        let row = |(s, _): &(&Symbol, _)| vec![s.name.clone(), s.bytes.to_string()];
        text += &section("", &["kernel", "bytes"], kernels.iter().map(row).collect(), &[1]);
        if !kernels.is_empty() {
            let cpus: BTreeSet<&str> = kernels.iter().filter_map(|k| k.1).collect();
            if !cpus.is_empty() {
                let cpus: Vec<&str> = cpus.into_iter().collect();
                text += &format!("\nfor {}, chosen by the CPU that runs them", cpus.join(", "));
            }
            let bytes: u64 = kernels.iter().map(|k| k.0.bytes).sum();
            text += &format!("\n{} kernels, {} of {} of code\n", kernels.len(), size(bytes), size(self.code()));
        }
        let undefined = if self.undefined.is_empty() { "none".to_string() } else { self.undefined.join(", ") };
        text += &format!("\nundefined symbols: {undefined}\n");
        self.models.iter().for_each(|d| text += &format!("\n{}", describe(d)));
        text
    }

    /// For programs; `docs/inspect.md` describes it.
    pub fn json(&self) -> Value {
        let sections = self.sections.iter();
        let sections = sections.map(|s| json!({"name": s.name, "bytes": s.bytes, "kind": s.kind, "align": s.align}));
        let symbols = self.symbols.iter();
        let symbols = symbols.map(|s| json!({"name": s.name, "bytes": s.bytes, "kind": s.kind, "global": s.global}));
        let kernels = self.kernels();
        let kernels = kernels.iter().map(|(s, cpu)| json!({"symbol": s.name, "bytes": s.bytes, "cpu": cpu}));
        json!({
            "name": self.name,
            "format": self.format,
            "object_kind": self.kind,
            "architecture": self.architecture,
            "code_bytes": self.code(),
            "sections": sections.collect::<Vec<_>>(),
            "symbols": symbols.collect::<Vec<_>>(),
            "undefined": self.undefined,
            "kernels": kernels.collect::<Vec<_>>(),
            "models": self.models.iter().map(model_json).collect::<Vec<_>>(),
        })
    }
}

fn model_json(d: &Descriptor) -> Value {
    let port = |p: &PortInfo| {
        let dims: Vec<String> = p.dims.iter().map(|&e| d.extent(e)).collect();
        json!({"name": p.name, "type": p.dtype.to_string(), "shape": dims})
    };
    let dims: Vec<Value> = d.symbols.iter().map(|s| json!({"name": s.name, "min": s.min, "max": s.max})).collect();
    json!({
        "name": d.name,
        "hash": d.hash,
        "abi_version": bertc_rt::ABI_VERSION,
        "inputs": d.inputs.iter().map(port).collect::<Vec<_>>(),
        "outputs": d.outputs.iter().map(port).collect::<Vec<_>>(),
        "dims": dims,
    })
}

fn describe(d: &Descriptor) -> String {
    let mut ports = Vec::new();
    for (kind, list) in [("input", &d.inputs), ("output", &d.outputs)] {
        for p in list {
            ports.push(vec![kind.into(), p.name.clone(), p.dtype.to_string(), d.shape(p)]);
        }
    }
    let mut text = format!("model {}, hash {}, version {} of the C interface\n", d.name, d.hash, bertc_rt::ABI_VERSION);
    text += &section("", &["", "name", "type", "shape"], ports, &[]);
    let rows = d.symbols.iter().map(|s| vec![s.name.clone(), s.min.to_string(), s.max.to_string()]);
    text + &section("", &["dim", "min", "max"], rows.collect(), &[1, 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nonsense_is_no_object() {
        assert!(object(b"nonsense").is_err());
        assert!(archive(b"!<arch>\nnonsense").is_err());
    }
}
