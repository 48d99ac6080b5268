//! The job itself: makes the tests, runs them, compares with the list of failures, writes the page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Outcomes, expected_failures, folder, report, run, run_emulated, tests};
use crate::machine::Machine;

/// Of so many tests one runs under emulation.
const SAMPLE: usize = 8;

/// What `cargo xtask conformance` was asked for.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// A folder that generate.py wrote; without, it is made, with the onnx package in an environment of its own.
    #[arg(long)]
    data: Option<PathBuf>,
    /// Only tests whose names have this in them.
    #[arg(long, default_value = "")]
    filter: String,
    /// x86_64 or aarch64; the latter under qemu, one test in eight.
    #[arg(long, default_value = "x86_64")]
    target: String,
    /// The -O level.
    #[arg(short = 'O', default_value_t = 2)]
    level: u8,
    /// Write docs/coverage.md; without, it must be up to date.
    #[arg(long)]
    update: bool,
    /// Tell each test with what came of it.
    #[arg(long)]
    verbose: bool,
}

/// Runs the job.
///
/// # Errors
/// Tests that fail unexpectedly, or pass; a page that is out of date; anything that keeps the tests from running.
pub fn run_job(o: &Options) -> Result<(), String> {
    let emulated = match o.target.as_str() {
        "x86_64" => false,
        "aarch64" => true,
        other => return Err(format!("unknown target '{other}': expected x86_64 or aarch64")),
    };
    let machine = if emulated { Machine::Aarch64 } else { Machine::X86_64 };
    if let Some(missing) = machine.missing() {
        return Err(format!("running tests for {} needs {missing}", o.target));
    }
    let data = o.data.clone().map_or_else(generate, Ok)?;
    let mut all = tests(&data)?;
    all.retain(|t| t.name.contains(&o.filter));
    if emulated {
        all = all.into_iter().step_by(SAMPLE).collect();
    }
    let outcomes = if emulated { run_emulated(&data, &all)? } else { run(&data, &all, o.level)? };
    let mut text = String::new();
    if o.verbose {
        for (name, result) in &outcomes {
            text += &format!("{name}: {}\n", result.as_ref().err().map_or("ok", String::as_str));
        }
    }
    let expected = expected_failures()?;
    let whole = o.filter.is_empty() && !emulated;
    let mut wrong = unexpected(&outcomes, &expected, whole);
    let passed = outcomes.values().filter(|r| r.is_ok()).count();
    text += &format!("{passed} of {} tests pass on {}\n", outcomes.len(), o.target);
    bertc::output::to_stdout(text.as_bytes()).map_err(|d| d.to_string())?;
    if whole && wrong.is_empty() {
        wrong.extend(page(&report::page(&all, &outcomes, &expected), o.update)?);
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Writes the page, or tells that it isn't what it should be.
fn page(text: &str, update: bool) -> Result<Option<String>, String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/coverage.md");
    if update {
        return std::fs::write(&path, text).map(|()| None).map_err(|e| format!("{}: {e}", path.display()));
    }
    let out_of_date = std::fs::read_to_string(&path).unwrap_or_default() != text;
    Ok(out_of_date.then(|| "docs/coverage.md is out of date: cargo xtask conformance --update".into()))
}

/// Makes the tests in the target folder, unless they are there.
fn generate() -> Result<PathBuf, String> {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| folder().join("../../target"), PathBuf::from);
    let root = target.join("conformance");
    let (python, data) = (root.join("venv/bin/python"), root.join("data"));
    let [requirements, script] = ["requirements.txt", "generate.py"].map(|f| folder().join(f));
    if !python.is_file() {
        execute(Command::new("python3").args(["-m", "venv"]).arg(root.join("venv")))?;
    }
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r"];
    execute(Command::new(&python).args(pip).arg(requirements))?;
    execute(Command::new(&python).args(["-W", "ignore"]).arg(script).arg(&data))?;
    Ok(data)
}

fn execute(cmd: &mut Command) -> Result<(), String> {
    let status = cmd.status().map_err(|e| format!("{cmd:?}: {e}"))?;
    if status.success() { Ok(()) } else { Err(format!("{cmd:?}: {status}")) }
}

/// What is wrong with outcomes: failures that nobody expects, and listed ones that are none. Of all tests (`whole`), a listed
/// name must be one of them.
fn unexpected(outcomes: &Outcomes, expected: &BTreeMap<String, String>, whole: bool) -> Vec<String> {
    let mut wrong: Vec<String> = Vec::new();
    for (name, result) in outcomes {
        match (result, expected.get(name)) {
            (Err(why), None) => wrong.push(format!("{name} fails: {why}")),
            (Ok(()), Some(_)) => wrong.push(format!("{name} passes: it no longer belongs in the list of failures")),
            _ => {}
        }
    }
    let gone = expected.keys().filter(|n| whole && !outcomes.contains_key(*n));
    wrong.extend(gone.map(|n| format!("{n} is in the list of failures, but there is no such test")));
    wrong
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_of_failures_can_only_shrink() {
        let outcomes: Outcomes =
            [("a".into(), Ok(())), ("b".into(), Err("no".into())), ("c".into(), Err("neither".into()))].into();
        let expected = [("a", "old"), ("b", "known"), ("d", "gone")];
        let expected = expected.map(|(n, r)| (n.to_string(), r.to_string())).into();
        let found = unexpected(&outcomes, &expected, true);
        let start = |s: &str| found.iter().filter(|m| m.starts_with(s)).count();
        assert_eq!((found.len(), start("a passes"), start("c fails: neither"), start("d is in")), (3, 1, 1, 1));
        assert_eq!(unexpected(&outcomes, &expected, false).len(), 2);
    }
}
