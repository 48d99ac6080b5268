//! Shared libraries: the system's C compiler as a linker.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use bertc_backends::target::{BinaryFormat, Target};
use bertc_ir::Diag;
use target_lexicon::Triple;

use crate::driver::Compiled;
use crate::progress::{Phase, Progress};

/// Links the model's object to a shared library at `path`, with the system's C compiler.
///
/// # Errors
/// No C compiler for the target, or what it says.
pub fn shared_library(compiled: &Compiled, path: &Path, progress: &mut Progress) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let io = |e: std::io::Error| vec![Diag::new(format!("can't write the object to link: {e}"))];
    let dir = tempfile::tempdir().map_err(io)?;
    let object = dir.path().join("model.o");
    progress.phase(Phase::Emit, || {
        let mut file = File::create(&object).map_err(io)?;
        compiled.write_object(&mut file).map(|_| ())
    })?;
    progress.phase(Phase::Link, || link_shared(&compiled.front().target, &object, path)).map_err(one)
}

/// Links one object without undefined symbols to a shared library at `path`.
///
/// # Errors
/// As [`shared_library`].
pub fn link_shared(target: &Target, object: &Path, path: &Path) -> Result<(), Diag> {
    let mut cc = c_compiler(target);
    match target.object_format() {
        BinaryFormat::Macho => {
            cc.arg("-dynamiclib");
        }
        // The object needs no library, so the result depends on none.
        BinaryFormat::Elf => {
            cc.args(["-shared", "-nostdlib", "-Wl,-z,noexecstack"]);
        }
        _ => {
            cc.args(["-shared", "-nostdlib"]);
        }
    }
    cc.arg(object).arg("-o").arg(path);
    run(&mut cc)
}

/// The C compiler for a target: the environment's `CC`, or `cc`, or the usual name of a cross compiler.
pub fn c_compiler(target: &Target) -> Command {
    let host = Triple::host();
    let t = &target.triple;
    let foreign = t.architecture != host.architecture || t.operating_system != host.operating_system;
    let variable = std::env::var("CC").ok().filter(|v| !v.trim().is_empty());
    let words = match variable {
        Some(cc) => cc,
        None if foreign && t.operating_system == target_lexicon::OperatingSystem::Linux => {
            format!("{}-linux-gnu-gcc", t.architecture)
        }
        None if foreign && target.object_format() == BinaryFormat::Coff => {
            format!("{}-w64-mingw32-gcc", t.architecture)
        }
        None => "cc".to_string(),
    };
    // As in make, the variable may hold a wrapper or flags: `ccache gcc`.
    let mut words = words.split_whitespace();
    let mut cmd = Command::new(words.next().unwrap_or("cc"));
    cmd.args(words);
    cmd
}

/// Runs a tool to its end.
///
/// # Errors
/// It can't be started, or fails: with what it printed.
pub fn run(cmd: &mut Command) -> Result<(), Diag> {
    let name = cmd.get_program().to_string_lossy().into_owned();
    let out = match cmd.output() {
        Ok(out) => out,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
            return Err(Diag::new(format!("the C compiler '{name}' is not installed"))
                .note("install one (such as gcc or clang), or name it in the environment's CC")
                .note("an object file (--emit obj) needs no C compiler"));
        }
        Err(e) => return Err(Diag::new(format!("can't start '{name}': {e}"))),
    };
    if out.status.success() {
        return Ok(());
    }
    let mut d = Diag::new(format!("'{name}' failed: {}", out.status));
    let text = String::from_utf8_lossy(&out.stderr).into_owned();
    for line in text.lines().filter(|l| !l.trim().is_empty()).take(20) {
        d = d.note(line.trim_end());
    }
    Err(d)
}
