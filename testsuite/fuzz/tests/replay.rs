//! The bounded run: the findings that were fixed, and a few seconds of new cases, the same ones every time. The long
//! run is `bertc-fuzz run TARGET --seconds 900`.

use std::time::{Duration, Instant};

use bertc_fuzz::mutate::Kind;
use bertc_fuzz::supervise::caught;
use bertc_fuzz::{TARGETS, corpus};

/// Mutants of a target at most; the time ends earlier where a case takes long.
const CASES: u64 = 1500;

/// Time that new cases of a target may take.
const TIME: Duration = Duration::from_secs(4);

#[test]
fn regressions_stay_fixed() {
    let mut failed = Vec::new();
    let mut count = 0;
    for t in TARGETS {
        for (path, data) in corpus::regressions(t.name) {
            count += 1;
            if let Err(m) = caught(|| (t.run)(&data)) {
                failed.push(format!("{}: {m}", path.display()));
            }
        }
    }
    assert!(failed.is_empty(), "{} of {count} regressions fail:\n{}", failed.len(), failed.join("\n"));
    assert!(count > 0, "there are no regressions: wrong folder?");
}

#[test]
fn every_folder_of_regressions_has_its_target() {
    let root = corpus::regressions_dir("");
    for entry in std::fs::read_dir(root).expect("the regressions").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        assert!(!entry.path().is_dir() || bertc_fuzz::find(&name).is_some(), "'{name}' is no target");
    }
}

/// Runs the first cases of one target.
fn bounded(name: &str) {
    let t = bertc_fuzz::find(name).expect("a target");
    let seeds = (t.seeds)();
    assert!(!seeds.is_empty() || t.kind == Kind::Choices, "{name} has no seeds: wrong folder?");
    let (start, mut done) = (Instant::now(), 0);
    // Mutants come behind the seeds, which other tests cover.
    for i in seeds.len() as u64..seeds.len() as u64 + CASES {
        let data = t.case(&seeds, 1, i);
        if let Err(m) = caught(|| (t.run)(&data)) {
            panic!("case {i} of {name} (`bertc-fuzz run {name} --from {i} --cases 1`): {m}");
        }
        done += 1;
        if start.elapsed() > TIME {
            break;
        }
    }
    assert!(done > 0);
}

#[cfg(feature = "compiler")]
#[test]
fn import() {
    bounded("import");
}

#[test]
fn text() {
    bounded("text");
}

#[test]
fn kernel_text() {
    bounded("kernel-text");
}

#[test]
fn passes() {
    bounded("passes");
}

#[cfg(feature = "compiler")]
#[test]
fn compile() {
    bounded("compile");
}

#[cfg(feature = "compiler")]
#[test]
fn int8() {
    bounded("int8");
}
