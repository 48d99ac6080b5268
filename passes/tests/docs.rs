//! The blocks `tir passes=a,b` on the pages of the documentation: the passes make of each what the next block says.

use bertc_ir::Graph;
use bertc_ir::text::{PrintOptions, no_resources, parse, print};
use bertc_passes::run_named;

#[path = "../../ir/tests/doc_pages/mod.rs"]
mod doc_pages;

use doc_pages::{Block, pages};

fn read(b: &Block<'_>) -> Graph {
    parse(&b.text, &no_resources).unwrap_or_else(|e| panic!("{}:{}: {e:?}", b.page.name, b.line))
}

#[test]
fn passes_make_what_the_pages_show() {
    let mut count = 0;
    for page in pages() {
        let blocks = page.blocks();
        for (i, b) in blocks.iter().enumerate().filter(|(_, b)| b.language == "tir") {
            let Some(passes) = b.mark.strip_prefix("passes=") else { continue };
            let place = format!("{}:{}", page.name, b.line);
            let mut g = read(b);
            let names: Vec<&str> = passes.split(',').collect();
            run_named(&mut g, &names).unwrap_or_else(|e| panic!("{place}: {e}"));
            let want =
                blocks.get(i + 1).filter(|b| b.language == "tir").unwrap_or_else(|| panic!("{place}: no result"));
            let text = |g: &Graph| print(g, &PrintOptions::default());
            assert_eq!(text(&g), text(&read(want)), "{place}");
            count += 1;
        }
    }
    assert!(count > 0, "no page shows what passes do");
}
