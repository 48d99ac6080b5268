//! Passes that fail on purpose, their reproducers, and that those fail again when replayed.

use std::path::Path;

use bertc_ir::{Diag, Graph};
use bertc_passes::registry::Entry;
use bertc_passes::{Pass, PassContext};

use crate::cli::opt_options;
use crate::internal::{guard, is_internal};
use crate::opt::transformed;

struct Panics;

impl Pass for Panics {
    fn name(&self) -> &'static str {
        "panics"
    }

    fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
        // Only on what the first pass made of the input: a reproducer with another graph would pass.
        assert!(g.len() > 2, "two nodes are too few");
        Ok(false)
    }
}

struct Breaks;

impl Pass for Breaks {
    fn name(&self) -> &'static str {
        "breaks"
    }

    fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
        *g = Graph::new(g.name.clone());
        Ok(true)
    }
}

static TABLE: &[Entry] = &[
    Entry { pass: &Panics, doc: "panics on small graphs" },
    Entry { pass: &Breaks, doc: "leaves nothing" },
    Entry { pass: &Cse, doc: "the real one" },
];

/// The real pass, so that the pipeline has something good before the bad.
struct Cse;

impl Pass for Cse {
    fn name(&self) -> &'static str {
        "cse"
    }

    fn run(&self, g: &mut Graph, _: &mut PassContext) -> Result<bool, Diag> {
        let before = g.len();
        bertc_passes::run_named(g, &["canonicalise", "cse", "dce"])?;
        Ok(g.len() != before)
    }
}

const SMALL: &str = "func @f(%x: tensor<4 x f32>) -> (y: tensor<4 x f32>) {
  %0 = neg %x
  %1 = neg %0
  %2 = exp %1
  return %2
}
";

fn opt(args: &str) -> Result<String, Vec<Diag>> {
    let o = opt_options(args.split_whitespace()).unwrap_or_else(|e| panic!("{args}: {e}"));
    guard(|| transformed(&o, TABLE))
}

/// The only reproducer in a folder, and the arguments of the command in it.
fn reproducer(dir: &Path) -> (String, String) {
    let files = std::fs::read_dir(dir).unwrap().map(|f| f.unwrap().path());
    let mut found: Vec<_> = files.filter(|p| p.extension().is_some_and(|e| e == "tir")).collect();
    assert_eq!(found.len(), 1, "{found:?}");
    let text = std::fs::read_to_string(found.pop().unwrap()).unwrap();
    let command = text.lines().find_map(|l| l.strip_prefix("// replay: bertc ")).unwrap().to_string();
    (text, command)
}

/// Fails with the passes, and fails again with what the reproducer says.
fn fails_twice(input: &str, passes: &str, message: &str) -> (String, Vec<Diag>) {
    let dir = tempfile::tempdir().unwrap();
    let (file, out) = (dir.path().join("in.txt"), dir.path().join("crashes"));
    std::fs::create_dir(&out).unwrap();
    std::fs::write(&file, input).unwrap();
    let (file, place) = (file.display(), out.display());
    let args = format!("opt {file} --passes {passes} --verify-each --reproducer {place}");
    let first = opt(&args).unwrap_err();
    assert!(is_internal(&first) && first[0].message.contains(message), "{first:?}");
    let (text, command) = reproducer(&out);
    assert!(text.contains(message) && text.contains("target "), "{text}");
    assert!(first[0].notes.iter().any(|n| n.contains(&command)), "{first:?}");
    let again = tempfile::tempdir().unwrap();
    let second = opt(&format!("{command} --reproducer {}", again.path().display())).unwrap_err();
    assert_eq!(second[0].message, first[0].message);
    (text, first)
}

#[test]
fn a_panic_leaves_a_reproducer_that_reproduces() {
    let (text, diags) = fails_twice(SMALL, "cse,panics", "the pass 'panics' panicked: two nodes are too few");
    assert!(!text.contains("neg"), "the graph before the pass, not before the pipeline: {text}");
    assert!(diags[0].notes.last().is_some_and(|n| n.contains("please report")), "{diags:?}");
    // The pass is fine with what the pipeline began with.
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("in.tir");
    std::fs::write(&file, SMALL).unwrap();
    assert_eq!(opt(&format!("opt {} --passes panics", file.display())).unwrap().matches("neg").count(), 2);
}

#[test]
fn broken_ir_leaves_a_reproducer_that_reproduces() {
    let (text, diags) = fails_twice(SMALL, "breaks", "the pass 'breaks' broke the graph: ");
    assert!(text.contains("exp") && diags[0].notes.iter().any(|n| n.contains("after the pass 'breaks'")), "{diags:?}");
}

#[test]
fn large_constants_go_beside_a_reproducer() {
    let n = 40_000;
    let row: Vec<String> = (0..n).map(|i| format!("{i}.5")).collect();
    let body = format!("constant dense<[{}]> : tensor<{n} x f32>\n  %1 = add %x, %0", row.join(", "));
    let input =
        format!("func @f(%x: tensor<{n} x f32>) -> (y: tensor<{n} x f32>) {{\n  %0 = {body}\n  return %1\n}}\n");
    let (text, _) = fails_twice(&input, "breaks", "broke the graph");
    assert!(text.contains("--resources") && text.len() < 2000, "{}", text.len());
}
