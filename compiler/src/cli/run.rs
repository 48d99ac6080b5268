//! The flags of `bertc run`.

use std::path::PathBuf;

use clap::Args;

use super::shared::BuildArgs;
use crate::options::CompileOptions;
use crate::run::RunOptions;

#[derive(Args, Debug)]
pub struct RunArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Inputs, by their ONNX names [default: plausible random ones]
    #[arg(long, value_name = "IN.npz")]
    pub input: Option<PathBuf>,
    /// Where to write the outputs, by their ONNX names
    #[arg(long, value_name = "OUT.npz")]
    pub output: Option<PathBuf>,
    /// Threads; 0: one for each CPU
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: u32,
    /// Timed runs, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// CPU to compile for: generic, native, or a name [default: native; with --variant generic]
    #[arg(long, value_name = "CPU")]
    pub cpu: Option<String>,
    /// Run the code for this CPU out of an object that has code for several: x86-64, x86-64-v3, x86-64-v4
    #[arg(long, value_name = "CPU")]
    pub variant: Option<String>,
    #[command(flatten)]
    pub build: BuildArgs,
}

impl RunArgs {
    /// What the flags ask for.
    pub fn options(self) -> RunOptions {
        let default = if self.variant.is_some() { "generic" } else { "native" };
        RunOptions {
            model: self.model,
            input: self.input,
            output: self.output,
            threads: self.threads,
            repeat: self.repeat,
            quiet: self.build.quiet,
            variant: self.variant,
            compile: CompileOptions {
                cpu: self.cpu.unwrap_or_else(|| default.into()),
                name: "model".into(),
                ..self.build.options()
            },
        }
    }
}
