//! The examples of tensor IR on the pages of the documentation: each parses, verifies, and prints to text that parses
//! back. Every op has one in `docs/ir.md`.

use std::collections::BTreeSet;

use bertc_ir::Graph;
use bertc_ir::text::{PrintOptions, line_col, no_resources, op_names, parse, print, structurally_equal};
use bertc_ir::verify::verify;

mod doc_pages;

use doc_pages::{Block, pages};

const REFERENCE: &str = "docs/ir.md";

/// Whether a block is whole.
fn runs(b: &Block<'_>) -> bool {
    b.language == "tir" && (b.mark.is_empty() || b.mark.starts_with("passes="))
}

fn checked(b: &Block<'_>, text: &str) -> Graph {
    let g = parse(text, &no_resources).unwrap_or_else(|e| {
        for d in &e {
            if let bertc_ir::Loc::Text { start, .. } = d.loc {
                eprintln!("{}:{}: {}", b.page.name, b.line - 1 + line_col(text, start).0, d.message);
            }
        }
        panic!("an example does not parse");
    });
    verify(&g).unwrap_or_else(|e| panic!("{}:{}: {e:?}", b.page.name, b.line));
    g
}

#[test]
fn examples_parse_verify_and_print() {
    for page in pages() {
        for b in page.blocks().iter().filter(|b| runs(b)) {
            let g = checked(b, &b.text);
            let options = PrintOptions { inline_constants: true, locations: true };
            let printed = print(&g, &options);
            let back = checked(b, &printed);
            assert!(structurally_equal(&g, &back), "{}:{}", page.name, b.line);
            assert_eq!(print(&back, &options), printed, "{}:{}", page.name, b.line);
        }
    }
}

#[test]
fn every_op_has_an_example() {
    let all = pages();
    let page = all.iter().find(|p| p.name == REFERENCE).expect("a reference");
    let graphs: Vec<Graph> = page.blocks().iter().filter(|b| runs(b)).map(|b| checked(b, &b.text)).collect();
    let used: BTreeSet<&str> = graphs.iter().flat_map(|g| g.topo().into_iter().map(|v| g.op(v).name())).collect();
    let missing: Vec<&str> = op_names().into_iter().filter(|n| !used.contains(n)).collect();
    assert!(missing.is_empty(), "{REFERENCE} has no example of {missing:?}");
    let unnamed: Vec<&str> = op_names().into_iter().filter(|n| !page.text.contains(&format!("`{n}`"))).collect();
    assert!(unnamed.is_empty(), "{REFERENCE} doesn't describe {unnamed:?}");
}
