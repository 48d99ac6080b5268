//! Runs a pipeline as the command line asks for it: watched, and with a reproducer when a pass fails.

use std::io::Write;
use std::sync::Arc;

use bertc_ir::{Diag, Graph, Loc, Op};
use bertc_passes::registry::Entry;
use bertc_passes::{Failure, FailureKind, Step, parse, run_steps_with, unknown};

use crate::calibration;
use crate::instrument::Watcher;
use crate::internal;
use crate::options::{CompileOptions, StopAfter};
use crate::progress::Progress;
use crate::reproducer::{self, Crash};

/// The steps that `options` ask for. `legal` is for what is compiled: the backend relies on `legalise`.
///
/// # Errors
/// Everything that is wrong with the flags.
pub fn steps(options: &CompileOptions, table: &'static [Entry], legal: bool) -> Result<Vec<Step>, Vec<Diag>> {
    let mut steps = match &options.passes {
        Some(text) => {
            let mut steps =
                parse(text, table).map_err(|e| e.into_iter().map(|d| in_flag(d, text)).collect::<Vec<_>>())?;
            if legal && steps.last().is_none_or(|s| s.pass.name() != LEGALISE) {
                steps.push(Step::named(LEGALISE, table).map_err(|d| vec![d])?);
            }
            steps
        }
        None => {
            let names = bertc_passes::pipeline(options.opt_level);
            names.iter().map(|n| Step::named(n, table)).collect::<Result<_, _>>().map_err(|d| vec![d])?
        }
    };
    // Last but for what the backend relies on; what 8-bit integers leave, bf16
    // may take.
    let end = steps.iter().rposition(|s| s.pass.name() == LEGALISE).unwrap_or(steps.len());
    let mut narrow = Vec::new();
    if options.int8 {
        narrow.push(Step::named(USE_INT8, table).map_err(|d| vec![d])?);
    }
    if options.bf16 || options.int8 {
        let mut step = Step::named(USE_BF16, table).map_err(|d| vec![d])?;
        if !options.bf16 {
            step.options.push((ATTENTION_ONLY, 1));
        }
        narrow.push(step);
    }
    steps.splice(end..end, narrow);
    let structured = options.prune_heads.is_some() || options.prune_ffn.is_some();
    let asked = [(structured, PRUNE_STRUCTURED), (options.prune.is_some(), PRUNE)];
    let prunes = asked.into_iter().filter(|a| a.0).map(|(_, name)| Step::named(name, table));
    let prunes = prunes.collect::<Result<Vec<_>, _>>().map_err(|d| vec![d])?;
    let at = steps.iter().position(|s| s.pass.name() == FOLD_SCALE).unwrap_or(end);
    steps.splice(at..at, prunes);
    let mut wrong = check_names(options, &steps, table);
    if options.skip_padding {
        match steps.iter_mut().find(|s| s.pass.name() == SKIP_PADDING) {
            Some(step) => step.options.push((OUTPUTS, 1)),
            None => {
                let d = Diag::new(format!("--skip-padding: the pass '{SKIP_PADDING}' is not among those that run"));
                wrong.push(d.note("it is with -O2 and -O3, where --passes doesn't say otherwise"));
            }
        }
    }
    if wrong.is_empty() { Ok(steps) } else { Err(wrong) }
}

const LEGALISE: &str = "legalise";
/// The pass that `--prune` is for. It compares weights of matrices, and so runs before the pass that moves scales into some.
const PRUNE: &str = "prune";
/// The pass that `--prune-heads` and `--prune-ffn` are for: of what is left, weights may go.
const PRUNE_STRUCTURED: &str = "prune-structured";
const FOLD_SCALE: &str = "fold-scale";
/// The pass that `--int8` is for.
const USE_INT8: &str = "use-int8";
/// The pass that `--bf16` is for, and its option for `--int8`, whose attentions are bf16.
const USE_BF16: &str = "use-bf16";
const ATTENTION_ONLY: &str = "attention-only";
/// The pass that `--skip-padding` is for, and its option.
const SKIP_PADDING: &str = "skip-padding";
const OUTPUTS: &str = "outputs";

/// A diagnostic about a flag's text, with the place in it.
fn in_flag(d: Diag, text: &str) -> Diag {
    let Loc::Text { start, end } = d.loc else { return d };
    let chars = |s: &str| s.chars().count();
    let before = chars(&text[..start]);
    let line = text.replace(['\n', '\t'], " ");
    let carets = "^".repeat(chars(&text[start..end]).max(1));
    let mut shown = Diag::new(format!("--passes: {}, at character {}", d.message, before + 1));
    shown = shown.note(format!("{line}\n        {}{carets}", " ".repeat(before)));
    d.notes.into_iter().fold(shown, Diag::note)
}

/// Names of passes in flags that will never be met.
fn check_names(options: &CompileOptions, steps: &[Step], table: &'static [Entry]) -> Vec<Diag> {
    let w = &options.watch;
    let before = w.print_before.iter().map(|n| ("--print-ir-before", n));
    let after = w.print_after.iter().map(|n| ("--print-ir-after", n));
    let stop = match &w.stop_after {
        Some(StopAfter::Pass(n)) => Some(("--stop-after", n)),
        _ => None,
    };
    let known: Vec<_> = table.iter().map(|e| e.pass.name()).collect();
    let all = before.chain(after).chain(stop);
    all.filter_map(|(flag, name)| {
        if !known.contains(&name.as_str()) {
            let phases = if flag == "--stop-after" { StopAfter::PHASES } else { &[] };
            let mut d = unknown("pass", name, &[phases, &known[..]].concat());
            d.message = format!("{flag}: {}", d.message);
            let phases = if phases.is_empty() { String::new() } else { format!("phases: {}; ", phases.join(", ")) };
            return Some(d.note(format!("{phases}passes: {}", known.join(", "))));
        }
        let met = steps.iter().any(|s| s.pass.name() == name);
        let d = || Diag::new(format!("{flag}: the pass '{name}' is not among those that run"));
        (!met).then(|| d().note("choose the passes with -O or --passes"))
    })
    .collect()
}

/// The passes that leave weights out.
pub const PRUNES: &[&str] = &[PRUNE_STRUCTURED, PRUNE];

/// The graph before the first of the passes that leave weights out, and after the last, where they changed something.
pub type Pruned = Option<(Graph, Graph)>;

/// Runs what [`steps`] gave; prints to `out` what the flags ask to see. Whether the pipeline was stopped by a flag is
/// the result.
///
/// # Errors
/// A pass failed. If that is the compiler's fault, a reproducer was written.
pub fn run(
    g: &mut Graph,
    steps: &[Step],
    options: &CompileOptions,
    progress: &mut Progress,
    out: &mut dyn Write,
) -> Result<bool, Vec<Diag>> {
    run_around(g, steps, options, progress, out).map(|r| r.0)
}

/// [`run`], and what was pruned.
///
/// # Errors
/// As [`run`].
pub fn run_around(
    g: &mut Graph,
    steps: &[Step],
    options: &CompileOptions,
    progress: &mut Progress,
    out: &mut dyn Write,
) -> Result<(bool, Pruned), Vec<Diag>> {
    let mut watcher = Watcher::new(&options.watch, out);
    let how = bertc_passes::Options { verify_each: options.verify_each };
    let settings = Arc::new(calibration::settings(g, options)?);
    let result = run_steps_with(g, steps, &how, &settings, &mut watcher);
    let stopped = watcher.finish();
    progress.add_passes(&watcher.rows);
    let pruned = watcher.pruned.take();
    match result {
        Ok(()) if options.skip_padding && !stopped && !g.topo().into_iter().any(|v| leaves_rows_out(g.op(v))) => {
            let d = Diag::new("--skip-padding: the model has no attention mask that tells tokens from padding");
            Err(vec![d.note("--explain says what was found of each attention")])
        }
        Ok(()) => Ok((stopped, pruned)),
        Err(f) => Err(vec![failed(&f, options)]),
    }
}

fn leaves_rows_out(op: &Op) -> bool {
    match op {
        Op::Linear(l) => l.lengths,
        Op::Attention(a) => a.lengths,
        _ => false,
    }
}

fn failed(f: &Failure, options: &CompileOptions) -> Diag {
    let (Some((step, before)), FailureKind::Panic | FailureKind::Verify) = (&f.at, f.kind) else {
        return match f.kind {
            FailureKind::Input => internal::please_report(blamed(f, "the graph was wrong before the first pass")),
            _ => f.diag.clone(),
        };
    };
    let name = step.pass.name();
    let mut d = match f.kind {
        FailureKind::Verify => blamed(f, &format!("the pass '{name}' broke the graph")),
        _ => internal::place_of_panic(blamed(f, "")),
    };
    let crash = Crash { message: &d.message, step, before, target: &options.target };
    d = match reproducer::write(&crash, options.watch.reproducer.as_deref()) {
        Ok(w) => d.note(format!("'{}' holds the IR before the pass; replay it with: {}", w.file.display(), w.command)),
        Err(e) => d.note(e.message),
    };
    internal::please_report(d)
}

/// The failure's own message behind `what`.
fn blamed(f: &Failure, what: &str) -> Diag {
    let place = match &f.diag.loc {
        Loc::Unknown => String::new(),
        loc => format!("{loc}: "),
    };
    let what = if what.is_empty() { String::new() } else { format!("{what}: ") };
    let d = internal::error(&format!("{what}{place}{}", f.diag.message));
    f.diag.notes.iter().cloned().fold(d, Diag::note)
}
