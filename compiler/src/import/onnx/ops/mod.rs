//! Lowering of ONNX operators, one family a file.
//!
//! A lowering returns its outputs in order; fewer than the node names is an error. It must look at every attribute
//! that changes the result: [`Cx::finish`] refuses the others.

mod activation;
mod attention;
mod choose;
mod conv;
mod einsum;
mod elementwise;
mod fused;
mod gather;
mod integer;
mod matmul;
mod movement;
mod n_bits;
mod norm;
mod pad;
mod qlinear;
mod quant;
mod reduce;
mod rotary;
mod scatter;
mod shape;
mod softmax;

use bertc_ir::{BinaryOp, CmpOp, ReduceOp, UnaryOp};

use super::cx::Cx;
use super::value::{R, V};

/// A lowering.
pub type Lower = fn(&mut Cx<'_>) -> R<Vec<V>>;

/// The operators of a domain, by name.
type Operators = &'static [(&'static str, Lower)];

/// Every operator there is a lowering of, by domain.
pub const OPERATORS: [(&str, Operators); 2] = [("", STANDARD), ("com.microsoft", MICROSOFT)];

/// The lowering of an operator, if there is one.
pub fn find(domain: &str, op: &str) -> Option<Lower> {
    let (_, all) = OPERATORS.iter().find(|(d, _)| *d == domain)?;
    let at = all.binary_search_by(|(name, _)| (*name).cmp(op)).ok()?;
    Some(all[at].1)
}

/// Whether an operator of the standard moves elements whatever they are. The result has the operand's type.
pub fn moves(op: &str) -> bool {
    matches!(op, "Flatten" | "Identity" | "Pad" | "Reshape" | "Squeeze" | "Transpose" | "Unsqueeze")
}

/// Whether an operator takes tensors of types that the IR doesn't have.
pub fn takes_small(op: &str) -> bool {
    let converts = ["Cast", "CastLike", "DequantizeLinear", "GatherBlockQuantized", "QuantizeLinear", "Shape", "Size"];
    converts.contains(&op) || moves(op)
}

const STANDARD: Operators = &[
    ("Abs", |c| elementwise::unary(c, UnaryOp::Abs)),
    ("Add", |c| elementwise::binary(c, BinaryOp::Add)),
    ("And", |c| elementwise::binary(c, BinaryOp::And)),
    ("ArgMax", |c| reduce::arg(c, false)),
    ("ArgMin", |c| reduce::arg(c, true)),
    ("Attention", attention::standard::attention),
    ("BitShift", elementwise::bit_shift),
    ("BitwiseAnd", |c| elementwise::binary(c, BinaryOp::And)),
    ("BitwiseNot", |c| elementwise::unary(c, UnaryOp::Not)),
    ("BitwiseOr", |c| elementwise::binary(c, BinaryOp::Or)),
    ("BitwiseXor", |c| elementwise::binary(c, BinaryOp::Xor)),
    ("Cast", elementwise::cast),
    ("CastLike", elementwise::cast_like),
    ("Ceil", |c| elementwise::unary(c, UnaryOp::Ceil)),
    ("Celu", activation::celu),
    ("Clip", elementwise::clip),
    ("Concat", movement::concat),
    ("Constant", shape::constant),
    ("ConstantOfShape", shape::constant_of_shape),
    ("Conv", conv::conv),
    ("Cos", |c| elementwise::unary(c, UnaryOp::Cos)),
    ("CumSum", reduce::cum_sum),
    ("DequantizeLinear", quant::dequantize),
    ("Div", |c| elementwise::binary(c, BinaryOp::Div)),
    ("Dropout", elementwise::dropout),
    ("DynamicQuantizeLinear", quant::dynamic_quantize),
    ("Einsum", einsum::einsum),
    ("Elu", activation::elu),
    ("Equal", |c| elementwise::compare(c, CmpOp::Eq)),
    ("Erf", |c| elementwise::unary(c, UnaryOp::Erf)),
    ("Exp", |c| elementwise::unary(c, UnaryOp::Exp)),
    ("Expand", shape::expand),
    ("EyeLike", choose::eye_like),
    ("Flatten", movement::flatten),
    ("Floor", |c| elementwise::unary(c, UnaryOp::Floor)),
    ("Gather", gather::gather),
    ("GatherElements", gather::elements),
    ("GatherND", gather::nd),
    ("Gelu", activation::gelu),
    ("Gemm", matmul::gemm),
    ("GlobalAveragePool", |c| reduce::global_pool(c, ReduceOp::Mean)),
    ("GlobalMaxPool", |c| reduce::global_pool(c, ReduceOp::Max)),
    ("Greater", |c| elementwise::compare(c, CmpOp::Gt)),
    ("GreaterOrEqual", |c| elementwise::compare(c, CmpOp::Ge)),
    ("HardSigmoid", activation::hard_sigmoid),
    ("HardSwish", activation::hard_swish),
    ("Identity", elementwise::identity),
    ("IsInf", elementwise::is_inf),
    ("IsNaN", |c| elementwise::unary(c, UnaryOp::IsNan)),
    ("LayerNormalization", norm::layer),
    ("LeakyRelu", activation::leaky_relu),
    ("Less", |c| elementwise::compare(c, CmpOp::Lt)),
    ("LessOrEqual", |c| elementwise::compare(c, CmpOp::Le)),
    ("Log", |c| elementwise::unary(c, UnaryOp::Log)),
    ("LogSoftmax", |c| softmax::softmax(c, true)),
    ("LpNormalization", norm::lp),
    ("MatMul", matmul::matmul),
    ("MatMulInteger", integer::matmul_integer),
    ("Max", |c| elementwise::variadic(c, BinaryOp::Max)),
    ("Mean", elementwise::mean),
    ("Min", |c| elementwise::variadic(c, BinaryOp::Min)),
    ("Mish", activation::mish),
    ("Mod", elementwise::modulo),
    ("Mul", |c| elementwise::binary(c, BinaryOp::Mul)),
    ("Neg", |c| elementwise::unary(c, UnaryOp::Neg)),
    ("NonZero", choose::non_zero),
    ("Not", |c| elementwise::unary(c, UnaryOp::Not)),
    ("OneHot", choose::one_hot),
    ("Or", |c| elementwise::binary(c, BinaryOp::Or)),
    ("PRelu", activation::prelu),
    ("Pad", pad::pad),
    ("Pow", elementwise::pow),
    ("QLinearMatMul", integer::qlinear),
    ("QuantizeLinear", quant::quantize),
    ("RMSNormalization", norm::rms),
    ("Range", shape::range),
    ("Reciprocal", |c| elementwise::unary(c, UnaryOp::Recip)),
    ("ReduceL1", |c| reduce::reduce(c, reduce::Kind::L1)),
    ("ReduceL2", |c| reduce::reduce(c, reduce::Kind::L2)),
    ("ReduceLogSum", |c| reduce::reduce(c, reduce::Kind::LogSum)),
    ("ReduceLogSumExp", |c| reduce::reduce(c, reduce::Kind::LogSumExp)),
    ("ReduceMax", |c| reduce::reduce(c, reduce::Kind::Plain(ReduceOp::Max))),
    ("ReduceMean", |c| reduce::reduce(c, reduce::Kind::Plain(ReduceOp::Mean))),
    ("ReduceMin", |c| reduce::reduce(c, reduce::Kind::Plain(ReduceOp::Min))),
    ("ReduceProd", |c| reduce::reduce(c, reduce::Kind::Plain(ReduceOp::Prod))),
    ("ReduceSum", |c| reduce::reduce(c, reduce::Kind::Plain(ReduceOp::Sum))),
    ("ReduceSumSquare", |c| reduce::reduce(c, reduce::Kind::SumSquare)),
    ("Relu", |c| elementwise::unary(c, UnaryOp::Relu)),
    ("Reshape", movement::reshape),
    ("RotaryEmbedding", rotary::standard),
    ("Round", |c| elementwise::unary(c, UnaryOp::Round)),
    ("Scatter", scatter::elements),
    ("ScatterElements", scatter::elements),
    ("ScatterND", scatter::nd),
    ("Selu", activation::selu),
    ("Shape", shape::shape),
    ("Sigmoid", |c| elementwise::unary(c, UnaryOp::Sigmoid)),
    ("Sign", |c| elementwise::unary(c, UnaryOp::Sign)),
    // Of no opset: ONNX Runtime writes it under the default domain.
    ("SimplifiedLayerNormalization", norm::rms),
    ("Sin", |c| elementwise::unary(c, UnaryOp::Sin)),
    ("Size", shape::size),
    ("Slice", movement::slice),
    ("Softmax", |c| softmax::softmax(c, false)),
    ("Softplus", activation::softplus),
    ("Softsign", activation::softsign),
    ("Split", movement::split),
    ("Sqrt", |c| elementwise::unary(c, UnaryOp::Sqrt)),
    ("Squeeze", movement::squeeze),
    ("Sub", |c| elementwise::binary(c, BinaryOp::Sub)),
    ("Sum", |c| elementwise::variadic(c, BinaryOp::Add)),
    ("Swish", activation::swish),
    ("Tanh", |c| elementwise::unary(c, UnaryOp::Tanh)),
    ("ThresholdedRelu", activation::thresholded_relu),
    ("Tile", shape::tile),
    ("TopK", choose::top_k),
    ("Transpose", movement::transpose),
    ("Trilu", shape::trilu),
    ("Unsqueeze", movement::unsqueeze),
    ("Where", elementwise::select),
    ("Xor", |c| elementwise::binary(c, BinaryOp::Xor)),
];

const MICROSOFT: Operators = &[
    ("Attention", attention::microsoft::attention),
    ("BiasGelu", fused::bias_gelu),
    ("DequantizeLinear", quant::dequantize),
    ("DynamicQuantizeMatMul", integer::dynamic),
    ("EmbedLayerNormalization", fused::embed_layer_norm),
    ("FastGelu", fused::fast_gelu),
    ("FusedMatMul", matmul::fused),
    ("GatherBlockQuantized", n_bits::gather),
    ("Gelu", |c| elementwise::unary(c, UnaryOp::Gelu)),
    ("MatMulIntegerToFloat", integer::to_float),
    ("MatMulNBits", n_bits::matmul_n_bits),
    ("MultiHeadAttention", attention::multi_head::multi_head),
    ("QAttention", attention::microsoft::quantised),
    ("QEmbedLayerNormalization", fused::quantised_embed_layer_norm),
    ("QGemm", qlinear::gemm),
    ("QLinearAdd", |c| qlinear::binary(c, |c| elementwise::binary(c, BinaryOp::Add))),
    ("QLinearConcat", |c| qlinear::concat(c, movement::concat)),
    ("QLinearLeakyRelu", |c| qlinear::unary(c, activation::leaky_relu)),
    ("QLinearMul", |c| qlinear::binary(c, |c| elementwise::binary(c, BinaryOp::Mul))),
    ("QLinearSigmoid", |c| qlinear::unary(c, |c| elementwise::unary(c, UnaryOp::Sigmoid))),
    ("QLinearSoftmax", qlinear::softmax),
    ("QLinearWhere", |c| qlinear::select(c, elementwise::select)),
    ("QuantizeLinear", quant::quantize),
    ("QuickGelu", fused::quick_gelu),
    ("RotaryEmbedding", rotary::microsoft),
    ("SimplifiedLayerNormalization", norm::rms),
    ("SkipLayerNormalization", fused::skip_layer_norm),
    ("SkipSimplifiedLayerNormalization", fused::skip_rms),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_are_found_by_name() {
        for (domain, all) in OPERATORS {
            assert!(all.is_sorted_by(|a, b| a.0 < b.0), "the operators of '{domain}' are not in order");
        }
        assert!(find("", "Relu").is_some() && find("", "QAttention").is_none());
        assert!(find("com.microsoft", "QAttention").is_some() && find("org.example", "Relu").is_none());
    }
}
