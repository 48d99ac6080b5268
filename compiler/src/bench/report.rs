//! The figures, for people and for programs.

use std::time::Duration;

use bertc_backends::target::Emitter;
use serde_json::{Map, Value, json};

use super::bandwidth::LAST_LEVEL;
use super::memory::Memory;
use super::sheet::Sheet;
use super::{PeakRate, Results, Row, profile, rate};
use crate::progress::{size, time};

/// Tables for people.
pub(super) fn text(r: &Results<'_>) -> String {
    let mut text = String::new();
    for (what, value) in facts(r) {
        text += &format!("{what}: {value}\n");
    }
    text += "\n";
    text += &latencies(r).text();
    text += "\nthis machine, best of the runs, peaks in G madd/s:\n";
    text += &machine(r).text();
    if let Some(p) = &r.profile {
        text += &profile::text(p);
    }
    text
}

/// What was measured, apart from times.
pub(super) fn facts(r: &Results<'_>) -> Vec<(String, String)> {
    let o = r.options;
    let mut facts = Vec::new();
    let mut fact = |what: &str, value: String| facts.push((what.to_string(), value));
    if !r.dims.is_empty() {
        let dims: Vec<_> = r.dims.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        fact("dims", dims.join(", "));
    }
    let (cpu, level) = (&o.compile.cpu, o.compile.opt_level);
    fact("target", format!("{}, cpu {cpu}, emitter {}, -O{level}", r.target, emitter(r)));
    let mut count = format!("{} G", giga(r.multiply_adds as f64));
    if r.left_out > 0 {
        count += &format!(", and {} G more of blocks of zeros, which are left out", giga(r.left_out as f64));
    }
    fact("multiply-adds of the model", count);
    let arena = r.arena.map_or("unknown".into(), size);
    fact("sizes", format!("weights {}, code {}, arena {arena}", size(r.stats.consts), size(r.stats.text)));
    let memory =
        |m: Memory| format!("{} in a process of its own, {} before it loads the model", size(m.peak), size(m.before));
    fact("peak memory", r.memory.map_or("unknown".into(), memory));
    let cache = |bytes| format!("{}, of all CPUs", size(bytes));
    let unknown = || format!("unknown, taken as {}", size(LAST_LEVEL));
    fact("last-level cache", r.last_level.map_or_else(unknown, cache));
    let runs = if o.repeat == 1 { "run" } else { "runs" };
    fact("measured", format!("{} timed {runs} after {} to warm up", o.repeat, o.warmup));
    facts
}

/// A line for each number of threads.
pub(super) fn latencies(r: &Results<'_>) -> Sheet {
    let mut header: Vec<String> =
        ["threads", "min", "median", "p90", "p99", "speed-up", "G madd/s"].map(String::from).to_vec();
    for p in peaks(r) {
        header.extend([format!("of {} peak", p.kind), "best run".into()]);
    }
    header.push("workspace".into());
    let row = |row: &Row| {
        let mut cells = vec![row.threads.to_string()];
        cells.extend([row.min(), row.median(), row.p90(), row.p99()].map(time));
        cells.push(format!("{:.2}x", speedup(r, row)));
        cells.push(giga(rate(r.multiply_adds, row.median())));
        for p in &row.peaks {
            cells.extend([row.median(), row.min()].map(|t| format!("{:.1}%", percent(r, t, p.rate))));
        }
        cells.push(size(row.workspace as u64));
        cells
    };
    flush_right(header, r.rows.iter().map(row).collect())
}

/// What the machine can do, with as many threads.
pub(super) fn machine(r: &Results<'_>) -> Sheet {
    let mut header = vec!["threads".to_string()];
    header.extend(peaks(r).iter().map(|p| format!("{} peak", p.kind)));
    header.extend(["memory read, GB/s".into(), "cache read, GB/s".into()]);
    let row = |row: &Row| {
        let mut cells = vec![row.threads.to_string()];
        cells.extend(row.peaks.iter().map(|p| giga(p.rate)));
        cells.extend([row.bandwidth.memory, row.bandwidth.cache].map(giga));
        cells
    };
    flush_right(header, r.rows.iter().map(row).collect())
}

fn peaks<'a>(r: &'a Results<'_>) -> &'a [PeakRate] {
    r.rows.first().map_or(&[], |row| &row.peaks)
}

fn flush_right(header: Vec<String>, rows: Vec<Vec<String>>) -> Sheet {
    let right = (0..header.len()).collect();
    Sheet { header, rows, right }
}

/// One JSON object. Times are in seconds, sizes in bytes, rates in multiply-adds or bytes a second.
pub(super) fn json(r: &Results<'_>) -> String {
    let o = r.options;
    let dims: Map<String, Value> = r.dims.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
    let runs: Vec<Value> = r.rows.iter().map(|row| run(r, row)).collect();
    let mut value = json!({
        "model": o.model.display().to_string(),
        "target": r.target,
        "cpu": o.compile.cpu,
        "emitter": emitter(r),
        "opt_level": o.compile.opt_level,
        "dims": dims,
        "multiply_adds": r.multiply_adds,
        "multiply_adds_left_out": r.left_out,
        "weights_bytes": r.stats.consts,
        "code_bytes": r.stats.text,
        "arena_bytes": r.arena,
        "peak_rss_bytes": r.memory.map(|m| m.peak),
        "rss_before_load_bytes": r.memory.map(|m| m.before),
        "last_level_cache_bytes": r.last_level,
        "read_buffer_bytes": r.read_bytes,
        "repeat": o.repeat,
        "warmup": o.warmup,
        "runs": runs,
    });
    if let Some(p) = &r.profile {
        value["profile"] = profile::json(p);
    }
    format!("{value:#}\n")
}

fn emitter(r: &Results<'_>) -> &'static str {
    let e = r.options.compile.emitter;
    Emitter::ALL.iter().find(|x| x.1 == e).map_or("unknown", |x| x.0)
}

fn run(r: &Results<'_>, row: &Row) -> Value {
    let peaks: Vec<Value> = row
        .peaks
        .iter()
        .map(|p| {
            json!({
                "type": p.kind.dtype.to_string(),
                "bits": p.kind.bits,
                "multiply_adds_per_s": p.rate,
                "percent": percent(r, row.median(), p.rate),
                "percent_best": percent(r, row.min(), p.rate),
            })
        })
        .collect();
    json!({
        "threads": row.threads,
        "min_s": row.min().as_secs_f64(),
        "median_s": row.median().as_secs_f64(),
        "p90_s": row.p90().as_secs_f64(),
        "p99_s": row.p99().as_secs_f64(),
        "speedup": speedup(r, row),
        "multiply_adds_per_s": rate(r.multiply_adds, row.median()),
        "peaks": peaks,
        "memory_bytes_per_s": row.bandwidth.memory,
        "cache_bytes_per_s": row.bandwidth.cache,
        "workspace_bytes": row.workspace,
    })
}

/// Of the first row, by the medians.
fn speedup(r: &Results<'_>, row: &Row) -> f64 {
    let first = r.rows.first().map_or(Duration::ZERO, Row::median);
    first.as_secs_f64() / row.median().as_secs_f64().max(1e-9)
}

/// The part of a peak that a run of time `t` reaches.
fn percent(r: &Results<'_>, t: Duration, peak: f64) -> f64 {
    100.0 * rate(r.multiply_adds, t) / peak.max(1.0)
}

/// Billions with three digits or so.
pub(super) fn giga(n: f64) -> String {
    let g = n / 1e9;
    match g {
        _ if g >= 100.0 => format!("{g:.0}"),
        _ if g >= 1.0 => format!("{g:.2}"),
        _ => format!("{g:.4}"),
    }
}
