//! Buffer planning: which slot of the arena each temporary shares, from first write to last read.

use bertc_ir::{Dim, Symbols};

use crate::plan::{ALIGN, Arg, Buffer, Program, Slot, Step};

/// Assigns slots to temporaries of the given sizes in bytes. A buffer takes the place of one of its size that dies in the
/// step that first writes it, where that step may do so; else a free slot, by preference one that holds its size already,
/// else the one closest in size at middling dims, else a new one.
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
    // The buffer that a slot holds at present; the slot is free after its last step.
    let mut holds: Vec<usize> = Vec::new();
    let mut order: Vec<usize> = (0..buffers.len()).filter(|&b| buffers[b].first != usize::MAX).collect();
    order.sort_by_key(|&b| (buffers[b].first, b));
    for b in order {
        let (want, first) = (size_of(&buffers[b].bytes), buffers[b].first);
        let dying = (0..slots.len()).find(|&s| {
            let old = &buffers[holds[s]];
            old.last == first && old.bytes == buffers[b].bytes && steps[first].may_overwrite(b, holds[s])
        });
        let free = || {
            (0..slots.len()).filter(|&s| buffers[holds[s]].last < first).min_by_key(|&s| {
                let same = slots[s].sizes.contains(&buffers[b].bytes);
                let have = slots[s].sizes.iter().map(size_of).max().unwrap_or(0);
                (!same, have.abs_diff(want), s)
            })
        };
        let s = dying.or_else(free).unwrap_or_else(|| {
            slots.push(Slot::default());
            holds.push(b);
            slots.len() - 1
        });
        if !slots[s].sizes.contains(&buffers[b].bytes) {
            slots[s].sizes.push(buffers[b].bytes.clone());
        }
        buffers[b].slot = s;
        holds[s] = b;
    }
    (buffers, slots)
}

impl Slot {
    /// Size in bytes at the given dims: that of the largest occupant, aligned; `None` on overflow.
    pub fn bytes(&self, dims: &[i64]) -> Option<u64> {
        let sizes = self.sizes.iter().map(|d| d.eval(dims).and_then(|v| u64::try_from(v).ok()));
        let largest = sizes.collect::<Option<Vec<u64>>>()?.into_iter().max().unwrap_or(0);
        largest.checked_next_multiple_of(ALIGN)
    }
}

impl Program {
    /// Size of the arena in bytes at the given dims, without scratch memory, or `None` on overflow.
    pub fn arena_bytes(&self, dims: &[i64]) -> Option<u64> {
        self.slots.iter().try_fold(0u64, |a, s| a.checked_add(s.bytes(dims)?))
    }

    /// Bytes of scratch memory for each worker: what the most demanding step needs.
    pub fn scratch_bytes(&self) -> u64 {
        let scratch = |a: &Arg| if let Arg::Scratch(bytes) = a { *bytes } else { 0 };
        self.steps.iter().map(|s| s.args.iter().map(scratch).sum()).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A step with these buffers, of which the first may lie over each of `over`.
    fn step(args: &[usize], over: &[usize]) -> Step {
        Step {
            kernel: 0,
            args: args.iter().map(|&b| Arg::Buffer(b)).collect(),
            tasks: Vec::new(),
            fallible: false,
            in_place: over.iter().map(|&i| (0, i)).collect(),
            source: String::new(),
        }
    }

    fn slots(sizes: &[i64], steps: &[Step]) -> Vec<usize> {
        let sizes: Vec<Dim> = sizes.iter().map(|&d| d.into()).collect();
        plan(&sizes, steps, &Symbols::default()).0.iter().map(|b| b.slot).collect()
    }

    #[test]
    fn a_buffer_takes_the_place_of_one_that_dies() {
        let chain = [step(&[0], &[]), step(&[1, 0], &[1]), step(&[2, 1], &[1])];
        assert_eq!(slots(&[8, 8, 8], &chain), [0, 0, 0]);
        assert_eq!(slots(&[8, 9, 8], &chain), [0, 1, 0], "another size");
        let plain = [step(&[0], &[]), step(&[1, 0], &[]), step(&[2, 1], &[])];
        assert_eq!(slots(&[8, 8, 8], &plain), [0, 1, 0], "not said to be in place");
        let later = [step(&[0], &[]), step(&[1, 0], &[1]), step(&[2, 0], &[1])];
        assert_eq!(slots(&[8, 8, 8], &later), [0, 1, 0], "read once more");
        let twice = [step(&[0], &[]), step(&[1, 0, 0], &[1])];
        assert_eq!(slots(&[8, 8], &twice), [0, 1], "bound a second time");
        assert_eq!(slots(&[8, 8], &[step(&[0], &[]), step(&[1, 0, 0], &[1, 2])]), [0, 0]);
    }

    #[test]
    fn one_buffer_only_takes_a_place() {
        // Two results in one step, both allowed over the one operand.
        let mut both = step(&[1, 2, 0], &[2]);
        both.in_place.push((1, 2));
        assert_eq!(slots(&[8, 8, 8], &[step(&[0], &[]), both]), [0, 0, 1]);
    }
}
