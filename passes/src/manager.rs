//! Runs lists of passes, and lets others watch.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::ops::ControlFlow;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bertc_ir::{Diag, Graph};

use crate::pass::{Counters, PassContext, Remark, Reports, Settings};
use crate::registry::PASSES;
use crate::step::Step;

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
    /// How often it did something.
    pub counters: Counters,
    /// What the pass remarked, in order, without what it remarked before.
    pub remarks: &'a [Remark],
    /// What it decided, where it has settings.
    pub reports: &'a Reports,
    /// The graph after the pass.
    pub graph: &'a Graph,
}

/// Watches a pipeline.
pub trait Instrument {
    /// Is called before a pass runs.
    fn before(&mut self, step: &Step, g: &Graph) {
        let _ = (step, g);
    }

    /// Is called after a pass ran and, where that was asked for, its result was verified; may end the pipeline.
    fn after(&mut self, step: &Step, report: &PassReport<'_>) -> ControlFlow<()> {
        let _ = (step, report);
        ControlFlow::Continue(())
    }
}

/// Watches nothing.
#[derive(Clone, Copy, Default, Debug)]
pub struct Unwatched;

impl Instrument for Unwatched {}

/// How a pipeline failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FailureKind {
    /// The graph was wrong before the first pass.
    Input,
    /// A pass gave up with a diagnostic.
    Pass,
    /// A pass panicked.
    Panic,
    /// A pass left a graph that doesn't verify.
    Verify,
}

/// What stopped a pipeline.
#[derive(Debug)]
pub struct Failure {
    /// How.
    pub kind: FailureKind,
    /// The message; it names the pass.
    pub diag: Diag,
    /// The pass, and the graph as it was before it; nothing where no pass is to blame.
    pub at: Option<(Step, Box<Graph>)>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diag.fmt(f)
    }
}

impl std::error::Error for Failure {}

/// Runs `names` in order without reports.
///
/// # Errors
/// As [`run`].
pub fn run_named(g: &mut Graph, names: &[&str]) -> Result<(), Diag> {
    run(g, names, &Options::default(), &mut |_| {})
}

/// Runs `names` in order, calling `report` after each pass.
///
/// # Errors
/// An unknown name (nothing runs then), or as [`run_steps`].
pub fn run(
    g: &mut Graph,
    names: &[&str],
    options: &Options,
    report: &mut dyn FnMut(&PassReport<'_>),
) -> Result<(), Diag> {
    struct After<'a>(&'a mut dyn FnMut(&PassReport<'_>));
    impl Instrument for After<'_> {
        fn after(&mut self, _: &Step, report: &PassReport<'_>) -> ControlFlow<()> {
            (self.0)(report);
            ControlFlow::Continue(())
        }
    }
    let steps = steps(names)?;
    run_steps(g, &steps, options, &mut After(report)).map_err(|f| f.diag)
}

/// The passes of these names, without options.
///
/// # Errors
/// An unknown name.
pub fn steps(names: &[&str]) -> Result<Vec<Step>, Diag> {
    names.iter().map(|n| Step::named(n, PASSES)).collect()
}

/// Runs `steps` in order. A step that changed nothing is skipped, without a report, until another one changes the graph.
///
/// # Errors
/// A pass that failed or panicked, or a graph that doesn't verify. The graph is of no use then.
pub fn run_steps(
    g: &mut Graph,
    steps: &[Step],
    options: &Options,
    instrument: &mut dyn Instrument,
) -> Result<(), Box<Failure>> {
    run_steps_with(g, steps, options, &Arc::default(), instrument)
}

/// [`run_steps`] with settings of passes.
///
/// # Errors
/// As [`run_steps`], and what is wrong with the settings.
pub fn run_steps_with(
    g: &mut Graph,
    steps: &[Step],
    options: &Options,
    settings: &Arc<Settings>,
    instrument: &mut dyn Instrument,
) -> Result<(), Box<Failure>> {
    if options.verify_each {
        verify(g).map_err(|d| failure(FailureKind::Input, d.note("found before the first pass"), None))?;
    }
    let names = settings.names.clone();
    let mut ctx = PassContext { settings: settings.clone(), names, ..PassContext::default() };
    // A pass is a function of the graph: it is done with the version of it that it last left unchanged.
    let (mut version, mut done) = (0u32, HashMap::new());
    for step in steps {
        let name = step.pass.name();
        let key = step.to_string();
        if done.get(&key) == Some(&version) {
            continue;
        }
        instrument.before(step, g);
        let (before, remarked) = (g.len(), ctx.remarks.len());
        ctx.counters = Counters::default();
        ctx.reports = Reports::default();
        ctx.options.clone_from(&step.options);
        // Tensors share their bytes, so that a copy is cheap next to a pass.
        let saved = g.clone();
        let start = Instant::now();
        // What a panic leaves is dropped: the caller gets the copy.
        let result = catch_unwind(AssertUnwindSafe(|| step.pass.run(g, &mut ctx)));
        let time = start.elapsed();
        let changed = match result {
            Ok(Ok(changed)) => changed,
            Ok(Err(d)) => {
                let d = d.note(format!("while running the pass '{name}'"));
                return Err(failure(FailureKind::Pass, d, Some((step, saved))));
            }
            Err(payload) => {
                let d = Diag::new(format!("the pass '{name}' panicked: {}", panic_message(&*payload)));
                return Err(failure(FailureKind::Panic, d, Some((step, saved))));
            }
        };
        if changed {
            version += 1;
            if options.verify_each
                && let Err(d) = verify(g)
            {
                let d = d.note(format!("found after the pass '{name}'"));
                return Err(failure(FailureKind::Verify, d, Some((step, saved))));
            }
        } else {
            done.insert(key, version);
        }
        let report = PassReport {
            name,
            time,
            changed,
            before,
            after: g.len(),
            counters: ctx.counters,
            remarks: &ctx.remarks[remarked..],
            reports: &ctx.reports,
            graph: g,
        };
        if instrument.after(step, &report).is_break() {
            break;
        }
    }
    Ok(())
}

fn failure(kind: FailureKind, diag: Diag, at: Option<(&Step, Graph)>) -> Box<Failure> {
    Box::new(Failure { kind, diag, at: at.map(|(s, g)| (s.clone(), Box::new(g))) })
}

/// What a panic said.
pub fn panic_message(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    text.or_else(|| payload.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

fn verify(g: &Graph) -> Result<(), Diag> {
    let Err(problems) = bertc_ir::verify::verify(g) else { return Ok(()) };
    let mut all = problems.into_iter();
    let first = all.next().unwrap_or_else(|| Diag::new("the graph doesn't verify"));
    // One diagnostic leaves the pass manager; the other findings follow as its notes.
    Err(all.fold(first, |d, other| d.note(other.to_string())))
}

#[cfg(test)]
mod tests {
    use bertc_ir::{BinaryOp, DType, Op, UnaryOp};

    use super::*;

    #[test]
    fn an_unknown_pass_is_named_with_the_known_ones() {
        let e = run_named(&mut Graph::new("f"), &["dce", "fuse-everything"]).unwrap_err();
        assert_eq!(e.message, "unknown pass 'fuse-everything'");
        assert!(e.notes.iter().any(|n| n.contains("canonicalise, cse, dce")), "{e}");
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

    struct Panics;
    impl crate::Pass for Panics {
        fn name(&self) -> &'static str {
            "panics"
        }
        fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
            g.name = "half done".into();
            panic!("no {} here", "luck");
        }
    }

    /// Removes what the output says it is.
    struct Breaks;
    impl crate::Pass for Breaks {
        fn name(&self) -> &'static str {
            "breaks"
        }
        fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
            *g = Graph::new(g.name.clone());
            Ok(true)
        }
    }

    static SABOTEURS: &[crate::registry::Entry] =
        &[crate::registry::Entry { pass: &Panics, doc: "" }, crate::registry::Entry { pass: &Breaks, doc: "" }];

    #[test]
    fn a_pass_that_panics_or_breaks_the_graph_is_named_and_the_graph_before_it_is_kept() {
        let mut t = crate::testing::T::new();
        let x = t.input(DType::F32, &["seq"]);
        t.g.add_output("y", x);
        let wrong = |names: &str, verify_each: bool| {
            let steps = crate::parse(names, SABOTEURS).unwrap();
            let f = run_steps(&mut t.g.clone(), &steps, &Options { verify_each }, &mut Unwatched).map_err(|f| *f);
            f.map_err(|f| (f.kind, f.diag.to_string(), f.at.unwrap()))
        };
        let (kind, text, (step, before)) = wrong("panics", false).unwrap_err();
        assert_eq!((kind, &*text), (FailureKind::Panic, "the pass 'panics' panicked: no luck here"));
        assert!(step.to_string() == "panics" && before.name == "f" && before.len() == 1);
        let (kind, text, (_, before)) = wrong("breaks", true).unwrap_err();
        assert_eq!((kind, before.len()), (FailureKind::Verify, 1));
        assert!(text.contains("found after the pass 'breaks'"), "{text}");
        assert!(wrong("breaks", false).is_ok(), "nobody looked");
    }

    #[test]
    fn options_arrive_and_a_pipeline_can_be_stopped() {
        let mut t = crate::testing::T::new();
        let mut x = t.input(DType::F32, &["seq"]);
        for _ in 0..3 {
            x = t.add(Op::Unary(UnaryOp::Neg), &[x]);
        }
        t.g.add_output("y", x);
        struct First(Vec<String>);
        impl Instrument for First {
            fn before(&mut self, step: &Step, g: &Graph) {
                self.0.push(format!("{step} {}", g.len()));
            }
            fn after(&mut self, step: &Step, r: &PassReport<'_>) -> ControlFlow<()> {
                self.0.push(format!("{} {} {}", r.before, r.after, r.counters.applied));
                if step.options.is_empty() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            }
        }
        let mut seen = First(Vec::new());
        let steps = crate::parse("canonicalise{max-iterations=0},canonicalise,dce", PASSES).unwrap();
        run_steps(&mut t.g, &steps, &Options::default(), &mut seen).unwrap();
        assert_eq!(seen.0, ["canonicalise{max-iterations=0} 4", "4 4 0", "canonicalise 4", "4 2 1"]);
    }
}
