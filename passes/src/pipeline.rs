//! Which passes run at which optimisation level.

/// One round of simplification. The manager skips a pass that has nothing new to look at, so a round that finds
/// nothing costs nothing.
const ROUND: [&str; 4] = ["fold-constants", "canonicalise", "cse", "dce"];

/// What quantised models spell out, before folding makes floats of their matrices.
const QUANTISED: [&str; 2] = ["fuse-quantise", "integer-linear"];

/// A bound on the rounds: each pass iterates to its own fixpoint, so few rounds reach the common one.
const ROUNDS: usize = 4;

/// What fusion does, in order. Arithmetic is reassociated once norms, gelu and attention are out of its way, for what
/// products take up, and again for products of products. Scales go into weights, and slices before products, while those
/// are apart; layer norms that no product takes up become sums of terms.
const FUSION: [&str; 10] = [
    "fuse-layer-norm",
    "fuse-gelu",
    "fuse-attention",
    "reassociate",
    "fuse-linear",
    "reassociate",
    "fold-scale",
    "slice-early",
    "fuse-embeddings",
    "merge-qkv",
];

/// The fusion passes with the rounds of simplification around them.
pub fn fusion() -> Vec<&'static str> {
    let rounds = || std::iter::repeat_n(ROUND, ROUNDS).flatten();
    // Masks are followed through what the rounds leave of them.
    QUANTISED
        .into_iter()
        .chain(rounds())
        .chain(FUSION)
        .chain(rounds())
        .chain(["skip-padding"])
        .chain(rounds())
        .collect()
}

/// The passes of `-O<opt_level>`, in order.
pub fn pipeline(opt_level: u8) -> Vec<&'static str> {
    let mut names = match opt_level {
        0 => Vec::new(),
        1 => QUANTISED.into_iter().chain(std::iter::repeat_n(ROUND, ROUNDS).flatten()).collect(),
        _ => fusion(),
    };
    // The backend relies on it at every level.
    names.push("legalise");
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_level_names_known_passes_and_ends_legal() {
        for level in 0..=3 {
            let names = pipeline(level);
            assert!(names.iter().all(|n| crate::registry::find(n).is_some()));
            assert_eq!(names.last(), Some(&"legalise"));
        }
        assert_eq!(pipeline(0), ["legalise"]);
        assert!(fusion().iter().all(|n| crate::registry::find(n).is_some()));
    }
}
