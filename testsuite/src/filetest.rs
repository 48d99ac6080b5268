//! File tests: a text in one of the compiler's languages that says in comments what to do with it and what must come
//! out. `docs/testing.md` tells how to write one.
//!
//! Strictness is the point: an unknown command, option or directive, a file that checks nothing, output that nothing
//! looks at, an error that is not expected and an expected one that doesn't come all fail the test.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::Path;

use bertc_ir::text::line_col;
use bertc_ir::{Diag, Loc};
use filecheck::{CheckerBuilder, NO_VARIABLES};

use crate::subtest;

/// Directives that go to `filecheck`.
const CHECKS: [&str; 6] = ["check", "not", "nextln", "sameln", "unordered", "regex"];

/// The language of a test file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Kind {
    /// Tensor IR.
    #[default]
    Tir,
    /// Kernel IR.
    Kir,
    /// Scheduled IR: a program with its kernels.
    Sir,
    /// A model in ONNX's own text form.
    Onnx,
}

impl Kind {
    /// The language of files with this extension.
    pub fn of_extension(e: &str) -> Option<Kind> {
        match e {
            "tir" => Some(Kind::Tir),
            "kir" => Some(Kind::Kir),
            "sir" => Some(Kind::Sir),
            "onnxtxt" => Some(Kind::Onnx),
            _ => None,
        }
    }

    /// What starts a comment.
    pub fn comment(self) -> &'static str {
        if self == Kind::Onnx { "#" } else { "//" }
    }

    /// Whether a line begins what an error without a line is about.
    fn is_head(self, line: &str) -> bool {
        match self {
            Kind::Tir => line.starts_with("func"),
            Kind::Kir => line.starts_with("kernel"),
            Kind::Sir => line.starts_with("program"),
            Kind::Onnx => !line.starts_with('#') && line.contains("=>"),
        }
    }
}

/// One `//! command options…` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The first word.
    pub name: String,
    /// The other words.
    pub args: Vec<String>,
}

/// A test file, taken apart. Lines count from 1.
#[derive(Clone, Debug, Default)]
pub struct FileTest {
    /// The text.
    pub source: String,
    /// Its language.
    pub kind: Kind,
    /// The header's commands.
    pub commands: Vec<Command>,
    /// The `filecheck` directives in order, for example `check: add`.
    pub checks: Vec<String>,
    /// Expected errors: line and text that the message contains.
    pub errors: Vec<(usize, String)>,
    /// `check: unchanged`: the output is the input.
    pub unchanged: bool,
    /// Expected remarks of passes: line of the operation and text that the remark contains.
    pub rejects: Vec<(usize, String)>,
    /// `run:` lines of kernels.
    pub runs: Vec<(usize, String)>,
    /// The exact output, if the file has such a block.
    pub exact: Option<String>,
    /// Write the output into that block instead of comparing.
    pub bless: bool,
    /// The output that the block is to hold.
    blessed: OnceCell<String>,
}

/// The directive in a comment, if it looks like one: `word: rest`.
fn directive(comment: &str) -> Option<(&str, &str)> {
    let (word, rest) = comment.split_once(':')?;
    let named = !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
    (named && (rest.is_empty() || rest.starts_with(' '))).then_some((word, rest.trim()))
}

impl FileTest {
    /// Takes a file apart.
    ///
    /// # Errors
    /// Unknown directives, a missing header, nothing to check.
    pub fn parse(source: &str, kind: Kind) -> Result<FileTest, String> {
        let mut t = FileTest { source: source.to_string(), kind, ..FileTest::default() };
        let c = kind.comment();
        let (plain, header, exact) = (format!("{c} "), format!("{c}!"), format!("{c}>"));
        let mut last_exact = None;
        for (i, line) in source.lines().enumerate() {
            let n = i + 1;
            let bad = |m: &str| Err(format!("line {n}: {m}"));
            if let Some(text) = line.strip_prefix(&exact) {
                if last_exact.is_some_and(|l| l != n - 1) {
                    return bad("the lines of exact output are not in one block");
                }
                last_exact = Some(n);
                let block = t.exact.get_or_insert_default();
                block.push_str(text.strip_prefix(' ').unwrap_or(text));
                block.push('\n');
                continue;
            }
            // A string may hold slashes, so only a comment's usual spelling counts.
            let Some(at) = line.find(&plain).or_else(|| line.find(&header)) else { continue };
            let (code, comment) = (line[..at].trim(), line[at + plain.len()..].trim());
            if line[at..].starts_with(&header) {
                let mut words = comment.split_whitespace().map(str::to_string);
                let Some(name) = words.next() else { return bad("the command is missing") };
                t.commands.push(Command { name, args: words.collect() });
                continue;
            }
            match directive(comment) {
                None => {}
                Some((word @ ("expected-error" | "reject"), text)) if !text.is_empty() && !code.is_empty() => {
                    let list = if word == "reject" { &mut t.rejects } else { &mut t.errors };
                    // Several stand one behind the other.
                    list.extend(text.split(&format!(" {plain}{word}: ")).map(|text| (n, text.to_string())));
                }
                Some((word @ ("expected-error" | "reject"), _)) => {
                    return bad(&format!("'{word}' needs a text and stands behind the line"));
                }
                Some(("check", "unchanged")) => t.unchanged = true,
                Some(("run", text)) if kind == Kind::Kir && !text.is_empty() => t.runs.push((n, text.to_string())),
                Some((word, text)) if CHECKS.contains(&word) && !text.is_empty() => t.checks.push(comment.to_string()),
                Some((word, _)) if CHECKS.contains(&word) => return bad(&format!("'{word}' has no pattern")),
                Some((word, _)) => return bad(&format!("unknown directive '{word}'")),
            }
        }
        if t.commands.is_empty() {
            return Err(format!("no command: the first line is, for example, '{c}! opt --passes dce'"));
        }
        if !t.checks.is_empty() && !t.checks.iter().any(|c| !c.starts_with("not:") && !c.starts_with("regex:")) {
            return Err("nothing to check: 'not' alone holds of any output, add 'check' lines".to_string());
        }
        if !t.errors.is_empty() && (t.checks_output() || !t.runs.is_empty()) {
            return Err("a file expects errors or checks output, not both".to_string());
        }
        Ok(t)
    }

    /// Whether directives say something about printed output.
    pub fn checks_output(&self) -> bool {
        self.unchanged || !self.checks.is_empty() || self.exact.is_some() || !self.rejects.is_empty()
    }

    /// The line that an error or a remark is about. What concerns no line concerns the head.
    pub fn line_of(&self, loc: &Loc) -> usize {
        let head = || self.source.lines().position(|l| self.kind.is_head(l)).map_or(1, |i| i + 1);
        match loc {
            Loc::Text { start, .. } => line_col(&self.source, *start).0,
            Loc::Node { name, .. } if self.kind == Kind::Onnx => {
                let nodes = subtest::onnx_text::parse(&self.source).map_or_else(|_| BTreeMap::new(), |m| m.lines);
                nodes.get(name).copied().unwrap_or_else(head)
            }
            _ => head(),
        }
    }

    /// Whether `diags` are the expected errors: each expected one once, no other.
    ///
    /// # Errors
    /// What differs.
    pub fn check_errors(&self, diags: &[Diag]) -> Result<(), String> {
        let mut left = self.errors.clone();
        let mut wrong = String::new();
        for d in diags {
            let line = self.line_of(&d.loc);
            match left.iter().position(|(l, text)| *l == line && d.message.contains(text)) {
                Some(i) => {
                    left.remove(i);
                }
                None => wrong += &format!("unexpected error in line {line}: {d}\n"),
            }
        }
        for (line, text) in left {
            wrong += &format!("line {line} lacks the error '{text}'\n");
        }
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Whether passes remarked what is expected; `remarks` are lines and texts.
    ///
    /// # Errors
    /// What is missing, with all remarks.
    pub fn check_rejects(&self, remarks: &[(usize, String)]) -> Result<(), String> {
        let mut wrong = String::new();
        for (line, text) in &self.rejects {
            if !remarks.iter().any(|(l, r)| l == line && r.contains(text)) {
                wrong += &format!("line {line} lacks the remark '{text}'\n");
            }
        }
        if wrong.is_empty() {
            return Ok(());
        }
        for (line, r) in remarks {
            wrong += &format!("remarked in line {line}: {r}\n");
        }
        Err(wrong)
    }

    /// Whether `output` has what the directives ask for; `input` is what `unchanged` compares with.
    ///
    /// # Errors
    /// What is missing, with the output.
    pub fn check_output(&self, input: Option<&str>, output: &str) -> Result<(), String> {
        if self.unchanged {
            let input = input.ok_or("'check: unchanged' is about 'opt'")?;
            if input != output {
                return Err(format!("the graph changed\n{}", diff(input, output)));
            }
        }
        if let Some(exact) = &self.exact {
            // A comment can't end in a space that editors would keep.
            let output: String = output.lines().map(|l| format!("{}\n", l.trim_end())).collect();
            if self.bless {
                // A file prints once: the last printing command's output is the one that is checked.
                let _ = self.blessed.set(output);
            } else if *exact != output {
                let d = diff(exact, &output);
                return Err(format!("the output is not the block in the file; BLESS=1 rewrites it\n{d}"));
            }
        }
        let mut builder = CheckerBuilder::new();
        for c in &self.checks {
            if !builder.directive(c).map_err(|e| format!("{c}: {e}"))? {
                return Err(format!("'{c}' is not a directive of filecheck"));
            }
        }
        let checker = builder.finish();
        if checker.is_empty() || checker.check(output, NO_VARIABLES).map_err(|e| e.to_string())? {
            return Ok(());
        }
        let (_, explanation) = checker.explain(output, NO_VARIABLES).map_err(|e| e.to_string())?;
        Err(format!("the output does not match\n{explanation}\n--- output\n{output}"))
    }

    /// The file with its exact block rewritten, if a run with `bless` found another output.
    pub fn blessed_source(&self) -> Option<String> {
        let output = self.blessed.get().filter(|o| self.exact.as_ref() != Some(o))?;
        let c = self.kind.comment();
        let marker = format!("{c}>");
        let mut new = String::new();
        let mut written = false;
        for line in self.source.lines() {
            if !line.starts_with(&marker) {
                new.push_str(line);
                new.push('\n');
            } else if !written {
                written = true;
                for o in output.lines() {
                    new.push_str(format!("{marker} {o}").trim_end());
                    new.push('\n');
                }
            }
        }
        Some(new)
    }
}

/// The lines in which two texts differ, with a few common ones around.
fn diff(old: &str, new: &str) -> String {
    const CONTEXT: usize = 3;
    let (a, b): (Vec<&str>, Vec<&str>) = (old.lines().collect(), new.lines().collect());
    let same = a.iter().zip(&b).take_while(|(x, y)| x == y).count();
    let rest = a.len().min(b.len()) - same;
    let tail = a.iter().rev().zip(b.iter().rev()).take(rest).take_while(|(x, y)| x == y).count();
    let mut text = format!("from line {}:\n", same + 1);
    let mut add = |sign: char, lines: &[&str]| {
        for l in lines {
            text.push(sign);
            text.push_str(l);
            text.push('\n');
        }
    };
    add(' ', &a[same.saturating_sub(CONTEXT)..same]);
    add('-', &a[same..a.len() - tail]);
    add('+', &b[same..b.len() - tail]);
    add(' ', &a[a.len() - tail..(a.len() - tail + CONTEXT).min(a.len())]);
    text
}

/// Runs a test file. With `bless`, its exact block is rewritten instead of compared.
///
/// # Errors
/// Why it fails.
pub fn run(path: &Path, bless: bool) -> Result<(), String> {
    let kind = path.extension().and_then(|e| e.to_str()).and_then(Kind::of_extension).ok_or("no test's extension")?;
    let source = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    let test = FileTest { bless, ..FileTest::parse(&source, kind)? };
    subtest::run(&test)?;
    match test.blessed_source() {
        Some(new) => std::fs::write(path, new).map_err(|e| e.to_string()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
