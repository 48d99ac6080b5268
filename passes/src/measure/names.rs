//! What the model calls matrices, and choosing them by name.

use std::collections::BTreeSet;

use bertc_ir::{Diag, Graph, Loc, Tensor, ValueId};

use crate::step::unknown;

/// Which of `all`, each with its names, the patterns of a flag name: whole names, beginnings of such up to a `/` or `.`, or
/// patterns with `*`.
///
/// # Errors
/// A pattern that names nothing; its nearest neighbour is told.
pub fn named(all: &[&[String]], patterns: &[String], flag: &str) -> Result<BTreeSet<usize>, Diag> {
    let mut named = BTreeSet::new();
    for pattern in patterns {
        let found = matching(all, pattern);
        if found.is_empty() {
            let names: Vec<&str> = all.iter().flat_map(|names| names.iter().map(String::as_str)).collect();
            let d = unknown("matrix", pattern, &names);
            return Err(d.note(format!(
                "{flag} takes nodes of products or embeddings, beginnings of their names, and patterns with *"
            )));
        }
        named.extend(found);
    }
    Ok(named)
}

/// Which of `all` a pattern names.
pub fn matching(all: &[&[String]], pattern: &str) -> Vec<usize> {
    (0..all.len()).filter(|&i| all[i].iter().any(|n| fits(pattern, n))).collect()
}

/// The names of what reads constants: those that are known of the constants, by where they lie in memory, which fusion
/// leaves as it is, and those of the values `own`. A fused op is called as its last part, so the constants say more of it
/// unless they are several (`merged`).
pub fn of(
    g: &Graph,
    known: &[(Tensor, String)],
    constants: &[&Tensor],
    own: impl Iterator<Item = ValueId>,
    merged: bool,
) -> Vec<String> {
    let own = own.filter_map(|u| match &g.node(u).loc {
        Loc::Node { name, .. } => Some(name),
        _ => None,
    });
    let same = |t: &Tensor| constants.iter().any(|c| c.bytes().as_ptr() == t.bytes().as_ptr());
    let read = known.iter().filter(|(t, _)| !t.is_empty() && same(t)).map(|(_, name)| name);
    let all: Vec<&String> = if merged { own.chain(read).collect() } else { read.chain(own).collect() };
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !names.contains(name) {
            names.push(name.clone());
        }
    }
    names
}

/// Whether a name is what `pattern` says: it, below it, or like it where it has `*`.
fn fits(pattern: &str, name: &str) -> bool {
    let Some((start, rest)) = pattern.split_once('*') else {
        let below = name.strip_prefix(pattern).filter(|_| !pattern.is_empty());
        return below.is_some_and(|r| r.is_empty() || r.starts_with(['/', '.']) || pattern.ends_with(['/', '.']));
    };
    let Some(tail) = name.strip_prefix(start) else { return false };
    let mut cuts = tail.char_indices().map(|(i, _)| i).chain([tail.len()]);
    if rest.contains('*') {
        // Another star follows: the least that the first one takes is as good as any.
        cuts.any(|i| fits_tail(rest, &tail[i..]))
    } else {
        tail.ends_with(rest)
    }
}

/// [`fits`] for what is behind a star.
fn fits_tail(pattern: &str, tail: &str) -> bool {
    if pattern.contains('*') { fits(pattern, tail) } else { pattern == tail }
}

#[cfg(test)]
mod tests {
    use super::fits;

    #[test]
    fn names_are_whole_or_begin_or_fit_a_pattern() {
        for (pattern, name, yes) in [
            ("/encoder/layer.1/output/MatMul", "/encoder/layer.1/output/MatMul", true),
            ("/encoder/layer.1", "/encoder/layer.1/output/MatMul", true),
            ("/encoder/layer.1", "/encoder/layer.10/output/MatMul", false),
            ("/encoder/layer", "/encoder/layer.10/output/MatMul", true),
            ("", "/a", false),
            ("*", "/a", true),
            ("*/output/*", "/encoder/layer.1/output/MatMul", true),
            ("*/output/*", "/encoder/layer.1/input/MatMul", false),
            ("/e*MatMul", "/encoder/MatMul", true),
            ("/e*MatMul", "/encoder/MatMul_1", false),
            ("é*é", "éé", true),
            ("é*é", "é", false),
        ] {
            assert_eq!(fits(pattern, name), yes, "{pattern} {name}");
        }
    }
}
