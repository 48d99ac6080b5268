//! The flags of `bertc check`.

use std::path::PathBuf;

use clap::Args;

use super::shared::BuildArgs;
use crate::check::CheckOptions;
use crate::options::CompileOptions;

#[derive(Args, Debug)]
pub struct CheckArgs {
    /// The model, or tensor IR as text
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,
    /// Large constants of the text, by the names that it has for them
    #[arg(long, value_name = "SIDE.npz")]
    pub resources: Option<PathBuf>,
    /// Inputs, by their ONNX names [default: plausible ones, a batch of 2 of length 13, as far as the ranges allow]
    #[arg(long, value_name = "IN.npz")]
    pub input: Option<PathBuf>,
    /// Largest error that is fine, relative to the largest element [default: 0.0001, with --bf16 0.05, with --int8 0.2]
    #[arg(long, value_name = "REL", allow_negative_numbers = true, value_parser = tolerance)]
    pub tol: Option<f64>,
    /// Look at every op, with intermediates that share no memory (the default)
    #[arg(long, overrides_with = "no_taps")]
    pub taps: bool,
    /// Compare the outputs only
    #[arg(long)]
    pub no_taps: bool,
    /// Find the pass that makes the outputs wrong
    #[arg(long)]
    pub bisect: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "native")]
    pub cpu: String,
    #[command(flatten)]
    pub build: BuildArgs,
}

fn tolerance(s: &str) -> Result<f64, String> {
    let found = s.parse::<f64>().ok().filter(|t| t.is_finite() && *t >= 0.0);
    found.ok_or_else(|| "expected a number that is not negative, such as 1e-4".into())
}

impl CheckArgs {
    /// What the flags ask for.
    pub fn options(self) -> CheckOptions {
        CheckOptions {
            model: self.model,
            resources: self.resources,
            input: self.input,
            tolerance: self.tol.unwrap_or(match (self.build.pass.int8, self.build.pass.bf16) {
                (true, _) => 0.2,
                (false, true) => 5e-2,
                (false, false) => 1e-4,
            }),
            taps: !self.no_taps,
            bisect: self.bisect,
            json: self.json,
            quiet: self.build.quiet,
            compile: CompileOptions { cpu: self.cpu, name: "model".into(), ..self.build.options() },
        }
    }
}
