//! The flags of `bertc opt`.

use std::path::PathBuf;

use clap::Args;

use super::shared::{DimArgs, PassArgs};
use crate::opt::OptOptions;
use crate::options::{CompileOptions, StopAfter};

#[derive(Args, Debug)]
pub struct OptArgs {
    /// Tensor IR as text, or a model
    #[arg(value_name = "FILE.tir|MODEL.onnx", required_unless_present = "list_passes")]
    pub file: Option<PathBuf>,
    /// File to write [default: standard output]
    #[arg(short, value_name = "OUT")]
    pub output: Option<PathBuf>,
    /// Print large constants in full instead of by reference
    #[arg(long)]
    pub inline_constants: bool,
    /// Print the source node of each value
    #[arg(long)]
    pub locations: bool,
    /// Large constants that the text refers to
    #[arg(long, value_name = "SIDE.npz")]
    pub resources: Option<PathBuf>,
    /// List all passes with their options
    #[arg(long)]
    pub list_passes: bool,
    /// Stop after `import`, or after the first run of a pass
    #[arg(long, value_name = "PHASE")]
    pub stop_after: Option<StopAfter>,
    #[command(flatten)]
    pub pass: PassArgs,
    #[command(flatten)]
    pub dims: DimArgs,
}

impl OptArgs {
    /// What the flags ask for; `None` is the list of passes.
    pub fn options(self) -> Option<OptOptions> {
        let file = self.file.filter(|_| !self.list_passes)?;
        let mut compile = CompileOptions::default();
        self.pass.apply(&mut compile);
        self.dims.apply(&mut compile);
        compile.watch.stop_after = self.stop_after;
        let output = self.output.filter(|o| o.as_os_str() != "-");
        let (inline_constants, locations, resources) = (self.inline_constants, self.locations, self.resources);
        Some(OptOptions { file, output, inline_constants, locations, resources, compile })
    }
}
