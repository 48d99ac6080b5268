//! Mutation of seeds: of bytes, of text by its tokens, of protobuf messages by their fields.

pub mod bytes;
pub mod proto;
pub mod text;

use crate::random::Random;

/// How the inputs of a target are mutated.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Bytes that stand for choices: random ones, now and then edited ones.
    Choices,
    /// Tokens and lines.
    Text,
    /// The fields of an ONNX model.
    Onnx,
}

/// A mutant of one of `seeds`, which borrows from the others.
pub fn mutate(kind: Kind, seeds: &[Vec<u8>], r: &mut Random) -> Vec<u8> {
    let empty = Vec::new();
    let seed = r.pick(seeds).unwrap_or(&empty);
    let other = r.pick(seeds).unwrap_or(&empty);
    match kind {
        _ if r.one_in(16) => bytes::mutate(seed, other, r),
        Kind::Choices => {
            let most = [40, 100, 250, 600][r.below(4)];
            (0..8 + r.below(most)).map(|_| r.next_u64() as u8).collect()
        }
        Kind::Text => text::mutate(seed, other, r),
        Kind::Onnx => proto::mutate(seed, other, r),
    }
}
