//! Whether a rewrite is worth it.

use bertc_ir::cost::{Work, exclusive, never_less};
use bertc_ir::{Graph, ValueId};

/// By how many bytes constants may still grow.
pub struct Budget(i128);

/// Constants may grow by one part in this many of the model's.
const SHARE: u64 = 8;

/// Or by so many bytes, in models with few constants.
const FLOOR: u64 = 4096;

/// What a rewrite changes.
pub struct Gain {
    /// Growth of the constants, in bytes.
    bytes: i128,
    /// Ops that go, less those that come.
    pub ops: i128,
}

impl Budget {
    /// The budget for a run on `g`.
    pub fn of(g: &Graph) -> Budget {
        let all = Work::of(g, g.topo()).map_or(0, |w| w.bytes);
        Budget((all / SHARE).max(FLOOR).into())
    }

    /// What `new` gains over `old`, if it does.
    ///
    /// # Errors
    /// It would, but constants grow beyond the budget.
    pub fn gain(&self, g: &Graph, old: ValueId, new: ValueId) -> Result<Option<Gain>, String> {
        let Some(freed) = Work::of(g, exclusive(g, old)) else { return Ok(None) };
        // A value that was there before costs nothing.
        let fresh = g.users(new).is_empty() && !g.is_output(new) && new > old;
        let added = if fresh { Work::of(g, exclusive(g, new)) } else { Some(Work::default()) };
        let Some(added) = added else { return Ok(None) };
        let fewer = freed.steps != added.steps || freed.ops > added.ops;
        if !fewer || !never_less(&freed.steps, &added.steps, &g.symbols) {
            return Ok(None);
        }
        let bytes = i128::from(added.bytes) - i128::from(freed.bytes);
        if bytes > self.0 {
            return Err(format!("constants would grow by {bytes} bytes, and {} are allowed", self.0.max(0)));
        }
        Ok(Some(Gain { bytes, ops: freed.ops as i128 - added.ops as i128 }))
    }

    /// Pays for a rewrite that is made.
    pub fn pay(&mut self, gain: &Gain) {
        // What one rewrite frees another may use.
        self.0 -= gain.bytes;
    }
}
