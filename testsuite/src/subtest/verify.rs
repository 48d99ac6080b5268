//! `verify`: the file parses and verifies; the output is `ok`.

use super::{Outcome, State, kernels, no_options, schedule};
use crate::filetest::{Command, Kind};

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    no_options(c)?;
    match s.test.kind {
        // What is parsed is verified.
        Kind::Kir => drop(kernels(s.test)?),
        Kind::Sir => drop(schedule(s.test)?),
        Kind::Tir | Kind::Onnx => s.source().map(drop)?,
    }
    Ok("ok\n".to_string())
}
