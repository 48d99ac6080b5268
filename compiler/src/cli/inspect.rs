//! The flags of `bertc inspect`.

use std::path::PathBuf;

use bertc_backends::target::Emitter;
use clap::Args;

use super::shared::{DimArgs, PassArgs};
use crate::inspect::InspectOptions;
use crate::options::{CompileOptions, parse_emitter};

#[derive(Args, Debug)]
pub struct InspectArgs {
    /// The file
    pub file: PathBuf,
    /// x86_64, aarch64, or a triple such as aarch64-apple-darwin [default: this machine]
    #[arg(long, value_name = "TARGET")]
    pub target: Option<String>,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "generic")]
    pub cpu: String,
    /// What makes machine code of kernels: auto (the widest registers of the CPU), clif (Cranelift, 128 bits)
    #[arg(long, value_name = "EMITTER", value_parser = parse_emitter, default_value = "auto")]
    pub emitter: Emitter,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub pass: PassArgs,
    #[command(flatten)]
    pub dims: DimArgs,
}

impl InspectArgs {
    /// What the flags ask for.
    pub fn options(self) -> InspectOptions {
        let mut compile = CompileOptions { cpu: self.cpu, emitter: self.emitter, ..CompileOptions::default() };
        compile.target = self.target.unwrap_or(compile.target);
        self.pass.apply(&mut compile);
        self.dims.apply(&mut compile);
        InspectOptions { file: self.file, json: self.json, compile }
    }
}
