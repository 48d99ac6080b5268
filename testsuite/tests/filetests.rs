//! Runs every `.tir` file below `filetests/`, one test each.

use std::path::{Path, PathBuf};

use libtest_mimic::{Arguments, Trial};

/// The test files below `dir`, with names relative to `root`.
fn collect(root: &Path, dir: &Path, found: &mut Vec<(String, PathBuf)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            collect(root, &path, found)?;
        } else if path.extension().is_some_and(|e| e == "tir") {
            let name = path.strip_prefix(root).unwrap_or(&path).with_extension("");
            found.push((name.to_string_lossy().replace('\\', "/"), path));
        }
    }
    Ok(())
}

fn main() -> std::io::Result<()> {
    let args = Arguments::from_args();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("filetests");
    let mut files = Vec::new();
    collect(&root, &root, &mut files)?;
    files.sort();
    let trials = files
        .into_iter()
        .map(|(name, path)| Trial::test(name, move || bertc_testsuite::filetest::run(&path).map_err(Into::into)))
        .collect();
    libtest_mimic::run(&args, trials).exit();
}
