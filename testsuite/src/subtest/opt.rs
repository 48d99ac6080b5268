//! `opt --passes a,b`: runs passes on the file's graph, verifies, and checks the printed result. Returns the graph
//! before and after, or `None` if the expected errors came.

use super::{print, verified};
use crate::filetest::{Command, FileTest};
use bertc_ir::Graph;

pub(super) fn run(test: &FileTest, c: &Command) -> Result<Option<(Graph, Graph)>, String> {
    let [flag, list] = c.args.as_slice() else { return Err("usage: opt --passes a,b".to_string()) };
    if flag != "--passes" {
        return Err(format!("unknown option '{flag}'"));
    }
    let names: Vec<&str> = list.split(',').collect();
    let Some(before) = verified(test)? else { return Ok(None) };
    let mut after = before.clone();
    if let Err(d) = bertc_passes::run_named(&mut after, &names) {
        return test.check_errors(&[d]).map(|()| None);
    }
    bertc_ir::verify::verify(&after).map_err(|e| format!("the result does not verify: {e:#?}\n{}", print(&after)))?;
    test.check_output(&print(&before), &print(&after))?;
    Ok(Some((before, after)))
}
