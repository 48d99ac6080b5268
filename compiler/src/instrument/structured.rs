//! What `--prune-heads` and `--prune-ffn` removed, as a table.

use bertc_passes::{StructuredReport, StructuredRow};

use crate::output::table;

/// Every layer with its heads or neurons, then the whole.
pub fn decisions(r: &StructuredReport) -> String {
    let what = |heads: bool| if heads { "heads" } else { "neurons" };
    let row = |r: &StructuredRow| {
        let error = r.error.map_or("–".into(), |e| format!("{e:.4}"));
        let [before, after] = r.counts;
        vec![r.name.clone(), what(r.heads).to_string(), before.to_string(), after.to_string(), error]
    };
    let head = ["product behind them", "what", "were", "are", "error"];
    let mut text = table(&head, r.rows.iter().map(row).collect(), &[2, 3, 4]);
    let sums = [true, false].map(|heads| {
        let of_kind = r.rows.iter().filter(|r| r.heads == heads);
        let [before, after] = of_kind.fold([0, 0], |[b, a], r| [b + r.counts[0], a + r.counts[1]]);
        format!("{after} of {before} {}", what(heads))
    });
    text += &format!("{} are left", sums.join(" and "));
    if r.tokens > 0 {
        let on = if r.synthetic { "made-up texts (--calibrate takes real ones)" } else { "the texts of --calibrate" };
        text += &format!(", measured on {} tokens of {on}", r.tokens);
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decisions_tell_what_is_left() {
        let row = |name: &str, heads, counts, error| StructuredRow { name: name.into(), heads, counts, error };
        let rows = vec![row("/a", true, [12, 9], Some(0.125)), row("/b", false, [64, 48], None)];
        let text = decisions(&StructuredReport { rows, synthetic: true, tokens: 99 });
        let lines: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["/a", "heads", "12", "9", "0.1250"], "{text}");
        assert!(
            text.contains("9 of 12 heads and 48 of 64 neurons are left, measured on 99 tokens of made-up"),
            "{text}"
        );
    }
}
