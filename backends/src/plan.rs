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
    pub tasks: Vec<(Dim, i64)>,
    /// Whether it may set the error flag.
    pub fallible: bool,
    /// What it computes, for listings: op and source node.
    pub source: String,
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
