//! Buffer planning: which slot of the arena each temporary shares, from first write to last read.

use bertc_ir::{Diag, Dim, Symbols};

use crate::plan::{ALIGN, Arg, Buffer, Program, Slot, Step};

/// Assigns slots to temporaries of the given sizes in bytes. A buffer takes a free slot, by preference one that holds
/// its size already, else the one closest in size at middling dims, else a new one.
pub fn plan(sizes: &[Dim], steps: &[Step], symbols: &Symbols) -> (Vec<Buffer>, Vec<Slot>) {
    let mut buffers: Vec<Buffer> =
        sizes.iter().map(|d| Buffer { bytes: d.clone(), slot: 0, first: usize::MAX, last: 0 }).collect();
    for (i, s) in steps.iter().enumerate() {
        for a in &s.args {
            if let Arg::Buffer(b) = a {
                let b = &mut buffers[*b];
                b.first = b.first.min(i);
                b.last = b.last.max(i);
            }
        }
    }
    // Sizes are compared at one plausible set of dims: any choice is correct, this one is tight for real lengths.
    let typical: Vec<i64> = symbols.iter().map(|(_, s)| 128.clamp(s.min, s.max.max(s.min))).collect();
    let size_of = |d: &Dim| d.eval(&typical).unwrap_or(i64::MAX);
    let mut slots: Vec<Slot> = Vec::new();
    let mut free_after: Vec<usize> = Vec::new();
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&b| buffers[b].first != usize::MAX).collect();
    order.sort_by_key(|&b| (buffers[b].first, b));
    for b in order {
        let (want, first) = (size_of(&buffers[b].bytes), buffers[b].first);
        let best = (0..slots.len()).filter(|&s| free_after[s] < first).min_by_key(|&s| {
            let holds = slots[s].sizes.contains(&buffers[b].bytes);
            let have = slots[s].sizes.iter().map(size_of).max().unwrap_or(0);
            (!holds, have.abs_diff(want), s)
        });
        let s = best.unwrap_or_else(|| {
            slots.push(Slot::default());
            free_after.push(0);
            slots.len() - 1
        });
        if !slots[s].sizes.contains(&buffers[b].bytes) {
            slots[s].sizes.push(buffers[b].bytes.clone());
        }
        buffers[b].slot = s;
        free_after[s] = buffers[b].last;
    }
    (buffers, slots)
}

impl Program {
    /// Bytes of scratch memory for each worker: what the most demanding step needs.
    pub fn scratch_bytes(&self) -> u64 {
        let scratch = |a: &Arg| if let Arg::Scratch(bytes) = a { *bytes } else { 0 };
        self.steps.iter().flat_map(|s| &s.args).map(scratch).max().unwrap_or(0)
    }

    /// Checks the schedule:
    /// - every argument exists and is as many as the kernel's parameters;
    /// - every buffer fits its slot, and no two buffers live in one step share a slot;
    /// - every step lies within the lifetime of each buffer it names;
    /// - no step that can fail comes after one that writes an output.
    ///
    /// # Errors
    /// Every violation, each naming the step or buffer.
    pub fn verify(&self) -> Result<(), Vec<Diag>> {
        let mut errors = Vec::new();
        let mut wrote_output = false;
        for (i, s) in self.steps.iter().enumerate() {
            let mut err = |m: String| errors.push(Diag::new(format!("step {i} ({}): {m}", s.source)));
            let Some(k) = self.kernels.get(s.kernel) else {
                err("the kernel does not exist".to_string());
                continue;
            };
            if k.params.len() != s.args.len() {
                err(format!("{} arguments for {} parameters of '{}'", s.args.len(), k.params.len(), k.name));
            }
            for (a, p) in s.args.iter().zip(&k.params) {
                let is_int = matches!(p, bertc_ir::kernel::Param::Int { .. });
                let fits = match a {
                    Arg::Buffer(b) => !is_int && self.buffers.get(*b).is_some_and(|b| (b.first..=b.last).contains(&i)),
                    Arg::Input(n) => !is_int && *n < self.inputs.len(),
                    Arg::Output(n) => !is_int && *n < self.outputs.len(),
                    Arg::Const(n) => !is_int && *n < self.consts.len(),
                    Arg::Scratch(bytes) => !is_int && bytes % ALIGN == 0,
                    Arg::Int(_) => is_int,
                    Arg::Chunk(_, c) => is_int && c.is_valid(),
                };
                if !fits {
                    err(format!("argument {a:?} does not exist, is dead, or is of the wrong kind"));
                }
                let writes = matches!(p, bertc_ir::kernel::Param::Ptr { write: true, .. });
                if writes && matches!(a, Arg::Input(_) | Arg::Const(_)) {
                    err(format!("writes {a:?}"));
                }
                wrote_output |= writes && matches!(a, Arg::Output(_));
            }
            if s.fallible && wrote_output {
                err("can fail after an output was written".to_string());
            }
        }
        let mut by_slot: Vec<Vec<usize>> = vec![Vec::new(); self.slots.len()];
        for (i, b) in self.buffers.iter().enumerate().filter(|(_, b)| b.first != usize::MAX) {
            match self.slots.get(b.slot) {
                Some(s) if s.sizes.contains(&b.bytes) => by_slot[b.slot].push(i),
                _ => errors.push(Diag::new(format!("buffer {i} does not fit slot {}", b.slot))),
            }
        }
        for (s, mut users) in by_slot.into_iter().enumerate() {
            users.sort_by_key(|&b| self.buffers[b].first);
            for w in users.windows(2) {
                if self.buffers[w[1]].first <= self.buffers[w[0]].last {
                    errors.push(Diag::new(format!("buffers {} and {} overlap in slot {s}", w[0], w[1])));
                }
            }
        }
        if errors.is_empty() { Ok(()) } else { Err(errors) }
    }
}
