//! `parse`: the file parses; its printed form is checked, and parses to the same graph.

use super::{graph, no_options, print};
use crate::filetest::{Command, FileTest};
use bertc_ir::text::{no_resources, structurally_equal};

pub(super) fn run(test: &FileTest, c: &Command) -> Result<(), String> {
    no_options(c)?;
    let Some(g) = graph(test)? else { return Ok(()) };
    let text = print(&g);
    let back = bertc_ir::text::parse(&text, &no_resources).map_err(|e| format!("{e:#?}\n{text}"))?;
    if !structurally_equal(&g, &back) || print(&back) != text {
        return Err(format!("the printed text is another graph\n{text}"));
    }
    test.check_output(&text, &text)
}
