//! What the pages of the documentation say of the repository is true: links lead somewhere, paths exist, excerpts are
//! lines of the files that they are said to be from, and no block of IR escapes the tests that run it.

use std::collections::BTreeSet;
use std::path::Path;

mod doc_pages;

use doc_pages::{Page, pages, root};

/// Folders whose paths are recognised wherever they stand.
const FOLDERS: [&str; 8] = ["ir", "passes", "backends", "compiler", "runtime-stub", "testsuite", "docs", "examples"];

/// Endings of files that a path in backticks may have.
const ENDINGS: [&str; 8] = [".rs", ".md", ".tir", ".kir", ".sir", ".toml", ".c", ".py"];

fn fail(what: &str, all: &[String]) {
    assert!(all.is_empty(), "{what}:\n  {}", all.join("\n  "));
}

/// The lines of a page outside of its fenced blocks, with their numbers.
fn prose(page: &Page) -> impl Iterator<Item = (usize, &str)> {
    let mut inside = false;
    page.text.lines().enumerate().filter_map(move |(i, line)| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        (!inside && !fence).then_some((i + 1, line))
    })
}

/// `a/{b,c}.rs` written out.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_string()] };
    let Some((names, after)) = rest.split_once('}') else { return vec![path.to_string()] };
    names.split(',').flat_map(|n| expanded(&format!("{before}{n}{after}"))).collect()
}

/// Whether there is such a file or folder; the last part may have a star.
fn exists(path: &Path) -> bool {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some((start, end)) = name.split_once('*') else { return path.exists() };
    let matches = |n: &str| n.len() >= start.len() + end.len() && n.starts_with(start) && n.ends_with(end);
    let entries = path.parent().and_then(|p| std::fs::read_dir(p).ok());
    entries.is_some_and(|mut all| all.any(|e| e.is_ok_and(|e| e.file_name().to_str().is_some_and(matches))))
}

/// The paths of the repository that a line names: words that begin with one of its folders, and files in backticks,
/// which may be relative to a crate's sources. Behind ` -- ` stand names of tests.
fn paths(line: &str) -> Vec<&str> {
    let line = line.split(" -- ").next().unwrap_or_default();
    let part = |c: char| c.is_ascii_alphanumeric() || "_-./{},*".contains(c);
    let of_folder =
        |w: &&str| w.split_once('/').is_some_and(|(first, rest)| FOLDERS.contains(&first) && !rest.is_empty());
    let words = line.split(|c| !part(c)).map(|w| w.trim_matches([',', '.', '/'])).filter(of_folder);
    let spans = line.split('`').skip(1).step_by(2);
    let file = |s: &&str| s.contains('/') && s.chars().all(part) && ENDINGS.iter().any(|e| s.ends_with(e));
    words.chain(spans.filter(file)).collect()
}

#[test]
fn paths_exist() {
    let sources = FOLDERS.map(|f| root().join(f).join("src"));
    let there = |p: &String| exists(&root().join(p)) || sources.iter().any(|s| exists(&s.join(p)));
    let mut wrong = Vec::new();
    for page in pages() {
        for (line, text) in prose(&page) {
            let missing = paths(text).into_iter().flat_map(expanded).filter(|p| !there(p));
            wrong.extend(missing.map(|p| format!("{}:{line}: {p}", page.name)));
        }
    }
    fail("pages name files that don't exist", &wrong);
}

/// The anchor that a heading gets.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter(|l| l.starts_with('#')).map(|l| anchor(l.trim_start_matches('#'))).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut wrong = Vec::new();
    for page in pages() {
        let name = root().join(&page.name);
        let folder = name.parent().expect("a page is in a folder");
        for (line, text) in prose(&page) {
            for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
                let (path, place) = link.split_once('#').unwrap_or((link, ""));
                let target = if path.is_empty() { name.clone() } else { folder.join(path) };
                let there = link.contains("://")
                    || target.exists()
                        && (place.is_empty()
                            || std::fs::read_to_string(&target).is_ok_and(|t| anchors(&t).contains(place)));
                if !there {
                    wrong.push(format!("{}:{line}: {link}", page.name));
                }
            }
        }
    }
    fail("links lead nowhere", &wrong);
}

#[test]
fn the_readme_links_every_page() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let linked = |p: &Page| readme.contains(&format!("]({}", p.name)) || p.name.starts_with("docs/decisions/");
    let missing: Vec<String> =
        pages().into_iter().filter(|p| p.name.starts_with("docs/") && !linked(p)).map(|p| p.name).collect();
    fail("pages that README.md doesn't link", &missing);
}

/// Tests run the blocks of `tir` on all pages, and those of the other IRs on their own pages.
#[test]
fn blocks_are_run_or_marked() {
    let mut wrong = Vec::new();
    for page in pages() {
        for b in page.blocks() {
            let marked = b.mark == "excerpt" || b.mark.starts_with("from=");
            let known = match b.language {
                "tir" => b.mark.is_empty() || b.mark.starts_with("passes=") || marked,
                "kir" => marked || b.mark.is_empty() && page.name == "docs/kernel-ir.md",
                "sir" => marked || b.mark.is_empty() && page.name == "docs/scheduled-ir.md",
                "rust" | "c" => b.mark.is_empty() || marked,
                language => b.mark.is_empty() && ["rust,ignore", "sh", "text"].contains(&language),
            };
            if !known {
                wrong.push(format!("{}:{}: '{} {}'", page.name, b.line - 1, b.language, b.mark));
            }
        }
    }
    fail("blocks of a language or with a mark that no test knows", &wrong);
}

/// The lines of a block `from=PATH` are lines of that file, in this order; a line `…` or `// …` stands for any others.
#[test]
fn excerpts_are_from_their_files() {
    let mut wrong = Vec::new();
    for page in pages() {
        for b in page.blocks() {
            let Some(path) = b.mark.strip_prefix("from=") else { continue };
            let Ok(file) = std::fs::read_to_string(root().join(path)) else {
                wrong.push(format!("{}:{}: there is no {path}", b.page.name, b.line - 1));
                continue;
            };
            let mut left = file.lines().map(str::trim);
            let excerpt = b.text.lines().map(str::trim).enumerate();
            let gone = excerpt.filter(|(_, l)| !["", "…", "// …"].contains(l)).find(|(_, l)| !left.any(|f| f == *l));
            if let Some((i, line)) = gone {
                wrong.push(format!("{}:{}: {path} has no such line, or not here: {line}", b.page.name, b.line + i));
            }
        }
    }
    fail("excerpts that differ from their files; take over what changed", &wrong);
}

#[test]
fn the_checks_see_what_is_wrong() {
    assert_eq!(
        paths("see `ir/src/op.rs`, `lower/gemm.rs` and passes/src/{cse,dce}.rs."),
        ["ir/src/op.rs", "passes/src/{cse,dce}.rs", "ir/src/op.rs", "lower/gemm.rs"]
    );
    assert_eq!(paths("cargo test --test filetests -- passes/cse"), Vec::<&str>::new());
    assert_eq!(paths("`x·(c/d)`, a/b, `[M/16]` and passes/"), Vec::<&str>::new());
    assert_eq!(expanded("a/{b,c}.rs"), ["a/b.rs", "a/c.rs"]);
    assert!(exists(&root().join("ir/tests/kernel_*.rs")) && !exists(&root().join("ir/tests/none_*.rs")));
    assert_eq!(anchor(" Crash reproducers, `bertc`"), "crash-reproducers-bertc");
}
