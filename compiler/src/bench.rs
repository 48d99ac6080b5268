//! `bertc bench`: how fast a compiled model runs, and how near that is to what the machine can do.
//!
//! The yardstick is measured, not looked up: [`bertc_backends::peak`] compiled for this machine, run between the model's
//! runs in the same process and on as many threads. Both then meet the same clock rates and the same neighbours.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bertc_backends::object::ObjectStats;
use bertc_ir::{Diag, cost};
use bertc_rt::ThreadPool;

use crate::import::onnx::{self, ImportOptions};
use crate::load::{LoadedModel, RunError};
use crate::options::CompileOptions;
use crate::output::{check_target, to_stdout};
use crate::progress::{Phase, Progress};
use crate::run::{plausible_dims, plausible_session, pool};
use crate::{driver, link};

mod bandwidth;
pub mod bound;
mod caches;
mod html;
pub mod memory;
mod peak;
pub mod profile;
mod report;
mod roofline;
mod sheet;

/// What `bench` was asked to do.
#[derive(Clone, Debug)]
pub struct BenchOptions {
    /// The model.
    pub model: PathBuf,
    /// How to compile it.
    pub compile: CompileOptions,
    /// Numbers of threads to measure with; 1 runs serially, 0 takes one for each CPU. At least one number.
    pub threads: Vec<u32>,
    /// Timed runs, at least 1.
    pub repeat: u32,
    /// Runs before those.
    pub warmup: u32,
    /// JSON instead of tables.
    pub json: bool,
    /// Time each step.
    pub profile: bool,
    /// Where the steps of a run go as Chrome trace events; needs `profile`.
    pub trace: Option<PathBuf>,
    /// Where the report goes as a page; with a roofline, if there is a profile.
    pub html: Option<PathBuf>,
    /// No progress bar.
    pub quiet: bool,
}

/// All that was measured.
struct Results<'a> {
    options: &'a BenchOptions,
    /// Triple of the target.
    target: String,
    /// Dims by name.
    dims: Vec<(String, i64)>,
    /// Multiply-adds of the model at these dims, before fusion, but without those of blocks of zeros that are left out.
    multiply_adds: u64,
    /// How many these were.
    left_out: u64,
    stats: ObjectStats,
    /// Arena in bytes at these dims.
    arena: Option<u64>,
    memory: Option<memory::Memory>,
    /// Bytes of the last-level cache, where the system tells.
    last_level: Option<u64>,
    /// Bytes that were read to measure the memory's rate.
    read_bytes: u64,
    rows: Vec<Row>,
    profile: Option<profile::Profile>,
}

/// What was measured with one number of threads.
struct Row {
    threads: u32,
    /// Workspace in bytes.
    workspace: usize,
    /// Latencies, ascending.
    times: Vec<Duration>,
    peaks: Vec<PeakRate>,
    bandwidth: bandwidth::Bandwidth,
}

/// The machine's peak with a row's threads.
struct PeakRate {
    kind: peak::PeakKind,
    /// Multiply-adds a second of the fastest run.
    rate: f64,
}

impl Row {
    fn min(&self) -> Duration {
        quantile(&self.times, 0.0)
    }

    fn median(&self) -> Duration {
        quantile(&self.times, 0.5)
    }

    fn p90(&self) -> Duration {
        quantile(&self.times, 0.9)
    }

    fn p99(&self) -> Duration {
        quantile(&self.times, 0.99)
    }
}

/// The quantile of ascending times by nearest rank.
pub(crate) fn quantile(times: &[Duration], q: f64) -> Duration {
    let rank = (q * times.len() as f64).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}

/// A rate of `n` things in `t`, a second.
fn rate(n: u64, t: Duration) -> f64 {
    // Faster than the clock's tick is no rate.
    n as f64 / t.as_secs_f64().max(1e-9)
}

/// Runs the subcommand.
///
/// # Errors
/// What compilation, the system's linker or the loader report, and a model that refuses its dims or inputs.
pub fn run(o: &BenchOptions) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    for path in [&o.trace, &o.html].into_iter().flatten() {
        driver::refuse_overwrite(path, &[Some(&o.model)]).map_err(one)?;
        check_target(path).map_err(one)?;
    }
    if o.html.is_some() && o.html == o.trace {
        return Err(one(Diag::new("--html and --trace name the same file")));
    }
    let mut progress = Progress::new(o.quiet);
    let dir = tempfile::tempdir().map_err(|e| one(Diag::new(format!("can't make a temporary folder: {e}"))))?;
    let library = dir.path().join(format!("model{}", std::env::consts::DLL_SUFFIX));
    let compiled = driver::compile_with(&o.model, &o.compile, &mut progress)?;
    let stats = build(&compiled, &library, &mut progress)?;
    let loaded = LoadedModel::open(&library, &o.compile.name).map_err(one)?;
    let dims = plausible_dims(loaded.descriptor());
    let names = loaded.descriptor().symbols.iter().map(|s| s.name.clone());
    let named: Vec<(String, i64)> = names.zip(dims.iter().copied()).collect();
    let arena = compiled.program().arena_bytes(&dims);
    let target = compiled.front().target.triple.to_string();
    let steps = profile::steps(&compiled, &dims)?;
    let left_out = steps.left_out;
    let factors: Vec<_> = compiled.program().kernels.iter().map(|k| bound::kind(k).dtype).collect();
    // Only the library is needed from here on.
    drop(compiled);
    let multiply_adds = model_multiply_adds(&o.model, &o.compile, &named)?.saturating_sub(left_out);
    let yardsticks = Yardsticks { peaks: peak::load_all(dir.path(), &factors)?, reads: bandwidth::load(dir.path())? };
    progress.finish();

    let (rows, read_bytes) = measure(o, &loaded, &dims, &yardsticks)?;
    let last_level = yardsticks.reads.last_level;
    let threads = o.threads.first().copied().unwrap_or(1);
    let memory = memory::measure(&library, &o.compile.name, &dims, threads);
    let profile = match rows.first() {
        Some(row) if o.profile => {
            let last_level = last_level.unwrap_or(bandwidth::LAST_LEVEL);
            let machine = bound::Machine { peaks: &row.peaks, bandwidth: row.bandwidth, last_level };
            Some(profile::measure(o, &loaded, &dims, steps, threads, &machine)?)
        }
        _ => None,
    };
    if let (Some(path), Some(p)) = (&o.trace, &profile) {
        profile::write_trace(path, p)?;
    }
    let results = Results {
        options: o,
        target,
        dims: named,
        multiply_adds,
        left_out,
        stats,
        arena,
        memory,
        last_level,
        read_bytes,
        rows,
        profile,
    };
    if let Some(path) = &o.html {
        html::write(path, &results)?;
    }
    let text = if o.json { report::json(&results) } else { report::text(&results) };
    to_stdout(text.as_bytes()).map_err(one)
}

/// Writes and links the model as a shared library.
pub(crate) fn build(
    compiled: &driver::Compiled,
    library: &Path,
    progress: &mut Progress,
) -> Result<ObjectStats, Vec<Diag>> {
    let object = library.with_extension("o");
    let io = |e: std::io::Error| vec![Diag::new(format!("can't write the object to link: {e}"))];
    let stats = progress.phase(Phase::Emit, || {
        let mut file = std::fs::File::create(&object).map_err(io)?;
        compiled.write_object(&mut file)
    })?;
    let linked = progress.phase(Phase::Link, || link::link_shared(&compiled.front().target, &object, library));
    linked.map_err(|d| vec![d])?;
    std::fs::remove_file(&object).map_err(io)?;
    Ok(stats)
}

/// The multiply-adds of the model as it is written: simplified, so that dead and double work doesn't count, but with
/// nothing fused or sliced away.
fn model_multiply_adds(model: &Path, o: &CompileOptions, dims: &[(String, i64)]) -> Result<u64, Vec<Diag>> {
    let import = ImportOptions { dims: o.dims.clone(), shapes: o.shapes.clone() };
    let mut graph = onnx::import(model, &import)?.graph;
    let passes = bertc_passes::pipeline(1);
    bertc_passes::run(&mut graph, &passes, &bertc_passes::Options::default(), &mut |_| {}).map_err(|d| vec![d])?;
    let value = |name: &str| dims.iter().find(|d| d.0 == name).map(|d| d.1);
    let values: Option<Vec<i64>> = graph.symbols.iter().map(|(_, s)| value(&s.name)).collect();
    let count = values.and_then(|v| cost::multiply_adds(&graph)?.eval(&v)).and_then(|n| u64::try_from(n).ok());
    count.ok_or_else(|| vec![Diag::new("the number of multiply-adds overflows 64 bits; narrow the dims' ranges")])
}

/// The programs that measure the machine.
struct Yardsticks {
    peaks: Vec<peak::LoadedPeak>,
    reads: bandwidth::Loaded,
}

/// A row for each number of threads, and the bytes of the buffer that was read.
fn measure(
    o: &BenchOptions,
    loaded: &LoadedModel,
    dims: &[i64],
    Yardsticks { peaks, reads }: &Yardsticks,
) -> Result<(Vec<Row>, u64), Vec<Diag>> {
    let refused = |e: RunError| vec![Diag::new(e.to_string())];
    let pools: Vec<Option<ThreadPool>> =
        o.threads.iter().map(|&n| pool(n)).collect::<Result<_, _>>().map_err(|d| vec![d])?;
    let mut reads = reads.runs(&pools).map_err(|d| vec![d])?;
    let mut lanes = Vec::new();
    for pool in &pools {
        let threads = pool.as_ref().map_or(1, |p| p.parallel().max_workers);
        let mut session = plausible_session(loaded, dims, pool.as_ref())?;
        for _ in 0..o.warmup {
            session.run().map_err(refused)?;
        }
        let mut yardsticks = Vec::new();
        for p in peaks {
            let mut y = p.session(threads, pool.as_ref()).map_err(|d| vec![d])?;
            y.session.run().map_err(refused)?;
            yardsticks.push(y);
        }
        let workspace = session.workspace_bytes();
        let peaks = peaks.iter().map(|p| PeakRate { kind: p.kind, rate: 0.0 }).collect();
        let row = Row { threads, workspace, times: Vec::new(), peaks, bandwidth: bandwidth::Bandwidth::default() };
        lanes.push((session, yardsticks, row));
    }
    // Interleaved, so that whatever slows the machine down for a while slows all of them.
    for _ in 0..o.repeat.max(1) {
        for (which, (session, yardsticks, row)) in lanes.iter_mut().enumerate() {
            // What ran before left other CPUs awake and other caches warm: the timed run follows one of its own kind.
            session.run().map_err(refused)?;
            row.times.push(time_of(|| session.run()).map_err(refused)?);
            for (y, peak) in yardsticks.iter_mut().zip(&mut row.peaks) {
                let t = time_of(|| y.session.run()).map_err(refused)?;
                peak.rate = peak.rate.max(rate(y.multiply_adds, t));
            }
            reads.measure(which, pools[which].as_ref(), &mut row.bandwidth).map_err(refused)?;
        }
    }
    let read_bytes = reads.bytes;
    let rows = lanes.into_iter().map(|(_, _, mut row)| {
        row.times.sort_unstable();
        row
    });
    Ok((rows.collect(), read_bytes))
}

fn time_of(run: impl FnOnce() -> Result<(), RunError>) -> Result<Duration, RunError> {
    let start = Instant::now();
    run()?;
    Ok(start.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_measured_values() {
        let ms = |n: &[u64]| n.iter().map(|&n| Duration::from_millis(n)).collect::<Vec<_>>();
        let ten = ms(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
        let of = |t: &[Duration], q| quantile(t, q).as_millis();
        assert_eq!((of(&ten, 0.0), of(&ten, 0.5), of(&ten, 0.9), of(&ten, 1.0)), (1, 5, 9, 10));
        let three = ms(&[1, 2, 7]);
        assert_eq!((of(&three, 0.5), of(&three, 0.9)), (2, 7));
        assert_eq!(of(&ms(&[4]), 0.9), 4);
        let many = ms(&(1..=200).collect::<Vec<_>>());
        assert_eq!((of(&many, 0.9), of(&many, 0.99)), (180, 198));
    }
}
