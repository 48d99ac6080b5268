//! Which pass made a result wrong: the graphs between passes, evaluated.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;

use bertc_ir::eval::{eval, eval_all};
use bertc_ir::{Diag, Graph, Tensor, ValueId};
use bertc_passes::{Instrument, PassReport, Settings, Step, run_steps_with};
use similar::TextDiff;

use super::compare::{Error, worst};
use super::inputs::Inputs;
use super::ops::node_name;
use crate::instrument::stable;
use crate::passes::PRUNES;

/// Lines of a difference that are shown.
const MAX_LINES: usize = 40;

/// The pass that made the outputs wrong.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// The pass, with its options.
    pub pass: String,
    /// Which of its runs that changed the graph, from 1.
    pub run: usize,
    /// Position among all runs that changed the graph, from 1.
    pub change: usize,
    /// The worst output before.
    pub before: Error,
    /// The worst output after, or what the evaluator said.
    pub after: Result<Error, String>,
    /// The first value that is there before and after, but differs, or the first new output that does.
    pub first: Option<String>,
    /// What the pass put in to compute that value.
    pub new: Vec<String>,
    /// What the pass changed.
    pub diff: Vec<String>,
    /// Lines of the difference that are left out.
    pub left_out: usize,
}

/// Keeps a copy of the graph after each pass that changed it. Tensors share their bytes.
struct Snapshots(Vec<(String, Graph)>);

impl Instrument for Snapshots {
    fn after(&mut self, step: &Step, report: &PassReport<'_>) -> ControlFlow<()> {
        if report.changed {
            self.0.push((step.to_string(), report.graph.clone()));
        }
        ControlFlow::Continue(())
    }
}

/// Runs `steps` on the imported graph `g`, and finds the pass after which the outputs differ from the imported graph's.
/// `None`: they don't after the last one.
///
/// # Errors
/// A pass that fails.
pub fn bisect(
    g: &Graph,
    steps: &[Step],
    settings: &Arc<Settings>,
    inputs: &Inputs,
    tolerance: f64,
) -> Result<Option<Culprit>, Vec<Diag>> {
    let mut kept = Snapshots(vec![(String::new(), g.clone())]);
    let how = bertc_passes::Options::default();
    run_steps_with(&mut g.clone(), steps, &how, settings, &mut kept).map_err(|f| vec![f.diag])?;
    let graphs = kept.0;
    let outputs = |i: usize| eval(&graphs[i].1, &inputs.dims, &inputs.tensors);
    // What comes after pruning is to give what the pruned graph does.
    let prunes = |(name, _): &(String, Graph)| name.split('{').next().is_some_and(|name| PRUNES.contains(&name));
    let pruned = graphs.iter().rposition(prunes);
    let after_pruning = pruned.map(outputs).transpose().map_err(|d| vec![d])?;
    let meant = |i: usize| match (&pruned, &after_pruning) {
        (Some(p), Some(outputs)) if i >= *p => outputs,
        _ => &inputs.outputs,
    };
    let judge = |i: usize| -> Result<Error, String> { Ok(worst(&outputs(i).map_err(|d| d.to_string())?, meant(i))) };
    let wrong = |e: &Result<Error, String>| e.as_ref().map_or(true, |e| e.exceeds(tolerance));
    let (mut good, mut bad) = (0, graphs.len() - 1);
    let mut after = judge(bad);
    if let Some(p) = pruned {
        let before = graphs.iter().position(prunes).unwrap_or(p) - 1;
        match judge(before) {
            e if wrong(&e) => (bad, after) = (before, e),
            _ => good = p,
        }
    }
    if !wrong(&after) {
        return Ok(None);
    }
    // The outputs are right at `good`, and wrong at `bad`.
    let mut before = Error::NONE;
    while bad - good > 1 {
        let middle = good + (bad - good) / 2;
        match judge(middle) {
            Ok(e) if !e.exceeds(tolerance) => (good, before) = (middle, e),
            e => (bad, after) = (middle, e),
        }
    }
    let pass = graphs[bad].0.clone();
    let run = graphs[..=bad].iter().filter(|(name, _)| *name == pass).count();
    let (old, new) = (&graphs[good].1, &graphs[bad].1);
    let (first, added) = suspects(old, new, inputs, meant(bad), tolerance);
    let (diff, left_out) = difference(old, new);
    Ok(Some(Culprit { pass, run, change: bad, before, after, first, new: added, diff, left_out }))
}

/// The first value that differs, and the new ones that it is computed from.
fn suspects(
    old: &Graph,
    new: &Graph,
    inputs: &Inputs,
    meant: &[Tensor],
    tolerance: f64,
) -> (Option<String>, Vec<String>) {
    let all = |g: &Graph| eval_all(g, &inputs.dims, &inputs.tensors).ok();
    let (Some(was), Some(is)) = (all(old), all(new)) else { return (None, Vec::new()) };
    let order = new.topo();
    let survivor = order.iter().copied().find(|v| was.get(v).is_some_and(|w| Error::of(&is[v], w).exceeds(tolerance)));
    let output = || {
        let outputs = new.outputs().iter().zip(meant);
        let wrong = outputs.filter(|(o, want)| Error::of(&is[&o.value], want).exceeds(tolerance));
        wrong.map(|(o, _)| o.value).next()
    };
    let Some(first) = survivor.or_else(output) else { return (None, Vec::new()) };
    let mut found = BTreeSet::new();
    let mut stack = vec![first];
    while let Some(v) = stack.pop() {
        // What was there before and is right needs no look.
        let next = new.operands(v).iter().filter(|o| !old.contains(**o));
        stack.extend(next.filter(|o| found.insert(**o)));
    }
    let describe = |v: ValueId| {
        let node = node_name(new, v).map_or(String::new(), |n| format!(" ({n})"));
        format!("%v{} = {}{node}", v.0, new.op(v).name())
    };
    let added = order.into_iter().filter(|v| found.contains(v)).map(describe).collect();
    (Some(describe(first)), added)
}

/// A difference of the text, and how many lines of it are too much.
fn difference(old: &Graph, new: &Graph) -> (Vec<String>, usize) {
    let (old, new) = (stable(old), stable(new));
    let text = TextDiff::from_lines(&old, &new).unified_diff().context_radius(1).to_string();
    let mut lines: Vec<String> = text.lines().map(String::from).collect();
    let left_out = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    (lines, left_out)
}
