//! The pages of the documentation and their fenced blocks, for the tests that hold them to the source.

use std::path::{Path, PathBuf};

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// A page.
pub struct Page {
    /// Its path in the repository.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A fenced block.
pub struct Block<'a> {
    /// The page.
    pub page: &'a Page,
    /// The line of its first line of text, from 1.
    pub line: usize,
    /// The word behind the fence.
    pub language: &'a str,
    /// What stands behind the language: `from=PATH` for lines of a file, `excerpt` for a part of something larger,
    /// `passes=a,b` for IR whose passes' result is the next block.
    pub mark: &'a str,
    /// Its text.
    pub text: String,
}

fn add(folder: &str, pages: &mut Vec<Page>) {
    let entries = std::fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}"));
    for entry in entries {
        let name = entry.expect("a readable folder").file_name().into_string().expect("a name in UTF-8");
        if name.ends_with(".md") {
            let name = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let text = std::fs::read_to_string(root().join(&name)).unwrap_or_else(|e| panic!("{name}: {e}"));
            pages.push(Page { name, text });
        }
    }
}

/// Every page, in the order of their names.
pub fn pages() -> Vec<Page> {
    let mut pages = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        add(folder, &mut pages);
    }
    pages.sort_by(|a, b| a.name.cmp(&b.name));
    pages
}

impl Page {
    /// The fenced blocks.
    pub fn blocks(&self) -> Vec<Block<'_>> {
        let mut found = Vec::new();
        let mut lines = self.text.lines().enumerate();
        while let Some((i, line)) = lines.next() {
            let Some(info) = line.trim_start().strip_prefix("```") else { continue };
            let (language, mark) = info.split_once(' ').unwrap_or((info, ""));
            let text =
                lines.by_ref().map(|(_, l)| l).take_while(|l| l.trim_start() != "```").collect::<Vec<_>>().join("\n");
            found.push(Block { page: self, line: i + 2, language, mark, text });
        }
        found
    }
}
