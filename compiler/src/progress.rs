//! What a person at a terminal sees while a model compiles. Silent elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::instrument::Row;
use crate::internal;
use crate::output::table;

/// A stage of the compiler.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Phase {
    /// Reading the model into tensor IR.
    Import,
    /// Transforming the tensor IR.
    Passes,
    /// Choosing kernels and placing buffers.
    Lower,
    /// Hashing the model.
    Hash,
    /// Machine code and constants.
    Emit,
    /// Running the system's linker.
    Link,
}

impl Phase {
    /// For lists.
    pub fn name(self) -> &'static str {
        match self {
            Phase::Import => "import",
            Phase::Passes => "passes",
            Phase::Lower => "lower",
            Phase::Hash => "hash",
            Phase::Emit => "emit",
            Phase::Link => "link",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Phase::Import => "reading the model",
            Phase::Passes => "optimising",
            Phase::Lower => "lowering to kernels",
            Phase::Hash => "hashing",
            Phase::Emit => "writing machine code and weights",
            Phase::Link => "linking",
        }
    }
}

/// Follows a compilation: shows the phase on a terminal and measures each.
pub struct Progress {
    bar: ProgressBar,
    times: Vec<(Phase, Duration)>,
    visible: bool,
    passes: Vec<(&'static str, u32, Duration)>,
    timing: bool,
}

impl Default for Progress {
    fn default() -> Self {
        Progress::hidden()
    }
}

impl Progress {
    /// Measures only.
    pub fn hidden() -> Self {
        Progress { bar: ProgressBar::hidden(), times: Vec::new(), visible: false, passes: Vec::new(), timing: false }
    }

    /// A bar on standard error if that is a terminal and `quiet` is off.
    pub fn new(quiet: bool) -> Self {
        if quiet || !std::io::stderr().is_terminal() {
            return Progress::hidden();
        }
        let bar = ProgressBar::with_draw_target(Some(5), ProgressDrawTarget::stderr());
        // A template that doesn't parse would leave the default style.
        if let Ok(style) = ProgressStyle::with_template("{spinner} [{bar:20}] {msg} {elapsed}") {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Progress { bar, times: Vec::new(), visible: true, passes: Vec::new(), timing: false }
    }

    /// Runs `work` as `phase`.
    pub fn phase<T>(&mut self, phase: Phase, work: impl FnOnce() -> T) -> T {
        self.nested(phase, |_| work())
    }

    /// Runs `work` as `phase`, with this progress to add to.
    pub fn nested<T>(&mut self, phase: Phase, work: impl FnOnce(&mut Progress) -> T) -> T {
        let before = internal::doing(phase.doing());
        self.bar.set_message(phase.doing());
        let start = Instant::now();
        let result = work(self);
        internal::doing(before);
        self.times.push((phase, start.elapsed()));
        self.bar.inc(1);
        result
    }

    /// Time of each phase so far, in the order they ran.
    pub fn times(&self) -> &[(Phase, Duration)] {
        &self.times
    }

    /// Time of each phase, those that ran several times added up.
    pub fn totals(&self) -> Vec<(Phase, Duration)> {
        let mut totals: Vec<(Phase, Duration)> = Vec::new();
        for &(phase, t) in &self.times {
            match totals.iter_mut().find(|x| x.0 == phase) {
                Some(x) => x.1 += t,
                None => totals.push((phase, t)),
            }
        }
        totals
    }

    /// Whether a person watches.
    pub fn visible(&self) -> bool {
        self.visible
    }

    /// Asks for the table of times, which is printed to standard error at the end.
    pub fn print_timing(&mut self, on: bool) {
        self.timing |= on;
    }

    /// Takes up the times of passes.
    pub fn add_passes(&mut self, rows: &[Row]) {
        self.passes.extend(rows.iter().map(|r| (r.name, r.runs, r.time)));
    }

    /// Phases, and below their phase the passes, with their shares of the whole. What a phase of passes takes beside
    /// them is a row of its own.
    pub fn table(&self) -> String {
        let totals = self.totals();
        let whole = totals.iter().map(|t| t.1).sum::<Duration>().as_secs_f64().max(f64::MIN_POSITIVE);
        let row = |name: String, runs: u32, t: Duration| {
            vec![name, runs.to_string(), time(t), format!("{:.1}%", t.as_secs_f64() / whole * 100.0)]
        };
        let mut rows = Vec::new();
        for (phase, t) in totals {
            let runs = self.times.iter().filter(|x| x.0 == phase).count() as u32;
            rows.push(row(phase.name().to_string(), runs, t));
            if phase == Phase::Passes {
                rows.extend(self.passes.iter().map(|&(name, runs, t)| row(format!("  {name}"), runs, t)));
                let passes: Duration = self.passes.iter().map(|p| p.2).sum();
                rows.push(row("  verify, print, copy".to_string(), runs, t.saturating_sub(passes)));
            }
        }
        table(&["phase", "runs", "time", "share"], rows, &[1, 2, 3])
    }

    /// Removes the bar.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.finish();
        // Half a table of a compilation that panicked says nothing.
        if self.timing && !std::thread::panicking() {
            eprint!("{}", self.table());
        }
    }
}

/// A time with three digits or so: `1.25 s`, `12.4 ms`.
pub fn time(t: Duration) -> String {
    let s = t.as_secs_f64();
    match s {
        _ if s >= 10.0 => format!("{s:.1} s"),
        _ if s >= 1.0 => format!("{s:.2} s"),
        _ if s >= 0.01 => format!("{:.1} ms", s * 1e3),
        _ if s >= 1e-3 => format!("{:.2} ms", s * 1e3),
        _ => format!("{:.1} µs", s * 1e6),
    }
}

/// A size with a unit: `12.3 MB`.
pub fn size(bytes: u64) -> String {
    let b = bytes as f64;
    match bytes {
        1_000_000_000.. => format!("{:.2} GB", b / 1e9),
        1_000_000.. => format!("{:.1} MB", b / 1e6),
        10_000.. => format!("{:.0} kB", b / 1e3),
        1_000.. => format!("{:.1} kB", b / 1e3),
        _ => format!("{bytes} bytes"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units() {
        assert_eq!(time(Duration::from_micros(1250)), "1.25 ms");
        assert_eq!(time(Duration::from_millis(1250)), "1.25 s");
        assert_eq!(time(Duration::from_nanos(500)), "0.5 µs");
        assert_eq!((size(999), size(1500), size(90_951_617)), ("999 bytes".into(), "1.5 kB".into(), "91.0 MB".into()));
    }

    #[test]
    fn phases_are_measured_in_order() {
        let mut p = Progress::hidden();
        assert_eq!(p.phase(Phase::Import, || 7), 7);
        p.phase(Phase::Emit, || ());
        let names: Vec<_> = p.times().iter().map(|t| t.0.name()).collect();
        assert_eq!(names, ["import", "emit"]);
    }
}
