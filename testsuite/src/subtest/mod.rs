//! The commands of file tests, one file each.

mod opt;
mod parse;
mod run;
mod verify;

use bertc_ir::Graph;
use bertc_ir::text::{PrintOptions, no_resources};

use crate::filetest::{Command, FileTest};

/// Runs a test's commands.
///
/// # Errors
/// Why the test fails.
pub fn run(test: &FileTest) -> Result<(), String> {
    let mut before_and_after = None;
    for c in &test.commands {
        match c.name.as_str() {
            "parse" => parse::run(test, c)?,
            "verify" => verify::run(test, c)?,
            "opt" => before_and_after = Some(opt::run(test, c)?),
            "run" => {
                let graphs = before_and_after.as_ref().ok_or("'run' follows 'opt': it compares before with after")?;
                if let Some((before, after)) = graphs {
                    run::run(before, after, c)?;
                }
            }
            other => return Err(format!("unknown command '{other}'")),
        }
    }
    Ok(())
}

fn no_options(c: &Command) -> Result<(), String> {
    if c.args.is_empty() { Ok(()) } else { Err(format!("'{}' takes no options", c.name)) }
}

fn print(g: &Graph) -> String {
    bertc_ir::text::print(g, &PrintOptions { inline_constants: true, locations: false })
}

/// The test's graph, or `None` if it has exactly the errors that the test expects.
fn graph(test: &FileTest) -> Result<Option<Graph>, String> {
    match bertc_ir::text::parse(&test.source, &no_resources) {
        Ok(g) => Ok(Some(g)),
        Err(e) => test.check_errors(&e).map(|()| None),
    }
}

/// As [`graph`], and verified.
fn verified(test: &FileTest) -> Result<Option<Graph>, String> {
    let Some(g) = graph(test)? else { return Ok(None) };
    match bertc_ir::verify::verify(&g) {
        Ok(()) => Ok(Some(g)),
        Err(e) => test.check_errors(&e).map(|()| None),
    }
}
