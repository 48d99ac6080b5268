//! Runs every test file below `filetests/`, one test each, and checks that the folder has all that it must have.
//! `BLESS=1` rewrites blocks of exact output.

use std::path::{Path, PathBuf};

use bertc_testsuite::filetest::{self, Kind};
use bertc_testsuite::subtest::coverage;
use libtest_mimic::{Arguments, Trial};

/// The test files below `dir`, with names relative to `root`. A file that is no test is an error: its name is misspelt.
fn collect(root: &Path, dir: &Path, found: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, found)?;
            continue;
        }
        let extension = path.extension().and_then(|e| e.to_str()).unwrap_or("");
        if Kind::of_extension(extension).is_none() {
            return Err(std::io::Error::other(format!("{}: no test file has this extension", path.display())));
        }
        let name = path.strip_prefix(root).unwrap_or(&path).with_extension("");
        let name = name.to_string_lossy().replace('\\', "/");
        if found.iter().any(|f| f.0 == name) {
            return Err(std::io::Error::other(format!("two test files are called '{name}'")));
        }
        found.push((name, path));
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let args = Arguments::from_args();
    let bless = std::env::var_os("BLESS").is_some_and(|v| v == "1");
    if bless && std::env::var_os("CI").is_some_and(|v| v == "true") {
        return Err(std::io::Error::other("BLESS=1 is refused in CI: bless on your machine and commit the files"));
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let mut files = Vec::new();
    collect(&root, &root, &mut files)?;
    files.sort();
    let mut trials: Vec<Trial> = files
        .into_iter()
        .map(|(name, path)| Trial::test(name, move || filetest::run(&path, bless).map_err(Into::into)))
        .collect();
    let ops = root.clone();
    trials.push(Trial::test("coverage::ops", move || coverage::ops(&ops).map_err(Into::into)));
    trials.push(Trial::test("coverage::passes", move || coverage::passes(&root).map_err(Into::into)));
    libtest_mimic::run(&args, trials).exit();
}
