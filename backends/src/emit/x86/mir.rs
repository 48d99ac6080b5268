//! Machine instructions over virtual registers: what selection makes, allocation colours and encoding writes.

use bertc_ir::kernel::{Elem, RegType};
use iced_x86::{Code, OpKind};

/// A virtual register. May be defined more than once (values that a loop carries).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct V(pub u32);

/// The instructions of a function.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Isa {
    /// EVEX forms, 32 registers of up to 16 lanes, masks of their own.
    #[default]
    Avx512,
    /// VEX forms, 16 registers of up to 8 lanes; the mask of a vector is one whose lanes are all ones or zeros.
    Avx2,
}

impl Isa {
    /// Lanes of its widest registers.
    pub fn lanes(self) -> u8 {
        match self {
            Isa::Avx512 => 16,
            Isa::Avx2 => 8,
        }
    }
}

/// Instructions that not every CPU with an [`Isa`] has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Features {
    /// AVX512_BF16.
    pub bf16: bool,
    /// Dot products of bytes.
    pub vnni: Vnni,
}

/// Which dot products of bytes there are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Vnni {
    /// None.
    #[default]
    None,
    /// Those of AVX-VNNI.
    Vex,
    /// Those of AVX512_VNNI.
    Evex,
}

/// Which registers a virtual register may live in.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Class {
    Gpr,
    /// By the size that a copy must move: 0, 1 and 2 are xmm, ymm and zmm.
    Vec(u8),
    Mask,
}

impl Class {
    /// Of a kernel IR register with AVX-512, which says what it is elsewhere too; where it lives there says
    /// [`Func::class_of`].
    pub fn of(t: RegType) -> Class {
        match (t.elem, t.lanes) {
            (Elem::Mask, 1) | (Elem::I64 | Elem::Addr, _) | (Elem::I32, 1) => Class::Gpr,
            (Elem::Mask, _) => Class::Mask,
            (Elem::F32 | Elem::I32 | Elem::F64, n) => Class::Vec(size_of_lanes(n)),
        }
    }

    /// Whether two classes share their registers.
    pub fn same_file(self, other: Class) -> bool {
        std::mem::discriminant(&self) == std::mem::discriminant(&other)
    }
}

/// Index into the tables of [`super::codes`] and size of a vector register: 0 is xmm, also for scalars.
pub(super) fn size_of_lanes(lanes: u8) -> u8 {
    match lanes {
        16 => 2,
        8 => 1,
        _ => 0,
    }
}

/// Part of a register that an instruction names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum View {
    /// Low byte.
    B,
    /// 16 bits.
    W,
    /// 32 bits.
    D,
    /// 64 bits.
    Q,
    X,
    Y,
    Z,
    K,
}

/// What an instruction does to a register operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Role {
    Use,
    Def,
    /// Reads and overwrites.
    Mod,
    /// Reads bits that don't matter (`xor r, r`).
    Undef,
}

/// A memory operand: a constant of the pool, or `base + index · scale + disp`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Mem {
    pub base: Option<V>,
    pub index: Option<(V, u32)>,
    pub disp: i32,
    /// Byte offset in the literal pool; excludes the rest.
    pub pool: Option<u32>,
    /// One element that the instruction reads for every lane.
    pub bcst: bool,
}

impl Mem {
    /// Byte `disp` of `base`.
    pub fn at(base: V, disp: i32) -> Mem {
        Mem { base: Some(base), disp, ..Mem::default() }
    }

    /// The same place, read as one element for every lane.
    pub fn broadcast(self) -> Mem {
        Mem { bcst: true, ..self }
    }
}

/// An operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Opnd {
    Reg(V, View, Role),
    Mem(Mem),
    Imm(OpKind, i64),
}

/// A register or memory, for the operand that may be either.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Rm {
    R(V),
    M(Mem),
}

/// A machine instruction.
#[derive(Clone, Debug)]
pub(super) struct Inst {
    pub code: Code,
    pub ops: Vec<Opnd>,
    /// Lanes to write.
    pub mask: Option<V>,
    /// Whether lanes that aren't written become 0.
    pub zeroing: bool,
    /// Whether it does more than define registers: stores, or sets flags for the next instruction.
    pub effect: bool,
}

/// A place in the code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Label(pub u32);

/// An item of the code.
#[derive(Clone, Debug)]
pub(super) enum Item {
    Inst(Inst),
    Copy {
        dst: V,
        src: V,
    },
    Label {
        label: Label,
        /// In bytes; 1 for none.
        align: u32,
    },
    Jump {
        code: Code,
        label: Label,
    },
    /// Division by rax and rdx, which it overwrites. The divisor is neither 0 nor, if signed, -1.
    Divide {
        dst: V,
        a: V,
        b: V,
        signed: bool,
        wide: bool,
        remainder: bool,
    },
    /// Defines what the caller passes: the argument array, the task and the worker (in the low half).
    Entry {
        args: V,
        task: V,
        worker: V,
    },
}

impl Item {
    /// Calls `f` with every register and its role.
    pub fn registers(&self, mut f: impl FnMut(V, Role)) {
        match self {
            Item::Inst(i) => {
                let mut uses_of_memory = |m: &Mem| {
                    if let Some(b) = m.base {
                        f(b, Role::Use);
                    }
                    if let Some((x, _)) = m.index {
                        f(x, Role::Use);
                    }
                };
                for o in &i.ops {
                    if let Opnd::Mem(m) = o {
                        uses_of_memory(m);
                    }
                }
                for o in &i.ops {
                    if let Opnd::Reg(v, _, role) = o
                        && *role != Role::Undef
                    {
                        f(*v, *role);
                    }
                }
                if let Some(m) = i.mask {
                    f(m, Role::Use);
                }
            }
            Item::Copy { dst, src } => {
                f(*src, Role::Use);
                f(*dst, Role::Def);
            }
            Item::Divide { dst, a, b, .. } => {
                f(*a, Role::Use);
                f(*b, Role::Use);
                f(*dst, Role::Def);
            }
            Item::Entry { args, task, worker } => {
                for v in [args, task, worker] {
                    f(*v, Role::Def);
                }
            }
            Item::Label { .. } | Item::Jump { .. } => (),
        }
    }

    /// Replaces every register.
    pub fn rename(&mut self, f: impl Fn(V) -> V) {
        match self {
            Item::Inst(i) => {
                for o in &mut i.ops {
                    match o {
                        Opnd::Reg(v, ..) => *v = f(*v),
                        Opnd::Mem(m) => {
                            m.base = m.base.map(&f);
                            m.index = m.index.map(|(x, scale)| (f(x), scale));
                        }
                        Opnd::Imm(..) => (),
                    }
                }
                i.mask = i.mask.map(&f);
            }
            Item::Copy { dst, src } => (*dst, *src) = (f(*dst), f(*src)),
            Item::Divide { dst, a, b, .. } => (*dst, *a, *b) = (f(*dst), f(*a), f(*b)),
            Item::Entry { args, task, worker } => (*args, *task, *worker) = (f(*args), f(*task), f(*worker)),
            Item::Label { .. } | Item::Jump { .. } => (),
        }
    }

    /// Whether it must stay even if nobody reads what it defines.
    fn has_effect(&self) -> bool {
        match self {
            Item::Inst(i) => i.effect,
            Item::Label { .. } | Item::Jump { .. } | Item::Entry { .. } => true,
            Item::Copy { .. } | Item::Divide { .. } => false,
        }
    }
}

/// A function under construction.
#[derive(Default, Debug)]
pub(super) struct Func {
    pub isa: Isa,
    /// What there is beside it.
    pub features: Features,
    /// Class of every virtual register.
    pub classes: Vec<Class>,
    pub items: Vec<Item>,
    /// Loop depth of every item.
    pub depths: Vec<u32>,
    /// Depth of what is added next.
    pub depth: u32,
    pub labels: u32,
    /// Literals, each aligned to its size.
    pub pool: Vec<u8>,
}

impl Func {
    pub fn new_reg(&mut self, class: Class) -> V {
        self.classes.push(class);
        V(self.classes.len() as u32 - 1)
    }

    pub fn new_label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// Where a kernel IR register lives.
    pub fn class_of(&self, t: RegType) -> Class {
        match Class::of(t) {
            Class::Mask if self.isa == Isa::Avx2 => Class::Vec(size_of_lanes(t.lanes)),
            class => class,
        }
    }

    pub fn class(&self, v: V) -> Class {
        self.classes[v.0 as usize]
    }

    pub fn push(&mut self, item: Item) {
        self.items.push(item);
        self.depths.push(self.depth);
    }

    /// The pool's constant with these bytes, of which there are a power of two.
    pub fn literal(&mut self, bytes: &[u8]) -> Mem {
        let size = bytes.len();
        let found = self.pool.chunks_exact(size).position(|c| c == bytes).map(|i| i * size);
        let at = found.unwrap_or_else(|| {
            self.pool.resize(self.pool.len().next_multiple_of(size), 0);
            self.pool.extend(bytes);
            self.pool.len() - size
        });
        Mem { pool: Some(at as u32), ..Mem::default() }
    }

    /// Removes what only defines registers that nobody reads.
    pub fn remove_dead(&mut self) {
        let mut makers: Vec<Vec<usize>> = vec![Vec::new(); self.classes.len()];
        let mut live = vec![false; self.items.len()];
        let mut work = Vec::new();
        for (i, item) in self.items.iter().enumerate() {
            item.registers(|v, role| {
                if role != Role::Use {
                    makers[v.0 as usize].push(i);
                }
            });
            if item.has_effect() {
                live[i] = true;
                work.push(i);
            }
        }
        while let Some(i) = work.pop() {
            self.items[i].registers(|v, role| {
                if role != Role::Def {
                    for m in std::mem::take(&mut makers[v.0 as usize]) {
                        if !live[m] {
                            live[m] = true;
                            work.push(m);
                        }
                    }
                }
            });
        }
        let mut keep = live.iter();
        self.depths.retain({
            let mut keep = live.iter();
            move |_| keep.next().copied().unwrap_or(true)
        });
        self.items.retain(|_| keep.next().copied().unwrap_or(true));
    }
}
