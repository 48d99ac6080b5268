//! What was compared, for people and for programs.

use bertc_ir::Diag;
use serde_json::{Value, json};

use super::bisect::Culprit;
use super::compare::Error;
use super::fidelity::LayerRow;
use super::{CheckOptions, OutputRow, Report, Verdict};
use crate::output::table;

/// Tables for people.
pub(super) fn text(r: &Report) -> String {
    let made = if r.plausible { "plausible ones" } else { "given" };
    let mut text = format!("inputs ({made}): {}\n", r.inputs.join(", "));
    if !r.dims.is_empty() {
        let dims: Vec<_> = r.dims.iter().map(|(n, v)| format!("{n} = {v}")).collect();
        text += &format!("dims: {}\n", dims.join(", "));
    }
    text += &format!("nodes: {} imported, {} after the passes\n\n", r.nodes.0, r.nodes.1);
    if let Some(ops) = &r.ops {
        let head = ["op", "value", "node", "max abs", "max rel", "cosine", "own rel", ""];
        let rows = ops.iter().map(|o| {
            let above = o.error.exceeds(r.tolerance) || o.own.exceeds(r.tolerance);
            let mut cells = vec![o.op.to_string(), format!("%v{}", o.value.0), o.node.clone().unwrap_or_default()];
            cells.extend([number(o.error.abs), number(o.error.rel), cosine(&o.error), number(o.own.rel)]);
            cells.push(mark(above));
            cells
        });
        text += &table(&head, rows.collect(), &[3, 4, 5, 6]);
        text.push('\n');
    }
    text += &outputs(r);
    if let Some(rows) = &r.layers {
        text.push('\n');
        text += &layers(rows);
        let least =
            r.outputs.iter().map(|o| o.dense.unwrap_or(o.compiled)).min_by(|a, b| a.cosine.total_cmp(&b.cosine));
        text += &least.map_or(String::new(), |e| format!("least cosine of an output to dense f32: {}\n", cosine(&e)));
    }
    if let Some(found) = &r.bisect {
        text.push('\n');
        text += &match found {
            Some(c) => culprit(c),
            None => "bisect: no pass changes the outputs by more than the tolerance\n".into(),
        };
    }
    text.push('\n');
    text + &verdict(r) + "\n"
}

fn outputs(r: &Report) -> String {
    let head = ["output", "max abs", "max rel", "cosine", "passes rel", "tapped rel", ""];
    let rows = r.outputs.iter().map(|o| {
        let e = &o.compiled;
        let above = [Some(*e), Some(o.passes), o.tapped].iter().flatten().any(|e| e.exceeds(r.tolerance));
        let tapped = o.tapped.map_or("–".into(), |t| number(t.rel));
        vec![o.name.clone(), number(e.abs), number(e.rel), cosine(e), number(o.passes.rel), tapped, mark(above)]
    });
    table(&head, rows.collect(), &[1, 2, 3, 4, 5])
}

/// What fewer bits and weights cost.
fn layers(rows: &[LayerRow]) -> String {
    let cells = |r: &LayerRow| {
        vec![
            r.title.clone(),
            r.node.clone(),
            format!("{:.1}", r.snr),
            cosine(&Error { cosine: r.cosine, ..Error::NONE }),
        ]
    };
    table(&["compressed against dense f32", "node", "SNR dB", "cosine"], rows.iter().map(cells).collect(), &[2, 3])
}

fn culprit(c: &Culprit) -> String {
    let after = match &c.after {
        Ok(e) => format!("is {}", number(e.rel)),
        Err(e) => format!("can't be computed: {e}"),
    };
    let mut text = format!(
        "bisect: the pass '{}' (its change {}, number {} of the pipeline) is the first after which outputs are wrong\n",
        c.pass, c.run, c.change
    );
    text += &format!("  relative error before {}, after it {after}\n", number(c.before.rel));
    if let Some(first) = &c.first {
        text += &format!("  first value that differs: {first}\n");
    }
    for new in &c.new {
        text += &format!("  new in it: {new}\n");
    }
    for line in &c.diff {
        text += &format!("    {line}\n");
    }
    if c.left_out > 0 {
        text += &format!("    … {} more lines; --print-ir-after-change prints all\n", c.left_out);
    }
    text
}

/// What is wrong, in a sentence.
fn verdict(r: &Report) -> String {
    let tolerance = number(r.tolerance);
    match r.verdict() {
        Verdict::Fine => format!("all within the tolerance of {tolerance}"),
        Verdict::Passes(Some(c)) => format!("the pass '{}' makes the outputs wrong", c.pass),
        Verdict::Passes(None) => "the passes change the outputs; --bisect names the pass".into(),
        Verdict::Op(row) => {
            format!("lowering: the first deviation enters at {}, relative error {}", row.name(), number(row.own.rel))
        }
        Verdict::Sum(row) => {
            format!("no op is wrong by itself, but errors add up to {} at {}", number(row.error.rel), row.name())
        }
        Verdict::Memory => {
            "every op is right as long as each value has memory of its own: buffers that share memory collide".into()
        }
        Verdict::Code => "compiled code deviates from the evaluator; without --no-taps the op is named".into(),
    }
}

/// The error that makes the command fail.
pub(super) fn failure(r: &Report) -> Option<Diag> {
    if matches!(r.verdict(), Verdict::Fine) {
        return None;
    }
    let worst = r.outputs.iter().map(|o| o.compiled).fold(Error::NONE, Error::worse);
    let message = format!("outputs deviate by {}, the tolerance is {}", number(worst.rel), number(r.tolerance));
    let message = if worst.exceeds(r.tolerance) { message } else { "values inside the model deviate".into() };
    Some(Diag::new(message).note(verdict(r)))
}

/// One JSON object. What is no finite number is null.
pub(super) fn json(o: &CheckOptions, r: &Report) -> String {
    let ops = r.ops.as_ref().map(|ops| {
        let row = |o: &super::OpRow| {
            json!({
                "op": o.op,
                "value": o.value.0,
                "node": o.node,
                "kernels": o.kernels,
                "error": error(&o.error),
                "own": error(&o.own),
            })
        };
        ops.iter().map(row).collect::<Vec<_>>()
    });
    let output = |o: &OutputRow| {
        json!({
            "name": o.name,
            "compiled": error(&o.compiled),
            "passes": error(&o.passes),
            "dense": o.dense.as_ref().map(error),
            "tapped": o.tapped.as_ref().map(error),
        })
    };
    let dims: serde_json::Map<String, Value> = r.dims.iter().map(|(n, v)| (n.clone(), json!(v))).collect();
    let mut value = json!({
        "model": o.model.display().to_string(),
        "dims": dims,
        "tolerance": r.tolerance,
        "ok": matches!(r.verdict(), Verdict::Fine),
        "verdict": verdict(r),
        "nodes_before": r.nodes.0,
        "nodes_after": r.nodes.1,
        "ops": ops,
        "outputs": r.outputs.iter().map(output).collect::<Vec<_>>(),
    });
    if let Some(rows) = &r.layers {
        let row = |l: &LayerRow| json!({ "layer": l.title, "node": l.node, "snr_db": l.snr, "cosine": l.cosine });
        value["layers"] = rows.iter().map(row).collect();
    }
    if let Some(found) = &r.bisect {
        value["bisect"] =
            json!({ "pass": found.as_ref().map(|c| c.pass.clone()), "found": found.as_ref().map(found_json) });
    }
    format!("{value:#}\n")
}

fn found_json(c: &Culprit) -> Value {
    json!({
        "run": c.run,
        "change": c.change,
        "before": error(&c.before),
        "after": c.after.as_ref().ok().map(error),
        "message": c.after.as_ref().err(),
        "first": c.first,
        "new": c.new,
    })
}

fn error(e: &Error) -> Value {
    json!({ "max_abs": e.abs, "max_rel": e.rel, "cosine": e.cosine })
}

fn mark(above: bool) -> String {
    if above { "above".into() } else { String::new() }
}

fn number(x: f64) -> String {
    if x == 0.0 { "0".into() } else { format!("{x:.1e}") }
}

/// Near 1 the distance from it says more than the digits that all have.
fn cosine(e: &Error) -> String {
    match 1.0 - e.cosine {
        d if d < 1e-12 => "1".into(),
        d if d < 1e-3 => format!("1-{d:.0e}"),
        _ => format!("{:.4}", e.cosine),
    }
}
