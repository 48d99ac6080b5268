//! Which known name a wrong one may have been meant as.

/// Longer names are not compared: the table is quadratic, and nobody mistypes them.
const MAX_LEN: usize = 64;

/// The known name that is nearest to `word`: with up to a third of its letters changed, added, left out or swapped with
/// their neighbour; upper and lower case don't count. The first one wins among equals.
pub fn closest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    if word.chars().count() > MAX_LEN {
        return None;
    }
    let word: Vec<char> = word.to_lowercase().chars().collect();
    // A word of one letter is near to everything.
    let limit = if word.len() < 2 { 0 } else { word.len().div_ceil(3) };
    let distances = known.into_iter().filter(|k| k.len() <= MAX_LEN).map(|k| {
        let letters: Vec<char> = k.to_lowercase().chars().collect();
        (distance(&word, &letters), k)
    });
    distances.filter(|(d, _)| *d <= limit).min_by_key(|(d, _)| *d).map(|(_, k)| k)
}

/// The help that names the [`closest`] known name.
pub fn did_you_mean<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<String> {
    closest(word, known).map(|k| format!("did you mean '{k}'?"))
}

/// Edits that make one word the other: changes, additions, removals and swaps of neighbours (optimal string
/// alignment).
fn distance(a: &[char], b: &[char]) -> usize {
    let mut rows: Vec<Vec<usize>> = vec![(0..=b.len()).collect()];
    for (i, x) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let change = rows[i][j] + usize::from(x != y);
            let mut best = change.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i - 1] == *y && b[j - 1] == *x {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found_and_far_ones_are_not() {
        let known = ["add", "sub", "softmax", "reduce_max", "reduce_mean", "znver4", "x86-64-v4"];
        for (word, want) in [
            ("ad", Some("add")),
            ("sotfmax", Some("softmax")),
            ("SoftMax", Some("softmax")),
            ("reducemean", Some("reduce_mean")),
            ("znver5", Some("znver4")),
            ("x86_64_v4", Some("x86-64-v4")),
            ("convolution", None),
            ("y", None),
            ("", None),
        ] {
            assert_eq!(closest(word, known), want, "{word}");
        }
        assert_eq!(did_you_mean("sbu", known).as_deref(), Some("did you mean 'sub'?"));
        assert_eq!(closest(&"a".repeat(1000), known), None);
    }
}
