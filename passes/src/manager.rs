//! Runs lists of passes.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use bertc_ir::{Diag, Graph};

use crate::pass::PassContext;
use crate::registry;

/// How to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// Verify the graph before the first pass and after each one that changed it.
    pub verify_each: bool,
}

/// What one pass did.
#[derive(Debug)]
pub struct PassReport<'a> {
    /// The pass.
    pub name: &'static str,
    /// Time it took, without verification.
    pub time: Duration,
    /// Whether it changed the graph.
    pub changed: bool,
    /// Nodes before.
    pub before: usize,
    /// Nodes after.
    pub after: usize,
    /// What the pass remarked, in order: lines of the form `pass: op (node): reason`.
    pub remarks: &'a [String],
    /// The graph after the pass.
    pub graph: &'a Graph,
}

/// Runs `names` in order without reports.
///
/// # Errors
/// As [`run`].
pub fn run_named(g: &mut Graph, names: &[&str]) -> Result<(), Diag> {
    run(g, names, &Options::default(), &mut |_| {})
}

/// Runs `names` in order, calling `report` after each pass. A pass that changed nothing is skipped, without a report,
/// until another pass changes the graph.
///
/// # Errors
/// An unknown name (nothing runs then), a pass that failed, or a graph that doesn't verify.
pub fn run(
    g: &mut Graph,
    names: &[&str],
    options: &Options,
    report: &mut dyn FnMut(&PassReport<'_>),
) -> Result<(), Diag> {
    let passes = names.iter().map(|n| find(n)).collect::<Result<Vec<_>, _>>()?;
    if options.verify_each {
        verify(g, "before the first pass")?;
    }
    let mut ctx = PassContext::default();
    // A pass is a function of the graph: it is done with the version of it that it last left unchanged.
    let (mut version, mut done) = (0u32, HashMap::new());
    for entry in passes {
        let name = entry.pass.name();
        if done.get(name) == Some(&version) {
            continue;
        }
        let (before, remarked) = (g.len(), ctx.remarks.len());
        let start = Instant::now();
        let changed = entry.pass.run(g, &mut ctx).map_err(|d| d.note(format!("while running the pass '{name}'")))?;
        let time = start.elapsed();
        if changed {
            version += 1;
            if options.verify_each {
                verify(g, &format!("after the pass '{name}'"))?;
            }
        } else {
            done.insert(name, version);
        }
        report(&PassReport {
            name,
            time,
            changed,
            before,
            after: g.len(),
            remarks: &ctx.remarks[remarked..],
            graph: g,
        });
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static registry::Entry, Diag> {
    registry::find(name).ok_or_else(|| {
        let known: Vec<_> = registry::PASSES.iter().map(|e| e.pass.name()).collect();
        Diag::new(format!("unknown pass '{name}'")).note(format!("known passes: {}", known.join(", ")))
    })
}

fn verify(g: &Graph, when: &str) -> Result<(), Diag> {
    let Err(problems) = bertc_ir::verify::verify(g) else { return Ok(()) };
    let mut all = problems.into_iter();
    let first = all.next().unwrap_or_else(|| Diag::new("the graph doesn't verify"));
    // One diagnostic leaves the pass manager; the other findings follow as its notes.
    Err(all.fold(first.note(format!("found {when}")), |d, other| d.note(other.to_string())))
}

#[cfg(test)]
mod tests {
    use bertc_ir::{BinaryOp, DType, Op, UnaryOp};

    use super::*;

    #[test]
    fn an_unknown_pass_is_named_with_the_known_ones() {
        let e = run_named(&mut Graph::new("f"), &["dce", "fuse-everything"]).unwrap_err();
        assert_eq!(e.message, "unknown pass 'fuse-everything'");
        assert!(e.notes[0].contains("canonicalise, cse, dce"), "{e}");
    }

    #[test]
    fn a_pass_is_skipped_until_something_changes() {
        let mut t = crate::testing::T::new();
        let x = t.input(DType::F32, &["seq"]);
        let (a, b) = (t.add(Op::Unary(UnaryOp::Exp), &[x]), t.add(Op::Unary(UnaryOp::Exp), &[x]));
        let y = t.bin(BinaryOp::Mul, a, b);
        t.g.add_output("y", y);
        let mut ran = Vec::new();
        let options = Options { verify_each: true };
        run(&mut t.g, &["dce", "dce", "cse", "dce", "cse", "cse"], &options, &mut |r| {
            ran.push((r.name, r.changed, r.after));
        })
        .unwrap();
        assert_eq!(ran, [("dce", false, 4), ("cse", true, 3), ("dce", false, 3), ("cse", false, 3)]);
    }

    #[test]
    fn a_graph_that_does_not_verify_is_an_error() {
        let options = Options { verify_each: true };
        let e = run(&mut Graph::new("f"), &["dce"], &options, &mut |_| {}).unwrap_err();
        assert!(e.notes.iter().any(|n| n == "found before the first pass"), "{e}");
    }
}
