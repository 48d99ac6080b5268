//! The figures, for people and for programs.

use std::time::Duration;

use bertc_backends::target::Emitter;
use comfy_table::{CellAlignment, Table, presets};
use serde_json::{Map, Value, json};

use super::{Results, Row, profile, rate};
use crate::progress::{size, time};

/// Tables for people.
pub(super) fn text(r: &Results<'_>) -> String {
    let mut text = String::new();
    let o = r.options;
    if !r.dims.is_empty() {
        let dims: Vec<_> = r.dims.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        text += &format!("dims: {}\n", dims.join(", "));
    }
    let (cpu, level) = (&o.compile.cpu, o.compile.opt_level);
    text += &format!("target: {}, cpu {cpu}, emitter {}, -O{level}\n", r.target, emitter(r));
    text += &format!("multiply-adds of the model: {} G\n", giga(r.multiply_adds as f64));
    let arena = r.arena.map_or("unknown".into(), size);
    text += &format!("weights {}, code {}, arena {arena}, ", size(r.stats.consts), size(r.stats.text));
    text += &match r.memory {
        Some(m) => {
            format!(
                "peak memory {} in a process of its own, {} before it loads the model\n",
                size(m.peak),
                size(m.before)
            )
        }
        None => "peak memory unknown\n".into(),
    };
    let runs = if o.repeat == 1 { "run" } else { "runs" };
    text += &format!("{} timed {runs} after {} to warm up\n\n", o.repeat, o.warmup);
    let mut header: Vec<String> =
        ["threads", "min", "median", "p90", "speed-up", "G madd/s"].map(String::from).to_vec();
    for p in r.rows.first().map_or(&[][..], |row| &row.peaks) {
        header.extend([format!("{}-bit FMA peak", p.bits), "of it".into(), "best run".into()]);
    }
    header.push("workspace".into());
    let columns = header.len();
    let mut t = Table::new();
    t.load_style(presets::NOTHING).set_header(header);
    for row in &r.rows {
        t.add_row(cells(r, row));
    }
    for i in 0..columns {
        if let Some(c) = t.column_mut(i) {
            c.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = t.lines().map(|l| l.trim_end().to_string()).collect();
    text += &(lines.join("\n") + "\n");
    if let Some(p) = &r.profile {
        text += &profile::text(p);
    }
    text
}

fn cells(r: &Results<'_>, row: &Row) -> Vec<String> {
    let mut cells = vec![row.threads.to_string()];
    cells.extend([row.min(), row.median(), row.p90()].map(time));
    cells.push(format!("{:.2}x", speedup(r, row)));
    cells.push(giga(rate(r.multiply_adds, row.median())));
    for p in &row.peaks {
        cells.push(giga(p.rate));
        cells.extend([row.median(), row.min()].map(|t| format!("{:.1}%", percent(r, t, p.rate))));
    }
    cells.push(size(row.workspace as u64));
    cells
}

/// One JSON object. Times are in seconds, sizes in bytes, rates in multiply-adds a second.
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
        "weights_bytes": r.stats.consts,
        "code_bytes": r.stats.text,
        "arena_bytes": r.arena,
        "peak_rss_bytes": r.memory.map(|m| m.peak),
        "rss_before_load_bytes": r.memory.map(|m| m.before),
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
                "bits": p.bits,
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
        "speedup": speedup(r, row),
        "multiply_adds_per_s": rate(r.multiply_adds, row.median()),
        "peaks": peaks,
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
