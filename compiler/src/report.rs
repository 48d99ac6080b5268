//! Shows diagnostics: the message, the place with its line of text and carets under it, notes and help. The same text
//! everywhere; on a terminal, unless `NO_COLOR` is set, it has colours.

use std::io::{IsTerminal, Write};
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Group, Level as Heading, Origin, Renderer, Snippet};
use bertc_ir::{Diag, Loc};

pub use bertc_ir::diag::did_you_mean;
pub use bertc_ir::{Severity as Level, SourceFile};

/// The text of diagnostics, sorted by position, with their number at the end if there are several. Places in text are
/// shown from the diagnostic's own source file, or else from `source`.
pub fn render(diags: &[Diag], source: Option<&SourceFile>, colour: bool) -> String {
    render_as(diags, source, colour, Diag::severity)
}

/// Prints diagnostics to standard error: errors as what each is, or all of them as warnings.
pub fn show(diags: &[Diag], level: Level) {
    let colour = colour();
    print(&render_as(diags, None, colour, |d| d.severity().min(level)));
}

/// Prints diagnostics about a text to standard error.
pub fn show_in(diags: &[Diag], source: &SourceFile) {
    print(&render(diags, Some(source), colour()));
}

fn print(text: &str) {
    // Nobody is left to tell when standard error is gone.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}

/// Whether to colour standard error; <https://no-color.org>.
fn colour() -> bool {
    std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}

fn render_as(diags: &[Diag], source: Option<&SourceFile>, colour: bool, level: impl Fn(&Diag) -> Level) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() };
    let mut sorted: Vec<&Diag> = diags.iter().collect();
    // Diagnostics without a place in the text keep their order: it is the model's.
    sorted.sort_by_key(|d| if let Loc::Text { start, .. } = d.loc { Some(start) } else { None });
    let mut text = String::new();
    for d in &sorted {
        text += &renderer.render(&[group(d, d.source_file().or(source), level(d))]);
        text.push('\n');
    }
    let errors = diags.iter().filter(|d| level(d) == Level::Error).count();
    let warnings = diags.len() - errors;
    if errors > 0 && diags.len() > 1 {
        text += &format!("{errors} {}", if errors == 1 { "error" } else { "errors" });
        if warnings > 0 {
            text += &format!(", {warnings} {}", if warnings == 1 { "warning" } else { "warnings" });
        }
        text.push('\n');
    }
    text
}

/// A diagnostic as annotate-snippets wants it.
fn group<'a>(d: &'a Diag, source: Option<&'a SourceFile>, level: Level) -> Group<'a> {
    let heading = if level == Level::Error { Heading::ERROR } else { Heading::WARNING };
    let mut group = Group::with_title(heading.primary_title(d.message.as_str()));
    match (&d.loc, source) {
        (Loc::Unknown, _) => {}
        (Loc::Text { start, end }, Some(s)) => group = group.element(snippet(d, *start..*end, s)),
        (loc, _) => group = group.element(Origin::path(loc.to_string())),
    }
    let notes = d.notes.iter().map(|n| Heading::NOTE.message(n.as_str()));
    let helps = d.helps().iter().map(|h| Heading::HELP.message(h.as_str()));
    group.elements(notes).elements(helps)
}

/// The lines from the first to the last place of a diagnostic, marked.
fn snippet<'a>(
    d: &'a Diag,
    at: Range<usize>,
    source: &'a SourceFile,
) -> Snippet<'a, annotate_snippets::Annotation<'a>> {
    let text = source.text.as_str();
    let places = std::iter::once(&at).cloned().chain(d.labels().iter().map(|l| l.start..l.end));
    let places: Vec<Range<usize>> = places.map(|r| clamp(r, text)).collect();
    let first = places.iter().map(|r| r.start).min().unwrap_or(0);
    let last = places.iter().map(|r| r.end).max().unwrap_or(0);
    // Only these lines: the text may be large.
    let start = text[..first].rfind('\n').map_or(0, |i| i + 1);
    let end = text[last..].find('\n').map_or(text.len(), |i| last + i);
    let line = text[..start].matches('\n').count() + 1;
    let mut s = Snippet::source(&text[start..end]).line_start(line).path(source.name.as_str());
    for (i, r) in places.into_iter().enumerate() {
        let span = r.start - start..r.end - start;
        s = s.annotation(match i {
            0 => AnnotationKind::Primary.span(span),
            _ => AnnotationKind::Context.span(span).label(d.labels()[i - 1].text.as_str()),
        });
    }
    s
}

/// A range inside the text, at characters.
fn clamp(r: Range<usize>, text: &str) -> Range<usize> {
    let start = text.floor_char_boundary(r.start);
    start..text.floor_char_boundary(r.end).max(start)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(text: &str) -> Vec<&str> {
        text.lines().map(str::trim_end).collect()
    }

    #[test]
    fn a_node_is_named_and_warnings_are_called_so() {
        let loc = Loc::node("/a/b", "Foo").output("/a/b_output_0");
        let d = [Diag::new("no such op").at(loc).note("known: Bar").help("export without it"), Diag::new("second")];
        let plain = render(&d, None, false);
        // A message without a place has the model's order, as one with a node has.
        let want = "error: no such op
--> node '/a/b' (Foo), output '/a/b_output_0'
 = note: known: Bar
 = help: export without it
error: second
2 errors";
        assert_eq!(lines(&plain), lines(want));
        let mixed = render(&[d[0].clone(), d[1].clone().warning()], None, false);
        assert!(mixed.contains("warning: second") && mixed.ends_with("1 error, 1 warning\n"), "{mixed}");
        let warnings = render_as(&d, None, false, |_| Level::Warning);
        assert!(warnings.starts_with("warning: no such op") && !warnings.contains("error"), "{warnings}");
        assert!(render(&d, None, true).contains("\u{1b}["));
        assert!(!plain.contains('\u{1b}'));
    }

    #[test]
    fn a_place_in_text_has_carets() {
        let source = SourceFile::new("x.tir", "func @f(%x: tensor<2 x f32>) {\n  %0 = add %x, %ü\n}\n");
        let at = |part: &str| {
            let start = source.text.find(part).unwrap();
            Loc::text(start, start + part.len())
        };
        let d = [
            Diag::new("later").at(at("}\n")),
            Diag::new("'%ü' is not defined").at(at("%ü")).label(&at("%x"), "an input").help("did you mean '%x'?"),
            Diag::new("past the end").at(Loc::text(9999, 99999)),
        ];
        let text = render(&d, Some(&source), false);
        let want = "error: '%ü' is not defined
 --> x.tir:2:16
  |
1 | func @f(%x: tensor<2 x f32>) {
  |         -- an input
2 |   %0 = add %x, %ü
  |                ^^
  |
  = help: did you mean '%x'?
error: later
 --> x.tir:3:1
  |
3 | }
  | ^
error: past the end";
        assert_eq!(&lines(&text)[..15], lines(want), "{text}");
        assert!(text.ends_with("3 errors\n"), "{text}");
        // A diagnostic that knows its text needs none.
        let own = d[1].clone().in_source(&std::sync::Arc::new(source.clone()));
        assert_eq!(render(&[own], None, false), render(&d[1..2], Some(&source), false));
        assert!(render(&d[1..2], None, false).contains("bytes "));
    }

    #[test]
    fn long_lines_and_control_characters_stay_harmless() {
        let mut text = format!("%0 = {} : tensor<f32>\n", "ab".repeat(200_000));
        text += "\u{1b}[31mred";
        let source = SourceFile::new("long", text);
        let d = Diag::new("here \u{1b}[31m").at(Loc::text(100_000, 100_003));
        let shown = render(&[d, Diag::new("there").at(Loc::text(400_040, 400_041))], Some(&source), false);
        assert!(shown.len() < 4000 && !shown.contains('\u{1b}'), "{} bytes: {shown}", shown.len());
    }
}
