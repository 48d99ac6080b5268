//! Runs a kernel, for tests: the oracle that emitters and kernel templates are compared with. Every memory access is
//! checked, arithmetic is bit-exact as [`Inst`] documents it, and `fma` is fused.
//!
//! Not a goal: speed beyond what tests need, and finding races between tasks.

use std::ops::Range;

use super::lane::{bin, cmp, convert, dot_bf16, dot_bytes, fma, load, store, un};
use super::verify::verify;
use super::{Block, DotKind, Elem, Inst, Kernel, Param, Place, Reg, lane_in_memory};
use crate::types::DType;

/// The buffers that pointers point into. Several arguments may name the same buffer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Contents, one vector of bytes each.
    pub buffers: Vec<Vec<u8>>,
}

impl Memory {
    /// Adds a buffer; its number.
    pub fn add(&mut self, bytes: impl Into<Vec<u8>>) -> usize {
        self.buffers.push(bytes.into());
        self.buffers.len() - 1
    }

    /// Adds a buffer of f32; its number.
    pub fn add_f32(&mut self, values: &[f32]) -> usize {
        self.add(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>())
    }

    /// A buffer's contents as f32; trailing bytes that fill no element are left out.
    pub fn f32s(&self, buffer: usize) -> Vec<f32> {
        let (chunks, _) = self.buffers[buffer].as_chunks();
        chunks.iter().map(|&c| f32::from_le_bytes(c)).collect()
    }
}

/// What a kernel parameter is bound to.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Arg {
    /// A pointer into a buffer; everything from there to the buffer's end may be accessed.
    Ptr {
        /// Index into [`Memory::buffers`].
        buffer: usize,
        /// Where element 0 lies.
        byte_offset: usize,
    },
    /// A pointer to the first byte of a part of a buffer; nothing outside it may be accessed.
    Window {
        /// Index into [`Memory::buffers`].
        buffer: usize,
        /// The accessible bytes.
        bytes: Range<usize>,
    },
    /// A run-time integer.
    Int(i64),
}

impl Arg {
    /// A whole buffer.
    pub fn buffer(buffer: usize) -> Self {
        Arg::Ptr { buffer, byte_offset: 0 }
    }
}

/// How a run ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcome {
    /// Whether a task executed [`Inst::Fail`].
    pub failed: bool,
}

/// Runs `kernel` for each task of `tasks` in ascending order, as worker 0.
///
/// # Errors
/// The kernel is invalid, the arguments don't fit its parameters, a load or store lies outside its buffer, a loop
/// counter overflows, or a second factor of [`DotKind::I8`] holds -128. Names the kernel, the task, the parameter and the element. Memory is then partly written.
pub fn run(kernel: &Kernel, memory: &mut Memory, args: &[Arg], tasks: Range<u64>) -> Result<Outcome, String> {
    let in_kernel = |m: &str| format!("kernel '{}': {m}", kernel.name);
    if let Err(diags) = verify(kernel) {
        let first = diags.first().map_or_else(String::new, ToString::to_string);
        return Err(in_kernel(&format!("invalid: {first}")));
    }
    if args.len() != kernel.params.len() {
        return Err(in_kernel(&format!("{} arguments for {} parameters", args.len(), kernel.params.len())));
    }
    let mut offsets = Vec::with_capacity(kernel.regs.len());
    let mut total = 0;
    for ty in &kernel.regs {
        offsets.push(total);
        total += usize::from(ty.lanes);
    }
    let mut m = Machine {
        kernel,
        memory,
        pointers: Vec::with_capacity(args.len()),
        offsets,
        lanes: vec![0; total],
        carried: Vec::new(),
        failed: false,
    };
    for (param, arg) in kernel.params.iter().zip(args) {
        m.bind(param, arg).map_err(|e| in_kernel(&e))?;
    }
    for task in tasks {
        m.set(kernel.task, 0, task);
        if let Some(w) = kernel.worker {
            m.set(w, 0, 0);
        }
        m.block(&kernel.body).map_err(|e| in_kernel(&format!("task {task}: {e}")))?;
    }
    Ok(Outcome { failed: m.failed })
}

/// The accessible bytes of a pointer parameter; empty and unused for an integer.
#[derive(Clone, Default)]
struct Pointer {
    buffer: usize,
    bytes: Range<usize>,
    dtype: Option<DType>,
}

struct Machine<'a> {
    kernel: &'a Kernel,
    memory: &'a mut Memory,
    pointers: Vec<Pointer>,
    /// Where in `lanes` each register begins.
    offsets: Vec<usize>,
    /// Bits of every lane of every register: 32-bit elements zero-extended, masks 0 or 1.
    lanes: Vec<u64>,
    /// Stack of values on their way from a block's yields to their destinations, which may overlap.
    carried: Vec<u64>,
    failed: bool,
}

impl Machine<'_> {
    fn bind(&mut self, param: &Param, arg: &Arg) -> Result<(), String> {
        let mut pointer = Pointer::default();
        match (param, arg) {
            (Param::Int { reg, .. }, Arg::Int(v)) => self.set(*reg, 0, *v as u64),
            (Param::Ptr { name, dtype, .. }, Arg::Ptr { .. } | Arg::Window { .. }) => {
                let (buffer, bytes) = match arg {
                    Arg::Ptr { buffer, byte_offset } => (*buffer, *byte_offset..usize::MAX),
                    Arg::Window { buffer, bytes } => (*buffer, bytes.clone()),
                    Arg::Int(_) => (0, 0..0),
                };
                let Some(len) = self.memory.buffers.get(buffer).map(Vec::len) else {
                    return Err(format!("parameter '{name}': no buffer {buffer}"));
                };
                let bytes = bytes.start..if bytes.end == usize::MAX { len } else { bytes.end };
                if bytes.start > bytes.end || bytes.end > len {
                    return Err(format!("parameter '{name}': bytes {bytes:?} of a buffer of {len} bytes"));
                }
                pointer = Pointer { buffer, bytes, dtype: Some(*dtype) };
            }
            (Param::Int { name, .. } | Param::Ptr { name, .. }, arg) => {
                return Err(format!("parameter '{name}': wrong kind of argument {arg:?}"));
            }
        }
        self.pointers.push(pointer);
        Ok(())
    }

    fn get(&self, r: Reg, lane: usize) -> u64 {
        self.lanes[self.offsets[r.0 as usize] + lane]
    }

    fn set(&mut self, r: Reg, lane: usize, bits: u64) {
        let at = self.offsets[r.0 as usize] + lane;
        self.lanes[at] = bits;
    }

    fn elem(&self, r: Reg) -> Elem {
        self.kernel.ty(r).elem
    }

    fn width(&self, r: Reg) -> usize {
        usize::from(self.kernel.ty(r).lanes)
    }

    fn map(&mut self, dst: Reg, f: impl Fn(&Self, usize) -> u64) {
        for l in 0..self.width(dst) {
            let bits = f(self, l);
            self.set(dst, l, bits);
        }
    }

    /// Copies `from` to `to` as if all at once.
    fn transfer(&mut self, from: &[Reg], to: &[Reg]) {
        let base = self.carried.len();
        for &r in from {
            let at = self.offsets[r.0 as usize];
            self.carried.extend_from_slice(&self.lanes[at..at + self.width(r)]);
        }
        let mut next = base;
        for &r in to {
            let (at, n) = (self.offsets[r.0 as usize], self.width(r));
            self.lanes[at..at + n].copy_from_slice(&self.carried[next..next + n]);
            next += n;
        }
        self.carried.truncate(base);
    }

    /// The bytes of the first `count` elements of a place.
    fn access(&self, at: &Place, lanes: usize, elem: Elem, what: &str) -> Result<(DType, usize, usize), String> {
        let &Place { ptr, base, index, offset, active: _ } = at;
        let p = &self.pointers[ptr];
        let dtype = p.dtype.ok_or_else(|| format!("{what} through an integer parameter"))?;
        let lane = lane_in_memory(dtype, elem).ok_or_else(|| format!("{what} of {dtype} as {}", elem.name()))?;
        let count = lanes * (lane.size() / dtype.size());
        let base = base.map_or(0, |b| self.get(b, 0) as i64);
        let first = i128::from(base) + i128::from(self.get(index, 0) as i64) + i128::from(offset);
        let len = p.bytes.len() / dtype.size();
        if count == 0 {
            return Ok((lane, p.buffer, p.bytes.start));
        }
        if first < 0 || first + count as i128 > len as i128 {
            let name = match &self.kernel.params[ptr] {
                Param::Ptr { name, .. } | Param::Int { name, .. } => name,
            };
            let last = first + count as i128 - 1;
            let range = if count == 1 { format!("element {first}") } else { format!("elements {first}..={last}") };
            return Err(format!("{what} of {range} of parameter '{name}', which has {len} elements of {dtype}"));
        }
        Ok((lane, p.buffer, p.bytes.start + first as usize * dtype.size()))
    }

    /// How many lanes of `r` an access touches.
    fn active(&self, at: &Place, r: Reg) -> usize {
        let n = self.width(r);
        at.active.map_or(n, |a| (self.get(a, 0) as i64).clamp(0, n as i64) as usize)
    }

    fn block(&mut self, b: &Block) -> Result<(), String> {
        b.insts.iter().try_for_each(|i| self.inst(i))
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), String> {
        match inst {
            Inst::ConstF { dst, value } => {
                let bits = convert(Elem::F64, self.elem(*dst), false, value.to_bits());
                self.map(*dst, |_, _| bits);
            }
            Inst::ConstI { dst, value } => {
                let bits = convert(Elem::I64, self.elem(*dst), false, *value as u64);
                self.map(*dst, |_, _| bits);
            }
            Inst::Un { dst, op, a } => {
                let e = self.elem(*a);
                self.map(*dst, |m, l| un(*op, e, m.get(*a, l)));
            }
            Inst::Bin { dst, op, a, b } => {
                let e = self.elem(*a);
                self.map(*dst, |m, l| bin(*op, e, m.get(*a, l), m.get(*b, l)));
            }
            Inst::Fma { dst, a, b, c } => {
                let e = self.elem(*a);
                self.map(*dst, |m, l| fma(e, m.get(*a, l), m.get(*b, l), m.get(*c, l)));
            }
            Inst::Dot { dst, kind: DotKind::Bf16, a, b, c } => {
                self.map(*dst, |m, l| dot_bf16(m.get(*a, l), m.get(*b, l), m.get(*c, l)));
            }
            Inst::Dot { dst, kind, a, b, c } => {
                let lowest = |l: &usize| (self.get(*b, *l) as u32).to_le_bytes().contains(&0x80);
                if *kind == DotKind::I8
                    && let Some(l) = (0..self.width(*b)).find(lowest)
                {
                    return Err(format!("dot i8 by {:#010x} in lane {l}, which holds -128", self.get(*b, l)));
                }
                self.map(*dst, |m, l| dot_bytes(*kind, m.get(*a, l), m.get(*b, l), m.get(*c, l)));
            }
            Inst::Cmp { dst, op, unsigned, a, b } => {
                let e = self.elem(*a);
                self.map(*dst, |m, l| u64::from(cmp(*op, e, *unsigned, m.get(*a, l), m.get(*b, l))));
            }
            Inst::Select { dst, m: mask, a, b } => {
                self.map(*dst, |m, l| if m.get(*mask, l) != 0 { m.get(*a, l) } else { m.get(*b, l) });
            }
            Inst::Convert { dst, a, unsigned } => {
                let (from, to) = (self.elem(*a), self.elem(*dst));
                self.map(*dst, |m, l| convert(from, to, *unsigned, m.get(*a, l)));
            }
            Inst::Bitcast { dst, a } => self.map(*dst, |m, l| m.get(*a, l)),
            Inst::Splat { dst, a } => self.map(*dst, |m, _| m.get(*a, 0)),
            Inst::Extract { dst, a, lane } => self.map(*dst, |m, _| m.get(*a, usize::from(*lane))),
            Inst::Reduce { dst, op, a } => {
                let (e, mut n) = (self.elem(*a), self.width(*a));
                let mut v: Vec<u64> = (0..n).map(|l| self.get(*a, l)).collect();
                while n > 1 {
                    n /= 2;
                    v = (0..n).map(|l| bin(*op, e, v[l], v[l + n])).collect();
                }
                self.set(*dst, 0, v[0]);
            }
            Inst::Zip { dst, high, a, b } => {
                let from = if *high { self.width(*a) / 2 } else { 0 };
                self.map(*dst, |m, l| m.get(if l % 2 == 0 { *a } else { *b }, from + l / 2));
            }
            Inst::Address { dst, ptr: _, index, offset } => {
                // Counted in elements from the pointer; an address itself may lie anywhere.
                let element = (self.get(*index, 0) as i64).wrapping_add(*offset);
                self.set(*dst, 0, element as u64);
            }
            Inst::Load { dst, at } => {
                let n = self.active(at, *dst);
                self.map(*dst, |_, _| 0);
                let (dtype, buffer, start) = self.access(at, n, self.elem(*dst), "load")?;
                let size = dtype.size();
                for l in 0..n {
                    let at = start + l * size;
                    let bits = load(dtype, &self.memory.buffers[buffer][at..at + size]);
                    self.set(*dst, l, bits);
                }
            }
            Inst::Store { at, value } => {
                let n = self.active(at, *value);
                let (dtype, buffer, start) = self.access(at, n, self.elem(*value), "store")?;
                let size = dtype.size();
                for l in 0..n {
                    let bytes = store(dtype, self.get(*value, l)).to_le_bytes();
                    let at = start + l * size;
                    self.memory.buffers[buffer][at..at + size].copy_from_slice(&bytes[..size]);
                }
            }
            Inst::Prefetch { .. } => (),
            Inst::For { dst, var, args, lo, hi, step, init, body } => {
                self.transfer(init, args);
                let hi = self.get(*hi, 0) as i64;
                let mut i = self.get(*lo, 0) as i64;
                while i < hi {
                    self.set(*var, 0, i as u64);
                    self.block(body)?;
                    self.transfer(&body.yields, args);
                    i = i.checked_add(*step).ok_or_else(|| format!("loop counter {i} + {step} overflows"))?;
                }
                self.transfer(args, dst);
            }
            Inst::If { dst, cond, then, otherwise } => {
                let taken = if self.get(*cond, 0) != 0 { then } else { otherwise };
                self.block(taken)?;
                self.transfer(&taken.yields, dst);
            }
            Inst::Fail => self.failed = true,
        }
        Ok(())
    }
}
