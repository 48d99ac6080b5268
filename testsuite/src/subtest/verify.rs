//! `verify`: the file parses and verifies; the output is `ok`.

use super::{no_options, verified};
use crate::filetest::{Command, FileTest};

pub(super) fn run(test: &FileTest, c: &Command) -> Result<(), String> {
    no_options(c)?;
    if verified(test)?.is_none() { Ok(()) } else { test.check_output("", "ok\n") }
}
