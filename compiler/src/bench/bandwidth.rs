//! How fast this machine reads: [`bertc_backends::bandwidth`], compiled for this CPU and loaded, over a buffer that no cache
//! holds and over pieces that each CPU's own cache does.

use std::path::Path;
use std::time::Duration;

use bertc_backends::bandwidth::{self, CHUNK};
use bertc_backends::peak::Width;
use bertc_backends::target::Target;
use bertc_ir::{DType, Diag, Tensor};
use bertc_rt::ThreadPool;

use super::{caches, peak, rate, time_of};
use crate::load::{LoadedModel, Pages, RunError, Session};

/// Taken for the last-level cache where the system doesn't tell its size.
pub(super) const LAST_LEVEL: u64 = 32 << 20;

/// How many times the last-level cache the buffer is, and its least and largest size.
const BEYOND: u64 = 4;
const SIZES: (u64, u64) = (128 << 20, 1 << 30);

/// How often a piece is read that stays in a cache, and pieces for each thread: a run takes about a millisecond.
const PASSES: u32 = 64;
const PIECES: i64 = 8;

/// Rates of reading with one number of threads, in bytes a second, of the fastest runs.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub(super) struct Bandwidth {
    /// From memory.
    pub memory: f64,
    /// From the caches next to the CPUs, beyond the first one.
    pub cache: f64,
}

/// The programs.
pub(super) struct Loaded {
    memory: LoadedModel,
    cache: LoadedModel,
    /// Bytes of the last-level cache, where they are known.
    pub last_level: Option<u64>,
}

/// Their runs.
pub(super) struct Runs<'a> {
    memory: Session<'a>,
    /// Bytes of the buffer.
    pub bytes: u64,
    cache: Vec<(Session<'a>, u64)>,
}

/// `dir` takes the files.
pub(super) fn load(dir: &Path) -> Result<Loaded, Vec<Diag>> {
    let target = Target::parse("native", "native").map_err(|d| vec![d])?;
    let widest = Width::all(&target).pop().unwrap_or(Width::narrow(&target));
    let load = |name: &str, passes| peak::load_program(dir, &target, &bandwidth::bandwidth(name, widest, passes));
    Ok(Loaded { memory: load("memory", 1)?, cache: load("cache", PASSES)?, last_level: caches::last_level() })
}

/// Bytes of the buffer that no cache holds, a multiple of a task's.
fn beyond(last_level: Option<u64>) -> u64 {
    let wanted = last_level.unwrap_or(LAST_LEVEL).saturating_mul(BEYOND).clamp(SIZES.0, SIZES.1);
    wanted / CHUNK.unsigned_abs() * CHUNK.unsigned_abs()
}

impl Loaded {
    /// Runs on each of `pools`, which are named by their position later on.
    ///
    /// # Errors
    /// No memory.
    pub fn runs<'a>(&'a self, pools: &'a [Option<ThreadPool>]) -> Result<Runs<'a>, Diag> {
        let workers = |p: &Option<ThreadPool>| p.as_ref().map_or(1, |p| p.parallel().max_workers);
        let bytes = beyond(self.last_level);
        let cache = pools.iter().map(|pool| {
            let tasks = i64::from(workers(pool)).saturating_mul(PIECES).min(bandwidth::MAX_TASKS);
            let session = session(&self.cache, tasks, pool.as_ref())?;
            Ok((session, (tasks * CHUNK).unsigned_abs() * u64::from(PASSES)))
        });
        let cache = cache.collect::<Result<_, Diag>>()?;
        // One buffer for all: its session has the workspace of the most workers.
        let most = pools.iter().max_by_key(|p| workers(p)).and_then(Option::as_ref);
        let memory = session(&self.memory, bytes.cast_signed() / CHUNK, most)?;
        Ok(Runs { memory, bytes, cache })
    }
}

fn session<'a>(program: &'a LoadedModel, tasks: i64, pool: Option<&'a ThreadPool>) -> Result<Session<'a>, Diag> {
    let shape = [tasks, CHUNK / 4].map(|n| usize::try_from(n).unwrap_or(usize::MAX));
    let bytes = shape[0].saturating_mul(shape[1]).saturating_mul(DType::F32.size());
    // Not zeros, whose pages the system may keep as one; as an f32, a small normal number.
    let data = Tensor::new(DType::F32, shape.to_vec(), vec![1; bytes].into());
    let data = data.ok_or_else(|| Diag::new("the buffer to read is too large"))?;
    // With small pages, a good part of the time would go into finding them.
    program.session_in(&[data], &[tasks], pool, Pages::Large)
}

impl Runs<'_> {
    /// Reads once with the pool at position `which`, and keeps the better rates in `best`.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub fn measure(&mut self, which: usize, pool: Option<&ThreadPool>, best: &mut Bandwidth) -> Result<(), RunError> {
        let time: Duration = time_of(|| self.memory.run_on(pool))?;
        best.memory = best.memory.max(rate(self.bytes, time));
        let (session, bytes) = &mut self.cache[which];
        let time: Duration = time_of(|| session.run())?;
        best.cache = best.cache.max(rate(*bytes, time));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_buffer_is_beyond_the_cache_and_within_reason() {
        assert_eq!(beyond(Some(64 << 20)), 256 << 20);
        assert_eq!((beyond(Some(0)), beyond(None)), (128 << 20, 128 << 20));
        assert_eq!(beyond(Some(u64::MAX)), 1 << 30);
        assert_eq!(beyond(Some((33 << 20) + 1)) % CHUNK.unsigned_abs(), 0);
    }
}
