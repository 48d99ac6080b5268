//! `docs/coverage.md`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use super::{Outcomes, Test};

const HEAD: &str = "# Operators

Which operators of ONNX bertc takes, and what of ONNX's own tests they pass. `cargo xtask conformance --update` writes this
page; [testing](testing.md#conformance) tells how. What an operator can't do is an error at compile time that names the
node and the reason.

";

/// The page.
pub fn page(tests: &[Test], outcomes: &Outcomes, expected: &BTreeMap<String, String>) -> String {
    let passed = outcomes.values().filter(|r| r.is_ok()).count();
    let mut text = HEAD.to_string();
    let share = 100.0 * passed as f64 / outcomes.len().max(1) as f64;
    let _ = write!(text, "## ONNX's node tests\n\n{passed} of {} tests pass: {share:.1}%.\n\n", outcomes.len());
    text += "| operator | tests | pass |\n|---|---|---|\n";
    for (operator, [good, all]) in by_operator(tests, outcomes) {
        let _ =
            writeln!(text, "| {operator} | {all} | {} |", if good == all { "all".into() } else { good.to_string() });
    }
    text += "\nShapes are computed at compile time. Where a test has what decides a shape as an input, that is a constant here:\n\n";
    for (operator, names) in frozen(tests) {
        let _ = writeln!(text, "- {operator}: {}", names.into_iter().collect::<Vec<_>>().join(", "));
    }
    text += "\n## Tests that fail\n\n";
    let mut reasons: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, reason) in expected {
        reasons.entry(reason).or_default().push(name);
    }
    for (reason, names) in reasons {
        let _ = writeln!(text, "- {reason} ({}): {}", names.len(), names.join(", "));
    }
    text += "\n## Operators that are taken\n";
    for (domain, names) in bertc::import::onnx::operators() {
        let domain = if domain.is_empty() { "ai.onnx" } else { domain };
        let _ = write!(text, "\nOf `{domain}`: {}.\n", names.join(", "));
    }
    text += "\n## Operators that are not taken\n\nThe error at such a node says what is nearest:\n\n";
    for (names, hint) in bertc::import::onnx::NOT_TAKEN {
        let _ = writeln!(text, "- {}: {hint}", names.join(", "));
    }
    text
}

/// The operators of tests, each with how many pass and how many there are.
fn by_operator(tests: &[Test], outcomes: &Outcomes) -> BTreeMap<String, [usize; 2]> {
    let mut counts: BTreeMap<String, [usize; 2]> = BTreeMap::new();
    for t in tests {
        let c = counts.entry(t.operator.clone()).or_default();
        c[0] += usize::from(outcomes[&t.name].is_ok());
        c[1] += 1;
    }
    counts
}

/// The inputs that became constants, by operator.
fn frozen(tests: &[Test]) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for t in tests.iter().filter(|t| !t.frozen.is_empty()) {
        all.entry(&t.operator).or_default().extend(t.frozen.iter().map(String::as_str));
    }
    all
}
