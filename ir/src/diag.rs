//! Diagnostics: what went wrong, where, and what to do about it.

use std::fmt;
use std::sync::Arc;

mod suggest;

pub use suggest::{closest, did_you_mean};

/// Where a value or an error comes from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Loc {
    /// No location.
    #[default]
    Unknown,
    /// A node of the source model: its name and operator, for example `("/encoder/layer.0/MatMul", "MatMul")`.
    /// [`Loc::node`] makes one.
    Node {
        /// Node name, or its first output's name where it has none.
        name: String,
        /// Operator type, with its domain where that isn't the default one.
        op: String,
        /// Name of the output concerned, where it is known and not the node's name.
        output: Option<Box<str>>,
    },
    /// A span of bytes in IR text.
    Text {
        /// Byte offset of the first character.
        start: usize,
        /// Byte offset past the last character.
        end: usize,
    },
}

impl Loc {
    /// A node of the source model.
    pub fn node(name: impl Into<String>, op: impl Into<String>) -> Loc {
        Loc::Node { name: name.into(), op: op.into(), output: None }
    }

    /// The same node, and its output called `output`.
    #[must_use]
    pub fn output(self, output: &str) -> Loc {
        match self {
            Loc::Node { name, op, .. } => {
                let output = (!output.is_empty() && output != name).then(|| output.into());
                Loc::Node { name, op, output }
            }
            other => other,
        }
    }

    /// A span of bytes in IR text.
    pub fn text(start: usize, end: usize) -> Loc {
        Loc::Text { start, end }
    }
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loc::Unknown => f.write_str("unknown location"),
            Loc::Node { name, op, output: None } => write!(f, "node '{name}' ({op})"),
            Loc::Node { name, op, output: Some(o) } => write!(f, "node '{name}' ({op}), output '{o}'"),
            Loc::Text { start, end } => write!(f, "bytes {start}..{end}"),
        }
    }
}

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Severity {
    /// Worth knowing.
    Warning,
    /// The command failed.
    #[default]
    Error,
}

/// A text that diagnostics point into.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct SourceFile {
    /// Its path, or what else to call it.
    pub name: String,
    /// All of it.
    pub text: String,
}

impl SourceFile {
    /// A text with its name.
    pub fn new(name: impl Into<String>, text: impl Into<String>) -> Self {
        SourceFile { name: name.into(), text: text.into() }
    }
}

/// A second place of a diagnostic: bytes of the same text, and what is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Label {
    /// Byte offset of the first character.
    pub start: usize,
    /// Byte offset past the last character.
    pub end: usize,
    /// What is there.
    pub text: String,
}

/// What most diagnostics don't have, apart so that a [`Diag`] is small.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
struct More {
    severity: Severity,
    labels: Vec<Label>,
    helps: Vec<String>,
    source: Option<Arc<SourceFile>>,
}

/// One error or warning, with notes. Messages are lower case without a final dot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diag {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub loc: Loc,
    /// What was expected, and why.
    pub notes: Vec<String>,
    more: Option<Box<More>>,
}

impl Diag {
    /// An error without a location.
    pub fn new(message: impl Into<String>) -> Self {
        Diag { message: message.into(), loc: Loc::Unknown, notes: Vec::new(), more: None }
    }

    fn more(&mut self) -> &mut More {
        self.more.get_or_insert_default()
    }

    /// With a location.
    #[must_use]
    pub fn at(mut self, loc: Loc) -> Self {
        self.loc = loc;
        self
    }

    /// With a location, unless it has one.
    #[must_use]
    pub fn or_at(self, loc: Loc) -> Self {
        if self.loc == Loc::Unknown { self.at(loc) } else { self }
    }

    /// With a further note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// With a further hint of what to do.
    #[must_use]
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.more().helps.push(help.into());
        self
    }

    /// With a further hint of what to do, if there is one.
    #[must_use]
    pub fn maybe_help(self, help: Option<impl Into<String>>) -> Self {
        match help {
            Some(h) => self.help(h),
            None => self,
        }
    }

    /// With a second place, shown together with the first one. Only a [`Loc::Text`] has bytes to show.
    #[must_use]
    pub fn label(mut self, at: &Loc, text: impl Into<String>) -> Self {
        if let Loc::Text { start, end } = *at {
            self.more().labels.push(Label { start, end, text: text.into() });
        }
        self
    }

    /// As a warning.
    #[must_use]
    pub fn warning(mut self) -> Self {
        self.more().severity = Severity::Warning;
        self
    }

    /// With the text that a [`Loc::Text`] and the labels point into.
    #[must_use]
    pub fn in_source(mut self, source: &Arc<SourceFile>) -> Self {
        self.more().source = Some(Arc::clone(source));
        self
    }

    /// How bad it is; an error unless made a [`warning`](Self::warning).
    pub fn severity(&self) -> Severity {
        self.more.as_ref().map_or(Severity::Error, |m| m.severity)
    }

    /// Second places, in the order they were added.
    pub fn labels(&self) -> &[Label] {
        self.more.as_ref().map_or(&[], |m| &m.labels)
    }

    /// Hints of what to do.
    pub fn helps(&self) -> &[String] {
        self.more.as_ref().map_or(&[], |m| &m.helps)
    }

    /// The text that the places are in, if the diagnostic knows it.
    pub fn source_file(&self) -> Option<&SourceFile> {
        self.more.as_ref().and_then(|m| m.source.as_deref())
    }
}

impl fmt::Display for Diag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.loc {
            Loc::Unknown => f.write_str(&self.message)?,
            loc => write!(f, "{loc}: {}", self.message)?,
        }
        for n in &self.notes {
            write!(f, "\n  note: {n}")?;
        }
        for h in self.helps() {
            write!(f, "\n  help: {h}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Diag {}
