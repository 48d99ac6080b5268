//! `bertc inspect`: what is in a model or in a compiled object.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use bertc_ir::{Diag, Graph, Op};
use comfy_table::{CellAlignment, Table, presets};
use object::{Object, ObjectSection, ObjectSymbol};

use crate::import::onnx::{self, ImportOptions};
use crate::load::Descriptor;
use crate::output::to_stdout;
use crate::progress::size;

mod descriptor;

/// Runs the subcommand. Dims and shapes apply to models.
///
/// # Errors
/// A file that can't be read or is neither.
pub fn run(file: &Path, dims: Vec<(String, i64, i64)>, shapes: Vec<(String, Vec<i64>)>) -> Result<(), Vec<Diag>> {
    let one = |e: &dyn std::fmt::Display| vec![Diag::new(format!("can't read '{}': {e}", file.display()))];
    let start = first_bytes(file).map_err(|e| one(&e))?;
    let kind = object::FileKind::parse(&*start).ok();
    let text = match kind {
        _ if start.starts_with(b"!<arch>\n") => {
            let data = std::fs::read(file).map_err(|e| one(&e))?;
            archive(&data).map_err(|e| one(&e))?
        }
        Some(_) => {
            let data = std::fs::read(file).map_err(|e| one(&e))?;
            object(&data).map_err(|e| one(&e))?
        }
        None => {
            let imported = onnx::import(file, &ImportOptions { dims, shapes })?;
            let mut text = format!("ONNX model, opset {}", imported.opset);
            if !imported.producer.is_empty() {
                text += &format!(", written by {}", imported.producer);
            }
            text += &format!("\n{}", model(&imported.graph));
            for n in &imported.notes {
                text += &format!("note: {n}\n");
            }
            text
        }
    };
    to_stdout(text.as_bytes()).map_err(|d| vec![d])
}

/// Enough of a file to tell its kind.
fn first_bytes(file: &Path) -> std::io::Result<Vec<u8>> {
    use std::io::Read;
    let mut start = Vec::new();
    std::fs::File::open(file)?.take(4096).read_to_end(&mut start)?;
    Ok(start)
}

/// A table of columns aligned by spaces; the columns in `right` are flush right.
fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut t = Table::new();
    t.load_style(presets::NOTHING).set_header(header.to_vec());
    for r in rows {
        t.add_row(r);
    }
    for &i in right {
        if let Some(c) = t.column_mut(i) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = t.lines().map(|l| l.trim_end().to_string()).collect();
    lines.join("\n") + "\n"
}

fn model(g: &Graph) -> String {
    let mut ports = Vec::new();
    for (kind, list) in [("input", g.inputs()), ("output", g.outputs())] {
        for p in list {
            let ty = g.ty(p.value);
            let dims: Vec<_> = ty.shape.iter().map(|d| d.display(&g.symbols).to_string()).collect();
            ports.push(vec![kind.into(), p.name.clone(), ty.dtype.to_string(), format!("[{}]", dims.join(", "))]);
        }
    }
    let mut text = format!("\n{}", table(&["", "name", "type", "shape"], ports, &[]));
    if !g.symbols.is_empty() {
        let rows = g.symbols.iter().map(|(_, s)| vec![s.name.clone(), s.min.to_string(), s.max.to_string()]);
        text += &format!("\n{}", table(&["dim", "min", "max"], rows.collect(), &[1, 2]));
    }
    let (mut ops, mut seen) = (BTreeMap::<&str, usize>::new(), BTreeSet::new());
    let (mut parameters, mut bytes) = (0u64, 0u64);
    for v in g.topo() {
        match g.op(v) {
            Op::Input { .. } => {}
            Op::Constant(t) => {
                // Weights that two nodes share count once.
                if seen.insert((t.bytes().as_ptr(), t.bytes().len())) {
                    parameters += t.len() as u64;
                    bytes += t.bytes().len() as u64;
                }
            }
            op => *ops.entry(op.name()).or_default() += 1,
        }
    }
    let mut ops: Vec<_> = ops.into_iter().collect();
    ops.sort_by_key(|&(name, n)| (std::cmp::Reverse(n), name));
    let rows = ops.into_iter().map(|(name, n)| vec![name.to_string(), n.to_string()]).collect();
    text += &format!("\n{}", table(&["op", "count"], rows, &[1]));
    text + &format!("\n{parameters} parameters, {}\n", size(bytes))
}

fn archive(data: &[u8]) -> object::Result<String> {
    let mut text = String::new();
    for member in object::read::archive::ArchiveFile::parse(data)?.members() {
        let member = member?;
        text += &format!("{}:\n", String::from_utf8_lossy(member.name()));
        text += &object(member.data(data)?)?;
        text.push('\n');
    }
    Ok(text)
}

fn object(data: &[u8]) -> object::Result<String> {
    let file = object::File::parse(data)?;
    let mut text = format!("{:?} {:?} for {:?}\n", file.format(), file.kind(), file.architecture());
    let mut rows = Vec::new();
    for s in file.sections().filter(|s| s.size() > 0) {
        rows.push(vec![s.name()?.to_string(), s.size().to_string(), format!("{:?}", s.kind()), s.align().to_string()]);
    }
    text += &format!("\n{}", table(&["section", "bytes", "kind", "align"], rows, &[1, 3]));
    let (mut rows, mut undefined) = (Vec::new(), Vec::new());
    for s in file.symbols().filter(|s| s.is_global() || s.is_undefined()) {
        let name = s.name()?.to_string();
        match () {
            () if s.is_undefined() && !name.is_empty() => undefined.push(name),
            () if s.is_definition() => rows.push(vec![name, s.size().to_string(), format!("{:?}", s.kind())]),
            () => {}
        }
    }
    rows.sort();
    text += &format!("\n{}", table(&["symbol", "bytes", "kind"], rows, &[1]));
    let undefined = if undefined.is_empty() { "none".to_string() } else { undefined.join(", ") };
    text += &format!("\nundefined symbols: {undefined}\n");
    for d in descriptor::read(&file) {
        text += &format!("\n{}", describe(&d));
    }
    Ok(text)
}

fn describe(d: &Descriptor) -> String {
    let mut ports = Vec::new();
    for (kind, list) in [("input", &d.inputs), ("output", &d.outputs)] {
        for p in list {
            ports.push(vec![kind.into(), p.name.clone(), p.dtype.to_string(), d.shape(p)]);
        }
    }
    let mut text = format!("model {}, hash {}\n\n", d.name, d.hash);
    text += &table(&["", "name", "type", "shape"], ports, &[]);
    if !d.symbols.is_empty() {
        let rows = d.symbols.iter().map(|s| vec![s.name.clone(), s.min.to_string(), s.max.to_string()]);
        text += &format!("\n{}", table(&["dim", "min", "max"], rows.collect(), &[1, 2]));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::{DType, Loc, Tensor, TensorType};

    #[test]
    fn a_model_is_counted() {
        let mut g = Graph::new("f");
        let s = g.symbols.intern("seq", 1, 9);
        let x = g.add_input("x", TensorType::new(DType::F32, vec![s.into()]));
        let c = g.add_const(Tensor::from_f32(vec![], &[2.0]), &Loc::Unknown).unwrap();
        let y = g.add(Op::Binary(bertc_ir::BinaryOp::Mul), &[x, c], &Loc::Unknown).unwrap();
        g.add_output("y", y);
        let text = model(&g);
        for part in [" input   x     f32   [seq]", " seq    1    9", " mul      1", "1 parameters, 4 bytes"] {
            assert!(text.contains(part), "{part:?} in\n{text}");
        }
    }

    #[test]
    fn nonsense_is_no_object() {
        assert!(object(b"nonsense").is_err());
        assert!(archive(b"!<arch>\nnonsense").is_err());
    }
}
