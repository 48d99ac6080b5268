//! Models in ONNX's own text form (onnx/docs/Syntax.md; `onnx.parser.parse_model` reads the same files), as far as
//! tests need it:
//!
//! ```text
//! <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
//! name (float[N, 128] x, int64[2] shape) => (float[N] y)
//! <float[2] w = {1.0, 2.0}>
//! {
//!   [node name] y = com.microsoft.Op <axis = 1, mode = "exact"> (x, , w)
//! }
//! ```
//!
//! A type without brackets is a scalar's, with empty brackets one of unknown rank. Comments start with `#`.

mod parse;
mod proto;

use std::collections::BTreeMap;

use prost::Message;

/// A model that was read.
#[derive(Clone, Debug)]
pub struct Model {
    /// The file that the importer reads.
    pub bytes: Vec<u8>,
    /// The line of each node, from 1, by its name, or by its first output where it has none.
    pub lines: BTreeMap<String, usize>,
}

/// Reads a model.
///
/// # Errors
/// The first mistake, with its line.
pub fn parse(source: &str) -> Result<Model, String> {
    let (model, lines) = parse::model(source)?;
    Ok(Model { bytes: model.encode_to_vec(), lines })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_have_lines() {
        let error = |text: &str| parse(text).unwrap_err();
        assert_eq!(error("<ir_version: 8>\nf (x) => (y) {\n  y = Relu x\n}"), "line 3: expected '(', got 'x'");
        assert_eq!(error("f (float[2 x) => (y) {}"), "line 1: expected ']', got 'x'");
        assert_eq!(error("f (flaot[2] x) => (y) {}"), "line 1: 'flaot' is not an element type");
        assert_eq!(error("f (x) => (y) <float[1] w = {a}> {}"), "line 1: expected a number, got 'a'");
        assert_eq!(error("f (x) => (y) {} z"), "line 1: expected the end, got 'z'");
        assert_eq!(error("<colour: 3> f (x) => (y) {}"), "line 1: unknown field 'colour'");
        assert_eq!(error("f (x) => (y) { y = Op <s = \"open> (x)\n}"), "line 1: a string has no end");
        assert_eq!(error("f (x) => (y) { ; }"), "line 1: unexpected ';'");
    }

    #[test]
    fn nodes_are_found_by_name_or_first_output() {
        let m = parse("# a comment\nf (float x) => (y)\n{\n  a, b = Split (x)\n  [last] y = Add (a, b)\n}").unwrap();
        assert_eq!(m.lines, BTreeMap::from([("a".to_string(), 4), ("last".to_string(), 5)]));
    }
}
