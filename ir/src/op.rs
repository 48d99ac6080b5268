//! The operations of the tensor IR: a closed enum. Every op has one result; numpy broadcasting is implicit in
//! elementwise ops and in the batch dims of `matmul`, nowhere else.

use crate::dims::Dim;
use crate::tensor::Tensor;
use crate::types::DType;

mod fused;

pub use fused::{ACTIVATIONS, Attention, Linear, MAX_INT8_K, RowQuant, SumNorm};

macro_rules! named_enum {
    ($(#[$m:meta])* $name:ident { $($(#[$vm:meta])* $v:ident = $s:literal),* $(,)? }) => {
        $(#[$m])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
        pub enum $name { $($(#[$vm])* $v),* }
        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$v),*];
            /// The name in IR text.
            pub fn name(self) -> &'static str {
                match self { $($name::$v => $s),* }
            }
            /// The variant whose name is `s`.
            pub fn from_name(s: &str) -> Option<$name> {
                match s { $($s => Some($name::$v),)* _ => None }
            }
        }
    };
}

named_enum! {
    /// Elementwise ops of one operand. The result has the operand's type, except for the predicates (bool).
    UnaryOp {
        /// Negation; wraps on integers.
        Neg = "neg",
        /// Absolute value; wraps on integers.
        Abs = "abs",
        /// Sign: -1, 0 or 1 (NaN stays NaN).
        Sign = "sign",
        /// Reciprocal (float).
        Recip = "recip",
        /// Square root (float).
        Sqrt = "sqrt",
        /// e^x (float).
        Exp = "exp",
        /// Natural logarithm (float).
        Log = "log",
        /// Gauss error function (float).
        Erf = "erf",
        /// Hyperbolic tangent (float).
        Tanh = "tanh",
        /// 1 / (1 + e^-x) (float).
        Sigmoid = "sigmoid",
        /// Sine (float).
        Sin = "sin",
        /// Cosine (float).
        Cos = "cos",
        /// x/2 · (1 + erf(x/√2)) (float).
        Gelu = "gelu",
        /// x/2 · (1 + tanh(√(2/π)(x + 0.044715 x³))) (float).
        GeluTanh = "gelu_tanh",
        /// max(x, 0); NaN stays NaN.
        Relu = "relu",
        /// Largest integer not above x (float).
        Floor = "floor",
        /// Smallest integer not below x (float).
        Ceil = "ceil",
        /// Nearest integer, ties to even (float).
        Round = "round",
        /// Logical not of a bool, bitwise not of an integer.
        Not = "not",
        /// Whether x is NaN (float → bool).
        IsNan = "is_nan",
        /// Whether x is ±∞ (float → bool).
        IsInf = "is_inf",
    }
}

named_enum! {
    /// Elementwise ops of two operands of one dtype, with numpy broadcasting.
    BinaryOp {
        /// Sum; wraps on integers.
        Add = "add",
        /// Difference; wraps on integers.
        Sub = "sub",
        /// Product; wraps on integers.
        Mul = "mul",
        /// Quotient; integers truncate toward zero, x/0 is 0 and MIN/-1 wraps.
        Div = "div",
        /// Remainder with the dividend's sign (C's fmod and `%`); integer x%0 is 0.
        Rem = "rem",
        /// Remainder with the divisor's sign (Python's `%`); integer x%0 is 0.
        Mod = "mod",
        /// x^y. Integers by repeated multiplication, wrapping; a negative exponent truncates 1/x^|y| (0^-n is 0).
        Pow = "pow",
        /// Smaller one; NaN if either is NaN.
        Min = "min",
        /// Larger one; NaN if either is NaN.
        Max = "max",
        /// Logical (bool) or bitwise (integer) and.
        And = "and",
        /// Logical (bool) or bitwise (integer) or.
        Or = "or",
        /// Logical (bool) or bitwise (integer) exclusive or.
        Xor = "xor",
        /// x·2^y (integer); by a negative number of bits, or by as many as there are, 0.
        Shl = "shl",
        /// x/2^y, rounded down (integer); by a negative number of bits, or by as many as there are, 0, or -1 of a
        /// negative x.
        Shr = "shr",
    }
}

named_enum! {
    /// Elementwise comparisons of two operands of one dtype; result bool. Comparing with NaN is false, except `ne`.
    CmpOp {
        /// Equal.
        Eq = "eq",
        /// Not equal.
        Ne = "ne",
        /// Less.
        Lt = "lt",
        /// Less or equal.
        Le = "le",
        /// Greater.
        Gt = "gt",
        /// Greater or equal.
        Ge = "ge",
    }
}

named_enum! {
    /// Reductions.
    ReduceOp {
        /// Sum; of no elements 0.
        Sum = "sum",
        /// Arithmetic mean (float).
        Mean = "mean",
        /// Product; of no elements 1.
        Prod = "prod",
        /// Maximum; NaN if any is NaN.
        Max = "max",
        /// Minimum; NaN if any is NaN.
        Min = "min",
    }
}

/// An operation with its attributes. Axes are non-negative. Operand order is given in parentheses.
#[derive(Clone, PartialEq, Debug)]
pub enum Op {
    /// The graph's input number `index` (). Created by [`crate::graph::Graph::add_input`] only.
    Input {
        /// Position in the graph's inputs.
        index: usize,
    },
    /// A constant tensor ().
    Constant(Tensor),
    /// The value of a dim as a rank-0 i64 tensor ().
    Dim(Dim),
    /// `start + i·step` for `i` in `0..len`: a rank-1 i64 tensor ().
    Iota {
        /// Number of elements.
        len: Dim,
        /// First element.
        start: Dim,
        /// Difference of neighbours.
        step: Dim,
    },
    /// Elementwise (x).
    Unary(UnaryOp),
    /// Elementwise with broadcasting (x, y).
    Binary(BinaryOp),
    /// Elementwise with broadcasting, result bool (x, y).
    Compare(CmpOp),
    /// Elementwise with broadcasting: `cond ? x : y` (cond: bool, x, y).
    Select,
    /// Conversion (x). Float → integer truncates toward zero and saturates, NaN gives 0; integer → narrower integer
    /// wraps; anything → bool is `!= 0`; float → narrower float rounds to nearest even.
    Cast(DType),
    /// Reduction over axes (x). With `keep` reduced dims stay as 1.
    Reduce {
        /// What to compute.
        op: ReduceOp,
        /// Axes, ascending and distinct.
        axes: Vec<usize>,
        /// Keep reduced dims as 1.
        keep: bool,
    },
    /// Index (i64) of the first largest (or, with `min`, smallest) element along an axis; the axis is dropped (x).
    ArgMax {
        /// The axis.
        axis: usize,
        /// Smallest instead of largest.
        min: bool,
    },
    /// Inclusive prefix sum along an axis (x).
    CumSum {
        /// The axis.
        axis: usize,
        /// Exclude the element itself.
        exclusive: bool,
        /// From the end to the start.
        reverse: bool,
    },
    /// exp(x - max) / sum over one axis (x, float).
    Softmax {
        /// The axis.
        axis: usize,
    },
    /// (x - mean) / sqrt(var + eps) · gamma + beta over the last axis (x: […, n], gamma and beta: `[n]`; float).
    LayerNorm {
        /// Added to the variance.
        eps: f32,
    },
    /// x / sqrt(mean of x² + eps) · gamma over the last axis (x: […, n], gamma: `[n]`; float).
    RmsNorm {
        /// Added to the mean.
        eps: f32,
    },
    /// Matrix product of the last two dims, batch dims broadcast (a: […, M, K], b: […, K, N] → […, M, N]).
    /// Float or i32. With `trans_b`, b is […, N, K].
    MatMul {
        /// The second operand is stored transposed.
        trans_b: bool,
    },
    /// Permutation of dims: result dim `i` is operand dim `perm[i]` (x).
    Transpose {
        /// The permutation.
        perm: Vec<usize>,
    },
    /// Same elements in row-major order under another shape (x).
    Reshape {
        /// The result's shape; its product equals the operand's.
        shape: Vec<Dim>,
    },
    /// Numpy broadcast to a shape of at least the operand's rank (x).
    Broadcast {
        /// The result's shape.
        shape: Vec<Dim>,
    },
    /// Elements `start, start+step, …` (`len` of them) along one axis (x). In bounds for all dims in range.
    Slice {
        /// The axis.
        axis: usize,
        /// First index.
        start: Dim,
        /// Number of elements taken.
        len: Dim,
        /// Distance; negative runs backwards.
        step: i64,
    },
    /// Concatenation of one or more operands of one dtype along an axis (x…).
    Concat {
        /// The axis.
        axis: usize,
    },
    /// `data` indexed along `axis` by an integer tensor (data, indices: i32|i64): result shape is data's with `axis` replaced by
    /// indices' shape. Negative indices count from the end; others out of range are a run-time error.
    Gather {
        /// The axis.
        axis: usize,
    },
    /// `result[i][j] = data[indices[i][j]][j]` for axis 0 and so on (data, indices: i32|i64, same rank). Run-time check as in `gather`.
    GatherElements {
        /// The axis.
        axis: usize,
    },
    /// ONNX GatherND (data, indices: i32|i64 with a constant last dim). Run-time check as in `gather`.
    GatherNd {
        /// Number of leading dims that data and indices share.
        batch_dims: usize,
    },
    /// The data with `data[indices[i][j]][j] = updates[i][j]` for axis 0 and so on, one after the other in row-major
    /// order (data, indices: i32|i64, updates of the indices' shape). Run-time check as in `gather`.
    ScatterElements {
        /// The axis.
        axis: usize,
        /// `add`, `mul`, `min` or `max` of what is there and the update, instead of the update alone.
        combine: Option<BinaryOp>,
    },
    /// The data with the parts that the tuples along the indices' last dim address replaced, one after the other in
    /// row-major order (data, indices: i32|i64 `[…, k]` with a constant k, updates `[…, data's dims behind the first k]`).
    /// Run-time check as in `gather`.
    ScatterNd {
        /// As in [`Op::ScatterElements`].
        combine: Option<BinaryOp>,
    },
    /// Indices (i64) of the `k` largest or smallest elements along an axis, the most extreme one first and of equal ones
    /// the lower index; NaN is above all numbers (x).
    TopK {
        /// The axis.
        axis: usize,
        /// How many; at least 1, and no more than there are.
        k: Dim,
        /// Smallest instead of largest.
        smallest: bool,
    },
    /// The unit in which [`Op::QuantiseRows`] measures each row (x, and what the attributes name): f32 `[…, 1]`.
    RowScale(RowQuant),
    /// What [`Op::QuantiseRows`] with `offset` makes 0 of each row (x, and what the attributes name): f32 `[…, 1]`.
    RowOffset(RowQuant),
    /// Each row along the last axis as i8 (x, and what the attributes name), of x's shape.
    QuantiseRows(RowQuant),
    /// ONNX QuantizeLinear with one scale: round(x / scale) + zero, to nearest even and saturated; NaN gives 0 (x: f32,
    /// scale: f32 `[]`, zero: i32 `[]`).
    Quantise {
        /// i8 or u8.
        to: DType,
    },
    /// act(a·b + bias) + residual, layer-normalised (a, b, and what the attributes name); f32, bf16 or 8-bit integers.
    Linear(Linear),
    /// softmax(scale·q·kᵀ + mask)·v per head (q, k, v, and with `mask` the mask); f32 or bf16.
    Attention(Attention),
    /// Σ tables\[ids\] + Σ addends, layer-normalised (table, ids, …, addend, …, and with `norm` gamma, beta); f32, bf16 or
    /// i8 with a scale a row.
    SumNorm(SumNorm),
}

impl Op {
    /// The name in IR text.
    pub fn name(&self) -> &'static str {
        match self {
            Op::Input { .. } => "input",
            Op::Constant(_) => "constant",
            Op::Dim(_) => "dim",
            Op::Iota { .. } => "iota",
            Op::Unary(u) => u.name(),
            Op::Binary(b) => b.name(),
            Op::Compare(c) => c.name(),
            Op::Select => "select",
            Op::Cast(_) => "cast",
            Op::Reduce { op, .. } => match op {
                ReduceOp::Sum => "reduce_sum",
                ReduceOp::Mean => "reduce_mean",
                ReduceOp::Prod => "reduce_prod",
                ReduceOp::Max => "reduce_max",
                ReduceOp::Min => "reduce_min",
            },
            Op::ArgMax { min: false, .. } => "arg_max",
            Op::ArgMax { min: true, .. } => "arg_min",
            Op::CumSum { .. } => "cum_sum",
            Op::Softmax { .. } => "softmax",
            Op::LayerNorm { .. } => "layer_norm",
            Op::RmsNorm { .. } => "rms_norm",
            Op::MatMul { .. } => "matmul",
            Op::Transpose { .. } => "transpose",
            Op::Reshape { .. } => "reshape",
            Op::Broadcast { .. } => "broadcast",
            Op::Slice { .. } => "slice",
            Op::Concat { .. } => "concat",
            Op::Gather { .. } => "gather",
            Op::GatherElements { .. } => "gather_elements",
            Op::GatherNd { .. } => "gather_nd",
            Op::ScatterElements { .. } => "scatter_elements",
            Op::ScatterNd { .. } => "scatter_nd",
            Op::TopK { .. } => "top_k",
            Op::RowScale(_) => "row_scale",
            Op::RowOffset(_) => "row_offset",
            Op::QuantiseRows(_) => "quantise_rows",
            Op::Quantise { .. } => "quantise",
            Op::Linear(_) => "linear",
            Op::Attention(_) => "attention",
            Op::SumNorm(_) => "sum_norm",
        }
    }

    /// Number of operands, or `None` where it is free (`concat`: at least one).
    pub fn arity(&self) -> Option<usize> {
        Some(match self {
            Op::Input { .. } | Op::Constant(_) | Op::Dim(_) | Op::Iota { .. } => 0,
            Op::Unary(_)
            | Op::Cast(_)
            | Op::Reduce { .. }
            | Op::ArgMax { .. }
            | Op::TopK { .. }
            | Op::CumSum { .. }
            | Op::Softmax { .. }
            | Op::Transpose { .. }
            | Op::Reshape { .. }
            | Op::Broadcast { .. }
            | Op::Slice { .. } => 1,
            Op::Binary(_)
            | Op::Compare(_)
            | Op::RmsNorm { .. }
            | Op::MatMul { .. }
            | Op::Gather { .. }
            | Op::GatherElements { .. }
            | Op::GatherNd { .. } => 2,
            Op::Select | Op::LayerNorm { .. } | Op::Quantise { .. } => 3,
            Op::ScatterElements { .. } | Op::ScatterNd { .. } => 3,
            Op::Concat { .. } => return None,
            Op::RowScale(q) | Op::RowOffset(q) | Op::QuantiseRows(q) => q.arity(),
            Op::Linear(l) => l.arity(),
            Op::Attention(a) => a.arity(),
            Op::SumNorm(n) => n.arity(),
        })
    }

    /// Whether executing the op can fail at run time (an index out of range).
    pub fn fallible(&self) -> bool {
        match self {
            Op::Gather { .. } | Op::GatherElements { .. } | Op::GatherNd { .. } => true,
            Op::ScatterElements { .. } | Op::ScatterNd { .. } => true,
            Op::SumNorm(n) => n.tables > 0,
            _ => false,
        }
    }
}
