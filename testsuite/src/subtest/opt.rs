//! `opt --passes a,b{option=1}`: runs passes on the graph, verifying after each, and checks the printed result. Remarks of
//! the passes are what `reject:` is compared with.

use std::ops::ControlFlow;

use bertc_ir::{Graph, Loc};
use bertc_passes::registry::PASSES;
use bertc_passes::{Instrument, Options, PassReport, Step};

use super::{Outcome, State, print};
use crate::filetest::{Command, FileTest};

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    let [flag, list] = c.args.as_slice() else { return Err("usage: opt --passes a,b".into()) };
    if flag != "--passes" {
        return Err(format!("unknown option '{flag}'").into());
    }
    // A name that is wrong is an error of the file, not of a place in it.
    let steps = bertc_passes::parse(list, PASSES)
        .map_err(|all| all.into_iter().map(|d| d.at(Loc::Unknown)).collect::<Vec<_>>())?;
    let mut g = s.graph()?;
    let before = g.clone();
    s.before = Some(print(&g));
    let mut remarks = Remarks { test: s.test, before: &before, found: &mut s.remarks };
    let how = Options { verify_each: true };
    bertc_passes::run_steps(&mut g, &steps, &how, &mut remarks).map_err(|f| f.diag)?;
    bertc_ir::verify::verify(&g).map_err(|e| format!("the result does not verify: {e:#?}\n{}", print(&g)))?;
    let text = print(&g);
    s.graph = Some(g);
    s.made = true;
    Ok(text)
}

/// Collects remarks with the lines that they are about.
struct Remarks<'a> {
    test: &'a FileTest,
    before: &'a Graph,
    found: &'a mut Vec<(usize, String)>,
}

impl Instrument for Remarks<'_> {
    fn after(&mut self, _: &Step, report: &PassReport<'_>) -> ControlFlow<()> {
        for r in report.remarks {
            // The value is one of the graph before or after.
            let graph = [report.graph, self.before].into_iter().find(|g| g.contains(r.value));
            let loc = graph.map_or(&Loc::Unknown, |g| &g.node(r.value).loc);
            self.found.push((self.test.line_of(loc), r.to_string()));
        }
        ControlFlow::Continue(())
    }
}
