//! What a pass is.

use bertc_ir::{Diag, Graph};

/// What passes of one run share.
#[derive(Debug, Default)]
pub struct PassContext {
    /// Remarks of the passes: what was done and what stopped it, one line each, in order.
    pub remarks: Vec<String>,
}

/// A transformation of a graph.
pub trait Pass {
    /// The flag's name.
    fn name(&self) -> &'static str;

    /// Transforms the graph; tells whether anything changed.
    ///
    /// # Errors
    /// Something that the pass relies on doesn't hold: an error in the compiler or in hand-written IR.
    fn run(&self, g: &mut Graph, ctx: &mut PassContext) -> Result<bool, Diag>;
}
