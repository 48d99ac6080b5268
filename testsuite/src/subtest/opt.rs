//! `opt --passes a,b`: runs passes on the graph, verifying after each, and checks the printed result. Remarks of the
//! passes are what `reject:` is compared with.

use super::{Outcome, State, print};
use crate::filetest::Command;

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    let [flag, list] = c.args.as_slice() else { return Err("usage: opt --passes a,b".into()) };
    if flag != "--passes" {
        return Err(format!("unknown option '{flag}'").into());
    }
    let names: Vec<&str> = list.split(',').collect();
    let mut g = s.graph()?;
    let before = g.clone();
    s.before = Some(print(&g));
    let (test, remarks) = (s.test, &mut s.remarks);
    let how = bertc_passes::Options { verify_each: true };
    bertc_passes::run(&mut g, &names, &how, &mut |r| {
        for text in r.remarks {
            // `pass: op (%7): reason`; the value is one of the graph before or after.
            let id = text.split_once("(%").and_then(|(_, t)| t.split_once("):")?.0.parse().ok());
            let value = id.map(bertc_ir::ValueId);
            let graph = [r.graph, &before].into_iter().find(|g| value.is_some_and(|v| g.contains(v)));
            let loc = graph.zip(value).map_or(bertc_ir::Loc::Unknown, |(g, v)| g.node(v).loc.clone());
            remarks.push((test.line_of(&loc), text.clone()));
        }
    })?;
    bertc_ir::verify::verify(&g).map_err(|e| format!("the result does not verify: {e:#?}\n{}", print(&g)))?;
    let text = print(&g);
    s.graph = Some(g);
    s.made = true;
    Ok(text)
}
