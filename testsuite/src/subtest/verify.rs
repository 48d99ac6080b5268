//! `verify`: the file parses and verifies; the output is `ok`.

use super::{Outcome, State, kernels, no_options};
use crate::filetest::{Command, Kind};

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    no_options(c)?;
    if s.test.kind == Kind::Kir {
        // What is parsed is verified.
        kernels(s.test)?;
    } else {
        s.source()?;
    }
    Ok("ok\n".to_string())
}
