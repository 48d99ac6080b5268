//! The scheduled program: kernels, the steps that call them, and where every buffer lives. What lowering hands to the
//! emitters and the object writer; `docs/scheduled-ir.md` describes its text form.

use bertc_ir::kernel::Kernel;
use bertc_ir::text::resource_key;
use bertc_ir::{DType, Diag, Dim, Symbols, Tensor, TensorType};

use crate::sparse::Blocks;

/// Alignment of the workspace, of each slot in it, and of constants, in bytes.
pub const ALIGN: u64 = 64;

/// A compiled model before code emission.
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug)]
pub struct PortSpec {
    /// Name as in the model.
    pub name: String,
    /// Type; an input's dims are constants or plain symbols.
    pub ty: TensorType,
}

/// A temporary tensor in the arena.
#[derive(Clone, PartialEq, Debug)]
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
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Slot {
    /// Sizes in bytes of the buffers that share it, distinct; its size is their maximum at run time.
    pub sizes: Vec<Dim>,
}

/// One kernel call.
#[derive(Clone, PartialEq, Debug)]
pub struct Step {
    /// Index into [`Program::kernels`].
    pub kernel: usize,
    /// One per kernel parameter.
    pub args: Vec<Arg>,
    /// Number of tasks: the product of ceil(extent / chunk) over the factors; 1 without factors.
    pub tasks: Vec<(Dim, Chunk)>,
    /// Whether it may set the error flag.
    pub fallible: bool,
    /// Pairs (o, i) of arguments that may have the same memory: the kernel reads each element of argument i before
    /// it writes that element of argument o, in the same task, and no other task touches it, whatever the chunks are.
    /// Stated by the template that built the kernel; elements of both have one size, and lie at equal offsets.
    pub in_place: Vec<(usize, usize)>,
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

    /// Whether the buffer `over` may lie where the buffer `under` does during this step: the step is bound to `over`
    /// once, and each of its bindings to `under` may share memory with that one.
    pub fn may_overwrite(&self, over: usize, under: usize) -> bool {
        let bound = |b: usize| (0..self.args.len()).filter(move |&i| self.args[i] == Arg::Buffer(b));
        let mut written = bound(over);
        let (Some(o), None) = (written.next(), written.next()) else { return false };
        over != under && bound(under).next().is_some() && bound(under).all(|i| self.in_place.contains(&(o, i)))
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
    /// as many on, within a task. Several parameters of a step have memory of their own each.
    Scratch(u64),
    /// The scratch memory of an earlier argument, which may have elements of another type here.
    Again(usize),
    /// A value computed from the dims.
    Int(Dim),
    /// The chunk of an extent.
    Chunk(Dim, Chunk),
}

/// A constant in the layout the kernels read.
#[derive(Clone, PartialEq, Debug)]
pub struct ConstData {
    /// The source tensors: one, or for a packed matrix several side by side along N, all but the last of a multiple of 16
    /// columns.
    pub parts: Vec<Part>,
    /// How its bytes are laid out.
    pub layout: ConstLayout,
}

/// A source tensor of a constant.
#[derive(Clone, Debug)]
pub enum Part {
    /// With its elements.
    Tensor(Tensor),
    /// Without them, as it is read from text.
    Elided {
        /// Element type.
        dtype: DType,
        /// Dims, outermost first.
        shape: Vec<usize>,
        /// What [`resource_key`] gives for the elements.
        key: String,
    },
}

impl Part {
    /// Element type.
    pub fn dtype(&self) -> DType {
        match self {
            Part::Tensor(t) => t.dtype(),
            Part::Elided { dtype, .. } => *dtype,
        }
    }

    /// Dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        match self {
            Part::Tensor(t) => t.shape(),
            Part::Elided { shape, .. } => shape,
        }
    }

    /// Size in bytes, or `None` on overflow.
    pub fn size(&self) -> Option<u64> {
        let size = self.shape().iter().try_fold(self.dtype().size(), |n, &d| n.checked_mul(d))?;
        u64::try_from(size).ok()
    }

    /// The tensor.
    ///
    /// # Errors
    /// The part is elided.
    pub fn tensor(&self) -> Result<&Tensor, Diag> {
        match self {
            Part::Tensor(t) => Ok(t),
            Part::Elided { key, .. } => Err(Diag::new(format!("the elements of the constant \"{key}\" are not there"))
                .note("the program was read from text without its weights")),
        }
    }
}

impl PartialEq for Part {
    /// Bitwise equality of tensors; an elided part equals every tensor that it may stand for.
    fn eq(&self, o: &Part) -> bool {
        let key = |p: &Part| match p {
            Part::Tensor(t) => resource_key(t),
            Part::Elided { key, .. } => key.clone(),
        };
        match (self, o) {
            (Part::Tensor(a), Part::Tensor(b)) => a == b,
            _ => self.dtype() == o.dtype() && self.shape() == o.shape() && key(self) == key(o),
        }
    }
}

impl From<Tensor> for Part {
    fn from(t: Tensor) -> Part {
        Part::Tensor(t)
    }
}

/// Layout of a constant.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum ConstLayout {
    /// Row-major, as it is.
    Plain,
    /// Row-major, one tensor of floats rounded to bf16.
    Rounded,
    /// A [K, N] matrix (with `trans` stored as [N, K]) packed as `[ceil(N/16)][K/g][16][g]` with g elements of
    /// neighbouring rows in a lane, zero-padded.
    Packed {
        /// The source is [N, K].
        trans: bool,
        /// What a lane holds.
        lane: Lane,
    },
    /// The sums of the columns of an i8 matrix, or of several side by side, i32.
    Sums {
        /// The source is [N, K].
        trans: bool,
    },
    /// One of the three arrays that hold the blocks of a [K, N] matrix which are not zero: see [`crate::sparse`].
    Sparse {
        /// The source is [N, K].
        trans: bool,
        /// What a lane holds.
        lane: Lane,
        /// Size and order of the blocks.
        blocks: Blocks,
        /// How many there are.
        count: u32,
        /// Which array.
        array: SparseArray,
    },
}

/// An array of a sparse matrix.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum SparseArray {
    /// Where each run of blocks starts, i32: one more than there are runs.
    Starts,
    /// Where each block lies in its run, u16.
    Indices,
    /// The blocks' lanes.
    Values,
}

impl SparseArray {
    /// Every one, in the order of kernels' parameters.
    pub const ALL: [SparseArray; 3] = [SparseArray::Starts, SparseArray::Indices, SparseArray::Values];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            SparseArray::Starts => "starts",
            SparseArray::Indices => "indices",
            SparseArray::Values => "values",
        }
    }
}

/// What 32 bits of a packed matrix hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    /// One element (g = 1): an i32, or a float widened to f32.
    One,
    /// Two bf16 (g = 2), that floats are rounded to. K is even.
    Bf16x2,
    /// Four i8 (g = 4). K is a multiple of 4.
    I8x4,
}

impl Lane {
    /// Elements of a lane, g.
    pub fn elements(self) -> usize {
        match self {
            Lane::One => 1,
            Lane::Bf16x2 => 2,
            Lane::I8x4 => 4,
        }
    }

    /// The type of the elements, of a matrix of floats or of integers.
    pub fn dtype(self) -> DType {
        match self {
            Lane::One => DType::F32,
            Lane::Bf16x2 => DType::BF16,
            Lane::I8x4 => DType::I8,
        }
    }
}
