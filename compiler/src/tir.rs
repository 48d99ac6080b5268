//! Tensor IR in files: a `.tir` text, and a side file for the constants that it elides.
//!
//! The side file is an `.npz`, so that NumPy reads and writes it too. Its arrays are called by the keys that the text
//! has for them, the hashes of their bytes; a constant that occurs several times is there once. Which type and shape
//! an array has doesn't matter, the text tells. An array whose bytes don't have the hash that it is called by is an
//! error: the text would mean another model.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, BufWriter, Read};
use std::path::Path;
use std::sync::Arc;

use bertc_ir::text::{self, PrintOptions, ResourceRef};
use bertc_ir::{Diag, Graph, SourceFile, Tensor};

use crate::npz;
use crate::output::Staged;

/// A text is read into memory whole; larger ones should keep their constants in a side file.
const MAX_TEXT: u64 = 4 << 30;
/// Missing constants that an error names.
const MAX_NAMED: usize = 6;

/// What a text does with its large constants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Constants<'a> {
    /// Refers to them; the text alone can't be read back.
    Elide,
    /// Has them as hex digits.
    Inline,
    /// Refers to them, and they are in this `.npz`.
    Side(&'a Path),
}

/// Whether a file is IR text rather than a model: by its extension, else by what it starts with. Protobuf has bytes that
/// no text has.
///
/// # Errors
/// The file can't be read.
pub fn is_text(file: &Path) -> Result<bool, Diag> {
    match file.extension().and_then(|e| e.to_str()) {
        Some("tir") => return Ok(true),
        Some("onnx") => return Ok(false),
        _ => {}
    }
    let wrong = |e: std::io::Error| Diag::new(format!("can't read '{}': {e}", file.display()));
    let mut start = Vec::new();
    File::open(file).map_err(wrong)?.take(4096).read_to_end(&mut start).map_err(wrong)?;
    // The last character may be cut in two.
    let is_utf8 = std::str::from_utf8(&start).map_or_else(|e| e.error_len().is_none(), |_| true);
    Ok(is_utf8 && !start.contains(&0))
}

/// The text of a graph; with [`Constants::Side`] the side file is written too.
///
/// # Errors
/// The side file can't be written.
pub fn save(graph: &Graph, constants: Constants<'_>, locations: bool) -> Result<String, Diag> {
    if let Constants::Side(path) = constants {
        let mut staged = Staged::default();
        stage_resources(graph, path, &mut staged)?;
        staged.commit()?;
    }
    Ok(text(graph, constants, locations))
}

/// The text of a graph; nothing else is written.
pub fn text(graph: &Graph, constants: Constants<'_>, locations: bool) -> String {
    text::print(graph, &PrintOptions { inline_constants: constants == Constants::Inline, locations })
}

/// Writes every constant that the text of a graph elides, to appear with the other staged files.
///
/// # Errors
/// The file can't be written.
pub fn stage_resources(graph: &Graph, path: &Path, staged: &mut Staged) -> Result<(), Diag> {
    let failed = |e: String| Diag::new(format!("can't write '{}': {e}", path.display()));
    let filled = staged.fill(path, |temp| {
        let constants = graph.topo().into_iter().filter_map(|v| graph.as_const(v)).filter(|t| text::elided(t));
        // By key: the order doesn't depend on the graph's, and equal bytes are there once.
        let arrays: BTreeMap<String, &Tensor> = constants.map(|t| (text::resource_key(t), t)).collect();
        let file = File::options().write(true).truncate(true).open(temp).map_err(|e| vec![failed(e.to_string())])?;
        let w = BufWriter::with_capacity(1 << 18, file);
        npz::write(w, arrays.iter().map(|(k, t)| (k.as_str(), *t))).map_err(|e| vec![failed(e.to_string())])
    });
    filled.map_err(|mut e| if e.is_empty() { failed("unknown error".into()) } else { e.remove(0) })
}

/// Reads a text and, where it elides constants, its side file.
///
/// # Errors
/// Everything that is wrong with the text, with its places; constants that are missing; unreadable files.
pub fn load(path: &Path, resources: Option<&Path>) -> Result<Graph, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let shown = path.display();
    let unreadable = |e: std::io::Error| vec![Diag::new(format!("can't read '{shown}': {e}"))];
    let length = std::fs::metadata(path).map_err(unreadable)?.len();
    if length > MAX_TEXT {
        let d = Diag::new(format!("'{shown}' is a text of {length} bytes, at most {MAX_TEXT} are read"));
        return Err(one(d.help("keep the constants in a side file: --resources FILE.npz")));
    }
    let text = std::fs::read_to_string(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::InvalidData => one(Diag::new(format!("'{shown}' is not text in UTF-8"))),
        _ => unreadable(e),
    })?;
    let arrays = resources.map(read_resources).transpose().map_err(one)?;
    parse(SourceFile::new(shown.to_string(), text), arrays.as_ref(), resources)
}

/// Parses a text whose elided constants are `arrays`; `from` names their file in messages.
///
/// # Errors
/// As [`load`]'s. The diagnostics know the text.
pub fn parse(
    source: SourceFile,
    arrays: Option<&BTreeMap<String, Tensor>>,
    from: Option<&Path>,
) -> Result<Graph, Vec<Diag>> {
    let refs = text::resource_refs(&source.text);
    let find = |key: &str| arrays.and_then(|a| a.get(key)).cloned();
    let mut diags = wrong(&refs, arrays);
    let missing: Vec<&ResourceRef> = refs.iter().filter(|r| find(&r.key).is_none()).collect();
    let parsed = text::parse(&source.text, &find);
    let graph = match parsed {
        Ok(g) if diags.is_empty() => match bertc_ir::verify::verify(&g) {
            Ok(()) => return Ok(g),
            Err(e) => {
                diags = e;
                None
            }
        },
        Ok(_) => None,
        Err(e) => {
            // One error tells all that is missing.
            diags.extend(e.into_iter().filter(|d| missing.iter().all(|m| m.loc != d.loc)));
            None
        }
    };
    diags.extend(unresolved(&missing, from));
    let source = Arc::new(source);
    graph.ok_or_else(|| diags.into_iter().map(|d| d.in_source(&source)).collect())
}

/// Arrays that are not what they are called.
fn wrong(refs: &[ResourceRef], arrays: Option<&BTreeMap<String, Tensor>>) -> Vec<Diag> {
    let mut seen = BTreeSet::new();
    let found = refs.iter().filter(|r| seen.insert(&r.key)).filter_map(|r| Some((r, arrays?.get(&r.key)?)));
    let differ = found.filter(|(r, t)| text::resource_key(t) != r.key);
    let tell = |(r, t): (&ResourceRef, &Tensor)| {
        Diag::new(format!("resource \"{}\" has other contents: their hash is {}", r.key, text::resource_key(t)))
            .at(r.loc.clone())
            .help("the side file belongs to another text: write both again")
    };
    differ.map(tell).collect()
}

/// The error that names all missing constants, if there are any.
fn unresolved(missing: &[&ResourceRef], from: Option<&Path>) -> Option<Diag> {
    let first = missing.first()?;
    let keys: BTreeSet<&str> = missing.iter().map(|r| r.key.as_str()).collect();
    let message = match keys.len() {
        1 => format!("the data of the constant \"{}\" is missing", first.key),
        n => format!("the data of {n} constants is missing"),
    };
    let mut d = Diag::new(message).at(first.loc.clone());
    if keys.len() > 1 {
        let named: Vec<String> = keys.iter().take(MAX_NAMED).map(|k| format!("\"{k}\"")).collect();
        let rest = keys.len().saturating_sub(MAX_NAMED);
        let rest = if rest > 0 { format!(" and {rest} more") } else { String::new() };
        d = d.note(format!("missing: {}{rest}", named.join(", ")));
    }
    Some(match from {
        Some(p) => d.help(format!("'{}' lacks them: give the file that was written with this text", p.display())),
        None => d.help("give their file: --resources FILE.npz, as --emit tensor-ir --resources FILE.npz wrote it"),
    })
}

/// The arrays of a side file.
fn read_resources(path: &Path) -> Result<BTreeMap<String, Tensor>, Diag> {
    let file = File::open(path).map_err(|e| Diag::new(format!("can't read '{}': {e}", path.display())))?;
    npz::read(BufReader::new(file)).map_err(|e| Diag::new(format!("can't read '{}': {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::render;
    use bertc_ir::text::structurally_equal;
    use bertc_ir::{DType, Loc, Op, UnaryOp};

    /// Constants of all types, one in two shapes, and a node with its name.
    fn graph() -> Graph {
        let mut g = Graph::new("f");
        let loc = Loc::node("/layer/Neg", "Neg").output("y");
        for (i, dtype) in DType::ALL.into_iter().enumerate() {
            let bytes: Vec<u8> = (0..40 * dtype.size())
                .map(|b| ((b * 37 + i) % if dtype == DType::Bool { 2 } else { 251 }) as u8)
                .collect();
            for shape in [vec![40], vec![2, 20]] {
                let t = Tensor::new(dtype, shape.clone(), bytes.clone().into()).unwrap();
                let v = g.add_const(t, &Loc::node(format!("c{i}"), "Constant")).unwrap();
                let float = dtype.is_float();
                let v = if float { g.add(Op::Unary(UnaryOp::Neg), &[v], &loc).unwrap() } else { v };
                g.add_output(format!("{dtype} {shape:?}"), v);
            }
        }
        g
    }

    fn locations(g: &Graph) -> Vec<Loc> {
        g.topo().into_iter().map(|v| g.node(v).loc.clone()).collect()
    }

    #[test]
    fn a_side_file_gives_back_the_model_exactly() {
        let dir = tempfile::tempdir().unwrap();
        let (tir, npz) = (dir.path().join("x.tir"), dir.path().join("x.npz"));
        let g = graph();
        let text = save(&g, Constants::Side(&npz), true).unwrap();
        std::fs::write(&tir, &text).unwrap();
        let back = load(&tir, Some(&npz)).unwrap();
        assert!(structurally_equal(&g, &back));
        assert_eq!(locations(&g), locations(&back));
        assert_eq!(save(&back, Constants::Elide, true).unwrap(), text);
        let arrays = read_resources(&npz).unwrap();
        assert_eq!(arrays.len(), DType::ALL.len(), "equal bytes are there once");

        std::fs::write(&tir, save(&g, Constants::Inline, false).unwrap()).unwrap();
        assert!(structurally_equal(&g, &load(&tir, None).unwrap()));
    }

    #[test]
    fn missing_and_wrong_constants_are_named() {
        let source = SourceFile::new("x.tir", save(&graph(), Constants::Elide, false).unwrap());
        let e = parse(source.clone(), None, None).unwrap_err();
        assert_eq!(e.len(), 1, "{e:?}");
        let text = render(&e, None, false);
        let parts = ["the data of 13 constants is missing", "--> x.tir:", "^^^", "and 7 more", "--resources FILE.npz"];
        parts.iter().for_each(|p| assert!(text.contains(p), "{p}: {text}"));

        // Other errors are told beside it.
        let broken = SourceFile::new("x.tir", source.text.replacen("  return", "  %z = iotta\n  return", 1));
        let e = parse(broken, None, None).unwrap_err();
        let text = render(&e, None, false);
        assert!(e.len() == 2 && text.contains("did you mean 'iota'?") && text.ends_with("2 errors\n"), "{text}");

        let refs = text::resource_refs(&source.text);
        let zeros = Tensor::from_i64(vec![20], &[7; 20]);
        let arrays = refs.iter().map(|r| (r.key.clone(), zeros.clone())).collect();
        let e = parse(source, Some(&arrays), Some(Path::new("w.npz"))).unwrap_err();
        assert!(e.iter().any(|d| d.message.contains("has other contents")), "{e:?}");
    }

    #[test]
    fn unreadable_files_are_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.tir");
        assert!(load(&path, None).unwrap_err()[0].message.contains("can't read"));
        std::fs::write(&path, [0xff, 0xfe, 0]).unwrap();
        assert!(load(&path, None).unwrap_err()[0].message.contains("UTF-8"));
        std::fs::write(&path, "func @f() -> () {\n  return\n}\n").unwrap();
        assert!(load(&path, Some(&path)).unwrap_err()[0].message.contains("can't read"));
    }
}
