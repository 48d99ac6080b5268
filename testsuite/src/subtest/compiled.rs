//! Compiled programs in this process.

use std::path::Path;

use bertc::load::LoadedModel;
use bertc_backends::object::{EmitOptions, emit_object};
use bertc_backends::target::Target;
use bertc_ir::Tensor;
use bertc_rt::ThreadPool;
use tempfile::TempDir;

use super::{Fail, Outcome};

/// A program as a loaded library.
pub(super) struct Compiled {
    model: LoadedModel,
    what: String,
    // Last: the library is a file in it.
    _dir: TempDir,
}

/// A result, or the message of the error that the model returned.
pub(super) type Ran = Result<Vec<Tensor>, String>;

impl Compiled {
    /// Emits, links and loads a program; `None`, with a note, where this machine can't run it.
    pub(super) fn new(p: &bertc::Program, target: &Target) -> Outcome<Option<Compiled>> {
        if !target.runs_here() {
            eprintln!("skipped: this machine can't run code for {}", target.cpu);
            return Ok(None);
        }
        let io = |e: std::io::Error| Fail::Test(format!("can't write the object: {e}"));
        let dir = tempfile::tempdir().map_err(io)?;
        let (object, library) = (dir.path().join("m.o"), dir.path().join("m.so"));
        let mut file = std::fs::File::create(&object).map_err(io)?;
        emit_object(p, target, &EmitOptions::default(), &mut file)?;
        drop(file);
        bertc::link::link_shared(target, &object, &library)?;
        let model = LoadedModel::open(Path::new(&library), &p.name)?;
        Ok(Some(Compiled { model, what: format!("compiled for {}", target.cpu), _dir: dir }))
    }

    /// Runs the program serially and by two threads, which must agree bit by bit, also in failing.
    ///
    /// # Errors
    /// The machinery failed, or the runs differ.
    pub(super) fn try_run(&self, dims: &[i64], x: &[Tensor]) -> Result<Ran, String> {
        let pool = ThreadPool::new(2).ok_or("can't start threads")?;
        let once = |pool| -> Result<Ran, String> {
            let mut session = self.model.session(x, dims, pool).map_err(|d| format!("{}: {d}", self.what))?;
            Ok(session.run().map(|()| session.outputs()).map_err(|e| e.to_string()))
        };
        let (serial, threads) = (once(None)?, once(Some(&pool))?);
        let same = match (&serial, &threads) {
            (Ok(a), Ok(b)) => a.iter().zip(b).all(|(a, b)| a.bytes() == b.bytes()),
            (a, b) => a == b,
        };
        if same { Ok(serial) } else { Err(format!("{}: threads change the result for dims {dims:?}", self.what)) }
    }

    /// As [`Compiled::try_run`], of runs that succeed.
    ///
    /// # Errors
    /// Also what the model returns.
    pub(super) fn run(&self, dims: &[i64], x: &[Tensor]) -> Result<Vec<Tensor>, String> {
        self.try_run(dims, x)?.map_err(|e| format!("{}, dims {dims:?}: {e}", self.what))
    }

    /// What this is, for messages.
    pub(super) fn what(&self) -> &str {
        &self.what
    }
}
