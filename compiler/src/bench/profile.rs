//! `bertc bench --profile`: the time of each step. The object is compiled so that every step calls `parallel_for` once,
//! and that is where time is taken.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bertc_backends::lower;
use bertc_ir::{Diag, Loc, cost};
use serde_json::{Value, json};

use super::report::giga;
use super::{BenchOptions, quantile, rate};
use crate::driver::Compiled;
use crate::load::{LoadedModel, Span};
use crate::output::{Staged, table};
use crate::progress::time;
use crate::run::{plausible_session, pool};

/// What is known of a step without running it.
#[derive(Clone, PartialEq, Debug)]
pub struct StepInfo {
    /// The kernel.
    pub kernel: String,
    /// Name of the op.
    pub op: String,
    /// The model's node, where it is known.
    pub node: Option<String>,
    /// Multiply-adds at the dims; 0 for what is no product.
    pub multiply_adds: u64,
}

/// Steps and their times.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Workers.
    pub threads: u32,
    /// In the order of the program, each with the median of its times.
    pub steps: Vec<(StepInfo, Duration)>,
    /// The spans of the fastest run.
    pub fastest: Vec<Span>,
}

/// The steps of a compiled model, in order.
///
/// # Errors
/// The graph can't be lowered.
pub fn steps(compiled: &Compiled, dims: &[i64]) -> Result<Vec<StepInfo>, Vec<Diag>> {
    let g = &compiled.front().graph;
    let traced = lower::lower_traced(g, &compiled.front().target)?;
    let mut counted = std::collections::BTreeSet::new();
    let step = |(step, &v): (&bertc_backends::plan::Step, _)| {
        let kernel = traced.program.kernels[step.kernel].name.clone();
        // Of a product of two steps the first only packs an operand; a value's later steps are copies.
        let counts = !kernel.starts_with("pack") && counted.insert(v);
        let count = cost::multiply_adds_of(g, v).filter(|_| counts).and_then(|n| n.eval(dims));
        StepInfo {
            kernel,
            op: g.op(v).name().to_string(),
            node: match &g.node(v).loc {
                Loc::Node { name, .. } => Some(name.clone()),
                _ => None,
            },
            multiply_adds: count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0),
        }
    };
    Ok(traced.program.steps.iter().zip(&traced.values).map(step).collect())
}

/// Runs the model as often as `bench` does and takes the time of each step.
///
/// # Errors
/// A model that refuses its inputs, or one whose steps aren't those that it calls.
pub fn measure(
    o: &BenchOptions,
    loaded: &LoadedModel,
    dims: &[i64],
    steps: Vec<StepInfo>,
    threads: u32,
) -> Result<Profile, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let pool = pool(threads).map_err(one)?;
    let mut session = plausible_session(loaded, dims, pool.as_ref())?;
    let mut times = vec![Vec::new(); steps.len()];
    // Room for one more than there should be, which is how too many are seen.
    let mut spans = Vec::with_capacity(steps.len() + 1);
    let mut fastest: Vec<Span> = Vec::new();
    let total = |spans: &[Span]| spans.iter().map(|s| s.time).sum::<Duration>();
    for run in 0..o.warmup + o.repeat.max(1) {
        session.run_timed(&mut spans).map_err(|e| one(Diag::new(e.to_string())))?;
        if spans.len() != steps.len() {
            let d = Diag::new(format!("the model called parallel_for for {} of {} steps", spans.len(), steps.len()));
            return Err(one(d));
        }
        if run < o.warmup {
            continue;
        }
        for (all, s) in times.iter_mut().zip(&spans) {
            all.push(s.time);
        }
        if fastest.is_empty() || total(&spans) < total(&fastest) {
            fastest.clone_from(&spans);
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        quantile(&times, 0.5)
    };
    let steps = steps.into_iter().zip(times.into_iter().map(median)).collect();
    let threads = pool.as_ref().map_or(1, |p| p.parallel().max_workers);
    Ok(Profile { threads, steps, fastest })
}

/// The steps by kernel: calls, time and multiply-adds; the slowest first.
fn by_kernel(p: &Profile) -> Vec<(&str, &str, u32, Duration, u64)> {
    let mut kernels: BTreeMap<(&str, &str), (u32, Duration, u64)> = BTreeMap::new();
    for (s, t) in &p.steps {
        let k = kernels.entry((&s.kernel, &s.op)).or_default();
        *k = (k.0 + 1, k.1 + *t, k.2.saturating_add(s.multiply_adds));
    }
    let mut all: Vec<_> = kernels.into_iter().map(|((k, op), (n, t, m))| (k, op, n, t, m)).collect();
    all.sort_by_key(|k| std::cmp::Reverse(k.3));
    all
}

/// Two tables: kernels, then steps.
pub(super) fn text(p: &Profile) -> String {
    let whole: Duration = p.steps.iter().map(|s| s.1).sum();
    let share = |t: Duration| format!("{:.1}%", 100.0 * t.as_secs_f64() / whole.as_secs_f64().max(1e-12));
    let speed = |m: u64, t: Duration| if m == 0 { String::new() } else { giga(rate(m, t)) };
    let threads = if p.threads == 1 { "1 thread".into() } else { format!("{} threads", p.threads) };
    let mut text = format!("\nkernels on {threads}, medians, {} together:\n", time(whole));
    let rows = by_kernel(p).into_iter();
    let rows =
        rows.map(|(k, op, n, t, m)| vec![k.into(), op.into(), n.to_string(), time(t), share(t), speed(m, t)]).collect();
    text += &table(&["kernel", "op", "steps", "time", "share", "G madd/s"], rows, &[2, 3, 4, 5]);
    text += "\nsteps in order:\n";
    let rows = p.steps.iter().enumerate().map(|(i, (s, t))| {
        let node = s.node.clone().unwrap_or_default();
        vec![i.to_string(), s.kernel.clone(), s.op.clone(), time(*t), share(*t), speed(s.multiply_adds, *t), node]
    });
    text + &table(&["step", "kernel", "op", "time", "share", "G madd/s", "node"], rows.collect(), &[0, 3, 4, 5])
}

/// Times in seconds.
pub(super) fn json(p: &Profile) -> Value {
    let step = |(s, t): &(StepInfo, Duration)| {
        json!({
            "kernel": s.kernel,
            "op": s.op,
            "node": s.node,
            "median_s": t.as_secs_f64(),
            "multiply_adds": s.multiply_adds,
        })
    };
    json!({ "threads": p.threads, "steps": p.steps.iter().map(step).collect::<Vec<_>>() })
}

/// Writes the fastest run as Chrome trace events.
///
/// # Errors
/// The file can't be written.
pub fn write_trace(path: &Path, p: &Profile) -> Result<(), Vec<Diag>> {
    let text = trace(p);
    let mut staged = Staged::default();
    staged.add(path, |w| w.write_all(text.as_bytes()).map_err(|e| vec![Diag::new(format!("can't write: {e}"))]))?;
    staged.commit().map(|_| ()).map_err(|d| vec![d])
}

fn trace(p: &Profile) -> String {
    let micros = |t: Duration| t.as_secs_f64() * 1e6;
    let event = |((info, _), s): (&(StepInfo, Duration), &Span)| {
        json!({
            "name": info.node.as_ref().unwrap_or(&info.op),
            "cat": info.op,
            "ph": "X",
            "ts": micros(s.start),
            "dur": micros(s.time),
            "pid": 1,
            "tid": 1,
            "args": { "kernel": info.kernel, "tasks": s.tasks, "multiply_adds": info.multiply_adds },
        })
    };
    let events: Vec<Value> = p.steps.iter().zip(&p.fastest).map(event).collect();
    format!("{}\n", json!({ "traceEvents": events, "displayTimeUnit": "ns" }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_add_up_by_kernel() {
        let us = Duration::from_micros;
        let step = |kernel: &str, multiply_adds| StepInfo {
            kernel: kernel.into(),
            op: "linear".into(),
            node: Some("/a".into()),
            multiply_adds,
        };
        let spans = |t| Span { start: us(t), time: us(10), tasks: 3 };
        let p = Profile {
            threads: 1,
            steps: vec![(step("gemm_0", 2000), us(2)), (step("copy_1", 0), us(5)), (step("gemm_0", 4000), us(4))],
            fastest: vec![spans(0), spans(10), spans(20)],
        };
        assert_eq!(by_kernel(&p), [("gemm_0", "linear", 2, us(6), 6000), ("copy_1", "linear", 1, us(5), 0)]);
        let text = text(&p);
        assert!(text.contains("54.5%") && text.contains("1.00") && text.contains("11.0 µs together"), "{text}");
        let trace: Value = serde_json::from_str(&trace(&p)).unwrap();
        let last = &trace["traceEvents"][2];
        assert_eq!((last["ts"].as_f64(), last["dur"].as_f64()), (Some(20.0), Some(10.0)));
        assert_eq!((last["ph"].as_str(), last["args"]["tasks"].as_u64()), (Some("X"), Some(3)));
    }
}
