//! What lowering decided on matrices with many zeros, for `--explain` and `inspect`.

use bertc_backends::lower::{Decision, Traced};
use bertc_ir::Graph;
use bertc_passes::{Remark, RemarkKind};
use serde_json::{Value, json};

use crate::inspect::section;

/// A remark for each product with such a matrix.
pub fn remarks(g: &Graph, traced: &Traced) -> Vec<Remark> {
    let remark = |(d, &v): (&Option<Decision>, _)| {
        let d = d.as_ref()?;
        let kind = if d.sparse { RemarkKind::Applied } else { RemarkKind::Missed };
        let node = g.node(v);
        Some(Remark { pass: "lower", kind, op: g.op(v).name(), value: v, loc: node.loc.clone(), reason: reason(d) })
    };
    traced.sparse.iter().zip(&traced.values).filter_map(remark).collect()
}

fn reason(d: &Decision) -> String {
    let [rows, columns] = d.block();
    let [few, many] = d.gains;
    let zeros = percent(d.zeros);
    let kept = percent(d.kept);
    let expected = format!("{few:.2} times as fast expected with 16 rows, {many:.2} with 128");
    match d.sparse {
        true => format!("{zeros} zeros: kept as blocks of {rows}x{columns}, {kept} of them; {expected}"),
        false => format!("{zeros} zeros, but {kept} of the blocks of {rows}x{columns} are none: {expected}"),
    }
}

fn percent(x: f64) -> String {
    format!("{:.1}%", 100.0 * x)
}

/// For programs; `docs/inspect.md` describes it.
pub fn json(d: &Decision) -> Value {
    let [rows, columns] = d.block();
    json!({
        "zeros": d.zeros,
        "block": format!("{rows}x{columns}"),
        "kept": d.kept,
        "gain_16": d.gains[0],
        "gain_128": d.gains[1],
        "sparse": d.sparse,
    })
}

/// A section on all such matrices; each with the number of its step and its kernel.
pub fn text<'a>(all: impl Iterator<Item = (usize, &'a str, &'a Decision)>) -> String {
    let row = |(i, kernel, d): (usize, &str, &Decision)| {
        let ([rows, columns], [k, n], [few, many]) = (d.block(), d.size, d.gains);
        let kept = if d.sparse { "blocks" } else { "packed" };
        vec![
            i.to_string(),
            kernel.to_string(),
            format!("{k}x{n}"),
            percent(d.zeros),
            format!("{rows}x{columns}"),
            percent(d.kept),
            format!("{few:.2}"),
            format!("{many:.2}"),
            kept.to_string(),
        ]
    };
    let rows: Vec<Vec<String>> = all.map(row).collect();
    if rows.is_empty() {
        return String::new();
    }
    let header =
        ["step", "kernel", "matrix", "zeros", "block", "not zero", "gain, 16 rows", "gain, 128 rows", "kept as"];
    section("", &header, rows, &[0, 3, 5, 6, 7])
}
