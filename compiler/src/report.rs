//! Shows diagnostics: with colour and lines on a terminal, plainly elsewhere.

use std::fmt;
use std::io::{IsTerminal, Write};

use bertc_ir::{Diag, Loc};
use miette::{Diagnostic, GraphicalReportHandler, Severity};

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// The command failed.
    Error,
    /// Worth knowing.
    Warning,
}

#[derive(Debug)]
struct Shown<'a>(&'a Diag, Level);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0.loc {
            Loc::Unknown => f.write_str(&self.0.message),
            loc => write!(f, "{loc}: {}", self.0.message),
        }
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn severity(&self) -> Option<Severity> {
        Some(match self.1 {
            Level::Error => Severity::Error,
            Level::Warning => Severity::Warning,
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        (!self.0.notes.is_empty()).then(|| Box::new(self.0.notes.join("\n")) as Box<dyn fmt::Display>)
    }
}

/// The text of diagnostics as [`show`] prints it.
pub fn render(diags: &[Diag], level: Level, fancy: bool) -> String {
    let mut text = String::new();
    for d in diags {
        if fancy {
            let handler = GraphicalReportHandler::new();
            // Only a failing formatter fails here, and a string never does.
            let _ = handler.render_report(&mut text, &Shown(d, level));
        } else {
            let word = if level == Level::Error { "error" } else { "warning" };
            text += &format!("{word}: {}\n", Shown(d, level));
            for n in &d.notes {
                text += &format!("  note: {n}\n");
            }
        }
    }
    text
}

/// Prints diagnostics to standard error.
pub fn show(diags: &[Diag], level: Level) {
    let mut err = std::io::stderr().lock();
    let fancy = err.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    // Nobody is left to tell when standard error is gone.
    let _ = err.write_all(render(diags, level, fancy).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_shown() {
        let loc = Loc::Node { name: "/a/b".into(), op: "Foo".into() };
        let d = [Diag::new("no such op").at(loc).note("known: Bar"), Diag::new("second")];
        let plain = render(&d, Level::Error, false);
        assert_eq!(plain, "error: node '/a/b' (Foo): no such op\n  note: known: Bar\nerror: second\n");
        let fancy = render(&d, Level::Warning, true);
        for part in ["/a/b", "no such op", "known: Bar", "second"] {
            assert!(fancy.contains(part), "{fancy}");
        }
    }
}
