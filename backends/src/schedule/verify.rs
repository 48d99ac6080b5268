//! Checks a scheduled program. What the emitters and the object writer may rely on:
//!
//! 1. Kernels have distinct names. A step calls a kernel that exists and binds each of its parameters: a pointer to a
//!    buffer, input, output, constant or scratch memory, an integer to a size or a chunk. Chunks are positive, shares
//!    are a power of two and its multiple; scratch memory is a multiple of [`ALIGN`].
//! 2. Inputs and constants are only read.
//! 3. A buffer is written by the first step that names it, before any step reads it. An output is written before it is
//!    read, and by some step. (A step that reads what an earlier one wrote in part isn't noticed.)
//! 4. A buffer's lifetime is from the first to the last step that names it; buffers that no step names have none.
//! 5. A slot is large enough for its buffers at all dims: their sizes are among those it is the maximum of.
//! 6. No two live buffers overlap: their lifetimes are disjoint if they share a slot. They may meet in one step that says
//!    that it works in place, with buffers of one size.
//! 7. Within a step, memory that is written is bound once.
//! 8. What a step says it does in place: arguments that exist, the first written, the other only read, with elements of
//!    one size.
//! 9. No step that can fail comes after one that writes an output.
//! 10. Constants fit their layouts.
//!
//! Not checked: that kernels stay inside their operands, that tasks don't race, and that a kernel reads before it writes
//! where it says so. The interpreter and the templates' tests are for that.

use std::collections::BTreeSet;
use std::fmt;

use bertc_ir::Diag;
use bertc_ir::kernel::Param;

use super::print::written;
use crate::pack::packed_size;
use crate::plan::{ALIGN, Arg, Buffer, ConstLayout, Program, Step};

/// What a violation is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Place {
    Kernel(usize),
    Const(usize),
    Buffer(usize),
    Output(usize),
    Step(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Kernel(i) => write!(f, "kernel {i}"),
            Place::Const(i) => write!(f, "constant {i}"),
            Place::Buffer(i) => write!(f, "buffer {i}"),
            Place::Output(i) => write!(f, "output {i}"),
            Place::Step(i) => write!(f, "step {i}"),
        }
    }
}

impl Buffer {
    /// Whether some step names it.
    pub fn is_used(&self) -> bool {
        self.first != usize::MAX
    }
}

impl Program {
    /// Checks the invariants listed in this module's header.
    ///
    /// # Errors
    /// Every violation, each naming the step, buffer, constant or output.
    pub fn verify(&self) -> Result<(), Vec<Diag>> {
        let found = violations(self);
        if found.is_empty() {
            return Ok(());
        }
        let diag = |(place, message)| match place {
            Place::Step(i) => Diag::new(format!("step {i} ({}): {message}", self.steps[i].source)),
            place => Diag::new(format!("{place}: {message}")),
        };
        Err(found.into_iter().map(diag).collect())
    }
}

/// Every broken invariant.
pub(super) fn violations(p: &Program) -> Vec<(Place, String)> {
    let mut c = Checker {
        p,
        found: Vec::new(),
        named: vec![None; p.buffers.len()],
        output: vec![false; p.outputs.len()],
        wrote_output: false,
    };
    c.kernels_and_consts();
    for (i, s) in p.steps.iter().enumerate() {
        c.step(i, s);
    }
    for (i, written) in c.output.clone().into_iter().enumerate() {
        if !written {
            c.found.push((Place::Output(i), format!("no step writes '{}'", p.outputs[i].name)));
        }
    }
    c.buffers();
    c.overlaps();
    c.found
}

struct Checker<'a> {
    p: &'a Program,
    found: Vec<(Place, String)>,
    /// First and last step that names each buffer.
    named: Vec<Option<(usize, usize)>>,
    /// Whether each output is written by now.
    output: Vec<bool>,
    /// Whether any is.
    wrote_output: bool,
}

impl Checker<'_> {
    fn kernels_and_consts(&mut self) {
        let mut names = BTreeSet::new();
        for (i, k) in self.p.kernels.iter().enumerate() {
            if !names.insert(&k.name) {
                self.found.push((Place::Kernel(i), format!("two kernels are named '{}'", k.name)));
            }
        }
        for (i, c) in self.p.consts.iter().enumerate() {
            if let Err(d) = packed_size(c) {
                self.found.push((Place::Const(i), d.message));
            } else if c.parts.is_empty() || c.layout == ConstLayout::Plain && c.parts.len() > 1 {
                self.found.push((Place::Const(i), format!("{} source tensors, expected one", c.parts.len())));
            }
        }
    }

    fn step(&mut self, i: usize, s: &Step) {
        let at = Place::Step(i);
        let Some(k) = self.p.kernels.get(s.kernel) else {
            self.found.push((at, "the kernel does not exist".to_string()));
            return;
        };
        if k.params.len() != s.args.len() {
            let m = format!("{} arguments for {} parameters of '{}'", s.args.len(), k.params.len(), k.name);
            self.found.push((at, m));
        }
        for (n, (extent, chunk)) in s.tasks.iter().enumerate() {
            if !chunk.is_valid() {
                let extent = extent.display(&self.p.symbols);
                self.found.push((at, format!("factor {n} of the tasks, {extent} by {chunk}: the chunk is invalid")));
            }
        }
        let mut wrote = Vec::new();
        for (i, (a, param)) in s.args.iter().zip(&k.params).enumerate() {
            if let Some(m) = self.misfit(a, param, &s.args[..i]) {
                self.found.push((at, format!("argument {} {m}", written(self.p, a))));
                continue;
            }
            let writes = matches!(param, Param::Ptr { write: true, .. });
            if writes && matches!(a, Arg::Buffer(_) | Arg::Output(_)) {
                if s.args.iter().filter(|b| *b == a).count() > 1 {
                    self.found.push((at, format!("{} is written and bound twice", written(self.p, a))));
                }
                wrote.push(a);
            } else if !writes && self.unwritten(a) {
                self.found.push((at, format!("{} is read before it is written", written(self.p, a))));
            }
        }
        self.order(i, s, &wrote);
        self.in_place(at, s);
        if s.fallible && self.wrote_output {
            self.found.push((at, "can fail after an output was written".to_string()));
        }
    }

    /// What is wrong with an argument, given those before it.
    fn misfit(&self, a: &Arg, param: &Param, before: &[Arg]) -> Option<&'static str> {
        let p = self.p;
        let exists = match a {
            Arg::Buffer(b) => *b < p.buffers.len(),
            Arg::Input(n) => *n < p.inputs.len(),
            Arg::Output(n) => *n < p.outputs.len(),
            Arg::Const(n) => *n < p.consts.len(),
            Arg::Again(i) => matches!(before.get(*i), Some(Arg::Scratch(_))),
            Arg::Scratch(_) | Arg::Int(_) | Arg::Chunk(..) => true,
        };
        let integer = matches!(a, Arg::Int(_) | Arg::Chunk(..));
        match (a, param) {
            _ if !exists => Some("does not exist"),
            (_, Param::Int { .. }) if !integer => Some("is memory, the parameter is an integer"),
            (_, Param::Ptr { .. }) if integer => Some("is an integer, the parameter is a pointer"),
            (Arg::Input(_) | Arg::Const(_), Param::Ptr { write: true, .. }) => Some("must not be written"),
            (Arg::Scratch(bytes), _) if bytes % ALIGN != 0 => Some("is no multiple of the alignment"),
            (Arg::Chunk(_, c), _) if !c.is_valid() => Some("is an invalid chunk"),
            _ => None,
        }
    }

    /// Whether nothing has written a buffer or output yet.
    fn unwritten(&self, a: &Arg) -> bool {
        match a {
            Arg::Buffer(b) => self.named[*b].is_none(),
            Arg::Output(o) => !self.output[*o],
            _ => false,
        }
    }

    /// Notes what step `i` names and writes.
    fn order(&mut self, i: usize, s: &Step, wrote: &[&Arg]) {
        for a in &s.args {
            if let Arg::Buffer(b) = a
                && let Some(range) = self.named.get_mut(*b)
            {
                *range = Some(range.map_or((i, i), |(first, _)| (first, i)));
            }
        }
        for a in wrote {
            if let Arg::Output(o) = a {
                self.output[*o] = true;
                self.wrote_output = true;
            }
        }
    }

    fn in_place(&mut self, at: Place, s: &Step) {
        let params = &self.p.kernels[s.kernel].params;
        for &(o, i) in &s.in_place {
            let sound = match (params.get(o), params.get(i)) {
                (Some(Param::Ptr { dtype: a, write: true, .. }), Some(Param::Ptr { dtype: b, write: false, .. })) => {
                    a.size() == b.size()
                }
                _ => false,
            };
            if !sound {
                let m = "the first must be written, the second only read, with elements of one size";
                self.found.push((at, format!("argument {o} can't be in place over {i}: {m}")));
            }
        }
    }

    /// Lifetimes and slots.
    fn buffers(&mut self) {
        for (i, b) in self.p.buffers.iter().enumerate() {
            let stated = b.is_used().then_some((b.first, b.last));
            if stated != self.named[i] {
                let says =
                    |r: Option<(usize, usize)>| r.map_or("none".to_string(), |(a, b)| format!("steps {a}..={b}"));
                let m = format!("its lifetime is {}, but {} name it", says(stated), says(self.named[i]));
                self.found.push((Place::Buffer(i), m));
            }
            if b.is_used() && !self.p.slots.get(b.slot).is_some_and(|s| s.sizes.contains(&b.bytes)) {
                self.found.push((Place::Buffer(i), format!("does not fit slot {}", b.slot)));
            }
        }
    }

    fn overlaps(&mut self) {
        let p = self.p;
        let mut used: Vec<usize> = (0..p.buffers.len()).filter(|&i| p.buffers[i].is_used()).collect();
        used.sort_by_key(|&i| (p.buffers[i].slot, p.buffers[i].first, p.buffers[i].last));
        // The buffer of this slot that lives longest. Nothing else is needed: what meets a buffer that died in place
        // meets the one over it too, and may not be over that one, which is written in that step.
        let mut last: Option<usize> = None;
        for b in used {
            let (new, old) = (&p.buffers[b], last.filter(|&l| p.buffers[l].slot == p.buffers[b].slot));
            if let Some(o) = old {
                let end = p.buffers[o].last;
                let meets = new.first == end && p.buffers[o].bytes == new.bytes;
                let in_place = meets && p.steps.get(end).is_some_and(|s| s.may_overwrite(b, o));
                if new.first <= end && !in_place {
                    self.found.push((Place::Buffer(b), format!("overlaps buffer {o} in slot {}", new.slot)));
                }
            }
            if old.is_none_or(|o| p.buffers[o].last <= new.last) {
                last = Some(b);
            }
        }
    }
}
