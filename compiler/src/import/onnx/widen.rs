//! 16-bit floats are stored, not computed with: arithmetic on f16 and bf16 happens in f32.
//!
//! ONNX leaves the precision of intermediate results open, and ONNX Runtime's CPU kernels keep them in f32 too; rounding
//! after every op would stray further from it than fp16 models allow. Inputs, outputs, constants and explicit casts
//! keep their 16-bit types, and so does what only moves such values, embedding tables above all.
//!
//! ```text
//! %c = matmul %a, %b : f16          %a1 = cast %a : f32
//! %d = relu %c : f16           =>   %b1 = cast %b : f32
//!                                   %c = matmul %a1, %b1 : f32
//!                                   %d1 = relu %c : f32
//!                                   %d = cast %d1 : f16
//! ```

use std::collections::HashMap;

use bertc_ir::{DType, Diag, Graph, Loc, Op, ValueId};

fn half(d: DType) -> bool {
    matches!(d, DType::F16 | DType::BF16)
}

/// The values of the new graph.
struct Widen<'a> {
    old: &'a Graph,
    new: Graph,
    /// By old value, in its own type.
    same: HashMap<ValueId, ValueId>,
    /// By old value of a 16-bit float type, in f32.
    wide: HashMap<ValueId, ValueId>,
}

/// The graph with arithmetic on 16-bit floats in f32.
///
/// # Errors
/// None on a valid graph; those of [`Graph::add`].
pub fn widen(old: Graph) -> Result<Graph, Diag> {
    if !old.topo().into_iter().any(|v| half(old.ty(v).dtype)) {
        return Ok(old);
    }
    let mut new = Graph::new(old.name.clone());
    new.symbols = old.symbols.clone();
    let mut w = Widen { old: &old, new, same: HashMap::new(), wide: HashMap::new() };
    for p in old.inputs() {
        let id = w.new.add_input(p.name.clone(), old.ty(p.value).clone());
        w.same.insert(p.value, id);
    }
    for v in old.topo() {
        w.node(v)?;
    }
    for p in old.outputs() {
        let id = w.same(p.value)?;
        w.new.add_output(p.name.clone(), id);
    }
    w.new.remove_dead();
    Ok(w.new)
}

impl Widen<'_> {
    fn cast(&mut self, v: ValueId, from: ValueId, to: DType) -> Result<ValueId, Diag> {
        let loc: Loc = self.old.node(v).loc.clone();
        self.new.add(Op::Cast(to), &[from], &loc)
    }

    /// `v` in its own type.
    fn same(&mut self, v: ValueId) -> Result<ValueId, Diag> {
        if let Some(&id) = self.same.get(&v) {
            return Ok(id);
        }
        let id = self.cast(v, self.wide[&v], self.old.ty(v).dtype)?;
        self.same.insert(v, id);
        Ok(id)
    }

    /// `v` in f32 if it is a 16-bit float.
    fn wide(&mut self, v: ValueId) -> Result<ValueId, Diag> {
        if !half(self.old.ty(v).dtype) {
            return self.same(v);
        }
        if let Some(&id) = self.wide.get(&v) {
            return Ok(id);
        }
        let id = self.cast(v, self.same[&v], DType::F32)?;
        self.wide.insert(v, id);
        Ok(id)
    }

    fn node(&mut self, v: ValueId) -> Result<(), Diag> {
        let n = self.old.node(v);
        let moves = matches!(
            n.op,
            Op::Transpose { .. }
                | Op::Reshape { .. }
                | Op::Broadcast { .. }
                | Op::Slice { .. }
                | Op::Concat { .. }
                | Op::Gather { .. }
                | Op::GatherElements { .. }
                | Op::GatherNd { .. }
                | Op::ScatterElements { combine: None, .. }
                | Op::ScatterNd { combine: None }
        );
        let stored = n.operands.iter().all(|o| self.same.contains_key(o));
        let wide_result = match n.op {
            Op::Input { .. } => return Ok(()),
            // A cast to 16 bits is asked for; one from 16 bits takes what is there.
            Op::Constant(_) | Op::Cast(_) => false,
            _ if moves && stored => false,
            _ => half(n.ty.dtype),
        };
        let mut operands = Vec::with_capacity(n.operands.len());
        for &o in &n.operands {
            operands.push(if moves && stored { self.same(o)? } else { self.wide(o)? });
        }
        let id = match n.op {
            // Of an f32 in place of the 16-bit float that was cast.
            Op::Cast(to) if self.new.ty(operands[0]).dtype == to => operands[0],
            _ => self.new.add(n.op.clone(), &operands, &n.loc)?,
        };
        if wide_result { &mut self.wide } else { &mut self.same }.insert(v, id);
        Ok(())
    }
}
