//! The flags of `bertc demo`.

use std::path::PathBuf;

use clap::Args;

use super::shared::DimArgs;
use crate::demo::DemoOptions;

#[derive(Args, Debug)]
pub struct DemoArgs {
    /// Your own model instead of the small one
    #[arg(long, value_name = "MODEL.onnx")]
    pub model: Option<PathBuf>,
    /// Keep the files, in this folder
    #[arg(long, value_name = "FOLDER")]
    pub keep: Option<PathBuf>,
    #[command(flatten)]
    pub dims: DimArgs,
}

impl DemoArgs {
    /// What the flags ask for.
    pub fn options(self) -> DemoOptions {
        DemoOptions { model: self.model, keep: self.keep, dims: self.dims.dims, shapes: self.dims.shapes }
    }
}
