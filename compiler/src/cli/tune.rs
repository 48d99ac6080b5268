//! The flags of `bertc tune`.

use std::path::PathBuf;

use clap::Args;

use super::shared::BuildArgs;
use crate::options::CompileOptions;
use crate::tune::TuneOptions;

#[derive(Args, Debug)]
pub struct TuneArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Where the choices go; `--tuning` of the other commands reads it
    #[arg(short, long, value_name = "TUNING.json")]
    pub output: PathBuf,
    /// Threads to measure with; 0: one for each CPU
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub threads: u32,
    /// Timed runs of each candidate
    #[arg(long, value_name = "N", default_value_t = 15, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    #[command(flatten)]
    pub build: BuildArgs,
}

impl TuneArgs {
    /// What the flags ask for.
    pub fn options(self) -> TuneOptions {
        TuneOptions {
            model: self.model,
            output: self.output,
            threads: self.threads,
            rounds: self.rounds,
            quiet: self.build.quiet,
            // Each step calls `parallel_for`, where its time is taken.
            compile: CompileOptions {
                cpu: "native".into(),
                name: "model".into(),
                profile: true,
                ..self.build.options()
            },
        }
    }
}
