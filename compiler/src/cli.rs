//! The command line: flags, which files are written, exit codes.

use std::path::PathBuf;
use std::process::ExitCode;

use bertc_backends::target::Emitter;
use bertc_ir::Diag;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::bench::{self, BenchOptions};
use crate::demo::{self, DemoOptions};
use crate::emit::{self, Job};
use crate::inspect::{self, InspectOptions};
use crate::options::{CompileOptions, DEFAULT_OPT_LEVEL, Emit, parse_dim, parse_emitter, parse_opt_level, parse_shape};
use crate::report::{Level, show};
use crate::run::{self, RunOptions};

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
    /// Run a compiled model and print this process's peak memory; `bench` starts it
    #[command(hide = true)]
    MeasureMemory { library: PathBuf, prefix: String, threads: u32, dims: Vec<i64> },
    /// Describe a compiled object (.o), or a model (.onnx) and the kernels it becomes
    ///
    /// The kernels are listed in layers. A layer is what runs from one attention up to the next: its first kernel is the
    /// attention, its last one makes the next layer's queries, keys and values. The last layer goes on to the end.
    Inspect(InspectArgs),
    /// Compile a small model, link a C app with it, run it, and tell what happened
    Demo {
        /// Your own model instead of the small one
        #[arg(long, value_name = "MODEL.onnx")]
        model: Option<PathBuf>,
        /// Keep the files, in this folder
        #[arg(long, value_name = "FOLDER")]
        keep: Option<PathBuf>,
        #[command(flatten)]
        dims: DimArgs,
    },
}

#[derive(Args, Clone, Debug)]
struct DimArgs {
    /// Fix all dims of an input: input_ids=1x128 (repeatable)
    #[arg(long = "shape", value_name = "NAME=1x128", value_parser = parse_shape)]
    shapes: Vec<(String, Vec<i64>)>,
    /// Limit a dim (both ends included) or fix it: seq=1..512, seq=128 (repeatable)
    #[arg(long = "dim", value_name = "NAME=1..512", value_parser = parse_dim)]
    dims: Vec<(String, i64, i64)>,
}

#[derive(Args, Clone, Debug)]
struct TuneArgs {
    /// Optimise: 0 lowers only, 1 simplifies, 2 and 3 also fuse and tune as far as passes exist
    #[arg(short = 'O', value_name = "LEVEL", value_parser = parse_opt_level, default_value_t = DEFAULT_OPT_LEVEL)]
    opt_level: u8,
    /// What makes machine code of kernels: auto (the widest registers of the CPU), clif (Cranelift, 128 bits)
    #[arg(long, value_name = "EMITTER", value_parser = parse_emitter, default_value = "auto")]
    emitter: Emitter,
    /// Verify the tensor IR after each pass
    #[arg(long)]
    verify_each: bool,
    /// Print nothing but errors
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    dims: DimArgs,
}

#[derive(Args, Debug)]
struct MainArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx", required = true)]
    model: Option<PathBuf>,
    /// File to write; `-` is standard output
    #[arg(short, value_name = "OUT")]
    output: Option<PathBuf>,
    /// x86_64, aarch64, or a triple such as aarch64-apple-darwin [default: this machine]
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "generic")]
    cpu: String,
    /// Prefix of the symbols [default: the stem of OUT]
    #[arg(long, value_name = "PREFIX")]
    name: Option<String>,
    /// What to write (repeatable, or with commas)
    #[arg(long, value_enum, value_delimiter = ',', value_name = "KIND", default_value = "obj")]
    emit: Vec<Emit>,
    /// Runtime stub for --emit staticlib: a libbertc_rt.a of the target
    #[arg(long, value_name = "PATH")]
    rt: Option<PathBuf>,
    #[command(flatten)]
    tune: TuneArgs,
}

#[derive(Args, Debug)]
struct RunArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Inputs, by their ONNX names [default: plausible random ones]
    #[arg(long, value_name = "IN.npz")]
    input: Option<PathBuf>,
    /// Where to write the outputs, by their ONNX names
    #[arg(long, value_name = "OUT.npz")]
    output: Option<PathBuf>,
    /// Threads; 0: one for each CPU
    #[arg(long, value_name = "N", default_value_t = 1)]
    threads: u32,
    /// Timed runs, after one to warm up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "native")]
    cpu: String,
    #[command(flatten)]
    tune: TuneArgs,
}

#[derive(Args, Debug)]
struct InspectArgs {
    /// The file
    file: PathBuf,
    /// Optimise the kernels: 0 lowers only, 1 simplifies, 2 and 3 also fuse
    #[arg(short = 'O', value_name = "LEVEL", value_parser = parse_opt_level, default_value_t = DEFAULT_OPT_LEVEL)]
    opt_level: u8,
    /// x86_64, aarch64, or a triple such as aarch64-apple-darwin [default: this machine]
    #[arg(long, value_name = "TARGET")]
    target: Option<String>,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "generic")]
    cpu: String,
    /// What makes machine code of kernels: auto (the widest registers of the CPU), clif (Cranelift, 128 bits)
    #[arg(long, value_name = "EMITTER", value_parser = parse_emitter, default_value = "auto")]
    emitter: Emitter,
    /// Print JSON (models only)
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    dims: DimArgs,
}

#[derive(Args, Debug)]
struct BenchArgs {
    /// The model
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// Numbers of threads, each measured; 0: one for each CPU
    #[arg(long, value_name = "N,…", value_delimiter = ',', default_value = "1")]
    threads: Vec<u32>,
    /// Timed runs with each number of threads
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Runs before those
    #[arg(long, value_name = "N", default_value_t = 3)]
    warmup: u32,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// CPU to compile for: generic, native, or a name
    #[arg(long, value_name = "CPU", default_value = "native")]
    cpu: String,
    #[command(flatten)]
    tune: TuneArgs,
}

impl TuneArgs {
    fn options(self) -> CompileOptions {
        CompileOptions {
            opt_level: self.opt_level,
            emitter: self.emitter,
            verify_each: self.verify_each,
            dims: self.dims.dims,
            shapes: self.dims.shapes,
            ..CompileOptions::default()
        }
    }
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
    let result = match cli.command {
        None => match job(cli.main) {
            Ok(job) => emit::run(&job),
            Err(message) => {
                let _ = Cli::command().error(ErrorKind::ValueValidation, message).print();
                return ExitCode::from(USAGE);
            }
        },
        Some(Command::Run(a)) => run::run(&RunOptions {
            model: a.model,
            input: a.input,
            output: a.output,
            threads: a.threads,
            repeat: a.repeat,
            quiet: a.tune.quiet,
            compile: CompileOptions { cpu: a.cpu, name: "model".into(), ..a.tune.options() },
        }),
        Some(Command::Bench(a)) => bench::run(&BenchOptions {
            model: a.model,
            threads: a.threads,
            repeat: a.repeat,
            warmup: a.warmup,
            json: a.json,
            quiet: a.tune.quiet,
            compile: CompileOptions { cpu: a.cpu, name: "model".into(), ..a.tune.options() },
        }),
        Some(Command::MeasureMemory { library, prefix, threads, dims }) => {
            bench::memory::child(&library, &prefix, threads, &dims)
        }
        Some(Command::Inspect(a)) => inspect::run(&InspectOptions {
            file: a.file,
            json: a.json,
            compile: CompileOptions {
                opt_level: a.opt_level,
                target: a.target.unwrap_or_else(|| CompileOptions::default().target),
                cpu: a.cpu,
                emitter: a.emitter,
                dims: a.dims.dims,
                shapes: a.dims.shapes,
                ..CompileOptions::default()
            },
        }),
        Some(Command::Demo { model, keep, dims }) => {
            demo::run(&DemoOptions { model, keep, dims: dims.dims, shapes: dims.shapes })
        }
    };
    finish(result)
}

fn finish(result: Result<(), Vec<Diag>>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(diags) => {
            show(&diags, Level::Error);
            ExitCode::FAILURE
        }
    }
}

fn job(a: MainArgs) -> Result<Job, String> {
    let model = a.model.ok_or("MODEL.onnx is missing")?;
    let mut kinds = a.emit;
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
    let compile = CompileOptions {
        target: a.target.unwrap_or_else(|| CompileOptions::default().target),
        cpu: a.cpu,
        ..a.tune.clone().options()
    };
    let output = a.output.filter(|_| !stdout);
    Ok(Job { model, output, kinds, name: a.name, rt: a.rt, quiet: a.tune.quiet, compile })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("bertc").chain(args.split_whitespace()))
    }

    fn main_job(args: &str) -> Result<Job, String> {
        parse(args).map_err(|e| e.to_string()).and_then(|c| job(c.main))
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
        assert!(parse("").is_err() && parse("run").is_err() && parse("m.onnx run x.onnx").is_err());
    }
}
