//! The flags of `bertc bench`.

use std::path::PathBuf;

use clap::Args;

use super::shared::BuildArgs;
use crate::bench::BenchOptions;
use crate::options::CompileOptions;

#[derive(Args, Debug)]
pub struct BenchArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    pub model: PathBuf,
    /// Numbers of threads, each measured; 0: one for each CPU
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    pub threads: Vec<u32>,
    /// Timed runs with each number of threads
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub repeat: u32,
    /// Runs before those
    #[arg(long, value_name = "N", default_value_t = 3)]
    pub warmup: u32,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Time each step, with the first number of threads
    #[arg(long)]
    pub profile: bool,
    /// Where to write the steps of a run as Chrome trace events, for chrome://tracing or ui.perfetto.dev
    #[arg(long, value_name = "OUT.json", requires = "profile")]
    pub trace: Option<PathBuf>,
    /// Where to write the report as a page with a roofline; times each step, too
    #[arg(long, value_name = "OUT.html")]
    pub html: Option<PathBuf>,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "native")]
    pub cpu: String,
    #[command(flatten)]
    pub build: BuildArgs,
}

impl BenchArgs {
    /// What the flags ask for.
    pub fn options(self) -> BenchOptions {
        // The page's roofline and tables of kernels need the time of each step.
        let profile = self.profile || self.html.is_some();
        BenchOptions {
            model: self.model,
            threads: self.threads,
            repeat: self.repeat,
            warmup: self.warmup,
            json: self.json,
            profile,
            trace: self.trace,
            html: self.html,
            quiet: self.build.quiet,
            compile: CompileOptions { cpu: self.cpu, name: "model".into(), profile, ..self.build.options() },
        }
    }
}
