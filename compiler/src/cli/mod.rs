//! The command line: one file for the flags of each command, and exit codes. What a command does is elsewhere.

use std::path::PathBuf;
use std::process::ExitCode;

use bertc_ir::Diag;
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, Subcommand};

use self::bench::BenchArgs;
use self::check::CheckArgs;
use self::compile::MainArgs;
use self::demo::DemoArgs;
use self::inspect::InspectArgs;
use self::opt::OptArgs;
use self::run::RunArgs;
use self::tune::TuneArgs;
use crate::internal;
use crate::report::{Level, show};

mod bench;
mod check;
mod compile;
mod demo;
mod inspect;
mod opt;
mod run;
mod shared;
mod tune;

/// Compiles an ONNX text encoder to an object file that needs no runtime
#[derive(Parser, Debug)]
#[command(name = "bertc", version, args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
#[command(after_help = "Example: bertc model.onnx -O3 -o bert.o   (writes bert.o and bert.h)")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    main: MainArgs,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Compile a model, run it in this process, print its outputs' statistics and its time
    Run(RunArgs),
    /// Compile a model and measure it: latency, and how near that is to this machine's peak of multiply-adds
    Bench(BenchArgs),
    /// Measure which tiles and tasks a model's products are fastest with on this machine, for `--tuning`
    Tune(TuneArgs),
    /// Compare a compiled model with the evaluator, op by op, and find what makes it wrong
    Check(Box<CheckArgs>),
    /// Run a compiled model and print this process's peak memory; `bench` starts it
    #[command(hide = true)]
    MeasureMemory { library: PathBuf, prefix: String, threads: u32, dims: Vec<i64> },
    /// Describe a compiled object (.o), or a model (.onnx, .tir) and the kernels it becomes
    ///
    /// Of a model: ops before and after the passes; parameters, multiply-adds and kernels by layer; memory. Of an object:
    /// sections, symbols, the code of each kernel, the model's own description.
    Inspect(InspectArgs),
    /// Run passes on tensor IR, text or a model, and print the result
    Opt(Box<OptArgs>),
    /// Compile a small model, link a C app with it, run it, and tell what happened
    Demo(DemoArgs),
}

/// The exit code of wrong usage, as clap's.
const USAGE: u8 = 2;

/// Parses the process's arguments and does what they say.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => {
            // `--help` and `--version` come here too; a closed pipe is no reason to fail.
            let _ = e.print();
            let fine = matches!(e.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            return if fine { ExitCode::SUCCESS } else { ExitCode::from(USAGE) };
        }
    };
    internal::install_hook();
    let command = match cli.command {
        Some(command) => command,
        None => match cli.main.job() {
            Ok(job) => return finish(internal::guard(|| crate::emit::run(&job))),
            Err(message) => {
                let _ = Cli::command().error(ErrorKind::ValueValidation, message).print();
                return ExitCode::from(USAGE);
            }
        },
    };
    finish(internal::guard(|| dispatch(command)))
}

fn dispatch(command: Command) -> Result<(), Vec<Diag>> {
    match command {
        Command::Run(a) => crate::run::run(&a.options()),
        Command::Bench(a) => crate::bench::run(&a.options()),
        Command::Tune(a) => crate::tune::run(&a.options()),
        Command::Check(a) => crate::check::run(&a.options()),
        Command::MeasureMemory { library, prefix, threads, dims } => {
            crate::bench::memory::child(&library, &prefix, threads, &dims)
        }
        Command::Inspect(a) => crate::inspect::run(&a.options()),
        Command::Opt(a) => match a.options() {
            Some(o) => crate::opt::run(&o),
            None => crate::output::to_stdout(crate::opt::list().as_bytes()).map_err(|d| vec![d]),
        },
        Command::Demo(a) => crate::demo::run(&a.options()),
    }
}

/// The options of a command line that starts with `opt`.
#[cfg(test)]
pub(crate) fn opt_options<'a>(args: impl Iterator<Item = &'a str>) -> Result<crate::opt::OptOptions, String> {
    let cli = Cli::try_parse_from(std::iter::once("bertc").chain(args)).map_err(|e| e.to_string())?;
    match cli.command {
        Some(Command::Opt(a)) => a.options().ok_or_else(|| "a list".into()),
        _ => Err("not opt".into()),
    }
}

fn finish(result: Result<(), Vec<Diag>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(diags) => {
            show(&diags, Level::Error);
            if internal::is_internal(&diags) { ExitCode::from(internal::EXIT_CODE) } else { ExitCode::FAILURE }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::emit::Job;
    use crate::options::Emit;

    fn parse(args: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("bertc").chain(args.split_whitespace()))
    }

    fn main_job(args: &str) -> Result<Job, String> {
        parse(args).map_err(|e| e.to_string()).and_then(|c| c.main.job())
    }

    #[test]
    fn clap_accepts_the_definition() {
        Cli::command().debug_assert();
    }

    #[test]
    fn levels_are_written_like_compilers_do() {
        for (args, level) in [("m.onnx -o a.o", 2), ("m.onnx -O0 -o a.o", 0), ("-O3 m.onnx -o a.o", 3)] {
            assert_eq!(main_job(args).unwrap().compile.opt_level, level);
        }
        assert!(main_job("m.onnx -O4 -o a.o").unwrap_err().contains("expected -O0, -O1, -O2 or -O3"));
    }

    #[test]
    fn flags_arrive() {
        let j = main_job("m.onnx -o a.o --dim seq=1..64 --dim b=2 --shape x=1x2 --emit obj,clif --emit asm --name q")
            .unwrap();
        assert_eq!(j.compile.dims, [("seq".to_string(), 1, 64), ("b".to_string(), 2, 2)]);
        assert_eq!(j.compile.shapes, [("x".to_string(), vec![1, 2])]);
        assert_eq!(j.kinds, [Emit::Obj, Emit::Clif, Emit::Asm]);
        assert_eq!(j.name.as_deref(), Some("q"));
    }

    #[test]
    fn binary_output_needs_a_file() {
        assert!(main_job("m.onnx").unwrap_err().contains("-o OUT is missing"));
        assert!(main_job("m.onnx --emit obj,clif -o -").unwrap_err().contains("one kind"));
        assert_eq!(main_job("m.onnx --emit clif").unwrap().output, None);
        assert!(main_job("m.onnx --emit clif --locations").unwrap_err().contains("need --emit tensor-ir"));
        let j = main_job("m.onnx --emit tensor-ir --resources w.npz --locations").unwrap();
        assert_eq!((j.text.resources, j.text.locations), (Some("w.npz".into()), true));
        assert!(parse("").is_err() && parse("run").is_err() && parse("m.onnx run x.onnx").is_err());
    }
}
