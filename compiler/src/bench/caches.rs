//! The machine's last-level cache, as Linux tells it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Bytes of the last-level caches of all CPUs together; None where the system doesn't tell.
pub(super) fn last_level() -> Option<u64> {
    last_level_in(Path::new("/sys/devices/system/cpu"))
}

fn last_level_in(cpus: &Path) -> Option<u64> {
    // By level, and by the CPUs that share it, of which there are several lists on machines of several sockets or dies.
    let mut caches: BTreeMap<u32, BTreeMap<String, u64>> = BTreeMap::new();
    for cpu in fs::read_dir(cpus).ok()?.flatten() {
        let Ok(indices) = fs::read_dir(cpu.path().join("cache")) else { continue };
        for index in indices.flatten() {
            let read = |what: &str| Some(fs::read_to_string(index.path().join(what)).ok()?.trim().to_string());
            let cache = || Some((read("level")?.parse().ok()?, read("shared_cpu_list")?, bytes(&read("size")?)?));
            if let Some((level, shared, size)) = cache() {
                caches.entry(level).or_default().insert(shared, size);
            }
        }
    }
    caches.into_values().next_back().map(|c| c.values().sum())
}

/// `32768K`.
fn bytes(size: &str) -> Option<u64> {
    let (digits, unit) = size.split_at(size.find(|c: char| !c.is_ascii_digit()).unwrap_or(size.len()));
    let shift = match unit {
        "" => 0,
        "K" => 10,
        "M" => 20,
        "G" => 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(bytes("32768K"), Some(32 << 20));
        assert_eq!((bytes("7"), bytes("2M"), bytes("")), (Some(7), Some(2 << 20), None));
        assert_eq!((bytes("2T"), bytes("x"), bytes("99999999999999999999K")), (None, None, None));
    }

    #[test]
    fn shared_caches_count_once() {
        let dir = tempfile::tempdir().unwrap();
        for (cpu, index, level, shared, size) in [
            ("cpu0", "index0", "1", "0", "32K"),
            ("cpu0", "index3", "3", "0-1", "8M"),
            ("cpu1", "index3", "3", "0-1", "8M"),
            ("cpu2", "index3", "3", "2", "4M"),
            ("cpu2", "index4", "broken", "2", "4M"),
        ] {
            let folder = dir.path().join(cpu).join("cache").join(index);
            fs::create_dir_all(&folder).unwrap();
            for (file, text) in [("level", level), ("shared_cpu_list", shared), ("size", size)] {
                fs::write(folder.join(file), format!("{text}\n")).unwrap();
            }
        }
        assert_eq!(last_level_in(dir.path()), Some(12 << 20));
        assert_eq!(last_level_in(&dir.path().join("none")), None);
    }
}
