//! Builds the stub's object for the target of this build, for the feature `embed`; see `stub.rs`.

// Cargo takes a build script's orders from its standard output.
#![allow(clippy::print_stdout)]

#[path = "../src/archive.rs"]
#[allow(dead_code)]
mod archive;
mod stub;

use std::env;
use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rustc-check-cfg=cfg(bertc_stub)");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=include");
    if env::var_os("CARGO_FEATURE_EMBED").is_none() {
        return;
    }
    let variable = |name: &str| env::var(name).unwrap_or_default();
    let target = variable("TARGET");
    let out = PathBuf::from(variable("OUT_DIR"));
    println!("cargo::rustc-env=BERTC_RT_TARGET={target}");

    let object = out.join("bertc_rt.o");
    let source = PathBuf::from(variable("CARGO_MANIFEST_DIR")).join("src/lib.rs");
    if let Err(why) = stub::compile(&variable("RUSTC"), &source, &target, &object) {
        // The compiler is still useful without it: objects need no stub, and `--rt` can name one.
        println!("cargo::warning=no runtime stub for {target}: {why}");
        if let Err(why) = std::fs::write(&object, []) {
            println!("cargo::error=writing {}: {why}", object.display());
        }
    } else {
        // A convenience for C apps, so it may fail: the compiler carries the object itself.
        let _ = publish(&out, &target, &object);
    }
}

/// Leaves `libbertc_rt.a` where Cargo leaves the compiler: `out` is `PROFILE/build/NAME-HASH/out`.
fn publish(out: &Path, target: &str, object: &Path) -> std::io::Result<()> {
    let Some(profile) = out.ancestors().nth(3).filter(|profile| out.starts_with(profile.join("build"))) else {
        return Ok(());
    };
    let mut library = Vec::new();
    archive::write_stub(&mut library, target, &std::fs::read(object)?)?;
    // Two builds may run at once, and nobody should see half a file.
    let temporary = out.join("libbertc_rt.a");
    std::fs::write(&temporary, library)?;
    std::fs::rename(temporary, profile.join("libbertc_rt.a"))
}
