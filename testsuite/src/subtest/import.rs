//! `import [--dim seq=1..512] [--shape x=1x128]`: reads the file as a model in ONNX's text form, imports it, verifies,
//! and checks the printed graph.

use bertc::import::onnx::{ImportOptions, import_bytes};
use bertc_ir::Graph;

use super::{Outcome, State, onnx_text, print};
use crate::filetest::{Command, FileTest, Kind};

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    s.only(c, Kind::Onnx, ".onnxtxt")?;
    let g = import(s.test, &options(c)?)?;
    bertc_ir::verify::verify(&g).map_err(|e| format!("the imported graph does not verify: {e:#?}\n{}", print(&g)))?;
    let text = print(&g);
    s.source = Some(g);
    Ok(text)
}

pub(super) fn import(test: &FileTest, o: &ImportOptions) -> Outcome<Graph> {
    let model = onnx_text::parse(&test.source)?;
    Ok(import_bytes(model.bytes.into(), None, o)?.graph)
}

fn options(c: &Command) -> Result<ImportOptions, String> {
    let mut o = ImportOptions::default();
    let mut words = c.args.iter();
    while let Some(flag) = words.next() {
        let text = words.next().ok_or_else(|| format!("'{flag}' needs a value"))?;
        let bad = || format!("bad value '{text}' of '{flag}'");
        let int = |s: &str| s.parse::<i64>().map_err(|_| bad());
        let (name, value) = text.split_once('=').ok_or_else(bad)?;
        match flag.as_str() {
            "--dim" => {
                let (lo, hi) = value.split_once("..").ok_or_else(bad)?;
                o.dims.push((name.to_string(), int(lo)?, int(hi)?));
            }
            "--shape" => {
                let shape = value.split('x').map(int).collect::<Result<_, _>>()?;
                o.shapes.push((name.to_string(), shape));
            }
            _ => return Err(format!("unknown option '{flag}'")),
        }
    }
    Ok(o)
}
