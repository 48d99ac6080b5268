//! The table of all passes.

use crate::canonicalise::Canonicalise;
use crate::cse::Cse;
use crate::dce::Dce;
use crate::fold_constants::FoldConstants;
use crate::fold_scale::FoldScale;
use crate::fuse_attention::FuseAttention;
use crate::fuse_embeddings::FuseEmbeddings;
use crate::fuse_gelu::FuseGelu;
use crate::fuse_layer_norm::FuseLayerNorm;
use crate::fuse_linear::FuseLinear;
use crate::fuse_quantise::FuseQuantise;
use crate::integer_linear::IntegerLinear;
use crate::legalise::Legalise;
use crate::merge_qkv::MergeQkv;
use crate::pass::Pass;
use crate::prune::Prune;
use crate::prune_structured::PruneStructured;
use crate::reassociate::Reassociate;
use crate::skip_padding::SkipPadding;
use crate::slice_early::SliceEarly;
use crate::use_bf16::UseBf16;
use crate::use_int8::UseInt8;

/// One row of the table.
pub struct Entry {
    /// The pass.
    pub pass: &'static (dyn Pass + Sync),
    /// What it does, in one line.
    pub doc: &'static str,
}

/// Every pass, in alphabetical order.
pub const PASSES: &[Entry] = &[
    Entry { pass: &Canonicalise, doc: "simplify identities, data movement and index arithmetic" },
    Entry { pass: &Cse, doc: "merge equal operations" },
    Entry { pass: &Dce, doc: "remove operations that no output needs" },
    Entry { pass: &FoldConstants, doc: "evaluate operations on small constants" },
    Entry { pass: &FoldScale, doc: "move arithmetic with constants into weights" },
    Entry { pass: &FuseAttention, doc: "make scores, mask, softmax and weighted sum one attention" },
    Entry { pass: &FuseEmbeddings, doc: "make sums of table rows and terms, and layer norms, one sum_norm" },
    Entry { pass: &FuseGelu, doc: "recognise gelu in its erf and tanh forms" },
    Entry { pass: &FuseLayerNorm, doc: "recognise norms that were spelled out" },
    Entry { pass: &FuseLinear, doc: "join a product with its bias, activation, residual and layer norm" },
    Entry { pass: &FuseQuantise, doc: "recognise quantisation with one scale" },
    Entry { pass: &IntegerLinear, doc: "compute products of dequantised operands in their integers" },
    Entry { pass: &Legalise, doc: "spell out what the backend doesn't do implicitly: batch broadcasts of matmul" },
    Entry { pass: &MergeQkv, doc: "make products of one operand with several matrices one product" },
    Entry { pass: &Prune, doc: "make the blocks of weights 0 that matter least" },
    Entry { pass: &PruneStructured, doc: "remove the attention heads and neurons that matter least" },
    Entry { pass: &Reassociate, doc: "commute, associate, distribute and factor arithmetic where that removes work" },
    Entry { pass: &SkipPadding, doc: "leave out rows of padding that no output depends on" },
    Entry { pass: &SliceEarly, doc: "compute only the rows of products and attentions that are read" },
    Entry { pass: &UseBf16, doc: "products with constant matrices, attentions and what lies between them in bf16" },
    Entry { pass: &UseInt8, doc: "products with constant matrices, and embedding tables, in 8-bit integers" },
];

/// The pass called `name`.
pub fn find(name: &str) -> Option<&'static Entry> {
    PASSES.iter().find(|e| e.pass.name() == name)
}
