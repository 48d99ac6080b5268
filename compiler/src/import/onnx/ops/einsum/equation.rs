//! The text of an einsum: `ij,jk->ik`, with `...` for dims that broadcast.

use std::collections::BTreeMap;

use crate::import::onnx::value::R;

/// What names a dim: a letter, or the place of a dim of the ellipsis, counted from its end.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Label {
    /// A dim of the ellipsis; the last one is 0.
    Ellipsis(usize),
    /// A letter.
    Letter(char),
}

/// Labels of all dims.
#[derive(Debug)]
pub struct Equation {
    /// Of each operand.
    pub terms: Vec<Vec<Label>>,
    /// Of the result, all different.
    pub output: Vec<Label>,
}

/// Letters before and behind an ellipsis, if there is one.
struct Pattern {
    before: Vec<char>,
    behind: Option<Vec<char>>,
}

fn pattern(text: &str) -> R<Pattern> {
    let letters = |s: &str| -> R<Vec<char>> {
        match s.chars().find(|c| !c.is_ascii_alphabetic()) {
            Some(c) => Err(format!("'{c}' in '{text}' is neither a letter nor a part of '...'").into()),
            None => Ok(s.chars().collect()),
        }
    };
    let Some((before, behind)) = text.split_once("...") else {
        return Ok(Pattern { before: letters(text)?, behind: None });
    };
    Ok(Pattern { before: letters(before)?, behind: Some(letters(behind)?) })
}

impl Pattern {
    fn letters(&self) -> usize {
        self.before.len() + self.behind.as_ref().map_or(0, Vec::len)
    }

    /// Labels, where the ellipsis stands for `dims` dims.
    fn labels(&self, dims: usize) -> Vec<Label> {
        let mut v: Vec<Label> = self.before.iter().copied().map(Label::Letter).collect();
        if let Some(behind) = &self.behind {
            v.extend((0..dims).rev().map(Label::Ellipsis));
            v.extend(behind.iter().copied().map(Label::Letter));
        }
        v
    }
}

/// Reads an equation for operands of these ranks.
pub fn parse(text: &str, ranks: &[usize]) -> R<Equation> {
    let text: String = text.chars().filter(|c| *c != ' ').collect();
    let (left, right) = match text.split_once("->") {
        Some((l, r)) => (l, Some(r)),
        None => (text.as_str(), None),
    };
    let patterns = left.split(',').map(pattern).collect::<R<Vec<_>>>()?;
    if patterns.len() != ranks.len() {
        return Err(format!("the equation '{text}' has {} terms for {} operands", patterns.len(), ranks.len()).into());
    }
    let mut most = 0;
    let mut terms = Vec::new();
    for (p, &rank) in patterns.iter().zip(ranks) {
        let dims = rank.checked_sub(p.letters()).filter(|&d| d == 0 || p.behind.is_some());
        let dims = dims.ok_or_else(|| format!("a term of '{text}' doesn't fit an operand of rank {rank}"))?;
        most = most.max(dims);
        terms.push(p.labels(dims));
    }
    let output = match right {
        Some(r) => pattern(r)?.labels(most),
        None => implicit(&terms, most),
    };
    for (i, l) in output.iter().enumerate() {
        let known = matches!(l, Label::Ellipsis(_)) || terms.iter().any(|t| t.contains(l));
        if !known || output[..i].contains(l) {
            return Err(format!("the result of '{text}' names a dim twice or one that no term has").into());
        }
    }
    Ok(Equation { terms, output })
}

/// The ellipsis, then the letters that occur once, in the order of their codes.
fn implicit(terms: &[Vec<Label>], most: usize) -> Vec<Label> {
    let mut uses: BTreeMap<Label, usize> = BTreeMap::new();
    for l in terms.iter().flatten().filter(|l| matches!(l, Label::Letter(_))) {
        *uses.entry(*l).or_default() += 1;
    }
    let once = uses.into_iter().filter(|u| u.1 == 1).map(|u| u.0);
    (0..most).rev().map(Label::Ellipsis).chain(once).collect()
}
