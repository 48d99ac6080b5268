//! The structs of `bertc.h`, field by field. `docs/abi.md` is their reference.

use core::ffi::{c_char, c_void};
use core::mem::{offset_of, size_of};

/// The version of the ABI, in [`Model::abi_version`].
pub const ABI_VERSION: u32 = 1;

/// The alignment of a workspace, in bytes.
pub const WORKSPACE_ALIGN: usize = 64;

/// The error codes that a model's `run` returns.
pub mod status {
    /// The outputs are written.
    pub const OK: i32 = 0;
    /// A required pointer is null.
    pub const NULL_POINTER: i32 = 1;
    /// A dim is outside the range of its symbol.
    pub const DIM_OUT_OF_RANGE: i32 = 2;
    /// The workspace has fewer bytes than `workspace_size` says.
    pub const WORKSPACE_TOO_SMALL: i32 = 3;
    /// The workspace's address is not a multiple of 64.
    pub const WORKSPACE_MISALIGNED: i32 = 4;
    /// An index input, such as a token id, is out of range.
    pub const INDEX_OUT_OF_RANGE: i32 = 5;
    /// `max_workers` is 0, `reserved` is not 0, or `parallel_for` is null.
    pub const BAD_PARALLEL: i32 = 6;
    /// `size` is too small, or `flags` has an unknown bit.
    pub const BAD_OPTIONS: i32 = 7;
    /// Compiled for a CPU feature that this machine lacks.
    pub const CPU_UNSUPPORTED: i32 = 8;
}

/// The element types of [`Tensor::dtype`].
pub mod dtype {
    /// IEEE binary32.
    pub const F32: i32 = 0;
    /// IEEE binary16.
    pub const F16: i32 = 1;
    /// The upper half of a binary32.
    pub const BF16: i32 = 2;
    /// IEEE binary64.
    pub const F64: i32 = 3;
    /// Signed, 8 bits.
    pub const I8: i32 = 4;
    /// Unsigned, 8 bits.
    pub const U8: i32 = 5;
    /// Signed, 16 bits.
    pub const I16: i32 = 6;
    /// Unsigned, 16 bits.
    pub const U16: i32 = 7;
    /// Signed, 32 bits.
    pub const I32: i32 = 8;
    /// Unsigned, 32 bits.
    pub const U32: i32 = 9;
    /// Signed, 64 bits.
    pub const I64: i32 = 10;
    /// Unsigned, 64 bits.
    pub const U64: i32 = 11;
    /// One byte, 0 or 1.
    pub const BOOL: i32 = 12;
}

/// The bits of [`Options::cpu_features`].
pub mod cpu_feature {
    /// `sdot` and `udot`.
    pub const DOTPROD: u64 = 1 << 0;
    /// `smmla`, `ummla` and `usmmla`.
    pub const I8MM: u64 = 1 << 1;
    /// `bfdot` and `bfmmla`.
    pub const BF16: u64 = 1 << 2;
}

/// A task of a `parallel_for`: `fn(arg, task, worker)`.
pub type Task = unsafe extern "C" fn(arg: *mut c_void, task: u64, worker: u32);

/// The type of [`Parallel::parallel_for`].
pub type ParallelFor = unsafe extern "C" fn(ctx: *mut c_void, ntasks: u64, task: Task, arg: *mut c_void);

/// `bertc_parallel`: how a model uses threads.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Parallel {
    /// Handed to `parallel_for`.
    pub ctx: *mut c_void,
    /// All workers are below this; at least 1.
    pub max_workers: u32,
    /// 0.
    pub reserved: u32,
    /// Runs `task(arg, i, worker)` for each `i` below `ntasks`, and returns when all have returned.
    pub parallel_for: Option<ParallelFor>,
}

/// `bertc_options`: the nullable last argument of `run`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The size of this struct, in bytes.
    pub size: u32,
    /// 0.
    pub flags: u32,
    /// Bits of [`cpu_feature`]; 0 is the target's baseline.
    pub cpu_features: u64,
}

/// `bertc_symbol`: a named dim and its range, both ends included.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Symbol {
    /// A NUL-terminated string.
    pub name: *const c_char,
    /// The least value.
    pub min: i64,
    /// The greatest value.
    pub max: i64,
}

/// `bertc_dim`: one extent of a tensor.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Dim {
    /// An index into [`Model::symbols`]; -1: `value`; -2: computed, ask `output_shape`.
    pub symbol: i32,
    /// 0.
    pub reserved: i32,
    /// The extent where `symbol` is -1.
    pub value: i64,
}

/// `bertc_tensor`: an input or an output, row-major without padding.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Tensor {
    /// The ONNX name, a NUL-terminated string.
    pub name: *const c_char,
    /// One of [`dtype`].
    pub dtype: i32,
    /// The number of `dims`.
    pub rank: i32,
    /// `rank` dims; may be null where `rank` is 0.
    pub dims: *const Dim,
}

/// The type of [`Model::run`].
pub type Run = unsafe extern "C" fn(
    inputs: *const *const c_void,
    dims: *const i64,
    outputs: *const *mut c_void,
    workspace: *mut c_void,
    workspace_bytes: usize,
    parallel: *const Parallel,
    options: *const Options,
) -> i32;

/// `bertc_model`: the descriptor that each object exports as `NAME_model`.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Model {
    /// [`ABI_VERSION`].
    pub abi_version: u32,
    /// The size of this struct when the object was written, in bytes.
    pub struct_size: u32,
    /// The symbol prefix, a NUL-terminated string.
    pub name: *const c_char,
    /// BLAKE3 of the model and of the compiler's flags, in hex, a NUL-terminated string.
    pub hash: *const c_char,
    /// The number of `symbols`.
    pub n_symbols: u32,
    /// The number of `inputs`.
    pub n_inputs: u32,
    /// The number of `outputs`.
    pub n_outputs: u32,
    /// 0.
    pub reserved: u32,
    /// The named dims, in the order of the `dims` argument.
    pub symbols: *const Symbol,
    /// The inputs, in the order of `run`'s `inputs`.
    pub inputs: *const Tensor,
    /// The outputs, in the order of `run`'s `outputs`.
    pub outputs: *const Tensor,
    /// Bytes of workspace for these dims and this many workers; 0: dims out of range.
    pub workspace_size: unsafe extern "C" fn(dims: *const i64, max_workers: u32) -> usize,
    /// Runs the model.
    pub run: Run,
    /// The text of an error code, a NUL-terminated string in the object.
    pub strerror: unsafe extern "C" fn(code: i32) -> *const c_char,
    /// Writes the extents of an output, `rank` of them, to `shape`.
    pub output_shape: unsafe extern "C" fn(dims: *const i64, output: u32, shape: *mut i64) -> i32,
}

// The layout is part of the ABI: the C test asserts the same numbers on the headers.
#[cfg(target_pointer_width = "64")]
const _: () = {
    assert!(size_of::<Parallel>() == 24 && offset_of!(Parallel, parallel_for) == 16);
    assert!(size_of::<Options>() == 16 && offset_of!(Options, cpu_features) == 8);
    assert!(size_of::<Symbol>() == 24 && size_of::<Dim>() == 16 && size_of::<Tensor>() == 24);
    assert!(size_of::<Model>() == 96);
    assert!(offset_of!(Model, symbols) == 40 && offset_of!(Model, workspace_size) == 64);
    assert!(offset_of!(Model, output_shape) == 88);
};
