//! What a pass is, what it can be asked for, and what it tells of its work.

use std::fmt;
use std::sync::Arc;

use bertc_ir::{Diag, Graph, Loc, Tensor, ValueId};

use crate::prune::{PruneReport, PruneSettings};
use crate::prune_structured::{StructuredReport, StructuredSettings};
use crate::use_int8::{Int8Report, Int8Settings};

/// A number that a pass can be given in a textual pipeline: `canonicalise{max-iterations=3}`.
#[derive(Debug)]
pub struct PassOption {
    /// Its name.
    pub name: &'static str,
    /// What it does, in one line.
    pub doc: &'static str,
    /// The value without it.
    pub default: u64,
}

/// Whether something was done.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum RemarkKind {
    /// A pattern was applied.
    Applied,
    /// A candidate was left as it was.
    Missed,
    /// Something else worth knowing.
    Note,
}

/// What a pass says of one operation.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Remark {
    /// The pass.
    pub pass: &'static str,
    /// Whether something was done.
    pub kind: RemarkKind,
    /// The operation's name.
    pub op: &'static str,
    /// The operation in the graph as the pass met it.
    pub value: ValueId,
    /// Where the operation comes from.
    pub loc: Loc,
    /// What was done, or why nothing was.
    pub reason: String,
}

impl Remark {
    /// The model's node, or the value where there is none.
    pub fn place(&self) -> String {
        match &self.loc {
            Loc::Node { name, .. } => name.clone(),
            _ => format!("%{}", self.value.0),
        }
    }
}

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({}): {}", self.pass, self.op, self.place(), self.reason)
    }
}

/// How often a pass did something.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// Patterns applied: operations replaced, merged, folded or removed.
    pub applied: usize,
    /// Candidates rejected.
    pub rejected: usize,
}

/// What passes are asked for that is no number.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Of `use-int8`; nothing where all matrices become integers, unmeasured.
    pub int8: Option<Int8Settings>,
    /// Of `prune`; nothing where its options say it all.
    pub prune: Option<PruneSettings>,
    /// Of `prune-structured`; nothing where its options say it all.
    pub structured: Option<StructuredSettings>,
    /// What the model calls the nodes that read its constants. The constants are told by where they lie in memory, which
    /// fusion leaves as it is.
    pub names: Vec<(Tensor, String)>,
}

/// What passes decided, of those that were asked for something.
#[derive(Clone, Debug, Default)]
pub struct Reports {
    /// Of `use-int8`.
    pub int8: Option<Int8Report>,
    /// Of `prune`.
    pub prune: Option<PruneReport>,
    /// Of `prune-structured`.
    pub structured: Option<StructuredReport>,
}

/// What a pass is given, and where it writes what it did.
#[derive(Debug, Default)]
pub struct PassContext {
    /// Remarks of the passes: what was done and what stopped it, in order, each once.
    pub remarks: Vec<Remark>,
    /// Of the pass that runs.
    pub counters: Counters,
    /// Of the pass that runs: the options that were given, by name.
    pub options: Vec<(&'static str, u64)>,
    /// What the passes are asked for.
    pub settings: Arc<Settings>,
    /// [`Settings::names`], and of the constants that passes make of those.
    pub names: Vec<(Tensor, String)>,
    /// What the pass that runs decided.
    pub reports: Reports,
}

impl PassContext {
    /// The value of an option.
    pub fn option(&self, option: &PassOption) -> u64 {
        self.options.iter().find(|o| o.0 == option.name).map_or(option.default, |o| o.1)
    }

    /// A constant that takes the place of another one is called the same.
    pub fn rename(&mut self, old: &Tensor, new: &Tensor) {
        let known = |(of, name): &(Tensor, String)| {
            (of.bytes().as_ptr() == old.bytes().as_ptr()).then(|| (new.clone(), name.clone()))
        };
        let names: Vec<_> = self.names.iter().filter_map(known).collect();
        self.names.extend(names);
    }

    /// Takes a remark; once, however often the pass runs.
    pub fn remark(&mut self, remark: Remark) {
        match remark.kind {
            RemarkKind::Applied => self.counters.applied += 1,
            RemarkKind::Missed => self.counters.rejected += 1,
            RemarkKind::Note => {}
        }
        // A value whose node is unknown may be another one later, but then one of the same number and op.
        let same = |r: &Remark| {
            let place = remark.loc != Loc::Unknown || r.value == remark.value;
            place && r.pass == remark.pass && r.op == remark.op && r.loc == remark.loc && r.reason == remark.reason
        };
        if !self.remarks.iter().any(same) {
            self.remarks.push(remark);
        }
    }
}

/// A transformation of a graph.
pub trait Pass {
    /// The flag's name.
    fn name(&self) -> &'static str;

    /// What it can be given in a textual pipeline.
    fn options(&self) -> &'static [PassOption] {
        &[]
    }

    /// Transforms the graph; tells whether anything changed.
    ///
    /// # Errors
    /// Something that the pass relies on doesn't hold: an error in the compiler or in hand-written IR.
    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag>;
}
