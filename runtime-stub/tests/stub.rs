//! The stub's object as a C app gets it: what it needs, how small it is, and whether it runs, natively and on AArch64.

use bertc_rt::archive::write_stub;
use bertc_rt::{STUB_OBJECT, STUB_TARGET};
use std::path::{Path, PathBuf};
use std::process::Command;

#[path = "../build/stub.rs"]
mod stub;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A fresh folder for one test's files.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder in the target directory");
    folder
}

/// Runs a command; `None` if there is no such program.
fn run(command: &mut Command) -> Option<(bool, String)> {
    let output = command.output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
}

fn have(program: &str) -> bool {
    run(Command::new(program).arg("--version")).is_some_and(|(success, _)| success)
}

fn skip(test: &str, why: &str) {
    eprintln!("skipped {test}: {why}");
}

/// Writes `libbertc_rt.a`.
fn library(folder: &Path, target: &str, object: &[u8]) {
    let mut bytes = Vec::new();
    write_stub(&mut bytes, target, object).expect("writing to memory");
    std::fs::write(folder.join("libbertc_rt.a"), bytes).expect("a file in the target directory");
}

/// Compiles the C test against the library in `folder`, as C or as C++.
fn build_app(compiler: &str, flags: &[&str], folder: &Path) -> PathBuf {
    let app = folder.join("app");
    let (success, text) = run(Command::new(compiler)
        .args(flags)
        .args(["-Wall", "-Wextra", "-pedantic", "-Werror", "-O1", "-I"])
        .arg(Path::new(ROOT).join("include"))
        .arg(Path::new(ROOT).join("tests/pool_test.c"))
        .args(["-x", "none"])
        .arg(folder.join("libbertc_rt.a"))
        .args(["-pthread", "-o"])
        .arg(&app))
    .expect("the compiler ran before");
    assert!(success, "{compiler}: {text}");
    app
}

#[test]
fn a_c_app_links_and_runs() {
    assert!(!STUB_OBJECT.is_empty(), "the build made no stub for {STUB_TARGET}");
    if !cfg!(unix) || !have("cc") {
        return skip("a_c_app_links_and_runs", "no cc");
    }
    let folder = folder("c-app");
    library(&folder, STUB_TARGET, STUB_OBJECT);
    let app = build_app("cc", &["-std=c11"], &folder);
    let (success, text) = run(&mut Command::new(app)).expect("the app runs");
    assert!(success && text.starts_with("ok"), "{text}");
}

#[test]
fn the_headers_are_cpp_too() {
    if !cfg!(unix) || !have("c++") {
        return skip("the_headers_are_cpp_too", "no c++");
    }
    let folder = folder("cpp-app");
    library(&folder, STUB_TARGET, STUB_OBJECT);
    let app = build_app("c++", &["-x", "c++", "-std=c++11"], &folder);
    let (success, text) = run(&mut Command::new(app)).expect("the app runs");
    assert!(success && text.starts_with("ok"), "{text}");
}

#[test]
fn the_object_needs_only_the_c_library() {
    if !have("nm") {
        return skip("the_object_needs_only_the_c_library", "no nm");
    }
    let object = folder("symbols").join("bertc_rt.o");
    std::fs::write(&object, STUB_OBJECT).expect("a file in the target directory");
    let (success, text) = run(Command::new("nm").arg("-u").arg(&object)).expect("nm ran before");
    assert!(success, "{text}");
    let undefined: Vec<&str> = text.split_whitespace().filter(|word| *word != "U").collect();
    assert!(undefined.contains(&"malloc") || undefined.contains(&"_malloc"), "nm printed {text}");
    for symbol in undefined {
        let rust = ["rust_", "_ZN", "_R", "__rust", "__aarch64_", "core"].iter().any(|p| symbol.starts_with(p));
        assert!(!rust, "the stub needs {symbol}, which a C app does not have");
    }
    assert!(STUB_OBJECT.len() < 32 << 10, "the stub has {} bytes", STUB_OBJECT.len());
}

#[test]
fn an_aarch64_app_runs_under_qemu() {
    const TARGET: &str = "aarch64-unknown-linux-gnu";
    let test = "an_aarch64_app_runs_under_qemu";
    for program in ["qemu-aarch64", "aarch64-linux-gnu-gcc"] {
        if !have(program) {
            return skip(test, &format!("no {program}"));
        }
    }
    let folder = folder("aarch64-app");
    let object = folder.join("bertc_rt.o");
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".to_owned());
    if let Err(why) = stub::compile(&rustc, &Path::new(ROOT).join("src/lib.rs"), TARGET, &object) {
        assert!(why.contains("can't find crate"), "{why}");
        return skip(test, &format!("{rustc} has no `core` for {TARGET}"));
    }
    library(&folder, TARGET, &std::fs::read(object).expect("the compiler wrote it"));
    let app = build_app("aarch64-linux-gnu-gcc", &["-std=c11"], &folder);
    // qemu's HWCAP agrees with the instructions that each of its CPUs has.
    for (cpu, features) in [("cortex-a72", "ok 0"), ("cortex-a76", "ok 1"), ("max", "ok 7")] {
        let (success, text) = run(Command::new("qemu-aarch64")
            .args(["-L", "/usr/aarch64-linux-gnu", "-E", "LD_LIBRARY_PATH=/usr/aarch64-linux-gnu/lib", "-cpu", cpu])
            .arg(&app))
        .expect("qemu ran before");
        assert!(success, "on {cpu}: {text}");
        assert_eq!(text.trim(), features, "on {cpu}");
    }
}
