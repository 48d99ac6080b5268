//! Crash reproducers: the IR before a pass that failed, in a file that says how to run that pass on it.

use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use bertc_ir::text::{PrintOptions, print, resource_key};
use bertc_ir::{Diag, Graph, Op, Tensor};
use bertc_passes::Step;

/// Constants that are elided in text and together take at most this many bytes are written into it all the same.
const INLINE: usize = 64 << 10;

/// So many files of one name are not looked at any more.
const MAX_FILES: u32 = 1000;

/// What a reproducer tells.
#[derive(Debug)]
pub struct Crash<'a> {
    /// What went wrong, in one line.
    pub message: &'a str,
    /// The pass that did it.
    pub step: &'a Step,
    /// The graph that it was given.
    pub before: &'a Graph,
    /// The machine that was compiled for.
    pub target: &'a str,
}

/// A reproducer that was written.
#[derive(Debug, PartialEq, Eq)]
pub struct Written {
    /// The file.
    pub file: PathBuf,
    /// The command that replays it.
    pub command: String,
}

/// Writes a reproducer to `place`: a file, a folder, or nothing, which is the current folder. A file that is there
/// stays; the new one gets a number. Large constants go into an `.npz` beside it.
///
/// # Errors
/// No file can be written there.
pub fn write(crash: &Crash<'_>, place: Option<&Path>) -> Result<Written, Diag> {
    let constants = constants(crash.before);
    let size = constants.iter().map(|t| t.1.bytes().len()).sum::<usize>();
    let options = PrintOptions { inline_constants: size <= INLINE, locations: true };
    let text = print(crash.before, &options);
    let wanted = match place {
        Some(p) if !p.is_dir() => p.to_path_buf(),
        folder => {
            let hash = blake3::hash(format!("{}{text}", crash.step).as_bytes()).to_hex();
            folder.unwrap_or(Path::new("")).join(format!("bertc-reproducer-{}.tir", &hash[..8]))
        }
    };
    let fail =
        |p: &Path, e: &dyn std::fmt::Display| Diag::new(format!("can't write the reproducer '{}': {e}", p.display()));
    let (file, mut out) = create(&wanted).map_err(|e| fail(&wanted, &e))?;
    let mut command =
        format!("bertc opt {} --passes {}", quoted(&file.to_string_lossy()), quoted(&crash.step.to_string()));
    command += " --verify-each";
    if !options.inline_constants {
        let (side, data) = create(&file.with_extension("npz")).map_err(|e| fail(&file, &e))?;
        let arrays = constants.iter().map(|(key, t)| (key.as_str(), *t));
        crate::npz::write(std::io::BufWriter::new(data), arrays).map_err(|e| fail(&side, &e))?;
        command += &format!(" --resources {}", quoted(&side.to_string_lossy()));
    }
    let message = crash.message.replace('\n', " ");
    let version = env!("CARGO_PKG_VERSION");
    let head = format!("// bertc {version}, target {}\n// {message}\n// replay: {command}\n\n", crash.target);
    out.write_all((head + &text).as_bytes()).map_err(|e| fail(&file, &e))?;
    Ok(Written { file, command })
}

/// The constants that text may elide, by their keys, each once.
pub fn constants(g: &Graph) -> Vec<(String, &Tensor)> {
    let mut all: Vec<(String, &Tensor)> = Vec::new();
    for v in g.topo() {
        let Op::Constant(t) = g.op(v) else { continue };
        let key = resource_key(t);
        if !all.iter().any(|a| a.0 == key) {
            all.push((key, t));
        }
    }
    all
}

/// A new file of that name, or of that name with a number.
fn create(wanted: &Path) -> std::io::Result<(PathBuf, std::fs::File)> {
    let mut path = wanted.to_path_buf();
    for n in 2..MAX_FILES {
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((path, file)),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {
                let part =
                    |p: Option<&std::ffi::OsStr>| p.map(|s| s.to_string_lossy().into_owned()).unwrap_or_default();
                let (stem, extension) = (part(wanted.file_stem()), part(wanted.extension()));
                path = wanted.with_file_name(format!("{stem}-{n}.{extension}"));
            }
            Err(e) => return Err(e),
        }
    }
    Err(std::io::Error::new(ErrorKind::AlreadyExists, "there are too many of that name"))
}

/// A word for a POSIX shell.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./,=:+@%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_string()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shell_words() {
        assert_eq!(quoted("a/b-c.tir"), "a/b-c.tir");
        assert_eq!(quoted("canonicalise{max-iterations=3}"), "'canonicalise{max-iterations=3}'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
        assert_eq!(quoted(""), "''");
    }

    #[test]
    fn no_file_is_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let wanted = dir.path().join("r.tir");
        let names: Vec<_> = (0..3).map(|_| create(&wanted).unwrap().0).collect();
        assert_eq!(names, ["r.tir", "r-2.tir", "r-3.tir"].map(|n| dir.path().join(n)));
        assert!(create(&dir.path().join("nowhere/r.tir")).is_err());
    }
}
