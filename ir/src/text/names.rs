//! The names of all ops.

use crate::op::{BinaryOp, CmpOp, Op, ReduceOp, UnaryOp};

/// Lists the names that each variant of [`Op`] can have. The match is exhaustive, so a new variant has names here or
/// nothing compiles, and it makes the list, so a name here is in the list.
macro_rules! names {
    ($($variant:pat => $names:expr),* $(,)?) => {
        fn names_of(op: &Op) -> Vec<&'static str> {
            match op { $($variant => $names),* }
        }

        /// The names of all ops in text, each once, in the order of the enum; without `input`, which has no statement.
        pub fn op_names() -> Vec<&'static str> {
            let mut all: Vec<&'static str> = Vec::new();
            $({
                let names: Vec<&'static str> = $names;
                all.extend(names);
            })*
            all
        }
    };
}

names! {
    Op::Input { .. } => vec![],
    Op::Constant(_) => vec!["constant"],
    Op::Dim(_) => vec!["dim"],
    Op::Iota { .. } => vec!["iota"],
    Op::Unary(_) => UnaryOp::ALL.iter().map(|u| u.name()).collect(),
    Op::Binary(_) => BinaryOp::ALL.iter().map(|b| b.name()).collect(),
    Op::Compare(_) => CmpOp::ALL.iter().map(|c| c.name()).collect(),
    Op::Select => vec!["select"],
    Op::Cast(_) => vec!["cast"],
    Op::Reduce { .. } => {
        ReduceOp::ALL.iter().map(|&op| Op::Reduce { op, axes: Vec::new(), keep: false }.name()).collect()
    },
    Op::ArgMax { .. } => vec!["arg_max", "arg_min"],
    Op::CumSum { .. } => vec!["cum_sum"],
    Op::Softmax { .. } => vec!["softmax"],
    Op::LayerNorm { .. } => vec!["layer_norm"],
    Op::RmsNorm { .. } => vec!["rms_norm"],
    Op::MatMul { .. } => vec!["matmul"],
    Op::Transpose { .. } => vec!["transpose"],
    Op::Reshape { .. } => vec!["reshape"],
    Op::Broadcast { .. } => vec!["broadcast"],
    Op::Slice { .. } => vec!["slice"],
    Op::Concat { .. } => vec!["concat"],
    Op::Gather { .. } => vec!["gather"],
    Op::GatherElements { .. } => vec!["gather_elements"],
    Op::GatherNd { .. } => vec!["gather_nd"],
    Op::ScatterElements { .. } => vec!["scatter_elements"],
    Op::ScatterNd { .. } => vec!["scatter_nd"],
    Op::TopK { .. } => vec!["top_k"],
    Op::RowScale(_) => vec!["row_scale"],
    Op::RowOffset(_) => vec!["row_offset"],
    Op::QuantiseRows(_) => vec!["quantise_rows"],
    Op::Quantise { .. } => vec!["quantise"],
    Op::Linear(_) => vec!["linear"],
    Op::Attention(_) => vec!["attention"],
    Op::SumNorm(_) => vec!["sum_norm"],
}

/// Whether an op is called `name`.
pub(super) fn is_op(name: &str) -> bool {
    op_names().contains(&name)
}

/// Whether an op's name is in the list.
pub(super) fn is_listed(op: &Op) -> bool {
    names_of(op).contains(&op.name())
}
