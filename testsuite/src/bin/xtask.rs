//! `cargo xtask`: jobs of the project that are no tests.
//!
//! `stub [--target x86_64|aarch64|TRIPLE] [--out FILE]` builds the runtime stub for a target, by default for this
//! machine, into `libbertc_rt-TRIPLE.a`. It takes the target's `core` that is installed for `rustc` (the variable
//! `RUSTC`), or else builds `core` from its source, where that is installed (`rustup component add rust-src`).
//!
//! `conformance [--data FOLDER] [--filter PART] [--target x86_64|aarch64] [-O N] [--update]` runs ONNX's backend node tests
//! through compiled code, and compares with the list of expected failures in `testsuite/conformance`. Without a folder of
//! tests it makes them, with the `onnx` package for Python in a virtual environment of its own. On AArch64 it is one test
//! in eight, under qemu. `--update` writes `docs/coverage.md`; without it, a page that is out of date is an error.

// It speaks to people on the standard output.
#![allow(clippy::print_stdout)]

#[path = "../../../runtime-stub/build/stub.rs"]
mod stub;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use bertc_testsuite::conformance;
use clap::{Parser, Subcommand};

/// Jobs of the project that are no tests.
#[derive(Parser)]
#[command(name = "cargo xtask", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Build the runtime stub for a target.
    Stub {
        /// x86_64, aarch64 or a triple; by default, this machine.
        #[arg(long)]
        target: Option<String>,
        /// By default libbertc_rt-TRIPLE.a.
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Run ONNX's backend node tests through compiled code.
    Conformance(conformance::Options),
    #[command(hide = true)]
    ConformanceChild { data: PathBuf, library: PathBuf, names: Vec<String> },
}

fn main() -> ExitCode {
    let result = match Args::parse().job {
        Job::Stub { target, out } => build_stub(target.as_deref(), out),
        Job::Conformance(options) => conformance::run_job(&options),
        Job::ConformanceChild { data, library, names } => conformance::child(&data, &library, &names),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("error: {why}");
            ExitCode::FAILURE
        }
    }
}

fn build_stub(target: Option<&str>, out: Option<PathBuf>) -> Result<(), String> {
    let target = rustc_target(target);
    let out = out.unwrap_or_else(|| PathBuf::from(format!("libbertc_rt-{target}.a")));

    let folder = tempfile::tempdir().map_err(|why| format!("making a temporary folder: {why}"))?;
    let object = folder.path().join("bertc_rt.o");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    let source = workspace().join("runtime-stub/src/lib.rs");
    if let Err(why) = stub::compile(&rustc, &source, &target, &object) {
        // An error in the stub itself would come again, after a long build of `core`.
        if !why.contains("can't find crate for `core`") {
            return Err(format!("{rustc}: {why}"));
        }
        build_with_core(&rustc, &target, &object, folder.path())?;
    }
    let object = std::fs::read(&object).map_err(|why| format!("reading the stub's object: {why}"))?;
    let mut library = Vec::new();
    bertc_rt::archive::write_stub(&mut library, &target, &object).map_err(|why| why.to_string())?;
    std::fs::write(&out, library).map_err(|why| format!("writing {}: {why}", out.display()))?;
    println!("{}: {} bytes of object code for {target}", out.display(), object.len());
    Ok(())
}

/// Builds `core` from source for a target that isn't installed, then the stub against it.
fn build_with_core(rustc: &str, target: &str, object: &Path, folder: &Path) -> Result<(), String> {
    let missing = format!(
        "{rustc} has no `core` for {target}: install it (`rustup target add {target}`), or its source \
         (`rustup component add rust-src`)"
    );
    let sysroot = Command::new(rustc).args(["--print", "sysroot"]).output().map_err(|why| why.to_string())?;
    let sysroot = String::from_utf8_lossy(&sysroot.stdout).trim().to_owned();
    if !Path::new(&sysroot).join("lib/rustlib/src/rust/library/core").is_dir() {
        return Err(missing);
    }
    // Building `core` is unstable in Cargo, and the variable lets a stable toolchain do it. The profile's panic
    // strategy and the options agree with those that the stub gets elsewhere.
    let status = Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned()))
        .current_dir(workspace())
        .args(["rustc", "--quiet", "--package", "bertc-rt", "--lib", "--release", "--crate-type", "staticlib"])
        .args(["-Zbuild-std=core", "--target", target, "--target-dir"])
        .arg(folder.join("target"))
        .arg("--")
        .args(stub::codegen_options(target))
        .arg(stub::emit(object))
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_PROFILE_RELEASE_PANIC", "abort")
        .env("CARGO_PROFILE_RELEASE_LTO", "fat")
        .status()
        .map_err(|why| format!("running cargo: {why}"))?;
    if status.success() { Ok(()) } else { Err(format!("building `core` for {target} failed; {missing}")) }
}

/// The triple that rustc knows: `--target` takes the short names of `bertc --target` too.
fn rustc_target(name: Option<&str>) -> String {
    let triple = match name {
        None => bertc_rt::STUB_TARGET,
        Some("x86_64" | "x86-64" | "x86_64-linux-gnu") => "x86_64-unknown-linux-gnu",
        Some("aarch64" | "arm64" | "aarch64-linux-gnu") => "aarch64-unknown-linux-gnu",
        Some("x86_64-linux-musl") => "x86_64-unknown-linux-musl",
        Some("aarch64-linux-musl") => "aarch64-unknown-linux-musl",
        Some("aarch64-android") => "aarch64-linux-android",
        Some("arm64-apple-darwin" | "arm64-apple-macos") => "aarch64-apple-darwin",
        Some("x86_64-windows-gnu" | "x86_64-w64-mingw32") => "x86_64-pc-windows-gnu",
        Some("x86_64-windows-msvc" | "x86_64-windows") => "x86_64-pc-windows-msvc",
        Some("aarch64-windows-msvc" | "aarch64-windows") => "aarch64-pc-windows-msvc",
        Some(triple) => triple,
    };
    triple.to_owned()
}

fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}
