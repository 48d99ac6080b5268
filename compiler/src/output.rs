//! Files that appear whole or not at all.
//!
//! Each file is written under a temporary name in its target's folder; [`Staged::commit`] then renames them all. An
//! error before that leaves nothing behind and existing files as they were.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use bertc_ir::Diag;
use comfy_table::{CellAlignment, Table, presets};
use tempfile::NamedTempFile;

/// Written files that wait for their names.
#[derive(Default)]
pub struct Staged {
    files: Vec<(NamedTempFile, PathBuf)>,
}

impl Staged {
    /// Writes a file for `path` with `write`.
    ///
    /// # Errors
    /// The folder doesn't exist or isn't writable, `path` is a folder, or `write` failed.
    pub fn add(
        &mut self,
        path: &Path,
        write: impl FnOnce(&mut dyn Write) -> Result<(), Vec<Diag>>,
    ) -> Result<(), Vec<Diag>> {
        let mut file = create(path).map_err(|d| vec![d])?;
        {
            let mut w = BufWriter::with_capacity(1 << 18, file.as_file_mut());
            write(&mut w)?;
            w.flush().map_err(|e| vec![Diag::new(format!("can't write '{}': {e}", path.display()))])?;
        }
        self.files.push((file, path.to_path_buf()));
        Ok(())
    }

    /// Lets `write` fill a file for `path` by its temporary name, for programs that open files themselves.
    ///
    /// # Errors
    /// As [`Staged::add`].
    pub fn fill(&mut self, path: &Path, write: impl FnOnce(&Path) -> Result<(), Vec<Diag>>) -> Result<(), Vec<Diag>> {
        let file = create(path).map_err(|d| vec![d])?;
        write(file.path())?;
        self.files.push((file, path.to_path_buf()));
        Ok(())
    }

    /// Renames every file to its target. Returns the paths and sizes in bytes.
    ///
    /// # Errors
    /// A rename failed; the files not yet renamed are removed.
    pub fn commit(self) -> Result<Vec<(PathBuf, u64)>, Diag> {
        let mut done = Vec::new();
        for (file, path) in self.files {
            // By path: a linker may have replaced the file.
            let bytes = std::fs::metadata(file.path()).map_or(0, |m| m.len());
            file.persist(&path).map_err(|e| Diag::new(format!("can't write '{}': {}", path.display(), e.error)))?;
            done.push((path, bytes));
        }
        Ok(done)
    }
}

/// Refuses a path that no file can be written to.
///
/// # Errors
/// It is a folder, or in a folder that doesn't exist.
pub fn check_target(path: &Path) -> Result<(), Diag> {
    let folder = folder_of(path);
    let why = match () {
        () if path.is_dir() => "it is a folder".to_string(),
        () if !folder.is_dir() => format!("there is no folder '{}'", folder.display()),
        () => return Ok(()),
    };
    Err(Diag::new(format!("can't write '{}': {why}", path.display())))
}

fn folder_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// A temporary file in the folder of `path`.
fn create(path: &Path) -> Result<NamedTempFile, Diag> {
    check_target(path)?;
    let mut builder = tempfile::Builder::new();
    builder.prefix(".bertc-").suffix(".tmp").permissions_like_created();
    let file = builder.tempfile_in(folder_of(path));
    file.map_err(|e| Diag::new(format!("can't write '{}': {}", path.display(), e.into_plain())))
}

/// The permissions of an ordinary new file: temporary files are private by default.
trait Permissions {
    fn permissions_like_created(&mut self) -> &mut Self;
}

impl Permissions for tempfile::Builder<'_, '_> {
    #[cfg(unix)]
    fn permissions_like_created(&mut self) -> &mut Self {
        use std::os::unix::fs::PermissionsExt;
        // The process's umask still applies.
        self.permissions(std::fs::Permissions::from_mode(0o666))
    }
    #[cfg(not(unix))]
    fn permissions_like_created(&mut self) -> &mut Self {
        self
    }
}

/// Errors of `tempfile` append the path of the temporary file, which means nothing to the user.
trait IntoPlain {
    fn into_plain(self) -> std::io::Error;
}

impl IntoPlain for std::io::Error {
    fn into_plain(self) -> std::io::Error {
        match self.kind() {
            std::io::ErrorKind::Other => self,
            kind => kind.into(),
        }
    }
}

/// Writes `text` to standard output. A reader that went away is fine.
///
/// # Errors
/// Any other failure.
pub fn to_stdout(bytes: &[u8]) -> Result<(), Diag> {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Diag::new(format!("can't write to standard output: {e}")))
        }
        _ => Ok(()),
    }
}

/// A table of columns aligned by spaces; the columns in `right` are flush right.
pub fn table(header: &[&str], rows: Vec<Vec<String>>, right: &[usize]) -> String {
    let mut t = Table::new();
    t.load_style(presets::NOTHING).set_header(header.to_vec());
    for r in rows {
        t.add_row(r);
    }
    for &i in right {
        if let Some(c) = t.column_mut(i) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = t.lines().map(|l| l.trim_end().to_string()).collect();
    lines.join("\n") + "\n"
}

/// Whether two paths name one existing file.
pub fn same_file(a: &Path, b: &Path) -> bool {
    match (a.canonicalize(), b.canonicalize()) {
        (Ok(x), Ok(y)) => x == y || same_inode(&x, &y),
        _ => false,
    }
}

#[cfg(unix)]
fn same_inode(a: &Path, b: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |p: &Path| File::open(p).and_then(|f| f.metadata()).map(|m| (m.dev(), m.ino()));
    matches!((id(a), id(b)), (Ok(x), Ok(y)) if x == y)
}

#[cfg(not(unix))]
fn same_inode(_: &Path, _: &Path) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_appear_together_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a.o"), dir.path().join("a.h"));
        std::fs::write(&a, "old").unwrap();
        let mut s = Staged::default();
        s.add(&a, |w| w.write_all(b"new").map_err(|e| vec![Diag::new(e.to_string())])).unwrap();
        let failed = s.add(&b, |_| Err(vec![Diag::new("no")]));
        assert!(failed.is_err());
        drop(s);
        assert_eq!(std::fs::read(&a).unwrap(), b"old");
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "no temporary file stays");

        let mut s = Staged::default();
        s.add(&a, |w| w.write_all(b"new").map_err(|e| vec![Diag::new(e.to_string())])).unwrap();
        assert_eq!(s.commit().unwrap(), [(a.clone(), 3)]);
        assert_eq!(std::fs::read(&a).unwrap(), b"new");
    }

    #[test]
    fn impossible_targets_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let e = Staged::default().add(&dir.path().join("no/such/x.o"), |_| Ok(())).unwrap_err();
        assert!(e[0].message.contains("x.o") && !e[0].message.contains(".bertc-"), "{}", e[0]);
        let e = Staged::default().add(dir.path(), |_| Ok(())).unwrap_err();
        assert!(e[0].message.ends_with("it is a folder"));
    }
}
