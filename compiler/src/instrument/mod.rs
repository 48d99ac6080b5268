//! What the command line shows of passes while they run: IR, differences, remarks, counters. All of it goes to standard
//! error, so that a result on standard output stays whole.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::ControlFlow;
use std::time::Duration;

use bertc_ir::text::{PrintOptions, print};
use bertc_ir::{Graph, Op};
use bertc_passes::{Counters, Instrument, PassReport, Remark, Reports, Step};
use similar::TextDiff;

use crate::options::{StopAfter, Watch};
use crate::passes::{PRUNES, Pruned};

mod explain;
mod int8;
mod prune;
mod structured;

pub use explain::explain;

/// Lines of the IR around a difference.
const CONTEXT: usize = 2;

/// What a pass did in all its runs.
#[derive(Clone, PartialEq, Debug)]
pub struct Row {
    /// The pass.
    pub name: &'static str,
    /// How often it ran.
    pub runs: u32,
    /// How often it changed something.
    pub changed: u32,
    /// Time of all runs.
    pub time: Duration,
    /// Nodes that there were less, after all runs.
    pub removed: i64,
    /// Nodes before its first run.
    pub before: usize,
    /// Nodes after its last run.
    pub after: usize,
    /// Of all runs.
    pub counters: Counters,
}

/// Prints what is asked for, and keeps the books.
pub struct Watcher<'a> {
    watch: &'a Watch,
    out: &'a mut dyn Write,
    last: Option<String>,
    remarks: Vec<Remark>,
    stopped: bool,
    /// A row a pass, in the order in which they first ran.
    pub rows: Vec<Row>,
    /// Around the passes that leave weights out.
    pub pruned: Pruned,
    before: Option<Graph>,
    /// What passes decided.
    pub reports: Reports,
}

impl<'a> Watcher<'a> {
    /// Watches for `watch`, prints to `out`.
    pub fn new(watch: &'a Watch, out: &'a mut dyn Write) -> Self {
        Watcher {
            watch,
            out,
            last: None,
            remarks: Vec::new(),
            stopped: false,
            rows: Vec::new(),
            pruned: None,
            before: None,
            reports: Reports::default(),
        }
    }

    /// Prints what is told at the end. Whether a flag stopped the pipeline is the result.
    pub fn finish(&mut self) -> bool {
        if self.watch.decisions {
            let structured = self.reports.structured.as_ref().map(structured::decisions);
            let prune = self.reports.prune.as_ref().map(prune::decisions);
            let int8 = self.reports.int8.as_ref().map(int8::decisions);
            structured.into_iter().chain(prune).chain(int8).for_each(|text| self.put(&text));
        }
        if self.watch.explain {
            let text = explain(&self.remarks);
            self.put(&text);
        }
        if self.watch.stats {
            let text = stats(&self.rows);
            self.put(&text);
        }
        self.stopped
    }

    fn put(&mut self, text: &str) {
        // Nobody is left to tell when standard error is gone.
        let _ = self.out.write_all(text.as_bytes());
    }

    fn runs(&self, step: &Step) -> u32 {
        self.rows.iter().find(|r| r.name == step.pass.name()).map_or(0, |r| r.runs)
    }

    fn show(&mut self, when: &str, step: &Step, run: u32, g: &Graph, note: &str) {
        let text = print(g, &PrintOptions::default());
        self.put(&format!("// ---- IR {when} {step}, run {run}{note} ----\n{text}"));
    }
}

impl Instrument for Watcher<'_> {
    fn before(&mut self, step: &Step, g: &Graph) {
        let w = self.watch;
        if w.print_before_all || w.print_before.iter().any(|n| n == step.pass.name()) {
            let run = self.runs(step) + 1;
            self.show("before", step, run, g, "");
        }
        if w.print_after_change && self.last.is_none() {
            self.last = Some(stable(g));
        }
        // Tensors share their bytes.
        if PRUNES.contains(&step.pass.name()) && self.before.is_none() {
            self.before = Some(g.clone());
        }
    }

    fn after(&mut self, step: &Step, r: &PassReport<'_>) -> ControlFlow<()> {
        let w = self.watch;
        let i = self.rows.iter().position(|row| row.name == r.name).unwrap_or_else(|| {
            let counters = Counters::default();
            let (name, before, after, time) = (r.name, r.before, r.after, Duration::ZERO);
            self.rows.push(Row { name, runs: 0, changed: 0, time, removed: 0, before, after, counters });
            self.rows.len() - 1
        });
        let row = &mut self.rows[i];
        row.runs += 1;
        row.changed += u32::from(r.changed);
        row.time += r.time;
        row.removed += r.before as i64 - r.after as i64;
        row.after = r.after;
        row.counters.applied += r.counters.applied;
        row.counters.rejected += r.counters.rejected;
        let run = row.runs;
        if PRUNES.contains(&r.name) && r.changed {
            self.pruned = self.before.clone().map(|before| (before, r.graph.clone()));
        }
        self.remarks.extend_from_slice(r.remarks);
        self.reports.structured = r.reports.structured.clone().or(self.reports.structured.take());
        self.reports.prune = r.reports.prune.clone().or(self.reports.prune.take());
        self.reports.int8 = r.reports.int8.clone().or(self.reports.int8.take());
        if w.print_after_all || w.print_after.iter().any(|n| n == r.name) {
            self.show("after", step, run, r.graph, if r.changed { "" } else { ", which changed nothing" });
        }
        if w.print_after_change && r.changed {
            let new = stable(r.graph);
            let old = self.last.replace(new.clone()).unwrap_or_default();
            let diff = TextDiff::from_lines(&old, &new);
            let diff = diff.unified_diff().context_radius(CONTEXT).to_string();
            self.put(&format!("// ---- change by {step}, run {run}: {} to {} nodes ----\n{diff}", r.before, r.after));
        }
        if w.stop_after == Some(StopAfter::Pass(r.name.to_string())) {
            self.stopped = true;
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}

/// The IR for comparing: constants first, and names that a value keeps while it lives, `%v7`. The printer numbers them
/// anew each time, so that one value less would change every line after it.
pub(crate) fn stable(g: &Graph) -> String {
    let text = print(g, &PrintOptions::default());
    let taken: Vec<&str> = g.inputs().iter().map(|p| p.name.as_str()).collect();
    let mut numbers = (0u64..).map(|i| i.to_string()).filter(|n| !taken.contains(&n.as_str()));
    let body = g.topo().into_iter().filter(|&v| !matches!(g.op(v), Op::Input { .. }));
    let names: BTreeMap<String, u32> = body.filter_map(|v| Some((numbers.next()?, v.0))).collect();
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(at) = rest.find('%') {
        let (before, name) = rest.split_at(at + 1);
        let len = name.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(name.len());
        out += before;
        match names.get(&name[..len]) {
            Some(id) => out += &format!("v{id}"),
            None => out += &name[..len],
        }
        rest = &name[len..];
    }
    out += rest;
    // Where a constant stands depends on its users, and says nothing.
    let (constants, mut lines): (Vec<&str>, Vec<&str>) =
        out.split_inclusive('\n').partition(|l| l.starts_with("  %v") && l.contains(" = constant "));
    let body = lines.iter().position(|l| l.starts_with("  ")).unwrap_or(lines.len());
    lines.splice(body..body, constants);
    lines.concat()
}

/// The counters as a table.
pub fn stats(rows: &[Row]) -> String {
    let cells = |r: &Row| {
        let numbers = [r.runs as usize, r.changed as usize, r.before, r.after];
        let mut cells = vec![r.name.to_string()];
        cells.extend(numbers.iter().map(ToString::to_string));
        cells.push((-r.removed).to_string());
        cells.extend([r.counters.applied, r.counters.rejected].iter().map(ToString::to_string));
        cells
    };
    let head = ["pass", "runs", "changed", "nodes before", "after", "difference", "applied", "rejected"];
    crate::output::table(&head, rows.iter().map(cells).collect(), &[1, 2, 3, 4, 5, 6, 7])
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::text::{no_resources, parse};
    use bertc_passes::registry::PASSES;
    use bertc_passes::run_steps;

    const TEXT: &str = "dims seq in 1..=8
func @f(%x: tensor<seq x f32>) -> (y: tensor<seq x f32>) {
  %0 = exp %x
  %1 = neg %0
  %2 = neg %1
  %3 = abs %2
  %4 = tanh %3
  return %4
}";

    fn watch(w: &Watch, passes: &str) -> String {
        let mut g = parse(TEXT, &no_resources).unwrap();
        let mut out = Vec::new();
        let mut watcher = Watcher::new(w, &mut out);
        let steps = bertc_passes::parse(passes, PASSES).unwrap();
        run_steps(&mut g, &steps, &bertc_passes::Options::default(), &mut watcher).unwrap();
        assert_eq!(watcher.finish(), w.stop_after.is_some());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn ir_is_printed_where_asked_for() {
        let w = Watch { print_before: vec!["dce".into()], print_after: vec!["cse".into()], ..Watch::default() };
        let text = watch(&w, "cse,canonicalise,dce");
        let banners: Vec<_> = text.lines().filter(|l| l.starts_with("//")).collect();
        assert_eq!(
            banners,
            ["// ---- IR after cse, run 1, which changed nothing ----", "// ---- IR before dce, run 1 ----"]
        );
        assert_eq!(text.matches("neg %").count(), 2, "{text}");
        let all = Watch { print_before_all: true, print_after_all: true, ..Watch::default() };
        assert_eq!(watch(&all, "cse,canonicalise").matches("// ----").count(), 4);
        assert_eq!(watch(&Watch::default(), "cse,canonicalise"), "");
    }

    #[test]
    fn a_change_is_a_difference_without_what_stayed() {
        let w = Watch { print_after_change: true, ..Watch::default() };
        let text = watch(&w, "dce,canonicalise,dce");
        assert_eq!(text.matches("// ----").count(), 1, "{text}");
        let signs = |c: char| text.lines().filter(|l| l.starts_with(c)).count();
        // Two negations go, and what read the second one reads something else.
        assert_eq!((signs('-'), signs('+')), (3, 1), "{text}");
        assert!(text.contains("  %v5 = tanh"), "{text}");
    }

    #[test]
    fn a_pipeline_stops_and_counters_are_told() {
        let w = Watch { stop_after: Some(StopAfter::Pass("cse".into())), stats: true, ..Watch::default() };
        let text = watch(&w, "canonicalise,dce,cse,canonicalise");
        let rows: Vec<Vec<_>> = text.lines().skip(1).map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(rows[0], ["canonicalise", "1", "1", "6", "4", "-2", "1", "0"], "{text}");
        assert_eq!((rows.len(), rows[2][0]), (3, "cse"), "{text}");
    }
}
