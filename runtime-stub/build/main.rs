//! Builds the stub's object for the target of this build, for the feature `embed`; see `stub.rs`.

// Cargo takes a build script's orders from its standard output.
#![allow(clippy::print_stdout)]

mod stub;

use std::env;
use std::path::PathBuf;

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
    }
}
