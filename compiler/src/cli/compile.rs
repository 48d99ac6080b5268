//! The flags of the main command.

use std::path::PathBuf;

use clap::Args;

use super::shared::BuildArgs;
use crate::emit::{Job, TextForm};
use crate::options::{CompileOptions, Emit, StopAfter};

#[derive(Args, Debug)]
pub struct MainArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx", required = true)]
    pub model: Option<PathBuf>,
    /// File to write; `-` is standard output
    #[arg(short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// x86_64, aarch64, or a triple such as aarch64-apple-darwin [default: this machine]
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "generic")]
    pub cpu: String,
    /// Prefix of the symbols [default: the stem of OUT]
    #[arg(long, value_name = "PREFIX")]
    pub name: Option<String>,
    /// What to write (repeatable, or with commas)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND", default_value = "obj")]
    pub emit: Vec<Emit>,
    /// Runtime stub for --emit staticlib: a libbertc_rt.a of the target
    #[arg(long, value_name = "PATH")]
    pub rt: Option<PathBuf>,
    /// Side file for the large constants of --emit tensor-ir: an .npz that the text refers to
    #[arg(long, value_name = "FILE.npz", conflicts_with = "inline_constants")]
    pub resources: Option<PathBuf>,
    /// Large constants stand in the text of --emit tensor-ir, as hex
    #[arg(long)]
    pub inline_constants: bool,
    /// Each value in --emit tensor-ir tells its source node
    #[arg(long)]
    pub locations: bool,
    /// Weights of --emit onnx in a file of their own, OUT.data; above 1.8 GB they always are
    #[arg(long)]
    pub external_data: bool,
    /// Stop after import, a pass, passes, lower or emit, and print the IR there, or what --emit html, dot or onnx make of it
    #[arg(long, value_name = "PHASE")]
    pub stop_after: Option<StopAfter>,
    /// Let the caller time each step: every one calls its parallel_for once (docs/abi.md)
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub build: BuildArgs,
}

impl MainArgs {
    /// What the flags ask for.
    ///
    /// # Errors
    /// Flags that don't go together.
    pub fn job(self) -> Result<Job, String> {
        let a = self;
        let model = a.model.ok_or("MODEL.onnx is missing")?;
        let mut kinds = a.emit;
        if let Some(stop) = &a.stop_after {
            let graph = matches!(stop, StopAfter::Import | StopAfter::Pass(_) | StopAfter::Passes);
            if kinds == [Emit::Obj] {
                kinds = vec![match stop {
                    StopAfter::Lower => Emit::KernelIr,
                    StopAfter::Emit => Emit::Asm,
                    _ => Emit::TensorIr,
                }];
            } else if !graph || !kinds.iter().all(|k| k.needs_no_program()) {
                return Err(
                    "--stop-after prints the IR where it stops; of --emit, only tensor-ir, html, dot and onnx \
                            go with import, passes, or a pass"
                        .into(),
                );
            }
        }
        kinds.sort_unstable();
        kinds.dedup();
        let stdout = a.output.as_ref().is_some_and(|o| o.as_os_str() == "-");
        match (&a.output, kinds.as_slice()) {
            (None, [kind]) if kind.is_text() => {}
            (None, _) => return Err("-o OUT is missing; for example -o bert.o".into()),
            (Some(_), [_]) => {}
            (Some(_), _) if stdout => return Err("-o - takes one kind of --emit".into()),
            (Some(_), _) => {}
        }
        let mut compile = CompileOptions {
            target: a.target.unwrap_or_else(|| CompileOptions::default().target),
            cpu: a.cpu,
            profile: a.profile,
            ..a.build.clone().options()
        };
        compile.watch.stop_after = a.stop_after;
        let output = a.output.filter(|_| !stdout);
        let text = TextForm { resources: a.resources, inline_constants: a.inline_constants, locations: a.locations };
        if !kinds.contains(&Emit::TensorIr) && (text.resources.is_some() || text.inline_constants || text.locations) {
            return Err("--resources, --inline-constants and --locations need --emit tensor-ir".into());
        }
        if a.external_data && !kinds.contains(&Emit::Onnx) {
            return Err("--external-data needs --emit onnx".into());
        }
        let (name, rt, external_data, quiet) = (a.name, a.rt, a.external_data, a.build.quiet);
        Ok(Job { model, output, kinds, name, rt, text, external_data, quiet, compile })
    }
}
