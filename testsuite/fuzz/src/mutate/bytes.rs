//! Mutation without structure.

use crate::random::Random;

/// Longest input; longer ones only make the target slow.
const MAX_LEN: usize = 1 << 21;

/// A few random edits of `seed`, some of which copy from `other`.
pub fn mutate(seed: &[u8], other: &[u8], r: &mut Random) -> Vec<u8> {
    let mut v = seed.to_vec();
    for _ in 0..1 + r.below(4) {
        edit(&mut v, other, r);
    }
    v.truncate(MAX_LEN);
    v
}

/// One edit.
pub fn edit(v: &mut Vec<u8>, other: &[u8], r: &mut Random) {
    let at = r.below(v.len() + 1);
    let most = if r.one_in(8) { 1024 } else { 8 };
    let len = 1 + r.below(most);
    let range = |n: usize| at..(at + len).min(n).max(at);
    match r.below(8) {
        0 if at < v.len() => v[at] ^= 1 << r.below(8),
        1 if at < v.len() => v[at] = r.next_u64() as u8,
        2 => drop(v.drain(range(v.len()))),
        3 => {
            let new: Vec<u8> = (0..len).map(|_| r.next_u64() as u8).collect();
            v.splice(at..at, new);
        }
        4 => {
            let from = r.below(other.len() + 1);
            let new = other[from..(from + len).min(other.len())].to_vec();
            v.splice(at..at, new);
        }
        5 => {
            let from = r.below(v.len() + 1);
            let new = v[from..(from + len).min(v.len())].to_vec();
            v.splice(range(v.len()), new);
        }
        6 => {
            let n = r.edge().to_le_bytes();
            let new = &n[..[1, 2, 4, 8][r.below(4)]];
            let end = (at + new.len()).min(v.len());
            v.splice(at..end, new.iter().copied());
        }
        _ => v.truncate(at),
    }
}
