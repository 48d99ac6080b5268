//! Files: memory maps of models and of their external data.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use bytes::Bytes;

/// The bytes of a regular file, memory-mapped: reading is lazy and nothing is copied.
///
/// # Errors
/// The file can't be opened, isn't a regular file or can't be mapped.
pub fn map_file(path: &Path) -> std::io::Result<Bytes> {
    // Asked of the path before opening: opening a pipe would block.
    if !std::fs::metadata(path)?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    let file = std::fs::File::open(path)?;
    if file.metadata()?.len() == 0 {
        return Ok(Bytes::new());
    }
    // SAFETY: the map is read-only and private to this process. As with every memory-mapped input, a file that
    // another process truncates or rewrites during the compilation is outside of what can be guarded against.
    #[allow(unsafe_code)]
    let map = unsafe { memmap2::Mmap::map(&file)? };
    Ok(Bytes::from_owner(map))
}

/// Files of external tensor data, confined to the model's folder.
pub struct External {
    base: Option<PathBuf>,
    maps: BTreeMap<String, Bytes>,
}

impl External {
    /// External data beside a model in `base`; `None` where the model has no folder.
    pub fn new(base: Option<&Path>) -> Self {
        External { base: base.map(Path::to_path_buf), maps: BTreeMap::new() }
    }

    /// `length` bytes (`None`: all) from `offset` of the file `location`, relative to the model's folder.
    ///
    /// # Errors
    /// The path leaves the folder, the file can't be read, or the range is outside of it.
    pub fn slice(&mut self, location: &str, offset: u64, length: Option<u64>) -> Result<Bytes, String> {
        let all = self.map(location)?;
        let end = match length {
            Some(n) => offset.checked_add(n),
            None => Some((all.len() as u64).max(offset)),
        };
        match end {
            Some(end) if end <= all.len() as u64 => Ok(all.slice(offset as usize..end as usize)),
            _ => Err(format!(
                "external data '{location}' has {} bytes, too few for offset {offset} and length {}",
                all.len(),
                length.unwrap_or(0)
            )),
        }
    }

    fn map(&mut self, location: &str) -> Result<Bytes, String> {
        if let Some(b) = self.maps.get(location) {
            return Ok(b.clone());
        }
        let base = self.base.as_ref().ok_or("external data needs a model that is read from a file")?;
        let rel = Path::new(location);
        let plain = rel.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if location.is_empty() || !plain || location.contains(['\\', '\0']) {
            return Err(format!("external data path '{location}' is not inside the model's folder"));
        }
        let fail = |e: std::io::Error| format!("external data '{location}' can't be read: {e}");
        // Links are resolved before the comparison, so none can lead out of the folder.
        let (root, file) = (base.canonicalize().map_err(fail)?, base.join(rel).canonicalize().map_err(fail)?);
        if !file.starts_with(&root) {
            return Err(format!("external data path '{location}' leads out of the model's folder through a link"));
        }
        let b = map_file(&file).map_err(fail)?;
        self.maps.insert(location.to_string(), b.clone());
        Ok(b)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_data_stays_in_its_folder() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        let model = dir.path().join("model");
        std::fs::create_dir(&model).expect("a folder");
        std::fs::write(model.join("w"), b"0123456789").expect("a file");
        std::fs::write(dir.path().join("secret"), b"x").expect("a file");
        let mut e = External::new(Some(&model));
        assert_eq!(&e.slice("w", 2, Some(3)).unwrap()[..], b"234");
        assert_eq!(&e.slice("./w", 8, None).unwrap()[..], b"89");
        assert!(e.slice("w", 8, Some(3)).unwrap_err().contains("too few"));
        assert!(e.slice("w", u64::MAX, Some(3)).unwrap_err().contains("too few"));
        assert!(e.slice("w", 11, None).unwrap_err().contains("too few"));
        for bad in ["../secret", "/etc/passwd", "", "a/../../secret", "..\\secret"] {
            assert!(e.slice(bad, 0, None).unwrap_err().contains("not inside"), "{bad}");
        }
        assert!(e.slice(".", 0, None).unwrap_err().contains("not a regular file"));
        assert!(External::new(None).slice("w", 0, None).is_err());
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink(dir.path().join("secret"), model.join("link")).expect("a link");
            assert!(e.slice("link", 0, None).unwrap_err().contains("through a link"));
        }
    }
}
