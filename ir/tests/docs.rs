//! The examples in `docs/ir.md`: each parses, verifies, and prints to text that parses back. Every op has one.

use std::collections::BTreeSet;

use bertc_ir::Graph;
use bertc_ir::text::{PrintOptions, line_col, no_resources, op_names, parse, print, structurally_equal};
use bertc_ir::verify::verify;

const PAGE: &str = include_str!("../../docs/ir.md");

/// The `tir` blocks with the line each starts on.
fn examples() -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines().enumerate();
    while let Some((i, line)) = lines.next() {
        if line == "```tir" {
            let body = lines.by_ref().map(|(_, l)| l).take_while(|l| *l != "```").collect::<Vec<_>>().join("\n");
            found.push((i + 2, body));
        }
    }
    found
}

fn checked(first_line: usize, text: &str) -> Graph {
    let g = parse(text, &no_resources).unwrap_or_else(|e| {
        for d in &e {
            if let bertc_ir::Loc::Text { start, .. } = d.loc {
                eprintln!("docs/ir.md:{}: {}", first_line - 1 + line_col(text, start).0, d.message);
            }
        }
        panic!("an example does not parse");
    });
    verify(&g).unwrap_or_else(|e| panic!("docs/ir.md:{first_line}: {e:?}"));
    g
}

#[test]
fn examples_parse_verify_and_print() {
    for (line, text) in examples() {
        let g = checked(line, &text);
        let options = PrintOptions { inline_constants: true, locations: true };
        let printed = print(&g, &options);
        let back = checked(line, &printed);
        assert!(structurally_equal(&g, &back), "docs/ir.md:{line}");
        assert_eq!(print(&back, &options), printed, "docs/ir.md:{line}");
    }
}

#[test]
fn every_op_has_an_example() {
    let graphs: Vec<Graph> = examples().iter().map(|(line, text)| checked(*line, text)).collect();
    let used: BTreeSet<&str> = graphs.iter().flat_map(|g| g.topo().into_iter().map(|v| g.op(v).name())).collect();
    let missing: Vec<&str> = op_names().into_iter().filter(|n| !used.contains(n)).collect();
    assert!(missing.is_empty(), "docs/ir.md has no example of {missing:?}");
    let unnamed: Vec<&str> = op_names().into_iter().filter(|n| !PAGE.contains(&format!("`{n}`"))).collect();
    assert!(unnamed.is_empty(), "docs/ir.md doesn't describe {unnamed:?}");
}
