//! `bertc tune`: measures on this machine which tiles and tasks a model's products are fastest with.
//!
//! One property after the other is varied, for all products at once: the model is compiled with each value, all the
//! libraries are loaded, and run by turns with the time of each step taken. Each product keeps what it was fastest with.
//! In the end the model as it is without a tuning and the one with all choices run by turns, and what doesn't pay is not
//! written.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bertc_backends::lower::{self, Tile};
use bertc_backends::tuning::{Change, Choice, Product, Tuning, candidates};
use bertc_ir::Diag;

use crate::bench::{build, quantile};
use crate::driver::{self, Front, refuse_overwrite};
use crate::load::{LoadedModel, RunError, Session};
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
    let steps = lower::lower_traced(&front.graph, &front.target)?.products;
    let Some(tile) = steps.iter().flatten().map(|s| s.1).next() else {
        let what = "the model has no product of floats by a constant matrix: there is nothing to tune";
        return Err(one(Diag::new(what).note("products of 8-bit integers have no tuning")));
    };
    let usual: Tuning = steps.iter().flatten().map(|(p, tile)| (*p, Choice::of(tile))).collect();
    let dir = tempfile::tempdir().map_err(|e| one(Diag::new(format!("can't make a temporary folder: {e}"))))?;
    let stages = candidates(&tile, &front.target);
    let mut bench = Bench { o, front, steps, dir: dir.path(), made: 0, progress };
    let mut best = usual.clone();
    for stage in stages {
        bench.improve(&mut best, &stage)?;
    }
    let last = bench.compile(&[usual.clone(), best.clone()])?;
    let times = bench.measure(&last)?;
    bench.progress.finish();
    let mut kept = Tuning::new();
    let mut rows = Vec::new();
    for (product, choice) in &best {
        let [before, after] = [0, 1].map(|i| bench.time_of(&times[i], product));
        let pays = *choice != usual[product] && faster(after, before);
        if pays {
            kept.insert(*product, *choice);
        }
        let shown = if pays { *choice } else { usual[product] };
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
    let text = tuning::write(&kept, &machine());
    let mut staged = Staged::default();
    staged.add(&o.output, |w| w.write_all(text.as_bytes()).map_err(|e| one(Diag::new(format!("can't write: {e}")))))?;
    staged.commit().map_err(one)?;
    let [before, after] = [0, 1].map(|i| times[i].iter().sum::<Duration>());
    let mut shown = table(&["product", "type", "tile", "unroll", "task", "before", "after"], rows, &[3, 5, 6]);
    let (n, all, file) = (kept.len(), usual.len(), o.output.display());
    let (before, after) = (time(before), time(after));
    shown += &format!("\nall steps: {before} before, {after} with every choice; {n} of {all} products in '{file}'\n");
    to_stdout(shown.as_bytes()).map_err(one)
}

/// Whether a time is less by more than noise.
fn faster(a: Duration, b: Duration) -> bool {
    a.as_secs_f64() < (1.0 - WORTH) * b.as_secs_f64()
}

struct Bench<'a> {
    o: &'a TuneOptions,
    front: Front,
    /// For each step the product that it is.
    steps: Vec<Option<(Product, Tile)>>,
    dir: &'a Path,
    made: usize,
    progress: Progress,
}

impl Bench<'_> {
    /// Gives each product the change that it is fastest with.
    fn improve(&mut self, best: &mut Tuning, changes: &[Change]) -> Result<(), Vec<Diag>> {
        let mut all = vec![best.clone()];
        for change in changes {
            let changed: Tuning = best.iter().map(|(p, c)| (*p, change(*c))).collect();
            if !all.contains(&changed) {
                all.push(changed);
            }
        }
        let compiled = self.compile(&all)?;
        let times = self.measure(&compiled)?;
        for (product, choice) in best {
            let of = |i: usize| self.time_of(&times[i], product);
            let fastest = (0..compiled.len()).min_by_key(|&i| of(i)).unwrap_or(0);
            // The first one is what it has already.
            if faster(of(fastest), of(0)) {
                *choice = compiled[fastest].tuning[product];
            }
        }
        Ok(())
    }

    /// The time of a product's steps.
    fn time_of(&self, times: &[Duration], product: &Product) -> Duration {
        let mine = self.steps.iter().zip(times).filter(|(s, _)| s.is_some_and(|s| s.0 == *product));
        mine.map(|(_, t)| *t).sum()
    }

    /// Those candidates that can be compiled; the first one must. A tile may leave too few registers to an epilogue.
    fn compile(&mut self, all: &[Tuning]) -> Result<Vec<Candidate>, Vec<Diag>> {
        let mut compiled = Vec::new();
        for tuning in all {
            match self.candidate(tuning) {
                Ok(c) => compiled.push(c),
                Err(e) if compiled.is_empty() => return Err(e),
                Err(_) => {}
            }
        }
        Ok(compiled)
    }

    /// The model, compiled with a tuning and loaded.
    fn candidate(&mut self, tuning: &Tuning) -> Result<Candidate, Vec<Diag>> {
        let mut front = self.front.clone();
        front.target.tuning.clone_from(tuning);
        let compiled = driver::lower_front(front, &self.o.compile, &mut self.progress)?;
        let library = self.dir.join(format!("candidate{}{}", self.made, std::env::consts::DLL_SUFFIX));
        self.made += 1;
        build(&compiled, &library, &mut self.progress)?;
        let loaded = LoadedModel::open(&library, &self.o.compile.name).map_err(|d| vec![d])?;
        // Loaded, it needs no name; where it does, the folder goes in the end.
        let _ = std::fs::remove_file(&library);
        Ok(Candidate { tuning: tuning.clone(), loaded })
    }

    /// The median time of each step of each candidate.
    fn measure<'c>(&self, all: &'c [Candidate]) -> Result<Vec<Vec<Duration>>, Vec<Diag>> {
        let failed = |e: RunError| vec![Diag::new(e.to_string())];
        let pool = pool(self.o.threads).map_err(|d| vec![d])?;
        let session =
            |c: &'c Candidate| plausible_session(&c.loaded, &plausible_dims(c.loaded.descriptor()), pool.as_ref());
        let mut sessions: Vec<Session<'_>> = all.iter().map(session).collect::<Result<_, _>>()?;
        let mut spans = Vec::with_capacity(self.steps.len());
        let mut times = vec![vec![Vec::new(); self.steps.len()]; all.len()];
        for _ in 0..self.o.rounds.max(1) {
            for (session, times) in sessions.iter_mut().zip(&mut times) {
                // What ran before has left its data in the caches.
                let begin = Instant::now();
                while begin.elapsed() < WARM_UP {
                    session.run().map_err(failed)?;
                }
                session.run_timed(&mut spans).map_err(failed)?;
                times.iter_mut().zip(&spans).for_each(|(all, s)| all.push(s.time));
            }
        }
        let median = |mut times: Vec<Duration>| {
            times.sort_unstable();
            quantile(&times, 0.5)
        };
        Ok(times.into_iter().map(|steps| steps.into_iter().map(median).collect()).collect())
    }
}

/// How long a candidate runs before a timed run.
const WARM_UP: Duration = Duration::from_millis(5);

/// The CPU's name, where the system tells it.
fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|l| l.strip_prefix("model name")).and_then(|l| l.split_once(':'));
    name.map_or_else(|| std::env::consts::ARCH.to_string(), |(_, name)| name.trim().to_string())
}
