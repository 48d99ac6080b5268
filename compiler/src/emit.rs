//! The main job: compiles a model and writes what was asked for, all files or none.

use std::io::Write;
use std::path::{Path, PathBuf};

use bertc_backends::object::ObjectStats;
use bertc_ir::{Diag, Graph, Symbols};

use crate::driver::{self, Compiled, Front, refuse_overwrite};
use crate::export::onnx;
use crate::options::{CompileOptions, Emit, StopAfter, name_of, symbol_prefix};
use crate::output::{Staged, check_target, to_stdout};
use crate::picture::{self, Picture};
use crate::progress::{Phase, Progress, size, time};
use crate::report::{Level, show};
use crate::tir::{self, Constants};
use crate::{link, stub};

/// How tensor IR is written.
#[derive(Clone, Default, Debug)]
pub struct TextForm {
    /// The side file for large constants.
    pub resources: Option<PathBuf>,
    /// Large constants stand in the text.
    pub inline_constants: bool,
    /// Each value has its source node.
    pub locations: bool,
}

impl TextForm {
    fn constants(&self) -> Constants<'_> {
        match &self.resources {
            Some(p) => Constants::Side(p),
            None if self.inline_constants => Constants::Inline,
            None => Constants::Elide,
        }
    }
}

/// What the main command was asked to do.
#[derive(Clone, Debug)]
pub struct Job {
    /// The model.
    pub model: PathBuf,
    /// Where to write; `None` is standard output, for one kind.
    pub output: Option<PathBuf>,
    /// What to write, at least one kind, distinct.
    pub kinds: Vec<Emit>,
    /// Symbol prefix, if given.
    pub name: Option<String>,
    /// Runtime stub, if given.
    pub rt: Option<PathBuf>,
    /// How tensor IR is written.
    pub text: TextForm,
    /// Weights of ONNX are in a file of their own, however small.
    pub external_data: bool,
    /// No progress bar and no summary.
    pub quiet: bool,
    /// How to compile; the name is still to be set.
    pub compile: CompileOptions,
}

/// The files of a job: what and where.
///
/// One kind goes to `out` as it is. Of several, the one that `out`'s extension suits, else the first, goes to `out`,
/// and the others beside it with extensions of their own. Machine code brings its header.
///
/// # Errors
/// Two kinds would share a file.
pub fn files(kinds: &[Emit], out: &Path) -> Result<Vec<(Emit, PathBuf)>, Diag> {
    let extension = out.extension().and_then(|e| e.to_str()).unwrap_or("");
    let main = kinds.iter().copied().find(|k| k.extension() == extension).or(kinds.first().copied());
    let mut files: Vec<(Emit, PathBuf)> = Vec::new();
    for &k in kinds {
        let path = if Some(k) == main { out.to_path_buf() } else { out.with_extension(k.extension()) };
        files.push((k, path));
    }
    if kinds.iter().any(|k| k.is_machine_code()) && !kinds.contains(&Emit::Header) {
        files.push((Emit::Header, out.with_extension("h")));
    }
    for (i, (k, path)) in files.iter().enumerate() {
        if let Some((other, _)) = files[..i].iter().find(|f| f.1 == *path) {
            let name = |k: Emit| format!("{k:?}").to_lowercase();
            return Err(Diag::new(format!("'{}' would be both {} and {}", path.display(), name(*other), name(*k)))
                .note("give -o another extension, such as .o"));
        }
    }
    Ok(files)
}

/// Runs the job.
///
/// # Errors
/// Everything that is wrong with options or model, and files that can't be written; nothing is written then.
pub fn run(job: &Job) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let files = match &job.output {
        Some(out) => files(&job.kinds, out).map_err(one)?,
        None => Vec::new(),
    };
    let side = job.text.resources.as_deref();
    if let Some(side) = side.filter(|s| files.iter().any(|f| f.1 == **s)) {
        return Err(vec![Diag::new(format!("'{}' would be both the text and its side file", side.display()))]);
    }
    for path in files.iter().map(|f| f.1.as_path()).chain(side) {
        refuse_overwrite(path, &[Some(&job.model), job.rt.as_ref()]).map_err(one)?;
        // Now rather than after minutes of work.
        check_target(path).map_err(one)?;
    }
    let from = job.name.clone().unwrap_or_else(|| name_of(job.output.as_ref().unwrap_or(&job.model)));
    let mut options = CompileOptions { name: symbol_prefix(&from).map_err(one)?, ..job.compile.clone() };
    // The integers of `--int8` are those of the compiled model; weights in floats are as their model has them.
    if job.kinds == [Emit::Onnx] && !options.int8 && options.passes.is_none() && options.watch.stop_after.is_none() {
        let names = onnx::pipeline(options.opt_level, options.skip_padding);
        options.passes = (!names.is_empty()).then(|| names.join(","));
    }

    let mut progress = Progress::new(job.quiet);
    let only_front = job.kinds.iter().all(|k| k.needs_no_program());
    let made = if only_front {
        Made::Front(Box::new(driver::front(&job.model, &options, &mut progress)?))
    } else {
        Made::Program(Box::new(driver::compile_with(&job.model, &options, &mut progress)?))
    };
    let mut stats = None;
    if job.output.is_none() {
        let mut bytes = Vec::new();
        let kind = job.kinds[0];
        if let Some(side) = side {
            let mut staged = Staged::default();
            tir::stage_resources(&made.front().graph, side, &mut staged).map_err(one)?;
            staged.commit().map_err(one)?;
        }
        progress.phase(Phase::Emit, || made.write(kind, job, &mut bytes, &mut stats))?;
        progress.finish();
        return to_stdout(&bytes).map_err(one);
    }
    let mut staged = Staged::default();
    let mut remarks = Vec::new();
    if let Some(side) = side {
        tir::stage_resources(&made.front().graph, side, &mut staged).map_err(one)?;
    }
    for (kind, path) in &files {
        if *kind == Emit::Onnx {
            remarks = progress.phase(Phase::Emit, || stage_onnx(made.front(), job, path, &mut staged))?;
            continue;
        }
        if let (Emit::Sharedlib, Made::Program(c)) = (kind, &made) {
            staged.fill(path, |temp| link::shared_library(c, temp, &mut progress))?;
            continue;
        }
        progress.phase(Phase::Emit, || staged.add(path, |w| made.write(*kind, job, w, &mut stats)))?;
    }
    let written = staged.commit().map_err(one)?;
    progress.finish();
    if !job.quiet {
        show(&remarks, Level::Warning);
    }
    if progress.visible() {
        let notes: Vec<Diag> = made.front().info.notes.iter().map(Diag::new).collect();
        show(&notes, Level::Warning);
        summary(&made, &written, stats.as_ref(), &progress);
    }
    Ok(())
}

/// Writes the model as ONNX, in one file or two. Returns what a person should know about it.
fn stage_onnx(front: &Front, job: &Job, path: &Path, staged: &mut Staged) -> Result<Vec<Diag>, Vec<Diag>> {
    let source = onnx::Source::open(&job.model);
    let model = onnx::model(&front.graph, &source)?;
    let failed = |e: std::io::Error| vec![Diag::new(format!("can't write '{}': {e}", path.display()))];
    let files = if job.external_data || model.data_bytes() > onnx::LIMIT {
        let name = path.file_name().map(|n| format!("{}.data", n.to_string_lossy())).unwrap_or_default();
        let data = path.with_file_name(&name);
        let inputs: Vec<_> = source.files.iter().chain([&job.model]).map(Some).collect();
        refuse_overwrite(&data, &inputs).map_err(|d| vec![d])?;
        staged.add(&data, |w| model.write_data(w).map_err(failed))?;
        onnx::Files::Data(name)
    } else {
        onnx::Files::One
    };
    staged.add(path, |w| model.write(&files, w).map_err(failed))?;
    // Evaluating takes its time.
    if job.quiet || model.widened.is_empty() {
        return Ok(Vec::new());
    }
    Ok(vec![widened(&front.graph, &model, path)])
}

/// What the file computes otherwise than compiled code does.
fn widened(g: &Graph, model: &onnx::Model, path: &Path) -> Diag {
    let d = Diag::new(format!(
        "'{}' has the weights of {} products in 8 bits, but not the rows that they are multiplied by: those become integers \
         while the compiled model runs, and are f32 here",
        path.display(),
        model.widened.len()
    ));
    match onnx::difference(g, model) {
        Ok(d2) => d.note(format!(
            "on a made-up input '{}' differs from the compiled model's by at most {:.2}% of its largest value; cosine {:.5}",
            d2.output,
            d2.largest * 100.0,
            d2.cosine
        )),
        Err(why) => {
            let why = why.first().map_or_else(String::new, |d| format!(": {}", d.message));
            d.note(format!("by how much outputs differ is not known, as no made-up input suits the model{why}"))
        }
    }
}

enum Made {
    Front(Box<Front>),
    Program(Box<Compiled>),
}

impl Made {
    fn front(&self) -> &Front {
        match self {
            Made::Front(f) => f,
            Made::Program(c) => c.front(),
        }
    }

    fn picture(&self, job: &Job) -> Picture {
        let phase = match &job.compile.watch.stop_after {
            Some(StopAfter::Import) => "tensor IR as imported".to_string(),
            Some(StopAfter::Pass(name)) => format!("tensor IR after the pass {name}"),
            _ => format!("tensor IR after the passes of -O{}", job.compile.opt_level),
        };
        Picture::new(&self.front().graph, &name_of(&job.model), &phase)
    }

    fn write(
        &self,
        kind: Emit,
        job: &Job,
        w: &mut dyn Write,
        stats: &mut Option<ObjectStats>,
    ) -> Result<(), Vec<Diag>> {
        let text = match (kind, self) {
            (Emit::TensorIr, _) => tir::text(&self.front().graph, job.text.constants(), job.text.locations),
            (Emit::Html, _) => picture::html::render(&self.picture(job)),
            (Emit::Dot, _) => picture::dot::render(&self.picture(job)),
            (Emit::Onnx, _) => {
                let model = onnx::model(&self.front().graph, &onnx::Source::open(&job.model))?;
                let failed = |e: std::io::Error| vec![Diag::new(format!("can't write: {e}"))];
                return model.write(&onnx::Files::One, w).map_err(failed);
            }
            // Only what needs none is made without a program.
            (_, Made::Front(_)) => return Err(vec![Diag::new("internal error: no program was made")]),
            (Emit::Obj, Made::Program(c)) => {
                *stats = Some(c.write_object(w)?);
                return Ok(());
            }
            (Emit::Staticlib, Made::Program(c)) => {
                let stub = stub::find(&c.front().target.triple, job.rt.as_deref()).map_err(|d| vec![d])?;
                let mut model = Vec::new();
                *stats = Some(c.write_object(&mut model)?);
                let name = format!("{}.o", c.program().name);
                return stub::write_static_library(w, &name, &model, &stub).map_err(|d| vec![d]);
            }
            (Emit::Sharedlib, Made::Program(c)) => return shared_bytes(c, w),
            (Emit::Header, Made::Program(c)) => c.header(),
            (Emit::KernelIr, Made::Program(c)) => c.kernel_ir(),
            (Emit::Clif, Made::Program(c)) => c.clif()?,
            (Emit::Asm, Made::Program(c)) => c.asm()?,
        };
        w.write_all(text.as_bytes()).map_err(|e| vec![Diag::new(format!("can't write: {e}"))])
    }
}

/// A shared library for standard output: linkers only write files.
fn shared_bytes(c: &Compiled, w: &mut dyn Write) -> Result<(), Vec<Diag>> {
    let io = |e: std::io::Error| vec![Diag::new(format!("can't write the shared library: {e}"))];
    let dir = tempfile::tempdir().map_err(io)?;
    let path = dir.path().join("model.so");
    link::shared_library(c, &path, &mut Progress::hidden())?;
    let mut file = std::fs::File::open(&path).map_err(io)?;
    std::io::copy(&mut file, w).map_err(io).map(|_| ())
}

/// Lengths at which the summary tells the arena's size.
const LENGTHS: [i64; 3] = [16, 128, 512];

/// What a person wants to know after a compilation.
fn summary(made: &Made, written: &[(PathBuf, u64)], stats: Option<&ObjectStats>, progress: &Progress) {
    let mut text = String::new();
    for (path, bytes) in written {
        text += &format!("wrote {} ({})\n", path.display(), size(*bytes));
    }
    if let Some(s) = stats {
        text += &format!("  code {} in {} kernels, weights {}\n", size(s.text), s.kernels.len(), size(s.consts));
    }
    if let Made::Program(c) = made {
        let p = c.program();
        for dims in sample_dims(&p.symbols) {
            if let Some(bytes) = p.arena_bytes(&dims) {
                let at: Vec<_> = p.symbols.iter().zip(&dims).map(|((_, s), v)| format!("{} = {v}", s.name)).collect();
                let at = if at.is_empty() { String::new() } else { format!(" at {}", at.join(", ")) };
                text += &format!("  arena {}{at}\n", size(bytes));
            }
        }
        text += &format!("  symbols {}_run, {}_workspace_size, … for {}\n", p.name, p.name, c.front().target.triple);
    }
    let times: Vec<_> = progress.totals().iter().map(|(p, t)| format!("{} {}", p.name(), time(*t))).collect();
    text += &format!("  {}\n", times.join(", "));
    eprint!("{text}");
}

/// Plausible dims: a batch of one at a few lengths, as far as the ranges allow.
fn sample_dims(symbols: &Symbols) -> Vec<Vec<i64>> {
    let at = |length: i64| -> Vec<i64> {
        let wanted = |name: &str| if name.to_lowercase().contains("batch") { 1 } else { length };
        symbols.iter().map(|(_, s)| wanted(&s.name).clamp(s.min, s.max.max(s.min))).collect()
    };
    let mut all: Vec<Vec<i64>> = LENGTHS.map(at).into();
    all.dedup();
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(kinds: &[Emit], out: &str) -> Vec<String> {
        files(kinds, Path::new(out)).unwrap().iter().map(|f| f.1.display().to_string()).collect()
    }

    #[test]
    fn files_of_a_job() {
        assert_eq!(names(&[Emit::Obj], "d/bert.o"), ["d/bert.o", "d/bert.h"]);
        assert_eq!(names(&[Emit::Obj], "bert"), ["bert", "bert.h"]);
        assert_eq!(names(&[Emit::Clif], "bert.txt"), ["bert.txt"]);
        assert_eq!(names(&[Emit::Obj, Emit::Clif], "bert.o"), ["bert.o", "bert.clif", "bert.h"]);
        assert_eq!(names(&[Emit::Obj, Emit::Header], "bert.h"), ["bert.o", "bert.h"]);
        assert_eq!(names(&[Emit::Staticlib], "libbert.a"), ["libbert.a", "libbert.h"]);
        assert!(files(&[Emit::Obj], Path::new("bert.h")).unwrap_err().message.contains("both"));
    }
}
