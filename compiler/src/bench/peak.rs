//! The machine's peak: [`bertc_backends::peak`], compiled for this CPU and loaded.

use std::fs::File;
use std::path::Path;

use bertc_backends::object::{self, EmitOptions};
use bertc_backends::peak::{self, Peak, Width};
use bertc_backends::plan::Program;
use bertc_backends::target::Target;
use bertc_ir::{DType, Diag};
use bertc_rt::ThreadPool;

use crate::link;
use crate::load::{LoadedModel, Session};

/// Tasks for each thread: a run takes about a millisecond, and a thread that comes late gets fewer.
const TASKS: i64 = 16;

/// What is multiplied, and how: a kernel is measured against the peak of its own kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct PeakKind {
    /// Type of the factors.
    pub dtype: DType,
    /// Width of the vectors.
    pub bits: u32,
}

impl std::fmt::Display for PeakKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.dtype {
            DType::F32 => write!(f, "{}-bit FMA", self.bits),
            other => write!(f, "{}-bit {other}", self.bits),
        }
    }
}

/// A peak that this process can run.
pub(super) struct LoadedPeak {
    pub kind: PeakKind,
    loaded: LoadedModel,
    /// Of a task.
    multiply_adds: u64,
}

/// Runs of a peak with one number of threads.
pub(super) struct Yardstick<'a> {
    pub session: Session<'a>,
    /// Of a run.
    pub multiply_adds: u64,
}

/// Every width that the compiler emits code for on this machine, narrow first; those of other factors than f32 if they are
/// asked for. `dir` takes the files.
pub(super) fn load_all(dir: &Path, factors: &[DType]) -> Result<Vec<LoadedPeak>, Vec<Diag>> {
    let target = Target::parse("native", "native").map_err(|d| vec![d])?;
    let wanted = Width::all(&target).into_iter().filter(|w| w.dtype == DType::F32 || factors.contains(&w.dtype));
    wanted.map(|w| load(dir, &target, w)).collect()
}

fn load(dir: &Path, target: &Target, width: Width) -> Result<LoadedPeak, Vec<Diag>> {
    let bits = 32 * u32::from(width.lanes);
    let name = format!("peak{bits}_{}", width.dtype);
    let Peak { program, multiply_adds } = peak::peak(&name, target, width);
    let loaded = load_program(dir, target, &program)?;
    Ok(LoadedPeak { kind: PeakKind { dtype: width.dtype, bits }, loaded, multiply_adds })
}

/// A program of the yardsticks, linked in `dir` and loaded.
pub(super) fn load_program(dir: &Path, target: &Target, program: &Program) -> Result<LoadedModel, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let name = &program.name;
    let (object, library) =
        (dir.join(format!("{name}.o")), dir.join(format!("{name}{}", std::env::consts::DLL_SUFFIX)));
    let mut file = File::create(&object).map_err(|e| one(Diag::new(format!("can't write the object to link: {e}"))))?;
    object::emit_object(program, target, &EmitOptions::default(), &mut file)?;
    drop(file);
    link::link_shared(target, &object, &library).map_err(one)?;
    LoadedModel::open(&library, name).map_err(one)
}

impl LoadedPeak {
    /// # Errors
    /// No memory.
    pub fn session<'a>(&'a self, threads: u32, pool: Option<&'a ThreadPool>) -> Result<Yardstick<'a>, Diag> {
        let tasks = i64::from(threads).saturating_mul(TASKS).min(peak::MAX_TASKS);
        let session = self.loaded.session(&[], &[tasks], pool)?;
        Ok(Yardstick { session, multiply_adds: self.multiply_adds.saturating_mul(tasks.unsigned_abs()) })
    }
}
