//! The whole way from a model file to machine code; what [`compile`](crate::compile) and the command line share.

use std::io::Write;
use std::path::{Path, PathBuf};

use bertc_backends::object::{EmitOptions, ObjectStats, Variant};
use bertc_backends::plan::Program;
use bertc_backends::target::{Emitter, Needs, Target};
use bertc_backends::{header, lower, object};
use bertc_ir::text::PrintOptions;
use bertc_ir::{DType, Diag, Graph, Op};
use bertc_passes::registry::PASSES;

use crate::import::onnx::{self, ImportOptions};
use crate::instrument::explain;
use crate::options::{CompileOptions, StopAfter};
use crate::output::same_file;
use crate::passes;
use crate::progress::{Phase, Progress};
use crate::sparse;

/// What is known about the model file.
#[derive(Clone, Debug, Default)]
pub struct ModelInfo {
    /// Version of the default operator set.
    pub opset: i64,
    /// The tool that wrote the file.
    pub producer: String,
    /// Remarks of the importer.
    pub notes: Vec<String>,
}

/// A model as tensor IR, after the passes.
#[derive(Clone, Debug)]
pub struct Front {
    /// The tensor IR.
    pub graph: Graph,
    /// The model file.
    pub info: ModelInfo,
    /// BLAKE3 of the model, the compiler's version and the options, in hex.
    pub hash: String,
    /// The machine to compile for.
    pub target: Target,
}

/// A compiled model: its program, ready to be written in any form.
#[derive(Clone, Debug)]
pub struct Compiled {
    front: Front,
    /// At least one, the first for the least CPU.
    variants: Vec<(Target, Program)>,
    profile: bool,
}

/// Imports and transforms a model.
///
/// # Errors
/// An unknown target, or everything that is wrong with the model.
pub fn front(path: &Path, options: &CompileOptions, progress: &mut Progress) -> Result<Front, Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let target = options.machine().map_err(one)?;
    check_file(path).map_err(one)?;
    progress.print_timing(options.watch.timing);
    // Before the work: flags are checked while the user still watches.
    let steps = passes::steps(options, PASSES, true)?;
    let import = ImportOptions { dims: options.dims.clone(), shapes: options.shapes.clone() };
    let imported = progress.phase(Phase::Import, || onnx::import(path, &import))?;
    let mut graph = imported.graph;
    let hash = progress.phase(Phase::Hash, || hash(path, &graph, &target, options)).map_err(one)?;
    if options.watch.stop_after != Some(StopAfter::Import) {
        let err = &mut std::io::stderr();
        progress.nested(Phase::Passes, |p| passes::run(&mut graph, &steps, options, p, err))?;
    }
    graph.name.clone_from(&options.name);
    let info = ModelInfo { opset: imported.opset, producer: imported.producer, notes: imported.notes };
    Ok(Front { graph, info, hash, target })
}

/// [`compile`](crate::compile), followed by `progress`.
///
/// # Errors
/// Everything that is wrong with options or model.
pub fn compile_with(path: &Path, options: &CompileOptions, progress: &mut Progress) -> Result<Compiled, Vec<Diag>> {
    let front = front(path, options, progress)?;
    lower_front(front, options, progress)
}

/// The rest of [`compile_with`].
///
/// # Errors
/// What the backend doesn't support.
pub fn lower_front(front: Front, options: &CompileOptions, progress: &mut Progress) -> Result<Compiled, Vec<Diag>> {
    let mut remarks = Vec::new();
    let variants = progress.phase(Phase::Lower, || {
        let targets = front.target.variants(front.needs(options));
        let widest = targets.last().map_or_else(String::new, |t| t.cpu.clone());
        let lowered = targets.into_iter().map(|target| {
            let traced = lower::lower_traced(&front.graph, &target)?;
            if options.watch.explain && target.cpu == widest {
                remarks = sparse::remarks(&front.graph, &traced);
            }
            let program = traced.program;
            if options.verify_each || cfg!(debug_assertions) {
                program.verify()?;
            }
            Ok((target, program))
        });
        lowered.collect::<Result<Vec<_>, Vec<Diag>>>()
    })?;
    if !remarks.is_empty() {
        // Nobody is left to tell when standard error is gone.
        let _ = std::io::stderr().write_all(explain(&remarks).as_bytes());
    }
    Ok(Compiled { front, variants, profile: options.profile })
}

impl Front {
    /// What the model multiplies, for the choice of variants.
    fn needs(&self, options: &CompileOptions) -> Needs {
        let g = &self.graph;
        let int8 = |op: &Op| matches!(op, Op::Linear(l) if l.int8);
        let fused = |op: &Op| matches!(op, Op::Linear(_) | Op::Attention(_));
        let all = g.topo();
        let reads_bf16 = all.iter().any(|&v| fused(g.op(v)) && g.ty(g.operands(v)[0]).dtype == DType::BF16);
        Needs { bf16: options.bf16 || reads_bf16, int8: all.iter().any(|&v| int8(g.op(v))) }
    }

    /// Tensor IR as text, weights by reference.
    pub fn tensor_ir(&self) -> String {
        bertc_ir::text::print(&self.graph, &PrintOptions::default())
    }
}

impl Compiled {
    /// Kernels, steps and buffers; of several variants, those of the one for the least CPU.
    pub fn program(&self) -> &Program {
        &self.variants[0].1
    }

    /// The CPUs that there is code for, the least first.
    pub fn targets(&self) -> impl Iterator<Item = &Target> {
        self.variants.iter().map(|v| &v.0)
    }

    fn variants(&self) -> Vec<Variant<'_>> {
        self.variants.iter().map(|(target, program)| Variant { program, target }).collect()
    }

    /// The tensor IR that was lowered, with target and hash.
    pub fn front(&self) -> &Front {
        &self.front
    }

    /// Writes the object file: ELF, Mach-O or COFF.
    ///
    /// # Errors
    /// What `out` returns, or no room for a temporary file.
    pub fn write_object(&self, out: &mut dyn Write) -> Result<ObjectStats, Vec<Diag>> {
        let hash = self.front.hash.clone();
        let options = EmitOptions { hash, profile: self.profile, ..EmitOptions::default() };
        object::emit_variants(&self.variants(), &options, out)
    }

    /// The C header.
    pub fn header(&self) -> String {
        let variants: Vec<&str> = self.targets().map(|t| t.cpu.as_str()).collect();
        header::emit_header_for(self.program(), &variants)
    }

    /// The whole program: its kernels, then the schedule that calls them.
    pub fn kernel_ir(&self) -> String {
        self.program().print()
    }

    /// Cranelift IR of every function.
    ///
    /// # Errors
    /// The program can't be emitted.
    pub fn clif(&self) -> Result<String, Vec<Diag>> {
        object::emit_clif(&self.variants())
    }

    /// Disassembly of every function.
    ///
    /// # Errors
    /// The program can't be emitted.
    pub fn asm(&self) -> Result<String, Vec<Diag>> {
        object::emit_asm(&self.variants())
    }

    /// The symbols that the object defines for the app.
    pub fn symbols(&self) -> Vec<String> {
        let mut names = vec!["model", "output_shape", "run", "strerror", "workspace_size"];
        if self.variants.len() > 1 {
            names.extend(["select_variant", "variants"]);
        }
        names.into_iter().map(|n| format!("{}_{n}", self.program().name)).collect()
    }
}

/// Mistakes in the path itself, said plainly.
///
/// # Errors
/// There is no such file, or nothing in it.
pub fn check_file(path: &Path) -> Result<(), Diag> {
    let shown = path.display();
    match std::fs::metadata(path) {
        Ok(m) if m.is_dir() => Err(Diag::new(format!("'{shown}' is a folder, expected an .onnx file"))),
        Ok(m) if m.len() == 0 => Err(Diag::new(format!("'{shown}' is empty, expected an .onnx file"))),
        Ok(_) => Ok(()),
        Err(e) => Err(Diag::new(format!("can't read '{shown}': {e}"))),
    }
}

/// Refuses an output that is one of the inputs.
///
/// # Errors
/// It is.
pub fn refuse_overwrite(out: &Path, inputs: &[Option<&PathBuf>]) -> Result<(), Diag> {
    match inputs.iter().flatten().find(|i| same_file(out, i)) {
        Some(i) => Err(Diag::new(format!("the output '{}' is the input '{}'", out.display(), i.display()))
            .note("choose another -o or --output")),
        None => Ok(()),
    }
}

/// BLAKE3 of everything that the object depends on: compiler version, options, model file and external weights.
fn hash(path: &Path, graph: &Graph, target: &Target, o: &CompileOptions) -> Result<String, Diag> {
    let mut h = blake3::Hasher::new();
    // Each part is preceded by its length, so that no two sets of options read the same.
    let mut part = |bytes: &[u8]| {
        h.update(&(bytes.len() as u64).to_le_bytes());
        h.update(bytes);
    };
    part(env!("CARGO_PKG_VERSION").as_bytes());
    // The triple, because `--target x86_64` and its full name are one.
    for text in [&o.name, &target.triple.to_string(), &target.cpu] {
        part(text.as_bytes());
    }
    part(&[o.opt_level, u8::from(target.emitter == Emitter::Clif), u8::from(o.skip_padding), o.sparsity as u8]);
    part(format!("{:?}", o.dims).as_bytes());
    part(format!("{:?}", o.shapes).as_bytes());
    if let Some(passes) = &o.passes {
        part(passes.as_bytes());
    }
    for (flag, name) in [(o.profile, "profile"), (o.bf16, "bf16"), (o.int8, "int8")] {
        if flag {
            part(name.as_bytes());
        }
    }
    if o.int8 {
        part(&o.int8_budget.to_le_bytes());
        part(format!("{:?}", o.keep).as_bytes());
    }
    if let Some(sparsity) = o.prune {
        part(b"prune");
        part(&sparsity.to_le_bytes());
        part(format!("{:?}", (o.block_shape(), &o.prune_only, &o.keep)).as_bytes());
    }
    if o.prune_heads.is_some() || o.prune_ffn.is_some() {
        part(format!("structured {:?}", (o.prune_heads, o.prune_ffn, &o.keep)).as_bytes());
    }
    for file in [&o.tuning, &o.calibrate].into_iter().flatten() {
        let unreadable = |e: std::io::Error| Diag::new(format!("can't read '{}': {e}", file.display()));
        part(&std::fs::read(file).map_err(unreadable)?);
    }
    let unreadable = |e: std::io::Error| Diag::new(format!("can't read '{}': {e}", path.display()));
    h.update_reader(std::fs::File::open(path).map_err(unreadable)?).map_err(unreadable)?;
    // External weights are in other files; their tensors are here whichever file they came from.
    for v in graph.topo() {
        if let Op::Constant(t) = graph.op(v) {
            h.update(&(t.bytes().len() as u64).to_le_bytes());
            h.update(t.bytes());
        }
    }
    Ok(h.finalize().to_hex().to_string())
}
