//! The scheduled program as text: slots with their sizes, buffers with their lifetimes, steps with their kernels.

use std::fmt::Write;

use bertc_ir::Dim;

use crate::plan::{ALIGN, Arg, ConstLayout, Program, Slot};

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

    /// Text form for people.
    pub fn print(&self) -> String {
        let mut s = String::new();
        let dim = |d: &Dim| d.display(&self.symbols).to_string();
        // Writing to a string can't fail.
        let _ = writeln!(s, "schedule @{}", self.name);
        for (i, slot) in self.slots.iter().enumerate() {
            let sizes: Vec<String> = slot.sizes.iter().map(dim).collect();
            let _ = writeln!(s, "  slot {i}: max({}) bytes", sizes.join(", "));
        }
        for (i, b) in self.buffers.iter().enumerate().filter(|(_, b)| b.first != usize::MAX) {
            let _ =
                writeln!(s, "  buffer {i}: {} bytes in slot {}, steps {}..={}", dim(&b.bytes), b.slot, b.first, b.last);
        }
        if self.scratch_bytes() > 0 {
            let _ = writeln!(s, "  scratch: {} bytes a worker", self.scratch_bytes());
        }
        for (i, c) in self.consts.iter().enumerate() {
            let layout = match c.layout {
                ConstLayout::Plain => "row-major",
                ConstLayout::Packed { trans: false } => "packed [N/16][K][16]",
                ConstLayout::Packed { trans: true } => "packed [N/16][K][16] from its transpose",
            };
            let parts: Vec<String> = c.parts.iter().map(|t| format!("{:?} x {}", t.shape(), t.dtype())).collect();
            let _ = writeln!(s, "  const {i}: {}, {layout}", parts.join(" | "));
        }
        for (i, step) in self.steps.iter().enumerate() {
            let args: Vec<String> = step
                .args
                .iter()
                .map(|a| match a {
                    Arg::Buffer(b) => format!("buffer {b}"),
                    Arg::Input(n) => format!("input {}", self.inputs[*n].name),
                    Arg::Output(n) => format!("output {}", self.outputs[*n].name),
                    Arg::Const(c) => format!("const {c}"),
                    Arg::Scratch(bytes) => format!("scratch {bytes}"),
                    Arg::Int(d) => dim(d),
                    Arg::Chunk(d, c) => format!("chunk {c} of {}", dim(d)),
                })
                .collect();
            let tasks: Vec<String> = step.tasks.iter().map(|(d, c)| format!("ceil(({}) / {c})", dim(d))).collect();
            let tasks = if tasks.is_empty() { "1".to_string() } else { tasks.join(" * ") };
            let fails = if step.fallible { ", may fail" } else { "" };
            let kernel = &self.kernels[step.kernel].name;
            let _ = writeln!(s, "  step {i}: @{kernel}({}) tasks {tasks}{fails}  // {}", args.join(", "), step.source);
        }
        s
    }
}
