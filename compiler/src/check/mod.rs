//! `bertc check`: the compiled model next to the evaluator, on the same inputs.
//!
//! Two things can be wrong with a result, and each has its own comparison: the passes (the transformed graph against the
//! imported one, both evaluated) and what comes behind them (the compiled program against the evaluator on the
//! transformed graph, op by op).

use std::path::PathBuf;
use std::sync::Arc;

use bertc_ir::eval::{eval, eval_all};
use bertc_ir::{Diag, Graph, Tensor};
use bertc_passes::registry::{Entry, PASSES};

use self::bisect::Culprit;
use self::compare::Error;
use self::fidelity::LayerRow;
use self::inputs::Inputs;
use self::ops::{OpRow, Sabotage, Tapped};
use crate::options::CompileOptions;
use crate::output::to_stdout;
use crate::progress::{Phase, Progress};
use crate::{calibration, opt, passes};

pub mod bisect;
pub mod compare;
pub mod fidelity;
pub mod inputs;
pub mod ops;
mod report;
#[cfg(test)]
mod tests;

/// What `check` was asked to do.
#[derive(Clone, Debug)]
pub struct CheckOptions {
    /// The model, or IR text.
    pub model: PathBuf,
    /// Large constants of the text.
    pub resources: Option<PathBuf>,
    /// How to compile it.
    pub compile: CompileOptions,
    /// Inputs; without, plausible ones are made.
    pub input: Option<PathBuf>,
    /// The largest relative error that is fine.
    pub tolerance: f64,
    /// Look at every op.
    pub taps: bool,
    /// Find the pass that made the outputs wrong.
    pub bisect: bool,
    /// JSON instead of tables.
    pub json: bool,
    /// No progress bar.
    pub quiet: bool,
}

/// One output in all forms.
#[derive(Clone, Debug)]
pub struct OutputRow {
    /// Name as in the model.
    pub name: String,
    /// Transformed graph against imported one, both by the evaluator.
    pub passes: Error,
    /// Compiled code against the imported graph, or against it with the weights that pruning left.
    pub compiled: Error,
    /// Of a pruned model, compiled code against the imported graph.
    pub dense: Option<Error>,
    /// Compiled code with taps against the same.
    pub tapped: Option<Error>,
}

/// All that was compared.
#[derive(Clone, Debug)]
pub struct Report {
    /// Inputs: name, type and shape.
    pub inputs: Vec<String>,
    /// Dims by name.
    pub dims: Vec<(String, i64)>,
    /// Whether the inputs were made up.
    pub plausible: bool,
    /// The largest relative error that is fine.
    pub tolerance: f64,
    /// Nodes of the graph as imported, and after the passes.
    pub nodes: (usize, usize),
    /// Every computed op, unless nobody asked.
    pub ops: Option<Vec<OpRow>>,
    /// Every output.
    pub outputs: Vec<OutputRow>,
    /// What `--int8` and `--prune` cost each layer.
    pub layers: Option<Vec<LayerRow>>,
    /// What bisection found, if it was asked for; nothing, if the passes are right.
    pub bisect: Option<Option<Culprit>>,
}

/// Where the first deviation above the tolerance enters.
#[derive(Clone, Debug)]
pub enum Verdict<'a> {
    /// Nowhere.
    Fine,
    /// In the passes.
    Passes(Option<&'a Culprit>),
    /// In the code of this op.
    Op(&'a OpRow),
    /// In no single op: the errors of several add up to too much here.
    Sum(&'a OpRow),
    /// Only where buffers share memory: all ops are right while each has its own.
    Memory,
    /// Somewhere behind the passes; the ops were not looked at.
    Code,
}

impl Report {
    /// Where the first deviation above the tolerance enters.
    pub fn verdict(&self) -> Verdict<'_> {
        let above = |e: &Error| e.exceeds(self.tolerance);
        if self.outputs.iter().any(|o| above(&o.passes)) {
            return Verdict::Passes(self.bisect.as_ref().and_then(|b| b.as_ref()));
        }
        let rows = self.ops.as_deref().unwrap_or_default();
        if let Some(row) = rows.iter().find(|r| above(&r.own)) {
            return Verdict::Op(row);
        }
        if let Some(row) = rows.iter().find(|r| above(&r.error)) {
            return Verdict::Sum(row);
        }
        if !self.outputs.iter().any(|o| above(&o.compiled)) {
            return Verdict::Fine;
        }
        if self.outputs.iter().all(|o| o.tapped.is_some_and(|t| !above(&t))) { Verdict::Memory } else { Verdict::Code }
    }
}

/// Runs the subcommand: prints the report.
///
/// # Errors
/// What [`check`] reports, and a deviation above the tolerance.
pub fn run(o: &CheckOptions) -> Result<(), Vec<Diag>> {
    let report = check(o, PASSES, None)?;
    let text = if o.json { report::json(o, &report) } else { report::text(&report) };
    to_stdout(text.as_bytes()).map_err(|d| vec![d])?;
    report::failure(&report).map_or(Ok(()), |d| Err(vec![d]))
}

/// Compares, with the passes of `table`; `sabotage` changes the program before its code is made.
///
/// # Errors
/// Everything that is wrong with flags, model or inputs, and whatever keeps the model from being compiled.
pub fn check(o: &CheckOptions, table: &'static [Entry], sabotage: Option<Sabotage<'_>>) -> Result<Report, Vec<Diag>> {
    let target = o.compile.machine().map_err(|d| vec![d])?;
    let steps = passes::steps(&o.compile, table, true)?;
    let progress = &mut Progress::new(o.quiet);
    progress.print_timing(o.compile.watch.timing);
    let imported = progress.phase(Phase::Import, || load(o))?;
    // Padding is what --skip-padding makes something else of.
    let inputs = inputs::inputs(&imported, o.input.as_deref(), !o.compile.skip_padding)?;
    let settings = Arc::new(calibration::settings(&imported, &o.compile)?);
    let bisect = || bisect::bisect(&imported, &steps, &settings, &inputs, o.tolerance);
    let bisect = o.bisect.then(bisect).transpose()?;
    let mut g = imported.clone();
    let (_, pruned) = progress
        .nested(Phase::Passes, |p| passes::run_around(&mut g, &steps, &o.compile, p, &mut std::io::stderr()))?;
    g.name.clone_from(&o.compile.name);
    let values = eval_all(&g, &inputs.dims, &inputs.tensors).map_err(|d| {
        let d = d.note("while evaluating the graph after the passes");
        let found = bisect.as_ref().and_then(|b: &Option<Culprit>| b.as_ref());
        let who = found.map_or("--bisect names the pass".into(), |c| format!("since the pass '{}'", c.pass));
        vec![d.note(who)]
    })?;
    let plain = ops::execute(&g, &target, &inputs, sabotage)?;
    let taps = || ops::taps(&g, &plain.traced, &target, &inputs, &values, sabotage);
    let tapped = o.taps.then(taps).transpose()?;
    let layers = || fidelity::layers(&imported, &steps, &inputs, &g, &values);
    let layers = (o.compile.int8 || pruned.is_some()).then(layers).transpose()?;
    let meant = pruned.map(|(before, after)| Meant::of(&before, &after, &inputs)).transpose()?;
    progress.finish();
    let transformed: Vec<Tensor> = g.outputs().iter().map(|p| values[&p.value].clone()).collect();
    Ok(Report {
        inputs: ports(&imported, &inputs),
        dims: imported.symbols.iter().map(|(_, s)| s.name.clone()).zip(inputs.dims.iter().copied()).collect(),
        plausible: o.input.is_none(),
        tolerance: o.tolerance,
        nodes: (imported.len(), g.len()),
        outputs: outputs(&g, &inputs, meant.as_ref(), &transformed, &plain.outputs, tapped.as_ref()),
        ops: tapped.map(|t| t.rows),
        layers,
        bisect,
    })
}

/// The graph as it is before all passes.
fn load(o: &CheckOptions) -> Result<Graph, Vec<Diag>> {
    opt::load(&opt::OptOptions {
        file: o.model.clone(),
        output: None,
        inline_constants: false,
        locations: false,
        resources: o.resources.clone(),
        compile: o.compile.clone(),
    })
}

fn ports(g: &Graph, inputs: &Inputs) -> Vec<String> {
    let ports = g.inputs().iter().zip(&inputs.tensors);
    ports.map(|(p, t)| format!("{} {} {:?}", p.name, t.dtype(), t.shape())).collect()
}

/// The outputs around the passes that leave weights out. What comes before them is to give what the imported graph does, and
/// what comes after them what the pruned one does.
struct Meant {
    before: Vec<Tensor>,
    after: Vec<Tensor>,
}

impl Meant {
    fn of(before: &Graph, after: &Graph, inputs: &Inputs) -> Result<Meant, Vec<Diag>> {
        let outputs = |g: &Graph| {
            let note = "while evaluating the graph around pruning";
            eval(g, &inputs.dims, &inputs.tensors).map_err(|d| vec![d.note(note)])
        };
        Ok(Meant { before: outputs(before)?, after: outputs(after)? })
    }
}

fn outputs(
    g: &Graph,
    inputs: &Inputs,
    meant: Option<&Meant>,
    transformed: &[Tensor],
    compiled: &[Tensor],
    tapped: Option<&Tapped>,
) -> Vec<OutputRow> {
    let row = |(i, want): (usize, &Tensor)| {
        let pruned = meant.and_then(|m| m.after.get(i)).unwrap_or(want);
        let of = |all: &[Tensor], want: &Tensor| all.get(i).map_or(Error::TOTAL, |t| Error::of(t, want));
        let error = |all: &[Tensor]| of(all, pruned);
        OutputRow {
            name: g.outputs()[i].name.clone(),
            passes: meant.map_or(Error::NONE, |m| of(&m.before, want)).worse(error(transformed)),
            compiled: error(compiled),
            dense: meant.map(|_| of(compiled, want)),
            tapped: tapped.map(|t| error(&t.outputs)),
        }
    };
    inputs.outputs.iter().enumerate().map(row).collect()
}
