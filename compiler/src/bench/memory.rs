//! Peak memory of an app that does nothing but run the model: measured in a process of its own, since the compiler's own
//! memory is no part of it.

use std::path::Path;
use std::process::{Command, Stdio};

use bertc_ir::Diag;

use crate::load::LoadedModel;
use crate::output::to_stdout;
use crate::run::{plausible_session, pool};

/// Resident memory of the measuring process, in bytes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Memory {
    /// Before it loaded the model: the process itself.
    pub before: u64,
    /// The most it ever had.
    pub peak: u64,
}

/// The name of the hidden subcommand that [`child`] answers.
pub const SUBCOMMAND: &str = "measure-memory";

/// Loads the library in a new process of this program, runs it twice, and asks for the peak. None where the system
/// doesn't tell.
pub(super) fn measure(library: &Path, prefix: &str, dims: &[i64], threads: u32) -> Option<Memory> {
    let program = std::env::current_exe().ok()?;
    let mut c = Command::new(program);
    c.arg(SUBCOMMAND).arg(library).arg(prefix).arg(threads.to_string());
    c.args(dims.iter().map(i64::to_string)).stdin(Stdio::null()).stderr(Stdio::null());
    let out = c.output().ok().filter(|o| o.status.success())?;
    let text = String::from_utf8(out.stdout).ok()?;
    let mut numbers = text.split_whitespace().map(str::parse::<u64>);
    Some(Memory { before: numbers.next()?.ok()?, peak: numbers.next()?.ok()? })
}

/// The measuring process: prints its resident memory before it loads the model, and its peak after two runs.
///
/// # Errors
/// A library that can't be loaded, a model that doesn't run, or a system that doesn't tell.
pub fn child(library: &Path, prefix: &str, threads: u32, dims: &[i64]) -> Result<(), Vec<Diag>> {
    let one = |d: Diag| vec![d];
    let unknown = || one(Diag::new("this system doesn't tell a process's peak memory"));
    let before = peak_rss().ok_or_else(unknown)?;
    let loaded = LoadedModel::open(library, prefix).map_err(one)?;
    if loaded.descriptor().symbols.len() != dims.len() {
        return Err(one(Diag::new(format!("expected {} dims", loaded.descriptor().symbols.len()))));
    }
    let pool = pool(threads).map_err(one)?;
    let mut session = plausible_session(&loaded, dims, pool.as_ref())?;
    session.run().map_err(|e| one(Diag::new(e.to_string())))?;
    let peak = peak_rss().ok_or_else(unknown)?;
    to_stdout(format!("{before} {peak}\n").as_bytes()).map_err(one)
}

/// Most resident memory that this process ever had, in bytes; on Linux only.
fn peak_rss() -> Option<u64> {
    parse_peak(&std::fs::read_to_string("/proc/self/status").ok()?)
}

fn parse_peak(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_read() {
        let status = "Name:\tx\nVmPeak:\t  9 kB\nVmHWM:\t    1234 kB\nVmRSS:\t 7 kB\n";
        assert_eq!(parse_peak(status), Some(1234 * 1024));
        for bad in ["", "VmHWM: 12 MB", "VmHWM: kB", "VmHWM: 99999999999999999999 kB"] {
            assert_eq!(parse_peak(bad), None, "{bad}");
        }
        if cfg!(target_os = "linux") {
            assert!(peak_rss().is_some_and(|b| b > 100_000));
        }
    }
}
