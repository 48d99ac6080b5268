//! Mutation of IR text by tokens and lines, so that most mutants get past the lexer.

use super::bytes;
use crate::random::Random;

/// Tokens that begin interesting paths of the parsers.
const WORDS: [&str; 48] = [
    "dims",
    "in",
    "..=",
    "func",
    "->",
    "tensor",
    "x",
    "f32",
    "f16",
    "bf16",
    "f64",
    "i8",
    "u8",
    "i64",
    "i32",
    "bool",
    "return",
    "dense",
    "dense_hex",
    "dense_resource",
    "inf",
    "nan",
    "true",
    "loc",
    "axis",
    "axes",
    "keep",
    "eps",
    "matmul",
    "reshape",
    "broadcast",
    "slice",
    "concat",
    "gather",
    "transpose",
    "linear",
    "attention",
    "sum_norm",
    "softmax",
    "layer_norm",
    "iota",
    "dim",
    "cast",
    "kernel",
    "loop",
    "if",
    "yield",
    "load",
];

/// A few random edits of `seed`, some of which copy from `other`.
pub fn mutate(seed: &[u8], other: &[u8], r: &mut Random) -> Vec<u8> {
    let (seed, other) = (String::from_utf8_lossy(seed), String::from_utf8_lossy(other));
    let mut v: Vec<String> = tokens(&seed).into_iter().map(str::to_string).collect();
    let other = tokens(&other);
    for _ in 0..1 + r.below(6) {
        edit(&mut v, &other, r);
    }
    let mut text = v.concat().into_bytes();
    if r.one_in(10) {
        bytes::edit(&mut text, &[], r);
    }
    text.truncate(1 << 16);
    text
}

/// Words, numbers, runs of white space, and single characters.
fn tokens(s: &str) -> Vec<&str> {
    let class = |c: char| match c {
        c if c.is_alphanumeric() || c == '_' => 0,
        '\n' => 1,
        c if c.is_whitespace() => 2,
        _ => 3,
    };
    let (mut v, mut start, mut last) = (Vec::new(), 0, None);
    for (i, c) in s.char_indices() {
        let k = class(c);
        if i > 0 && (last != Some(k) || k == 3) {
            v.push(&s[start..i]);
            start = i;
        }
        last = Some(k);
    }
    v.push(&s[start..]);
    v
}

fn is_number(s: &str) -> bool {
    s.starts_with(|c: char| c.is_ascii_digit())
}

/// The tokens of the line that holds token `at`, with its line break.
fn line(v: &[impl AsRef<str>], at: usize) -> std::ops::Range<usize> {
    let breaks = |t: &&str| t.starts_with('\n');
    let start = v[..at].iter().rposition(|t| breaks(&t.as_ref())).map_or(0, |i| i + 1);
    let end = v[at..].iter().position(|t| breaks(&t.as_ref())).map_or(v.len(), |i| at + i + 1);
    start..end
}

fn edit(v: &mut Vec<String>, other: &[&str], r: &mut Random) {
    let at = r.below(v.len());
    let solid = |t: &str| !t.trim().is_empty();
    match r.below(10) {
        // Names and numbers of the same text make valid programs more often than others do.
        0 | 1 => {
            let from = r.below(v.len());
            if solid(&v[at]) && solid(&v[from]) && is_number(&v[at]) == is_number(&v[from]) {
                v[at] = v[from].clone();
            }
        }
        2 | 3 => {
            let numbers: Vec<usize> = (0..v.len()).filter(|&i| is_number(&v[i])).collect();
            if let Some(&i) = r.pick(&numbers) {
                v[i] = if r.one_in(2) { r.below(9).to_string() } else { r.edge().to_string() };
            }
        }
        4 => v[at] = (*r.pick(&WORDS).unwrap_or(&"")).to_string(),
        5 => {
            let range = line(v, at);
            if range.len() < v.len() {
                v.drain(range);
            }
        }
        6 => {
            let copy = v[line(v, at)].to_vec();
            let to = line(v, r.below(v.len())).start;
            v.splice(to..to, copy);
        }
        7 if !other.is_empty() => {
            let copy: Vec<String> = other[line(other, r.below(other.len()))].iter().map(ToString::to_string).collect();
            let to = line(v, at).start;
            v.splice(to..to, copy);
        }
        8 => {
            if v.len() > 1 {
                v.remove(at);
            }
        }
        _ => {
            let copy = v[at].clone();
            v.insert(at, copy);
        }
    }
    if v.is_empty() {
        v.push(String::new());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_the_text() {
        let s = "func @f(%x: tensor<2 x f32>)\n\n  return %x // ü\n";
        assert_eq!(tokens(s).concat(), s);
        assert_eq!(tokens("ab(1.5)\n "), ["ab", "(", "1", ".", "5", ")", "\n", " "]);
    }
}
