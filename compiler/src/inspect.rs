//! `bertc inspect`: what is in a model or in a compiled object.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bertc_backends::target::Target;
use bertc_ir::{Diag, Graph, Op, Port};
use comfy_table::{CellAlignment, Table, presets};
use object::{Object, ObjectSection, ObjectSymbol};
use serde_json::{Value, json};

use self::kernels::Listing;
use crate::driver;
use crate::import::onnx::{self, ImportOptions};
use crate::load::Descriptor;
use crate::options::CompileOptions;
use crate::output::to_stdout;
use crate::progress::{Progress, size};

mod descriptor;
mod kernels;

/// What `inspect` was asked to do.
#[derive(Clone, Debug)]
pub struct InspectOptions {
    /// A model, an object or an archive of objects.
    pub file: PathBuf,
    /// How to compile a model, whose kernels are listed.
    pub compile: CompileOptions,
    /// JSON; for models.
    pub json: bool,
}

/// Runs the subcommand.
///
/// # Errors
/// A file that can't be read or is neither, and options that no model can be compiled with.
pub fn run(o: &InspectOptions) -> Result<(), Vec<Diag>> {
    let file = o.file.as_path();
    let one = |e: &dyn std::fmt::Display| vec![Diag::new(format!("can't read '{}': {e}", file.display()))];
    let start = first_bytes(file).map_err(|e| one(&e))?;
    let kind = object::FileKind::parse(&*start).ok();
    let archived = start.starts_with(b"!<arch>\n");
    if o.json && (archived || kind.is_some()) {
        return Err(vec![Diag::new("--json is for models; this is machine code")]);
    }
    let text = if archived {
        let data = std::fs::read(file).map_err(|e| one(&e))?;
        archive(&data).map_err(|e| one(&e))?
    } else if kind.is_some() {
        let data = std::fs::read(file).map_err(|e| one(&e))?;
        object(&data).map_err(|e| one(&e))?
    } else {
        model_file(o)?
    };
    to_stdout(text.as_bytes()).map_err(|d| vec![d])
}

/// A model as it is in its file, then what it becomes.
fn model_file(o: &InspectOptions) -> Result<String, Vec<Diag>> {
    let import = ImportOptions { dims: o.compile.dims.clone(), shapes: o.compile.shapes.clone() };
    let imported = onnx::import(&o.file, &import)?;
    let target = Target::parse(&o.compile.target, &o.compile.cpu).map_err(|d| vec![d])?;
    // A model that can't be compiled can still be described; why it can't is part of that.
    let compiled = driver::compile_with(&o.file, &o.compile, &mut Progress::hidden());
    let listing = compiled.as_ref().map(|c| Listing::new(&c.front().graph, c.program()));
    if o.json {
        let g = &imported.graph;
        let mut v = match &listing {
            Ok(l) => l.json(),
            Err(errors) => json!({"errors": errors.iter().map(ToString::to_string).collect::<Vec<_>>()}),
        };
        v["opset"] = json!(imported.opset);
        v["producer"] = json!(imported.producer);
        v["notes"] = json!(imported.notes);
        v["target"] = json!(target.triple.to_string());
        v["opt_level"] = json!(o.compile.opt_level);
        for (key, list) in [("inputs", g.inputs()), ("outputs", g.outputs())] {
            v[key] = list.iter().map(|p| port_json(g, p)).collect();
        }
        v["dims"] = g.symbols.iter().map(|(_, s)| json!({"name": s.name, "min": s.min, "max": s.max})).collect();
        let w = Weights::of(g);
        v["parameters"] = json!(w.parameters);
        v["parameter_bytes"] = json!(w.bytes);
        return Ok(format!("{v:#}\n"));
    }
    let mut text = format!("ONNX model, opset {}", imported.opset);
    if !imported.producer.is_empty() {
        text += &format!(", written by {}", imported.producer);
    }
    text += &format!("\n{}", model(&imported.graph));
    for n in &imported.notes {
        text += &format!("note: {n}\n");
    }
    text += &match &listing {
        Ok(l) => format!("\nat -O{} for {}:\n\n{}", o.compile.opt_level, target.triple, l.text()),
        Err(errors) => errors.iter().map(|e| format!("can't be compiled: {e}\n")).collect(),
    };
    Ok(text)
}

fn port_json(g: &Graph, p: &Port) -> Value {
    let ty = g.ty(p.value);
    let shape: Vec<String> = ty.shape.iter().map(|d| d.display(&g.symbols).to_string()).collect();
    json!({"name": p.name, "type": ty.dtype.to_string(), "shape": shape})
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
    let mut ops = BTreeMap::<&str, usize>::new();
    for v in g.topo() {
        let op = g.op(v);
        if !matches!(op, Op::Input { .. } | Op::Constant(_)) {
            *ops.entry(op.name()).or_default() += 1;
        }
    }
    let Weights { parameters, bytes } = Weights::of(g);
    let mut ops: Vec<_> = ops.into_iter().collect();
    ops.sort_by_key(|&(name, n)| (std::cmp::Reverse(n), name));
    let rows = ops.into_iter().map(|(name, n)| vec![name.to_string(), n.to_string()]).collect();
    text += &format!("\n{}", table(&["op", "count"], rows, &[1]));
    text + &format!("\n{parameters} parameters, {}\n", size(bytes))
}

/// A model's constants.
struct Weights {
    parameters: u64,
    bytes: u64,
}

impl Weights {
    fn of(g: &Graph) -> Weights {
        let mut seen = BTreeSet::new();
        let mut w = Weights { parameters: 0, bytes: 0 };
        for t in g.topo().into_iter().filter_map(|v| g.as_const(v)) {
            // Weights that two nodes share count once.
            if seen.insert((t.bytes().as_ptr(), t.bytes().len())) {
                w.parameters += t.len() as u64;
                w.bytes += t.bytes().len() as u64;
            }
        }
        w
    }
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
