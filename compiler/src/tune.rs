//! `bertc tune`: measures on this machine which tiles and tasks a model's products are fastest with.
//!
//! One property after the other is varied, for all products at once: the model is compiled with each value, all the
//! libraries are loaded, and run by turns with the time of each step taken. Each product keeps what it was fastest with.
//! In the end the model as it is without a tuning and the one with all choices run by turns, and what doesn't pay is not
//! written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bertc_backends::lower;
use bertc_backends::tuning::{Choice, Product, Tuning, candidates};
use bertc_ir::Diag;

use crate::bench::{build, quantile};
use crate::driver::{self, Front, refuse_overwrite};
use crate::load::{LoadedModel, Session};
use crate::options::CompileOptions;
use crate::output::{Staged, check_target, table, to_stdout};
use crate::progress::{Progress, time};
use crate::run::{plausible_dims, plausible_session, pool};
use crate::tuning;

/// What `tune` was asked to do.
#[derive(Clone, Debug)]
pub struct TuneOptions {
    /// The model.
    pub model: PathBuf,
    /// Where the choices go.
    pub output: PathBuf,
    /// How to compile it.
    pub compile: CompileOptions,
    /// Threads to measure with; 0 takes one for each CPU.
    pub threads: u32,
    /// Timed runs of each candidate.
    pub rounds: u32,
    /// No progress.
    pub quiet: bool,
}

/// A choice must save this part of a product's time: less is noise.
const WORTH: f64 = 0.01;

/// A compiled candidate.
struct Candidate {
    tuning: Tuning,
    loaded: LoadedModel,
}

/// Runs the subcommand.
///
/// # Errors
/// What compilation, the system's linker or the loader report; a model that refuses its dims, or has no product to tune.
pub fn run(o: &TuneOptions) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    refuse_overwrite(&o.output, &[Some(&o.model)]).map_err(one)?;
    check_target(&o.output).map_err(one)?;
    let mut progress = Progress::new(o.quiet);
    let front = driver::front(&o.model, &o.compile, &mut progress)?;
    let dir = tempfile::tempdir().map_err(|e| one(Diag::new(format!("can't make a temporary folder: {e}"))))?;
    let mut bench = Bench { o, front, dir: dir.path(), made: 0, progress };
    let start = bench.candidate(&Tuning::new())?;
    let dims = plausible_dims(start.loaded.descriptor());
    let steps = lower::lower_traced(&bench.front.graph, &bench.front.target)?.products;
    let products: BTreeMap<Product, Choice> = steps.iter().flatten().map(|(p, tile)| (*p, Choice::of(tile))).collect();
    let Some(tile) = steps.iter().flatten().map(|s| &s.1).next() else {
        return Err(one(Diag::new("the model has no product by a constant matrix: there is nothing to tune")));
    };
    let stages = candidates(tile, &bench.front.target);
    let mut best = products.clone();
    for stage in stages {
        let mut all: Vec<Tuning> = vec![best.clone()];
        for change in stage {
            let changed: Tuning = best.iter().map(|(p, c)| (*p, change(*c))).collect();
            if !all.contains(&changed) {
                all.push(changed);
            }
        }
        // A tile may leave too few registers to an epilogue: then it is none for this model.
        let all = all
            .iter()
            .enumerate()
            .map(|(i, t)| bench.candidate(t).map_or_else(|e| if i == 0 { Err(e) } else { Ok(None) }, |c| Ok(Some(c))));
        let compiled: Vec<Candidate> = all.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
        let times = measure(o, &compiled, &dims)?;
        for (product, choice) in &mut best {
            let of = |i: usize| -> Duration {
                let mine = steps.iter().zip(&times[i]).filter(|(s, _)| s.is_some_and(|s| s.0 == *product));
                mine.map(|(_, t)| *t).sum()
            };
            let fastest = (0..compiled.len()).min_by_key(|&i| of(i)).unwrap_or(0);
            // The first one is what it has already.
            if of(fastest).as_secs_f64() < (1.0 - WORTH) * of(0).as_secs_f64() {
                *choice = compiled[fastest].tuning[product];
            }
        }
    }
    // Without the tuning and with it.
    let last = [start, bench.candidate(&best)?];
    let times = measure(o, &last, &dims)?;
    let mut kept = Tuning::new();
    let mut rows = Vec::new();
    for (product, choice) in &best {
        let of = |i: usize| -> Duration {
            let mine = steps.iter().zip(&times[i]).filter(|(s, _)| s.is_some_and(|s| s.0 == *product));
            mine.map(|(_, t)| *t).sum()
        };
        let (before, after) = (of(0), of(1));
        let pays = *choice != products[product] && after.as_secs_f64() < (1.0 - WORTH) * before.as_secs_f64();
        if pays {
            kept.insert(*product, *choice);
        }
        let shown = if pays { *choice } else { products[product] };
        rows.push(vec![
            format!("{} x {}", product.k, product.n),
            if product.bf16 { "bf16" } else { "f32" }.to_string(),
            format!("{} x {}", shown.rows, shown.vectors),
            shown.unroll.to_string(),
            format!("{} x {}", shown.task_rows, shown.task_columns),
            time(before),
            if pays { time(after) } else { "as before".into() },
        ]);
    }
    bench.progress.finish();
    let text = tuning::write(&kept, &machine());
    let mut staged = Staged::default();
    staged.add(&o.output, |w| w.write_all(text.as_bytes()).map_err(|e| one(Diag::new(format!("can't write: {e}")))))?;
    staged.commit().map_err(one)?;
    let [before, after] = [0, 1].map(|i| times[i].iter().sum::<Duration>());
    let header = ["product", "type", "tile", "unroll", "task", "before", "after"];
    let mut shown = table(&header, rows, &[3, 5, 6]);
    shown += &format!(
        "\nall steps: {} before, {} with every choice; {} of {} products in '{}'\n",
        time(before),
        time(after),
        kept.len(),
        products.len(),
        o.output.display()
    );
    to_stdout(shown.as_bytes()).map_err(one)
}

struct Bench<'a> {
    o: &'a TuneOptions,
    front: Front,
    dir: &'a Path,
    made: usize,
    progress: Progress,
}

impl Bench<'_> {
    /// The model, compiled with a tuning and loaded.
    fn candidate(&mut self, tuning: &Tuning) -> Result<Candidate, Vec<Diag>> {
        let mut front = self.front.clone();
        front.target.tuning.clone_from(tuning);
        let compiled = driver::lower_front(front, &self.o.compile, &mut self.progress)?;
        let library = self.dir.join(format!("candidate{}{}", self.made, std::env::consts::DLL_SUFFIX));
        self.made += 1;
        build(&compiled, &library, &mut self.progress)?;
        let loaded = LoadedModel::open(&library, &self.o.compile.name).map_err(|d| vec![d])?;
        // Loaded, it needs no name.
        let _ = std::fs::remove_file(&library);
        Ok(Candidate { tuning: tuning.clone(), loaded })
    }
}

/// The median time of each step of each candidate.
fn measure(o: &TuneOptions, all: &[Candidate], dims: &[i64]) -> Result<Vec<Vec<Duration>>, Vec<Diag>> {
    let failed = |e: crate::load::RunError| vec![Diag::new(e.to_string())];
    let pool = pool(o.threads).map_err(|d| vec![d])?;
    let mut sessions: Vec<Session<'_>> =
        all.iter().map(|c| plausible_session(&c.loaded, dims, pool.as_ref())).collect::<Result<_, _>>()?;
    let mut spans = Vec::with_capacity(1 << 16);
    let mut times: Vec<Vec<Vec<Duration>>> = vec![Vec::new(); all.len()];
    for _ in 0..o.rounds.max(1) {
        for (session, times) in sessions.iter_mut().zip(&mut times) {
            // What ran before has left its data in the caches.
            let begin = Instant::now();
            while begin.elapsed() < WARM_UP {
                session.run().map_err(failed)?;
            }
            session.run_timed(&mut spans).map_err(failed)?;
            times.resize(spans.len(), Vec::new());
            times.iter_mut().zip(&spans).for_each(|(all, s)| all.push(s.time));
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        quantile(&times, 0.5)
    };
    Ok(times.into_iter().map(|steps| steps.into_iter().map(median).collect()).collect())
}

/// How long a candidate runs before a timed run.
const WARM_UP: Duration = Duration::from_millis(5);

/// The CPU's name, where the system tells it.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}
