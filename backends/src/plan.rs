//! The scheduled program: kernels, the steps that call them, and where every buffer lives. What lowering hands to the
//! emitters and the object writer.

use bertc_ir::kernel::Kernel;
use bertc_ir::{Dim, Symbols, Tensor, TensorType};

/// Alignment of the workspace, of each slot in it, and of constants, in bytes.
pub const ALIGN: u64 = 64;

/// A compiled model before code emission.
#[derive(Clone, Debug)]
pub struct Program {
    /// The model's name: prefix of its symbols.
    pub name: String,
    /// Symbolic dims, in the order of the `dims` argument.
    pub symbols: Symbols,
    /// Inputs in order.
    pub inputs: Vec<PortSpec>,
    /// Outputs in order.
    pub outputs: Vec<PortSpec>,
    /// Distinct kernels; steps share them.
    pub kernels: Vec<Kernel>,
    /// Constant data, one blob each.
    pub consts: Vec<ConstData>,
    /// Temporary buffers.
    pub buffers: Vec<Buffer>,
    /// Memory slots of the arena.
    pub slots: Vec<Slot>,
    /// Calls in order. A step that can fail comes before every step that writes an output.
    pub steps: Vec<Step>,
}

/// A named input or output with its type.
#[derive(Clone, Debug)]
pub struct PortSpec {
    /// Name as in the model.
    pub name: String,
    /// Type; an input's dims are constants or plain symbols.
    pub ty: TensorType,
}

/// A temporary tensor in the arena.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// Size in bytes.
    pub bytes: Dim,
    /// Index into [`Program::slots`].
    pub slot: usize,
    /// First step that writes it.
    pub first: usize,
    /// Last step that reads it.
    pub last: usize,
}

/// A piece of the arena, as large as its largest occupant. Slots lie one after the other, each aligned to [`ALIGN`].
#[derive(Clone, Debug, Default)]
pub struct Slot {
    /// Sizes in bytes of the buffers that share it, distinct; its size is their maximum at run time.
    pub sizes: Vec<Dim>,
}

/// One kernel call.
#[derive(Clone, Debug)]
pub struct Step {
    /// Index into [`Program::kernels`].
    pub kernel: usize,
    /// One per kernel parameter.
    pub args: Vec<Arg>,
    /// Number of tasks: the product of ceil(extent / chunk) over the factors; 1 without factors.
    pub tasks: Vec<(Dim, Chunk)>,
    /// Whether it may set the error flag.
    pub fallible: bool,
    /// What it computes, for listings: op and source node.
    pub source: String,
}

/// How much of an extent one task takes. The results of a step don't depend on it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Chunk {
    /// As much as this.
    Fixed(i64),
    /// An even share of the extent for each worker, rounded up to `multiple` (a power of two) and at most `most` (a
    /// multiple of that).
    Share {
        /// Unit.
        multiple: i64,
        /// Upper bound.
        most: i64,
    },
}

impl From<i64> for Chunk {
    fn from(n: i64) -> Chunk {
        Chunk::Fixed(n)
    }
}

impl Chunk {
    /// The chunk of an extent for a number of workers; at least 1, also of an empty extent.
    pub fn of(self, extent: i64, workers: i64) -> i64 {
        match self {
            Chunk::Fixed(n) => n,
            Chunk::Share { multiple, most } => {
                let share = (extent + workers - 1) / workers;
                ((share + multiple - 1) / multiple * multiple).clamp(multiple, most)
            }
        }
    }

    /// Whether it means something.
    pub fn is_valid(self) -> bool {
        match self {
            Chunk::Fixed(n) => n > 0,
            Chunk::Share { multiple, most } => {
                multiple > 0 && multiple.count_ones() == 1 && most >= multiple && most % multiple == 0
            }
        }
    }
}

impl std::fmt::Display for Chunk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Chunk::Fixed(n) => write!(f, "{n}"),
            Chunk::Share { multiple, most } => write!(f, "share({multiple}, {most})"),
        }
    }
}

impl Step {
    /// Number of tasks at the given dims and number of workers, or `None` on overflow.
    pub fn task_count(&self, dims: &[i64], workers: i64) -> Option<u64> {
        self.tasks.iter().try_fold(1u64, |n, (extent, chunk)| {
            let extent = extent.eval(dims)?;
            let chunk = chunk.of(extent, workers);
            n.checked_mul(u64::try_from(extent).ok()?.div_ceil(u64::try_from(chunk).ok()?))
        })
    }
}

/// What a kernel parameter is bound to.
#[derive(Clone, PartialEq, Debug)]
pub enum Arg {
    /// Address of a buffer.
    Buffer(usize),
    /// Address of an input.
    Input(usize),
    /// Address of an output.
    Output(usize),
    /// Address of a constant.
    Const(usize),
    /// Address of the workers' scratch memory. A worker may use this many bytes (a multiple of [`ALIGN`]) from its number times
    /// as many on, within a task.
    Scratch(u64),
    /// A value computed from the dims.
    Int(Dim),
    /// The chunk of an extent.
    Chunk(Dim, Chunk),
}

/// A constant in the layout the kernels read.
#[derive(Clone, Debug)]
pub struct ConstData {
    /// The source tensors: one, or for a packed matrix several side by side along N, all but the last of a multiple of 16
    /// columns.
    pub parts: Vec<Tensor>,
    /// How its bytes are laid out.
    pub layout: ConstLayout,
}

/// Layout of a constant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConstLayout {
    /// Row-major, as it is.
    Plain,
    /// A [K, N] matrix (with `trans` stored as [N, K]) of floats widened to f32, or of i32, packed as
    /// `[ceil(N/16)][K][16]`, zero-padded.
    Packed {
        /// The source is [N, K].
        trans: bool,
    },
}
