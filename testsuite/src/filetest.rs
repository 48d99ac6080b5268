//! File tests: a `.tir` file that says in comments what to do with it and what must come out. `docs/testing.md` tells
//! how to write one.
//!
//! Strictness is the point: an unknown command, option or directive, a file that checks nothing, an error that is not
//! expected and an expected one that doesn't come all fail the test.

use std::path::Path;

use bertc_ir::text::line_col;
use bertc_ir::{Diag, Loc};
use filecheck::{CheckerBuilder, NO_VARIABLES};

use crate::subtest;

/// Directives that go to `filecheck`.
const CHECKS: [&str; 6] = ["check", "not", "nextln", "sameln", "unordered", "regex"];

/// One `//! command options…` line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Command {
    /// The first word.
    pub name: String,
    /// The other words.
    pub args: Vec<String>,
}

/// A test file, taken apart.
#[derive(Clone, Debug, Default)]
pub struct FileTest {
    /// The text.
    pub source: String,
    /// The header's commands.
    pub commands: Vec<Command>,
    /// The `filecheck` directives in order, for example `check: add`.
    pub checks: Vec<String>,
    /// Expected errors: line (from 1) and text that the message contains.
    pub errors: Vec<(usize, String)>,
    /// `check: unchanged`: the output is the input.
    pub unchanged: bool,
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
    pub fn parse(source: &str) -> Result<FileTest, String> {
        let mut t = FileTest { source: source.to_string(), ..FileTest::default() };
        for (i, line) in source.lines().enumerate() {
            let bad = |m: &str| Err(format!("line {}: {m}", i + 1));
            // A string may hold slashes, so only a comment's usual spelling counts.
            let Some(at) = line.find("// ").or_else(|| line.find("//!")) else { continue };
            let (code, comment) = (line[..at].trim(), line[at + 3..].trim());
            if line[at..].starts_with("//!") {
                let mut words = comment.split_whitespace().map(str::to_string);
                let Some(name) = words.next() else { return bad("the command is missing") };
                t.commands.push(Command { name, args: words.collect() });
                continue;
            }
            match directive(comment) {
                None => {}
                Some(("expected-error", text)) if !text.is_empty() && !code.is_empty() => {
                    t.errors.push((i + 1, text.to_string()));
                }
                Some(("expected-error", _)) => return bad("'expected-error' needs a text and stands behind the line"),
                Some(("check", "unchanged")) => t.unchanged = true,
                Some((word, text)) if CHECKS.contains(&word) && !text.is_empty() => t.checks.push(comment.to_string()),
                Some((word, _)) if CHECKS.contains(&word) => return bad(&format!("'{word}' has no pattern")),
                Some((word, _)) => return bad(&format!("unknown directive '{word}'")),
            }
        }
        if t.commands.is_empty() {
            return Err("no command: the first line is, for example, '//! opt --passes dce'".to_string());
        }
        let positive = t.unchanged || t.checks.iter().any(|c| !c.starts_with("not:") && !c.starts_with("regex:"));
        if !positive && t.errors.is_empty() {
            return Err("nothing to check: add '// check:' lines or '// expected-error:'".to_string());
        }
        if !t.errors.is_empty() && (t.unchanged || !t.checks.is_empty()) {
            return Err("a file expects errors or checks output, not both".to_string());
        }
        Ok(t)
    }

    /// Whether `diags` are the expected errors: each expected one once, no other.
    ///
    /// # Errors
    /// What differs.
    pub fn check_errors(&self, diags: &[Diag]) -> Result<(), String> {
        let func = self.source.lines().position(|l| l.starts_with("func")).map_or(1, |i| i + 1);
        let mut left = self.errors.clone();
        let mut wrong = String::new();
        for d in diags {
            // What concerns no line concerns the function.
            let line = match d.loc {
                Loc::Text { start, .. } => line_col(&self.source, start).0,
                _ => func,
            };
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

    /// Whether `output` has what the directives ask for; `input` is what `unchanged` compares with.
    ///
    /// # Errors
    /// What is missing, with the output.
    pub fn check_output(&self, input: &str, output: &str) -> Result<(), String> {
        if !self.errors.is_empty() {
            return self.check_errors(&[]);
        }
        if self.unchanged && input != output {
            return Err(format!("the graph changed\n--- before\n{input}--- after\n{output}"));
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
}

/// Runs a test file.
///
/// # Errors
/// Why it fails.
pub fn run(path: &Path) -> Result<(), String> {
    let source = std::fs::read_to_string(path).map_err(|e| e.to_string())?;
    subtest::run(&FileTest::parse(&source)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = "func @f(%x: tensor<f32>) -> tensor<f32> {\n  %0 = neg %x\n  return %0\n}\n";

    fn outcome(header: &str, footer: &str) -> Result<(), String> {
        subtest::run(&FileTest::parse(&format!("{header}\n{BODY}{footer}\n"))?)
    }

    #[test]
    fn a_test_can_fail() {
        assert_eq!(outcome("//! parse", "// check: neg %x"), Ok(()));
        assert_eq!(outcome("//! parse", "// check: neg %x\n// not: abs"), Ok(()));
        let fails = |header: &str, footer: &str, with: &str| {
            let e = outcome(header, footer).unwrap_err();
            assert!(e.contains(with), "expected '{with}' in: {e}");
        };
        fails("//! parse", "// check: abs %x", "does not match");
        fails("//! parse", "// check: neg\n// not: return", "does not match");
        fails("//! parse", "", "nothing to check");
        fails("//! parse", "// not: abs", "nothing to check");
        fails("//! parse", "// chekc: neg", "unknown directive 'chekc'");
        fails("//! parse", "// check:", "no pattern");
        fails("", "// check: neg", "no command");
        fails("//! frobnicate", "// check: neg", "unknown command 'frobnicate'");
        fails("//! parse --fast", "// check: neg", "takes no options");
        fails("//! parse", "// expected-error: bad", "stands behind the line");
        fails("//! opt --passes nonsense", "// check: neg", "unknown pass 'nonsense'");
        fails("//! run tol=1", "// check: neg", "'run' follows 'opt'");
    }

    #[test]
    fn errors_are_matched_by_line() {
        let run = |text: &str| subtest::run(&FileTest::parse(text)?);
        let bad = |note: &str| format!("//! parse\nfunc @f() -> () {{\n  %0 = nag %x{note}\n  return\n}}\n");
        assert_eq!(run(&bad(" // expected-error: '%x' is not defined")), Ok(()));
        assert!(run(&bad(" // expected-error: something else")).unwrap_err().contains("lacks the error"));
        assert!(run(&(bad("") + "// check: neg")).unwrap_err().contains("unexpected error in line 3"));
        let none = format!("//! parse\n{}", BODY.replace("neg %x", "neg %x // expected-error: bad"));
        assert!(run(&none).unwrap_err().contains("line 3 lacks the error 'bad'"));
    }
}
