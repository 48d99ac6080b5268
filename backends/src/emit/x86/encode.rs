//! Bytes of an allocated function: prologue, instructions with their spills, epilogue, literals.

use iced_x86::{Code, Encoder, IcedError, Instruction, OpKind, Register};

use super::allocate::{Home, Homes, RAX, RDX, SAVED, gpr};
use super::codes;
use super::mir::{Class, Func, Inst, Isa, Item, Mem, Opnd, Role, V, View};
use super::vex::vex;
use super::{Frame, MachineCode};

/// How literals are aligned.
const POOL_ALIGN: usize = 64;

/// What the layout consists of.
enum Part {
    Inst(Instruction),
    /// A jump to a label.
    Jump(Code, u32),
    /// A label and its alignment.
    Label(u32, usize),
    /// What holds of the frame from here on.
    Frame(Frame),
}

/// Writes the function.
///
/// # Errors
/// An instruction has no encoding, which is a bug of the selection.
pub(super) fn encode(func: &Func, homes: &Homes) -> Result<MachineCode, IcedError> {
    let used = |r: &u8| func.classes.iter().zip(&homes.of).any(|(c, h)| *c == Class::Gpr && *h == Home::Reg(*r));
    let saved: Vec<u8> = SAVED.iter().copied().filter(used).collect();
    let mut w = Writer { func, homes, parts: Vec::new() };
    // Bytes between the stack pointer and what the caller had on the stack: its return address at first.
    let mut depth = 8;
    for &r in &saved {
        w.put(Instruction::with1(Code::Push_r64, gpr(r))?);
        depth += 8;
        w.parts.extend([Part::Frame(Frame::Depth(depth)), Part::Frame(Frame::Saved(r, depth))]);
    }
    let frame = 8 * homes.slots as i32;
    if frame > 0 {
        w.put(Instruction::with2(Code::Sub_rm64_imm32, Register::RSP, frame)?);
        w.parts.push(Part::Frame(Frame::Depth(depth + homes.slots * 8)));
    }
    for item in &func.items {
        w.item(item)?;
    }
    if frame > 0 {
        w.put(Instruction::with2(Code::Add_rm64_imm32, Register::RSP, frame)?);
        w.parts.push(Part::Frame(Frame::Depth(depth)));
    }
    for &r in saved.iter().rev() {
        w.put(Instruction::with1(Code::Pop_r64, gpr(r))?);
        depth -= 8;
        w.parts.extend([Part::Frame(Frame::Depth(depth)), Part::Frame(Frame::Restored(r))]);
    }
    w.put(Instruction::with(Code::VEX_Vzeroupper));
    w.put(Instruction::with(Code::Retnq));
    layout(&w.parts, func)
}

struct Writer<'a> {
    func: &'a Func,
    homes: &'a Homes,
    parts: Vec<Part>,
}

/// An address in registers.
#[derive(Clone, Copy)]
struct Address {
    base: Register,
    index: Register,
    scale: u32,
    disp: i64,
    bcst: bool,
}

fn frame_slot(slot: u32) -> Address {
    Address { base: Register::RSP, index: Register::None, scale: 1, disp: 8 * i64::from(slot), bcst: false }
}

/// Puts a memory operand into an instruction. Without a base the displacement is relative to the literals.
fn set_memory(i: &mut Instruction, operand: u32, a: Address) {
    i.set_op_kind(operand, OpKind::Memory);
    i.set_memory_base(a.base);
    i.set_memory_index(a.index);
    i.set_memory_index_scale(a.scale);
    i.set_memory_displacement64(a.disp as u64);
    let size = if a.base == Register::RIP { 8 } else { u32::from(a.disp != 0) };
    i.set_memory_displ_size(size);
    i.set_is_broadcast(a.bcst);
}

fn view(number: u8, class: Class, view: View) -> Register {
    let n = u32::from(number);
    match (class, view) {
        (Class::Mask, _) => Register::K0 + n,
        (Class::Vec(_), View::Y) => Register::YMM0 + n,
        (Class::Vec(_), View::Z) => Register::ZMM0 + n,
        (Class::Vec(_), _) => Register::XMM0 + n,
        (Class::Gpr, View::D) => Register::EAX + n,
        (Class::Gpr, View::W) => Register::AX + n,
        // With a prefix, the registers 4 to 7 are spl, bpl, sil and dil.
        (Class::Gpr, View::B) => {
            if n < 4 {
                Register::AL + n
            } else {
                Register::SPL + (n - 4)
            }
        }
        (Class::Gpr, _) => gpr(number),
    }
}

impl Writer<'_> {
    fn put(&mut self, i: Instruction) {
        self.parts.push(Part::Inst(i));
    }

    fn home(&self, v: V) -> Home {
        self.homes.of[v.0 as usize]
    }

    fn load(&mut self, to: u8, slot: u32) {
        let mut i = Instruction::default();
        i.set_code(Code::Mov_r64_rm64);
        i.set_op_kind(0, OpKind::Register);
        i.set_op_register(0, gpr(to));
        set_memory(&mut i, 1, frame_slot(slot));
        self.put(i);
    }

    fn store(&mut self, slot: u32, from: u8) {
        let mut i = Instruction::default();
        i.set_code(Code::Mov_rm64_r64);
        set_memory(&mut i, 0, frame_slot(slot));
        i.set_op_kind(1, OpKind::Register);
        i.set_op_register(1, gpr(from));
        self.put(i);
    }

    fn mov(&mut self, to: u8, from: u8) -> Result<(), IcedError> {
        if to != from {
            self.put(Instruction::with2(Code::Mov_r64_rm64, gpr(to), gpr(from))?);
        }
        Ok(())
    }

    /// The register that holds a general register's value: its own, or `scratch`, into which it is loaded.
    fn fetch(&mut self, v: V, scratch: u8) -> u8 {
        match self.home(v) {
            Home::Reg(r) => r,
            Home::Slot(s) => {
                self.load(scratch, s);
                scratch
            }
            Home::None => scratch,
        }
    }

    fn item(&mut self, item: &Item) -> Result<(), IcedError> {
        match item {
            Item::Inst(i) => self.inst(i),
            Item::Copy { dst, src } => self.copy(*dst, *src),
            Item::Label { label, align } => {
                self.parts.push(Part::Label(label.0, *align as usize));
                Ok(())
            }
            Item::Jump { code, label } => {
                self.parts.push(Part::Jump(*code, label.0));
                Ok(())
            }
            Item::Divide { dst, a, b, signed, wide, remainder } => {
                self.divide(*dst, *a, *b, *signed, *wide, *remainder)
            }
            Item::Entry { args, task, worker } => {
                // Registers of the first two are where they arrive, so only stores may precede the third's move.
                let places = [(*args, 7), (*task, 6), (*worker, RDX)];
                for (v, r) in places {
                    if let Home::Slot(s) = self.home(v) {
                        self.store(s, r);
                    }
                }
                for (v, r) in places {
                    if let Home::Reg(to) = self.home(v) {
                        self.mov(to, r)?;
                    }
                }
                Ok(())
            }
        }
    }

    fn copy(&mut self, dst: V, src: V) -> Result<(), IcedError> {
        if self.home(dst) == self.home(src) {
            return Ok(());
        }
        match (self.home(dst), self.home(src)) {
            (Home::Reg(d), Home::Reg(s)) => match self.func.class(dst) {
                Class::Gpr => self.mov(d, s)?,
                Class::Mask => self.put(Instruction::with2(
                    Code::VEX_Kmovw_kr_km16,
                    view(d, Class::Mask, View::K),
                    view(s, Class::Mask, View::K),
                )?),
                Class::Vec(size) => {
                    let v = [View::X, View::Y, View::Z][usize::from(size.min(2))];
                    let class = Class::Vec(size);
                    let code = codes::MOVAPS[usize::from(size.min(2))];
                    let narrow = if self.func.isa == Isa::Avx2 { vex(code, false) } else { None };
                    self.put(Instruction::with2(narrow.unwrap_or(code), view(d, class, v), view(s, class, v))?);
                }
            },
            (Home::Slot(slot), _) => {
                let r = self.fetch(src, RAX);
                self.store(slot, r);
            }
            (Home::Reg(d), Home::Slot(slot)) => self.load(d, slot),
            (Home::None, _) | (_, Home::None) => (),
        }
        Ok(())
    }

    fn divide(&mut self, dst: V, a: V, b: V, signed: bool, wide: bool, remainder: bool) -> Result<(), IcedError> {
        let from = self.fetch(a, RAX);
        self.mov(RAX, from)?;
        let prepare = match (signed, wide) {
            (true, true) => Instruction::with(Code::Cqo),
            (true, false) => Instruction::with(Code::Cdq),
            _ => Instruction::with2(Code::Xor_r32_rm32, Register::EDX, Register::EDX)?,
        };
        self.put(prepare);
        let code = match (signed, wide) {
            (true, true) => Code::Idiv_rm64,
            (true, false) => Code::Idiv_rm32,
            (false, true) => Code::Div_rm64,
            (false, false) => Code::Div_rm32,
        };
        let mut i = Instruction::default();
        i.set_code(code);
        match self.home(b) {
            Home::Slot(s) => set_memory(&mut i, 0, frame_slot(s)),
            Home::Reg(r) => {
                i.set_op_kind(0, OpKind::Register);
                i.set_op_register(0, view(r, Class::Gpr, if wide { View::Q } else { View::D }));
            }
            Home::None => return Ok(()),
        }
        self.put(i);
        let result = if remainder { RDX } else { RAX };
        match self.home(dst) {
            Home::Reg(r) => self.mov(r, result)?,
            Home::Slot(s) => self.store(s, result),
            Home::None => (),
        }
        Ok(())
    }

    /// The address of an operand. May load into both scratch registers, but leaves rdx free again if `keep_rdx`.
    fn address(&mut self, m: &Mem, keep_rdx: bool) -> Result<Address, IcedError> {
        if let Some(at) = m.pool {
            let base = Register::RIP;
            return Ok(Address { base, index: Register::None, scale: 1, disp: at.into(), bcst: m.bcst });
        }
        let base = m.base.map(|b| self.fetch(b, RAX));
        let spilled = |s: &Self, v: Option<V>| v.is_some_and(|v| matches!(s.home(v), Home::Slot(_)));
        let index = m.index.map(|(x, scale)| {
            let free = if spilled(self, m.base) { RDX } else { RAX };
            (self.fetch(x, free), scale)
        });
        let mut a = Address {
            base: base.map_or(Register::None, gpr),
            index: index.map_or(Register::None, |(x, _)| gpr(x)),
            scale: index.map_or(1, |(_, s)| s),
            disp: m.disp.into(),
            bcst: m.bcst,
        };
        if keep_rdx && a.index == Register::RDX {
            let mut i = Instruction::default();
            i.set_code(Code::Lea_r64_m);
            i.set_op_kind(0, OpKind::Register);
            i.set_op_register(0, gpr(RAX));
            set_memory(&mut i, 1, Address { bcst: false, ..a });
            self.put(i);
            a = Address { base: gpr(RAX), index: Register::None, scale: 1, disp: 0, bcst: m.bcst };
        }
        Ok(a)
    }

    fn inst(&mut self, inst: &Inst) -> Result<(), IcedError> {
        let mut i = Instruction::default();
        i.set_code(inst.code);
        let in_slot = |s: &Self, o: &Opnd| matches!(o, Opnd::Reg(v, ..) if matches!(s.home(*v), Home::Slot(_)));
        // Values that are read from the stack beside an address.
        let reads = |o: &&Opnd| matches!(o, Opnd::Reg(_, _, Role::Use | Role::Mod)) && in_slot(self, o);
        let beside = inst.ops.iter().filter(reads).count();
        // Without an address the values have both scratch registers, with one they have rdx.
        let memory = inst.ops.iter().any(|o| matches!(o, Opnd::Mem(_)));
        for (n, o) in inst.ops.iter().enumerate() {
            if let Opnd::Mem(m) = o {
                let a = self.address(m, beside > 0)?;
                set_memory(&mut i, n as u32, a);
            }
        }
        let mut scratch = if memory { vec![RDX] } else { vec![RDX, RAX] };
        let mut store = None;
        for (n, o) in inst.ops.iter().enumerate() {
            match o {
                Opnd::Mem(_) => (),
                Opnd::Imm(kind, value) => {
                    i.set_op_kind(n as u32, *kind);
                    i.set_immediate_i64(n as u32, *value);
                }
                Opnd::Reg(v, part, role) => {
                    let number = match self.home(*v) {
                        Home::Reg(r) => r,
                        // What is only written needs a place of its own beside nothing: inputs are read before.
                        Home::Slot(slot) if *role == Role::Def => {
                            store = Some((slot, RAX));
                            RAX
                        }
                        Home::Slot(slot) => {
                            let to = scratch.pop().unwrap_or(RAX);
                            self.load(to, slot);
                            if *role == Role::Mod {
                                store = Some((slot, to));
                            }
                            to
                        }
                        Home::None => RAX,
                    };
                    i.set_op_kind(n as u32, OpKind::Register);
                    i.set_op_register(n as u32, view(number, self.func.class(*v), *part));
                }
            }
        }
        if let Some(k) = inst.mask
            && let Home::Reg(r) = self.home(k)
        {
            i.set_op_mask(view(r, Class::Mask, View::K));
            i.set_zeroing_masking(inst.zeroing);
        }
        self.put(i);
        if let Some((slot, from)) = store {
            self.store(slot, from);
        }
        Ok(())
    }
}

/// Bytes of no operation, as long as asked: the forms that the manuals recommend.
fn pad(out: &mut Vec<u8>, mut n: usize) {
    const NOPS: [&[u8]; 9] = [
        &[0x90],
        &[0x66, 0x90],
        &[0x0f, 0x1f, 0x00],
        &[0x0f, 0x1f, 0x40, 0x00],
        &[0x0f, 0x1f, 0x44, 0x00, 0x00],
        &[0x66, 0x0f, 0x1f, 0x44, 0x00, 0x00],
        &[0x0f, 0x1f, 0x80, 0x00, 0x00, 0x00, 0x00],
        &[0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
        &[0x66, 0x0f, 0x1f, 0x84, 0x00, 0x00, 0x00, 0x00, 0x00],
    ];
    while n > 0 {
        let k = n.min(NOPS.len());
        out.extend(NOPS[k - 1]);
        n -= k;
    }
}

/// Assigns addresses and writes the bytes. Jumps always have four bytes of displacement and so have addresses of
/// literals, so the first pass already knows every size.
fn layout(parts: &[Part], func: &Func) -> Result<MachineCode, IcedError> {
    let mut labels = vec![0u64; func.labels as usize];
    let mut pool = 0;
    let (mut out, mut frame) = (Vec::new(), Vec::new());
    for _ in 0..2 {
        out.clear();
        frame.clear();
        let mut encoder = Encoder::try_new(64)?;
        for part in parts {
            let at = out.len() as u64;
            let inst = match part {
                Part::Label(l, align) => {
                    let to = out.len().next_multiple_of((*align).max(1));
                    let missing = to - out.len();
                    pad(&mut out, missing);
                    labels[*l as usize] = out.len() as u64;
                    continue;
                }
                Part::Frame(f) => {
                    frame.push((out.len() as u32, *f));
                    continue;
                }
                Part::Jump(code, l) => Instruction::with_branch(*code, labels[*l as usize])?,
                Part::Inst(i) if i.memory_base() == Register::RIP => {
                    let mut i = *i;
                    i.set_memory_displacement64(i.memory_displacement64().wrapping_add(pool));
                    i
                }
                Part::Inst(i) => *i,
            };
            encoder.encode(&inst, at)?;
            let mut bytes = encoder.take_buffer();
            out.append(&mut bytes);
            encoder.set_buffer(bytes);
        }
        if !func.pool.is_empty() {
            let to = out.len().next_multiple_of(POOL_ALIGN);
            out.resize(to, 0xcc);
            pool = to as u64;
            out.extend(&func.pool);
        }
    }
    Ok(MachineCode { bytes: out, frame })
}
