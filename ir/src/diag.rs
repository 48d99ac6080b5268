//! Diagnostics: what went wrong, where, and what to do about it.

use std::fmt;

/// Where a value or an error comes from.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub enum Loc {
    /// No location.
    #[default]
    Unknown,
    /// A node of the source model: its name and operator, for example `("/encoder/layer.0/MatMul", "MatMul")`.
    Node {
        /// Node name, or its first output's name where it has none.
        name: String,
        /// Operator type, with its domain where that isn't the default one.
        op: String,
    },
    /// A span of bytes in IR text.
    Text {
        /// Byte offset of the first character.
        start: usize,
        /// Byte offset past the last character.
        end: usize,
    },
}

impl fmt::Display for Loc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loc::Unknown => f.write_str("unknown location"),
            Loc::Node { name, op } => write!(f, "node '{name}' ({op})"),
            Loc::Text { start, end } => write!(f, "bytes {start}..{end}"),
        }
    }
}

/// One error, with notes. Messages are lower case without a final dot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Diag {
    /// What is wrong.
    pub message: String,
    /// Where.
    pub loc: Loc,
    /// What was expected, what to do.
    pub notes: Vec<String>,
}

impl Diag {
    /// An error without a location.
    pub fn new(message: impl Into<String>) -> Self {
        Diag { message: message.into(), loc: Loc::Unknown, notes: Vec::new() }
    }

    /// With a location.
    #[must_use]
    pub fn at(mut self, loc: Loc) -> Self {
        self.loc = loc;
        self
    }

    /// With a further note.
    #[must_use]
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
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
        Ok(())
    }
}

impl std::error::Error for Diag {}
