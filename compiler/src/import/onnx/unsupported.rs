//! What to say of operators that aren't taken: what they are, and what is nearest to them that is taken.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use bertc_ir::diag::did_you_mean;
use bertc_ir::{Diag, Loc};

use super::ops::OPERATORS;

/// Operators that are not taken, with why, or what is nearest to them that is.
pub const NOT_TAKEN: &[(&[&str], &str)] = &[
    (
        &["Loop", "Scan"],
        "compiled code has no loops of the model's own: export it with the loop unrolled; `If` is taken where its condition is \
         known at compile time",
    ),
    (
        &[
            "ConcatFromSequence",
            "Optional",
            "OptionalGetElement",
            "OptionalHasElement",
            "SequenceAt",
            "SequenceConstruct",
            "SequenceEmpty",
            "SequenceErase",
            "SequenceInsert",
            "SequenceLength",
            "SequenceMap",
            "SplitToSequence",
        ],
        "values are tensors: `Concat`, `Split` and `Gather` do what lists are used for",
    ),
    (
        &["GRU", "LSTM", "RNN", "CausalConvWithState", "LinearAttention", "DynamicQuantizeLSTM"],
        "no recurrent layers: encoders made of attention are what is compiled",
    ),
    (
        &["AveragePool", "GlobalLpPool", "LpPool", "MaxPool", "MaxRoiPool", "MaxUnpool"],
        "`GlobalAveragePool`, `GlobalMaxPool` and `Conv` are taken; an average is a `Conv` with equal weights",
    ),
    (
        &["BatchNormalization"],
        "at inference it is a `Mul` and an `Add` by constants, which exporters fold in evaluation mode",
    ),
    (
        &[
            "GroupNormalization",
            "InstanceNormalization",
            "LRN",
            "MeanVarianceNormalization",
            "GroupNorm",
            "SkipGroupNorm",
        ],
        "`LayerNormalization`, `RMSNormalization` and `LpNormalization` are taken, and `ReduceMean`, `Sub`, `Sqrt`, `Div`",
    ),
    (
        &["Compress", "NonMaxSuppression", "Unique"],
        "how large the result is depends on data: that part belongs behind the compiled model; `NonZero` is taken of constants",
    ),
    (
        &[
            "RegexFullMatch",
            "StringConcat",
            "StringNormalizer",
            "StringSplit",
            "TfIdfVectorizer",
            "Tokenizer",
            "ImageDecoder",
        ],
        "inputs are tensors of numbers: texts become ids in front of the compiled model",
    ),
    (
        &["Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike"],
        "no random numbers: export the model for inference, or make them an input",
    ),
    (
        &["NegativeLogLikelihoodLoss", "SoftmaxCrossEntropyLoss"],
        "export the model without its loss; `LogSoftmax` is taken",
    ),
    (
        &["Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cosh", "Sinh", "Tan"],
        "`Sin`, `Cos`, `Tanh`, `Exp`, `Log` and `Sqrt` are taken, by which it can be written",
    ),
    (&["Hardmax"], "`ArgMax` and `OneHot` are taken"),
    (&["Shrink"], "`Where` and `Sign` are taken"),
    (&["SwiGLU"], "`Split`, `Swish` and `Mul` are taken"),
    (&["ConvInteger", "QLinearConv", "ConvTranspose", "DeformConv"], "`Conv` is taken, of floats"),
    (&["BitCast"], "`Cast` is taken"),
    (&["CumProd"], "`CumSum` is taken: of logarithms, if they are positive"),
    (&["TensorScatter"], "`ScatterND` is taken"),
    (&["DepthToSpace", "SpaceToDepth"], "`Reshape` and `Transpose` are taken"),
    (&["CenterCropPad"], "`Slice` and `Pad` are taken"),
    (&["Resize", "Upsample"], "`Expand`, `Tile` and `Gather` are taken"),
    (&["ReverseSequence"], "`Slice` with a step of -1 and `GatherElements` are taken"),
    (&["Col2Im", "Det", "DFT", "STFT", "MelWeightMatrix", "BlackmanWindow", "HammingWindow", "HannWindow"], NO_ENCODER),
    (&["AffineGrid", "GridSample", "RoiAlign"], NO_ENCODER),
];

const NO_ENCODER: &str = "no text encoder has it: that part belongs in front of the compiled model";

/// Fused operators come from an optimiser, and there is a model without them.
const OPTIMISED: &str =
    "where ONNX Runtime's optimiser has written it: take the model from before, or optimise at a lower level";

/// The error for an operator that isn't taken. `version` is how the operator set is called.
pub fn operator(domain: &str, op: &str, version: &str) -> Diag {
    let known = OPERATORS.iter().find(|(d, _)| *d == domain).map_or(&[][..], |(_, all)| all);
    let hint = NOT_TAKEN.iter().find(|(names, _)| names.contains(&op)).map(|(_, hint)| *hint);
    let near = || did_you_mean(op, known.iter().map(|(name, _)| *name));
    // The same name in the other domain.
    let has = |all: &[(&str, _)]| all.iter().any(|(name, _)| *name == op);
    let elsewhere = OPERATORS.iter().find(|(d, all)| has(all) || (d.is_empty() && op == "If")).map(|(d, _)| match *d {
        "" => format!("'{op}' of the standard domain is taken"),
        d => format!("'{op}' of the domain {d} is taken"),
    });
    let (what, help) = match (domain, hint) {
        ("" | "com.microsoft", Some(hint)) => ("the operator is not supported", Some(hint.to_string())),
        ("", None) => ("the operator is none of ONNX's", elsewhere.or_else(near)),
        ("com.microsoft", None) => {
            ("the operator is not supported", elsewhere.or_else(near).or_else(|| Some(OPTIMISED.into())))
        }
        _ => {
            let body = "a function in the model that says what it computes would be taken";
            ("the operator is not supported: none of its domain is", elsewhere.or_else(|| Some(body.into())))
        }
    };
    Diag::new(format!("{what}{version}")).maybe_help(help)
}

/// So many nodes are named; a model with more of them is told apart by its first ones.
const NAMED: usize = 100;

/// Makes one error of those that say the same of nodes of one operator: the first node's, with the others' names.
pub fn grouped(errors: Vec<Diag>) -> Vec<Diag> {
    let mut groups: Vec<(Diag, Vec<String>)> = Vec::new();
    let mut first = HashMap::new();
    for d in errors {
        if let Loc::Node { name, op, .. } = &d.loc {
            match first.entry((op.clone(), d.message.clone(), d.notes.clone())) {
                Entry::Vacant(v) => drop(v.insert(groups.len())),
                Entry::Occupied(at) => {
                    groups[*at.get()].1.push(format!("'{name}'"));
                    continue;
                }
            }
        }
        groups.push((d, Vec::new()));
    }
    let all = |(d, others): (Diag, Vec<String>)| match others.len() {
        0 => d,
        1 => d.note(format!("the same at node {}", others[0])),
        n if n <= NAMED => d.note(format!("the same at {n} more nodes: {}", others.join(", "))),
        n => d.note(format!("the same at {n} more nodes: {} and others", others[..NAMED].join(", "))),
    };
    groups.into_iter().map(all).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn hints_are_of_operators_that_are_not_taken_and_name_some_that_are() {
        let taken: BTreeSet<&str> = OPERATORS.iter().flat_map(|(_, all)| all.iter().map(|(name, _)| *name)).collect();
        let mut seen = BTreeSet::new();
        for (names, hint) in NOT_TAKEN {
            for name in *names {
                assert!(!taken.contains(name) && seen.insert(name), "{name} is taken, or there twice");
            }
            for name in hint.split('`').skip(1).step_by(2) {
                assert!(taken.contains(name) || name == "If", "'{name}' is no operator that is taken");
            }
        }
    }
}
