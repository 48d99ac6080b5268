//! The intermediate representations of bertc: the typed tensor IR with symbolic dims, and the kernel IR that every
//! code emitter reads.

#[cfg(any(test, feature = "gen"))]
pub mod arbitrary;
pub mod cost;
pub mod diag;
pub mod dims;
pub mod eval;
pub mod graph;
pub mod infer;
pub mod kernel;
pub mod op;
pub mod tensor;
pub mod text;
pub mod types;
pub mod verify;

pub use diag::{Diag, Loc, Severity, SourceFile};
pub use dims::{Dim, SymbolId, Symbols};
pub use graph::{Graph, Node, Port, ValueId};
pub use op::{Attention, BinaryOp, CmpOp, Linear, MAX_INT8_K, Op, ReduceOp, RowQuant, SumNorm, UnaryOp};
pub use tensor::{Scalar, Tensor};
pub use types::{DType, TensorType};
