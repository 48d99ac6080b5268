//! Kernel IR: structured loops over typed vector registers in SSA form. One kernel is one function of the object;
//! a step of the model calls it once per task. Emitters lower it, templates build it with [`KernelBuilder`].
//!
//! A register holds `lanes` elements of an [`Elem`]. Lanes are 32 bits wide, so only `f32`, `i32` and `mask` registers
//! may have more than one. Memory holds any [`DType`]; loads and stores convert between it and the register's element.
//! Calling convention: `fn(args: *const u64, task: u64, worker: u32)`, where `args[0]` points to the i32 error flag and
//! `args[1 + i]` is parameter `i` (a pointer or an i64).

mod builder;
pub mod interp;
mod lane;
mod names;
mod parse;
mod print;
pub mod verify;

pub use builder::KernelBuilder;
pub use parse::parse;
pub use print::print;
pub use verify::verify;

use crate::op::CmpOp;
use crate::types::DType;

/// An SSA register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct Reg(pub u32);

/// Element of a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Elem {
    /// 32-bit float.
    F32,
    /// 64-bit float; one lane only.
    F64,
    /// 32-bit integer.
    I32,
    /// 64-bit integer; one lane only. Also every index and address computation.
    I64,
    /// Truth value: all ones or all zeros in a vector, a boolean in a single lane.
    Mask,
    /// Address of an element of a pointer parameter's buffer; one lane only.
    Addr,
}

impl Elem {
    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::F64 => "f64",
            Elem::I32 => "i32",
            Elem::I64 => "i64",
            Elem::Mask => "mask",
            Elem::Addr => "addr",
        }
    }

    /// Whether a vector of it exists.
    pub fn vectorises(self) -> bool {
        matches!(self, Elem::F32 | Elem::I32 | Elem::Mask)
    }

    /// The register element that memory of type `d` is loaded as. Narrow integers widen to i32 (by their signedness),
    /// u32 widens to i64, u64 keeps its bits in an i64, halves widen to f32.
    pub fn of(d: DType) -> Elem {
        match d {
            DType::F32 | DType::F16 | DType::BF16 => Elem::F32,
            DType::F64 => Elem::F64,
            DType::I8 | DType::U8 | DType::I16 | DType::U16 | DType::I32 => Elem::I32,
            DType::U32 | DType::I64 | DType::U64 => Elem::I64,
            DType::Bool => Elem::Mask,
        }
    }
}

/// What a lane of `elem` is in memory of `dtype`, if a load or store can go between them: the dtype itself, which
/// converts, or for i32 and bf16 two elements as they are, which an i32 holds.
pub fn lane_in_memory(dtype: DType, elem: Elem) -> Option<DType> {
    match (dtype, elem) {
        (DType::BF16, Elem::I32) => Some(DType::I32),
        _ => (Elem::of(dtype) == elem).then_some(dtype),
    }
}

/// Type of a register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RegType {
    /// Element.
    pub elem: Elem,
    /// Number of lanes; 1 is a scalar.
    pub lanes: u8,
}

impl RegType {
    /// One lane of `elem`.
    pub const fn scalar(elem: Elem) -> Self {
        RegType { elem, lanes: 1 }
    }

    /// `lanes` lanes of `elem`.
    pub const fn vector(elem: Elem, lanes: u8) -> Self {
        RegType { elem, lanes }
    }
}

/// A parameter: a buffer or a run-time integer.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Param {
    /// Pointer to elements of a type. Distinct pointers may alias only if none of them is written, or if every element
    /// is read before it is written by the same task.
    Ptr {
        /// Name in text.
        name: String,
        /// Element type in memory.
        dtype: DType,
        /// Whether the kernel writes it.
        write: bool,
    },
    /// An i64 (a dim, a stride, a count), available as the register `reg`.
    Int {
        /// Name in text.
        name: String,
        /// The register that holds it.
        reg: Reg,
    },
}

impl Param {
    /// The element type of a pointer.
    pub fn dtype(&self) -> Option<DType> {
        match self {
            Param::Ptr { dtype, .. } => Some(*dtype),
            Param::Int { .. } => None,
        }
    }
}

/// Operations of one register.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Un {
    /// Negation.
    Neg,
    /// Absolute value.
    Abs,
    /// Square root (float).
    Sqrt,
    /// Largest integer not above (float).
    Floor,
    /// Smallest integer not below (float).
    Ceil,
    /// Nearest, ties to even (float).
    Nearest,
    /// Toward zero (float).
    Trunc,
    /// Bitwise not (integer, mask).
    Not,
}

/// Operations of two registers of one type.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Bin {
    /// Sum (integers wrap).
    Add,
    /// Difference (integers wrap).
    Sub,
    /// Product (integers wrap).
    Mul,
    /// Quotient; integers: signed, toward zero, x/0 = 0, MIN/-1 wraps; single lane only.
    Div,
    /// Integer remainder with the dividend's sign, x%0 = 0; single lane only.
    Rem,
    /// Unsigned integer quotient, x/0 = 0; single lane only.
    DivU,
    /// Unsigned integer remainder, x%0 = 0; single lane only.
    RemU,
    /// Smaller; floats: NaN if either is; integers signed.
    Min,
    /// Larger; floats: NaN if either is; integers signed.
    Max,
    /// Bitwise and (integer, mask).
    And,
    /// Bitwise or (integer, mask).
    Or,
    /// Bitwise exclusive or (integer, mask).
    Xor,
    /// Left shift; the amount is taken modulo the width (integer).
    Shl,
    /// Arithmetic right shift (integer).
    ShrS,
    /// Logical right shift (integer).
    ShrU,
}

/// What the lanes of a [`Inst::Dot`]'s factors hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum DotKind {
    /// Two bf16 each, the first in the low half; the sum is an f32.
    Bf16,
    /// Four signed bytes each, the first in the lowest byte; no byte of b is -128, so that b may change its signs. The sum
    /// is an i32, exact but for wrapping, as it is of the kinds below.
    I8,
    /// Four signed bytes each, of any values.
    I8Full,
    /// Four bytes each, those of a unsigned, those of b signed, of any values.
    U8I8,
}

impl DotKind {
    /// Every kind.
    pub const ALL: [DotKind; 4] = [DotKind::Bf16, DotKind::I8, DotKind::I8Full, DotKind::U8I8];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            DotKind::Bf16 => "bf16",
            DotKind::I8 => "i8",
            DotKind::I8Full => "i8_full",
            DotKind::U8I8 => "u8i8",
        }
    }

    /// The element of the sums.
    pub fn sum(self) -> Elem {
        match self {
            DotKind::Bf16 => Elem::F32,
            DotKind::I8 | DotKind::I8Full | DotKind::U8I8 => Elem::I32,
        }
    }

    /// Products in a lane.
    pub fn products(self) -> usize {
        match self {
            DotKind::Bf16 => 2,
            DotKind::I8 | DotKind::I8Full | DotKind::U8I8 => 4,
        }
    }
}

/// Where a load or store goes: `ptr[index + offset]`, or from `base` on instead of the pointer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// Parameter number of a pointer.
    pub ptr: usize,
    /// An address in the same buffer, from [`Inst::Address`], that stands for the pointer.
    pub base: Option<Reg>,
    /// Element index, an i64.
    pub index: Reg,
    /// Added to the index.
    pub offset: i64,
    /// Number of lanes, an i64, that are accessed; the first ones. The others load zero and store nothing. Below 0 is
    /// 0, more than there are is all.
    pub active: Option<Reg>,
}

/// A sequence of instructions; `yields` are its results (loop-carried values, or an `if`'s values).
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Block {
    /// Instructions in order.
    pub insts: Vec<Inst>,
    /// Results.
    pub yields: Vec<Reg>,
}

/// An instruction. `dst` is defined here, exactly once in the kernel.
#[derive(Clone, PartialEq, Debug)]
pub enum Inst {
    /// A float constant in every lane (f32 rounds it to nearest).
    ConstF {
        /// Result: f32 or f64.
        dst: Reg,
        /// Value.
        value: f64,
    },
    /// An integer constant in every lane; for a mask 0 is false.
    ConstI {
        /// Result: i32, i64 or mask.
        dst: Reg,
        /// Value.
        value: i64,
    },
    /// One operand; result of the same type.
    Un {
        /// Result.
        dst: Reg,
        /// Operation.
        op: Un,
        /// Operand.
        a: Reg,
    },
    /// Two operands of one type; result of the same type (shifts: the amount has the same type too).
    Bin {
        /// Result.
        dst: Reg,
        /// Operation.
        op: Bin,
        /// Left operand.
        a: Reg,
        /// Right operand.
        b: Reg,
    },
    /// a·b + c on floats: fused where the target has the instruction, two roundings where not.
    Fma {
        /// Result.
        dst: Reg,
        /// Factor.
        a: Reg,
        /// Factor.
        b: Reg,
        /// Addend.
        c: Reg,
    },
    /// c plus the dot product of the small vectors in each lane of a and b. Of bf16, which sum is rounded first, and how
    /// often, is the target's choice, and so is whether denormals count as 0; of bytes it is exact and wraps.
    Dot {
        /// Result: a vector of [`DotKind::sum`].
        dst: Reg,
        /// What the lanes hold.
        kind: DotKind,
        /// Factors, i32.
        a: Reg,
        /// Factors, i32.
        b: Reg,
        /// Addend, of the result's type.
        c: Reg,
    },
    /// Comparison; the result is a mask with the operands' lanes. NaN compares false, except `ne`. `unsigned` is for
    /// integers.
    Cmp {
        /// Result.
        dst: Reg,
        /// Predicate.
        op: CmpOp,
        /// Compare integers as unsigned.
        unsigned: bool,
        /// Left operand.
        a: Reg,
        /// Right operand.
        b: Reg,
    },
    /// `m ? a : b` lane by lane.
    Select {
        /// Result.
        dst: Reg,
        /// Mask with the operands' lanes.
        m: Reg,
        /// Value where true.
        a: Reg,
        /// Value where false.
        b: Reg,
    },
    /// Value conversion to the result's element (same lanes): int → float rounds to nearest, float → int truncates,
    /// saturates and maps NaN to 0, i64 → i32 wraps, mask → number is 0 or 1, number → mask is `!= 0`. With `unsigned`
    /// the integer side is unsigned (i32 → i64 zero-extends).
    Convert {
        /// Result.
        dst: Reg,
        /// Operand.
        a: Reg,
        /// Treat the integer as unsigned.
        unsigned: bool,
    },
    /// Same bits as another element of the same width (f32 ↔ i32, f64 ↔ i64).
    Bitcast {
        /// Result.
        dst: Reg,
        /// Operand.
        a: Reg,
    },
    /// A scalar in every lane.
    Splat {
        /// Result, a vector.
        dst: Reg,
        /// Scalar of the same element.
        a: Reg,
    },
    /// One lane of a vector.
    Extract {
        /// Result, a scalar.
        dst: Reg,
        /// The vector.
        a: Reg,
        /// Which lane.
        lane: u8,
    },
    /// The lanes' combination with `op`, pairwise: lane i with lane i + n/2, then the same for the first half.
    Reduce {
        /// Result, a scalar.
        dst: Reg,
        /// `add`, `min` or `max`.
        op: Bin,
        /// The vector.
        a: Reg,
    },
    /// Lanes of two vectors by turns: `a[i], b[i], a[i+1], b[i+1], …`, as many as one has, from their first halves or from
    /// their second ones. Of the rows of a square matrix, row i with row i + n/2, the log2 n-th time, it is the transpose.
    Zip {
        /// Result, a vector of the same type.
        dst: Reg,
        /// Whether it is of the second halves.
        high: bool,
        /// Where even lanes come from.
        a: Reg,
        /// Where odd lanes come from.
        b: Reg,
    },
    /// The address of `ptr[index + offset]`.
    Address {
        /// Result.
        dst: Reg,
        /// Parameter number of a pointer.
        ptr: usize,
        /// Element index, an i64.
        index: Reg,
        /// Added to the index.
        offset: i64,
    },
    /// Consecutive elements, converted as [`Elem::of`] says, or pairs of bf16: see [`lane_in_memory`]. No alignment is
    /// assumed.
    Load {
        /// Result: its element is `Elem::of` the pointer's dtype, or i32 for pairs of bf16.
        dst: Reg,
        /// The first element.
        at: Place,
    },
    /// Stores consecutive elements: f32 rounds to a half type, wide integers wrap to narrow ones, a mask
    /// becomes bytes 0 or 1.
    Store {
        /// The first element, of a writable pointer.
        at: Place,
        /// What to store: its element is `Elem::of` the pointer's dtype, or i32 for pairs of bf16.
        value: Reg,
    },
    /// Says that the cache line of an element will be wanted soon: in the second cache, where the target can say so. The
    /// element need not exist.
    Prefetch {
        /// The element; all lanes count.
        at: Place,
    },
    /// `for var = lo; var < hi; var += step` with loop-carried values: `args` start as `init`, then are the body's
    /// yields; after the loop `dst` are their last values.
    For {
        /// Results, as many as `init`.
        dst: Vec<Reg>,
        /// Induction variable, an i64.
        var: Reg,
        /// Carried values inside the body.
        args: Vec<Reg>,
        /// First value, an i64.
        lo: Reg,
        /// Bound, an i64.
        hi: Reg,
        /// Positive step.
        step: i64,
        /// Values before the first iteration.
        init: Vec<Reg>,
        /// The body.
        body: Block,
    },
    /// `cond ? then : otherwise`; `dst` are the taken block's yields.
    If {
        /// Results.
        dst: Vec<Reg>,
        /// A scalar mask.
        cond: Reg,
        /// Taken when true.
        then: Block,
        /// Taken when false.
        otherwise: Block,
    },
    /// Sets the call's error flag ("index out of range") and goes on.
    Fail,
}

/// One function of the object.
#[derive(Clone, PartialEq, Debug)]
pub struct Kernel {
    /// Name; identifies the kernel in symbols and listings.
    pub name: String,
    /// Parameters in the order of the argument array.
    pub params: Vec<Param>,
    /// Type of every register.
    pub regs: Vec<RegType>,
    /// The i64 register that holds the task's number.
    pub task: Reg,
    /// The i64 register that holds the number of the worker that runs the task, where the kernel asks for it.
    pub worker: Option<Reg>,
    /// Whether the order of instructions is chosen with care, so that an emitter keeps it and moves nothing.
    pub ordered: bool,
    /// The body; yields nothing.
    pub body: Block,
}

impl Kernel {
    /// Type of a register.
    pub fn ty(&self, r: Reg) -> RegType {
        self.regs[r.0 as usize]
    }
}
