//! Each rewrite: a positive case, a near miss, and a numeric comparison of before and after.

mod arith;
mod masks;
mod movement;
mod random;

use bertc_ir::ValueId;

use crate::testing::{T, check_same, run};

/// Canonicalises the graph with `outs` as outputs and compares the numbers; tells whether anything changed.
fn canon(t: &mut T, outs: &[ValueId]) -> bool {
    for (i, &v) in outs.iter().enumerate() {
        t.g.add_output(format!("o{i}"), v);
    }
    let before = t.g.clone();
    let changed = run(&mut t.g, "canonicalise");
    check_same(&before, &t.g);
    assert!(!run(&mut t.g, "canonicalise"), "one run reaches the fixpoint");
    changed
}

/// The value of output `i`.
fn out(t: &T, i: usize) -> ValueId {
    t.g.outputs()[i].value
}
