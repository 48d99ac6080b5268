//! The table of all passes.

use crate::canonicalise::Canonicalise;
use crate::cse::Cse;
use crate::dce::Dce;
use crate::fold_constants::FoldConstants;
use crate::legalise::Legalise;
use crate::pass::Pass;

/// One row of the table.
pub struct Entry {
    /// The pass.
    pub pass: &'static (dyn Pass + Sync),
    /// What it does, in one line.
    pub doc: &'static str,
}

/// Every pass, in alphabetical order.
pub const PASSES: &[Entry] = &[
    Entry { pass: &Canonicalise, doc: "simplify identities, data movement and index arithmetic" },
    Entry { pass: &Cse, doc: "merge equal operations" },
    Entry { pass: &Dce, doc: "remove operations that no output needs" },
    Entry { pass: &FoldConstants, doc: "evaluate operations on small constants" },
    Entry { pass: &Legalise, doc: "spell out what the backend doesn't do implicitly: batch broadcasts of matmul" },
];

/// The pass called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    PASSES.iter().find(|e| e.pass.name() == name)
}
