//! Compiles the runtime stub to one object. Shared by this crate's build script and by `cargo xtask stub`.
//!
//! The compiler is called directly: Cargo can't give one crate of a workspace `panic = "abort"` and link-time
//! optimisation. Both are needed, because `core` as it is shipped refers to the unwinder; optimised as a whole and with
//! panics that abort, the object keeps nothing of `core` but what was inlined.

use std::path::Path;
use std::process::Command;

/// Compiles `source`, the crate's root, to `object` with the `rustc` at hand. `core` for `target` must be installed.
///
/// # Errors
///
/// A message, if the compiler can't be run or fails.
pub fn compile(rustc: &str, source: &Path, target: &str, object: &Path) -> Result<(), String> {
    let mut command = Command::new(rustc);
    command.arg("--crate-type=staticlib").arg("--crate-name=bertc_rt").arg("--edition=2024");
    command.args(["--target", target]).arg(source);
    command.args(codegen_options(target)).arg(emit(object));
    // Flags for the app's crates must not reach the stub, and a path must not reach the object.
    command.env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    let output = command.output().map_err(|why| format!("running {rustc}: {why}"))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let first = text.lines().find(|line| line.starts_with("error")).unwrap_or("rustc failed");
    Err(first.to_owned())
}

/// What makes the object small and free of undefined Rust symbols.
pub fn codegen_options(target: &str) -> Vec<&'static str> {
    let mut options = vec![
        "--cfg=bertc_stub",
        "-Cpanic=abort",
        "-Clto=fat",
        "-Cembed-bitcode=yes",
        "-Ccodegen-units=1",
        "-Copt-level=2",
        "-Cdebuginfo=0",
        "-Crelocation-model=pic",
        "--cap-lints=allow",
    ];
    // Windows walks stacks by them, and rustc insists.
    if !target.contains("windows") {
        options.push("-Cforce-unwind-tables=no");
    }
    options
}

/// Writes the object after link-time optimisation; no linker or archiver runs.
pub fn emit(object: &Path) -> String {
    format!("--emit=obj={}", object.display())
}
