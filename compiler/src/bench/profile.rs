//! `bertc bench --profile`: the time of each step. The object is compiled so that every step calls `parallel_for` once,
//! and that is where time is taken.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use bertc_backends::lower;
use bertc_ir::{Diag, Loc, cost};
use serde_json::{Value, json};

use super::bound::{self, Bound, Machine, Traffic};
use super::peak::PeakKind;
use super::report::giga;
use super::sheet::Sheet;
use super::{BenchOptions, quantile, rate};
use crate::driver::Compiled;
use crate::load::{LoadedModel, Span};
use crate::output::Staged;
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
    /// Multiply-adds at the dims, without those of blocks of zeros that are left out; 0 for what is no product.
    pub multiply_adds: u64,
    /// The peak that these are measured against.
    pub(super) kind: PeakKind,
    /// Bytes that it moves at least.
    pub moved: Traffic,
}

/// The steps of a program.
#[derive(Clone, PartialEq, Debug)]
pub struct Steps {
    /// In order.
    pub steps: Vec<StepInfo>,
    /// Bytes of constants that a run reads.
    pub weights: u64,
    /// Multiply-adds of blocks of zeros, which are left out.
    pub left_out: u64,
}

/// A step that was timed.
#[derive(Clone, PartialEq, Debug)]
pub struct StepTime {
    /// What it is.
    pub info: StepInfo,
    /// The median of its times.
    pub time: Duration,
    /// What it can't be faster than.
    pub bound: Bound,
}

/// Steps and their times.
#[derive(Clone, Debug)]
pub struct Profile {
    /// Workers.
    pub threads: u32,
    /// In the order of the program.
    pub steps: Vec<StepTime>,
    /// The spans of the fastest run.
    pub fastest: Vec<Span>,
}

/// The steps of a compiled model, in order.
///
/// # Errors
/// The graph can't be lowered.
pub fn steps(compiled: &Compiled, dims: &[i64]) -> Result<Steps, Vec<Diag>> {
    let g = &compiled.front().graph;
    // Of several variants, the object runs the last one that suits the CPU.
    let target = compiled.targets().filter(|t| t.runs_here()).last().unwrap_or(&compiled.front().target);
    let traced = lower::lower_traced(g, target)?;
    let moved = bound::moved(g, &traced, dims);
    let mut counted = std::collections::BTreeSet::new();
    let mut left_out = 0;
    let step = |(((step, &v), &moved), matrix): (((&bertc_backends::plan::Step, _), _), &Option<lower::Decision>)| {
        let kernel = bound::kernel(&traced.program, step);
        // Of a product of two steps the first only packs an operand; a value's later steps are copies.
        let counts = !kernel.name.starts_with("pack") && counted.insert(v);
        let count = cost::multiply_adds_of(g, v).filter(|_| counts).and_then(|n| n.eval(dims));
        let count = count.and_then(|n| u64::try_from(n).ok()).unwrap_or(0);
        let kept = matrix.as_ref().filter(|d| d.sparse).map_or(count, |d| (count as f64 * d.kept) as u64);
        left_out += count - kept;
        StepInfo {
            kernel: kernel.name.clone(),
            op: g.op(v).name().to_string(),
            node: match &g.node(v).loc {
                Loc::Node { name, .. } => Some(name.clone()),
                _ => None,
            },
            multiply_adds: kept,
            kind: bound::kind(kernel),
            moved,
        }
    };
    let steps = traced.program.steps.iter().zip(&traced.values).zip(&moved.steps).zip(&traced.sparse);
    let steps = steps.map(step).collect();
    Ok(Steps { steps, weights: moved.weights, left_out })
}

/// Runs the model as often as `bench` does and takes the time of each step. `machine` is what was measured with as many
/// `threads`.
///
/// # Errors
/// A model that refuses its inputs, or one whose steps aren't those that it calls.
pub(super) fn measure(
    o: &BenchOptions,
    loaded: &LoadedModel,
    dims: &[i64],
    Steps { steps, weights, .. }: Steps,
    threads: u32,
    machine: &Machine<'_>,
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
    let timed = |(info, times): (StepInfo, _)| {
        let bound = machine.bound(info.multiply_adds, info.kind, info.moved, weights);
        StepTime { info, time: median(times), bound }
    };
    let steps = steps.into_iter().zip(times).map(timed).collect();
    let threads = pool.as_ref().map_or(1, |p| p.parallel().max_workers);
    Ok(Profile { threads, steps, fastest })
}

/// All steps of a kernel and an op.
#[derive(Clone, PartialEq, Debug)]
pub struct KernelTime<'a> {
    /// The kernel.
    pub kernel: &'a str,
    /// Name of the op.
    pub op: &'a str,
    /// How many steps.
    pub steps: u32,
    /// Their times together.
    pub time: Duration,
    /// Their multiply-adds.
    pub multiply_adds: u64,
    /// The peak that these are measured against.
    pub(super) kind: PeakKind,
    /// Bytes that they move at least.
    pub bytes: u64,
    /// What they can't be faster than.
    pub bound: Bound,
}

/// The steps by kernel, the slowest first.
pub(super) fn by_kernel(p: &Profile) -> Vec<KernelTime<'_>> {
    let mut kernels: BTreeMap<(&str, &str), KernelTime<'_>> = BTreeMap::new();
    for StepTime { info, time, bound } in &p.steps {
        let k = kernels.entry((&info.kernel, &info.op)).or_insert(KernelTime {
            kernel: &info.kernel,
            op: &info.op,
            steps: 0,
            time: Duration::ZERO,
            multiply_adds: 0,
            kind: info.kind,
            bytes: 0,
            bound: Bound::default(),
        });
        k.steps += 1;
        k.time += *time;
        k.multiply_adds = k.multiply_adds.saturating_add(info.multiply_adds);
        k.bytes = k.bytes.saturating_add(info.moved.bytes());
        k.bound = k.bound.and(bound);
    }
    let mut all: Vec<_> = kernels.into_values().collect();
    all.sort_by_key(|k| std::cmp::Reverse(k.time));
    all
}

/// The part of its bound that a time reaches, in percent.
pub(super) fn percent(bound: &Bound, t: Duration) -> f64 {
    100.0 * bound.time / t.as_secs_f64().max(1e-9)
}

/// Two tables: kernels, then steps.
pub(super) fn text(p: &Profile) -> String {
    let whole = time(whole(p));
    let mut text = format!("\nkernels on {}, medians, {whole} together:\n", threads(p));
    text += &kernels(p).text();
    text += "\nsteps in order:\n";
    text + &in_order(p).text()
}

/// How many threads the steps had.
pub(super) fn threads(p: &Profile) -> String {
    if p.threads == 1 { "1 thread".into() } else { format!("{} threads", p.threads) }
}

/// The time of all steps.
fn whole(p: &Profile) -> Duration {
    p.steps.iter().map(|s| s.time).sum()
}

/// What both tables tell: time, share of it all, multiply-adds a second, part of the bound, what binds.
fn figures(p: &Profile, t: Duration, multiply_adds: u64, bound: &Bound) -> [String; 5] {
    let share = 100.0 * t.as_secs_f64() / whole(p).as_secs_f64().max(1e-12);
    let speed = if multiply_adds == 0 { String::new() } else { giga(rate(multiply_adds, t)) };
    let (of, by) = match bound.by() {
        Some(by) => (format!("{:.1}%", percent(bound, t)), by.name().to_string()),
        None => Default::default(),
    };
    [time(t), format!("{share:.1}%"), speed, of, by]
}

/// A line for each kernel.
pub(super) fn kernels(p: &Profile) -> Sheet {
    let rows = by_kernel(p).into_iter().map(|k| {
        let mut row = vec![k.kernel.to_string(), k.op.to_string(), k.steps.to_string()];
        row.extend(figures(p, k.time, k.multiply_adds, &k.bound));
        row
    });
    let header = ["kernel", "op", "steps", "time", "share", "G madd/s", "of bound", "bound by"];
    Sheet { header: header.map(String::from).to_vec(), rows: rows.collect(), right: (2..=6).collect() }
}

/// A line for each step.
pub(super) fn in_order(p: &Profile) -> Sheet {
    let rows = p.steps.iter().enumerate().map(|(i, StepTime { info, time, bound })| {
        let mut row = vec![i.to_string(), info.kernel.clone(), info.op.clone()];
        row.extend(figures(p, *time, info.multiply_adds, bound));
        row.push(info.node.clone().unwrap_or_default());
        row
    });
    let header = ["step", "kernel", "op", "time", "share", "G madd/s", "of bound", "bound by", "node"];
    Sheet { header: header.map(String::from).to_vec(), rows: rows.collect(), right: vec![0, 3, 4, 5, 6] }
}

/// Times in seconds.
pub(super) fn json(p: &Profile) -> Value {
    let step = |StepTime { info, time, bound }: &StepTime| {
        json!({
            "kernel": info.kernel,
            "op": info.op,
            "node": info.node,
            "median_s": time.as_secs_f64(),
            "multiply_adds": info.multiply_adds,
            "weight_bytes": info.moved.weights,
            "data_bytes": info.moved.data,
            "bits": info.kind.bits,
            "bound_s": bound.time,
            "percent_of_bound": percent(bound, *time),
            "bound_by": bound.by().map(bound::Binding::name),
        })
    };
    let kernel = |k: KernelTime<'_>| {
        json!({
            "kernel": k.kernel,
            "op": k.op,
            "steps": k.steps,
            "time_s": k.time.as_secs_f64(),
            "multiply_adds": k.multiply_adds,
            "bytes": k.bytes,
            "bits": k.kind.bits,
            "bound_s": k.bound.time,
            "percent_of_bound": percent(&k.bound, k.time),
            "bound_by": k.bound.by().map(bound::Binding::name),
        })
    };
    json!({
        "threads": p.threads,
        "kernels": by_kernel(p).into_iter().map(kernel).collect::<Vec<_>>(),
        "steps": p.steps.iter().map(step).collect::<Vec<_>>(),
    })
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
    let event = |(StepTime { info, .. }, s): (&StepTime, &Span)| {
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
        let kind = PeakKind { dtype: bertc_ir::DType::F32, bits: 512 };
        let step = |kernel: &str, multiply_adds, t, compute, cache| StepTime {
            info: StepInfo {
                kernel: kernel.into(),
                op: "linear".into(),
                node: Some("/a".into()),
                multiply_adds,
                kind,
                moved: Traffic { weights: 300, data: 40 },
            },
            time: us(t),
            bound: Bound { compute, cache, memory: 0.0, time: f64::max(compute, cache) },
        };
        let spans = |t| Span { start: us(t), time: us(10), tasks: 3 };
        let p = Profile {
            threads: 1,
            steps: vec![
                step("gemm_0", 2000, 2, 1e-6, 5e-7),
                step("copy_1", 0, 5, 0.0, 1e-6),
                step("gemm_0", 4000, 4, 2e-6, 5e-7),
            ],
            fastest: vec![spans(0), spans(10), spans(20)],
        };
        let kernels = by_kernel(&p);
        let short: Vec<_> = kernels.iter().map(|k| (k.kernel, k.steps, k.time, k.multiply_adds, k.bytes)).collect();
        assert_eq!(short, [("gemm_0", 2, us(6), 6000, 680), ("copy_1", 1, us(5), 0, 340)]);
        let text = text(&p);
        assert!(text.contains("54.5%") && text.contains("1.00") && text.contains("11.0 µs together"), "{text}");
        let line = |kernel: &str| text.lines().find(|l| l.trim_start().starts_with(kernel)).unwrap();
        assert!(line("gemm_0").contains("50.0%") && line("gemm_0").ends_with("multiply-adds"), "{text}");
        assert!(line("copy_1").contains("20.0%") && line("copy_1").ends_with("cache"), "{text}");
        let v = json(&p);
        assert_eq!((&v["steps"][1]["bound_by"], &v["kernels"][0]["bytes"]), (&json!("cache"), &json!(680)));
        let trace: Value = serde_json::from_str(&trace(&p)).unwrap();
        let last = &trace["traceEvents"][2];
        assert_eq!((last["ts"].as_f64(), last["dur"].as_f64()), (Some(20.0), Some(10.0)));
        assert_eq!((last["ph"].as_str(), last["args"]["tasks"].as_u64()), (Some("X"), Some(3)));
    }
}
