//! Runs cases in a child process, so that an abort, a hang or a case that takes all memory is a finding like any other
//! and the run goes on behind it.
//!
//! The child writes one line for each case that it has done: its number, then `+` and the outcome, or `!` and the
//! finding. Cases are done in order, so the one that brought the child down is the one behind its last line.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::panic::AssertUnwindSafe;
use std::process::{Child, Command, Stdio};
use std::sync::Once;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::Outcome;

/// What one case may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// CPU time. Ten times as much by the clock is a hang, too.
    pub time: Duration,
    /// Resident memory in bytes.
    pub memory: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Limits { time: Duration::from_secs(10), memory: 2 << 30 }
    }
}

/// When a run ends.
#[derive(Clone, Copy, Debug)]
pub enum Until {
    /// After this many cases.
    Cases(u64),
    /// After this much CPU time.
    Cpu(Duration),
}

/// Cases that failed in one way.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// The first of the cases.
    pub index: u64,
    /// What happened.
    pub message: String,
    /// How many cases.
    pub cases: u64,
}

/// What a run found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Cases that were done.
    pub cases: u64,
    /// How many had which outcome.
    pub outcomes: BTreeMap<String, u64>,
    /// The findings in the order of their first cases, those with one cause together.
    pub findings: Vec<Finding>,
    /// CPU time of all children.
    pub cpu: Duration,
}

/// How many ways of failing are kept apart; a run with more needs fixes, not more findings.
const MAX_FINDINGS: usize = 200;

impl Report {
    fn find(&mut self, index: u64, message: &str, new: &mut dyn FnMut(&Finding)) {
        let cause = |m: &str| m.chars().filter(|c| !c.is_ascii_digit()).take(100).collect::<String>();
        let key = cause(message);
        if let Some(f) = self.findings.iter_mut().find(|f| cause(&f.message) == key) {
            f.cases += 1;
        } else if self.findings.len() < MAX_FINDINGS {
            let f = Finding { index, message: message.to_string(), cases: 1 };
            new(&f);
            self.findings.push(f);
        }
    }
}

/// A field of a file in `/proc`, in KiB; `None` where there is none, as on other systems.
fn status(pid: &str, field: &str) -> Option<u64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|l| l.starts_with(field))?;
    line.split_ascii_whitespace().nth(1)?.parse().ok()
}

/// CPU time of a process and of the children it waited for.
fn cpu(pid: &str) -> Option<Duration> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_ascii_whitespace().collect();
    let ticks: u64 = fields.get(11..15)?.iter().filter_map(|f| f.parse::<u64>().ok()).sum();
    // Linux reports hundredths of a second, whatever the kernel's own clock.
    Some(Duration::from_millis(ticks * 10))
}

/// Runs `f`, and makes a panic of it an error with its place.
///
/// # Errors
/// What `f` returns, or the panic.
pub fn caught(f: impl FnOnce() -> Result<Outcome, String>) -> Result<Outcome, String> {
    thread_local! {
        /// The message of this thread's panic, while it is to be caught.
        static PANIC: RefCell<Option<String>> = const { RefCell::new(None) };
    }
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let other = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            let caught = PANIC.with_borrow_mut(|p| p.as_mut().map(|p| *p = info.to_string()).is_some());
            if !caught {
                other(info);
            }
        }));
    });
    PANIC.set(Some(String::new()));
    let result = std::panic::catch_unwind(AssertUnwindSafe(f));
    let message = PANIC.take().unwrap_or_default();
    result.unwrap_or(Err(message))
}

/// The child's side: runs the cases from `from` on and reports each.
///
/// # Errors
/// The parent is gone.
pub fn child(
    from: u64,
    to: u64,
    limits: &Limits,
    mut run: impl FnMut(u64) -> Result<Outcome, String>,
) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for index in from..to {
        // Resets the peak that `VmHWM` reports.
        let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        let mut result = caught(|| run(index));
        let peak = if reset { status("self", "VmHWM") } else { None };
        if let Some(peak) = peak.filter(|k| k * 1024 > limits.memory) {
            result = Err(format!("memory: {} MiB", peak / 1024));
        }
        match result {
            Ok(outcome) => writeln!(out, "{index} + {outcome}")?,
            Err(m) => writeln!(out, "{index} ! {}", m.replace('\\', "\\\\").replace('\n', "\\n"))?,
        }
        out.flush()?;
    }
    Ok(())
}

fn unescape(s: &str) -> String {
    let mut out = String::new();
    let mut chars = s.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' if chars.as_str().starts_with('n') => {
                chars.next();
                out.push('\n');
            }
            '\\' => out.extend(chars.next()),
            c => out.push(c),
        }
    }
    out
}

struct Running {
    child: Child,
    pid: String,
    lines: Receiver<String>,
    errors: std::thread::JoinHandle<String>,
}

fn start(mut command: Command) -> Result<Running, String> {
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|e| format!("can't start the child process: {e}"))?;
    let (out, err) = (child.stdout.take().ok_or("no pipe")?, child.stderr.take().ok_or("no pipe")?);
    let (tx, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(out).lines().map_while(Result::ok) {
            if tx.send(line).is_err() {
                return;
            }
        }
    });
    let errors = std::thread::spawn(move || {
        let mut text = Vec::new();
        // What a dying process says is short; anything longer is noise.
        let _ = err.take(1 << 16).read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    let pid = child.id().to_string();
    Ok(Running { child, pid, lines, errors })
}

/// The parent's side: runs cases in children that `command` makes, each from a given case on, until `until`. `new` is
/// told of each finding of a new kind, `progress` now and then of the state.
///
/// # Errors
/// No child can be started.
pub fn supervise(
    from: u64,
    until: Until,
    limits: &Limits,
    command: &mut dyn FnMut(u64) -> Command,
    new: &mut dyn FnMut(&Finding),
    progress: &mut dyn FnMut(&Report),
) -> Result<Report, String> {
    let mut report = Report::default();
    let mut next = from;
    let mut said = Instant::now();
    let done = |r: &Report, cpu: Duration| match until {
        Until::Cases(n) => r.cases >= n,
        Until::Cpu(t) => cpu >= t,
    };
    let mut before = Duration::ZERO;
    while !done(&report, report.cpu) {
        let mut running = start(command(next))?;
        let mut began = Instant::now();
        // CPU time when the case that is running began, as it was last looked at.
        let (mut spent, mut at_start) = (Duration::ZERO, Duration::ZERO);
        let mut killed = None;
        let mut since_look = Instant::now();
        loop {
            let line = running.lines.recv_timeout(Duration::from_millis(10));
            if since_look.elapsed() > Duration::from_millis(10) || line.is_err() {
                spent = cpu(&running.pid).unwrap_or(spent);
                since_look = Instant::now();
                report.cpu = before + spent;
            }
            match line {
                Ok(line) => {
                    let mut parts = line.splitn(3, ' ');
                    let (index, mark, text) = (parts.next(), parts.next(), parts.next().unwrap_or_default());
                    let Some(index) = index.and_then(|i| i.parse::<u64>().ok()) else { continue };
                    match mark {
                        Some("+") => *report.outcomes.entry(text.to_string()).or_default() += 1,
                        _ => report.find(index, &unescape(text), new),
                    }
                    report.cases += 1;
                    next = index + 1;
                    (began, at_start) = (Instant::now(), spent);
                }
                Err(RecvTimeoutError::Timeout) => {
                    let late = spent.saturating_sub(at_start) > limits.time || began.elapsed() > limits.time * 10;
                    if late {
                        killed = Some(format!("hang: more than {} s", limits.time.as_secs()));
                    }
                    let resident = status(&running.pid, "VmRSS").unwrap_or(0);
                    if resident * 1024 > limits.memory {
                        killed = Some(format!("memory: more than {} MiB", resident / 1024));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if said.elapsed() > Duration::from_secs(30) {
                progress(&report);
                said = Instant::now();
            }
            if killed.is_some() || done(&report, report.cpu) {
                break;
            }
        }
        let finished = done(&report, report.cpu);
        if killed.is_some() || finished {
            let _ = running.child.kill();
        }
        let status = running.child.wait().map_err(|e| format!("waiting for the child process: {e}"))?;
        let errors = running.errors.join().unwrap_or_default();
        before += spent;
        report.cpu = before;
        if !finished || killed.is_some() {
            if status.success() {
                break;
            }
            let message = killed.unwrap_or_else(|| format!("the process died: {status}: {}", errors.trim()));
            report.find(next, &message, new);
            report.cases += 1;
            next += 1;
        }
    }
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_become_errors_with_their_place() {
        let e = caught(|| panic!("all is {}", "lost")).expect_err("a panic");
        assert!(e.contains("supervise.rs") && e.contains("all is lost"), "{e}");
        assert_eq!(caught(|| Ok("fine")), Ok("fine"));
    }

    #[test]
    fn findings_of_one_cause_are_one() {
        let mut r = Report::default();
        let mut seen = 0;
        for (i, m) in ["index 7 of 9", "index 12 of 80", "other"].iter().enumerate() {
            r.find(i as u64, m, &mut |_| seen += 1);
        }
        assert_eq!((seen, r.findings.len(), r.findings[0].cases, r.findings[1].index), (2, 2, 2, 2));
    }

    #[test]
    fn messages_survive_their_line() {
        let m = "a\nb\\n\\\\";
        assert_eq!(unescape(&m.replace('\\', "\\\\").replace('\n', "\\n")), m);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_child_that_dies_is_a_finding_and_the_run_goes_on() {
        // Case 2 dies, case 4 hangs; all others are fine.
        let script = r#"i=$1; while [ $i -lt 7 ]; do
            if [ $i = 2 ]; then echo oops >&2; kill -9 $$; fi
            if [ $i = 4 ]; then while :; do :; done; fi
            echo "$i + ok"; i=$((i+1)); done"#;
        let mut command = |from: u64| {
            let mut c = Command::new("sh");
            c.args(["-c", script, "sh", &from.to_string()]);
            c
        };
        let limits = Limits { time: Duration::from_millis(200), memory: 1 << 30 };
        let r = supervise(0, Until::Cases(7), &limits, &mut command, &mut |_| {}, &mut |_| {}).expect("runs");
        assert_eq!((r.cases, r.outcomes["ok"]), (7, 5));
        assert_eq!(r.findings.iter().map(|f| f.index).collect::<Vec<_>>(), [2, 4]);
        assert!(r.findings[0].message.contains("oops"), "{:?}", r.findings);
        assert!(r.findings[1].message.contains("hang"), "{:?}", r.findings);
    }
}
