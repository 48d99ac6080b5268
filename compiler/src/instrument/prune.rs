//! What `--prune` made 0, as a table.

use bertc_passes::{PruneFate, PruneReport};

use crate::output::table;

/// Every matrix with what became of it, then the whole.
pub fn decisions(r: &PruneReport) -> String {
    let row = |m: &bertc_passes::PrunedMatrix| {
        let [k, n] = m.shape;
        let sparsity = format!("{:.1}%", 100.0 * m.zeros as f64 / (k * n).max(1) as f64);
        let decision = match m.fate {
            PruneFate::Pruned if r.rows > 0 => "pruned, the rest fitted",
            PruneFate::Pruned => "pruned by magnitude",
            PruneFate::Named => "kept: not among those named",
            PruneFate::Strange => "kept: an element is not finite",
        };
        let error = m.error.map_or("–".into(), |e| format!("{e:.4}"));
        vec![m.name.clone(), format!("{k} x {n}"), sparsity, error, decision.to_string()]
    };
    let rows = r.matrices.iter().map(row).collect();
    let mut text = table(&["matrix", "shape", "zeros", "error", "decision"], rows, &[1, 2, 3]);
    let pruned = r.matrices.iter().filter(|m| m.fate == PruneFate::Pruned).count();
    let [rows, cols] = r.block;
    text += &format!(
        "{:.2}% of the weights of {pruned} of {} matrices are 0, in blocks of {rows}x{cols} (outputs x inputs)",
        100.0 * r.reached(),
        r.matrices.len(),
    );
    if r.rows > 0 {
        text += &format!(", calibrated on {} tokens", r.rows);
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_passes::PrunedMatrix;

    #[test]
    fn decisions_tell_sparsity_and_reasons() {
        let row = |name: &str, zeros, fate| PrunedMatrix {
            name: name.into(),
            shape: [10, 40],
            zeros,
            error: Some(0.125),
            fate,
        };
        let matrices =
            vec![row("/a", 300, PruneFate::Pruned), row("/b", 100, PruneFate::Pruned), row("/c", 0, PruneFate::Named)];
        let mut r = PruneReport { asked: 0.5, block: [1, 4], matrices, rows: 0 };
        let text = decisions(&r);
        let lines: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["/a", "10", "x", "40", "75.0%", "0.1250", "pruned", "by", "magnitude"], "{text}");
        assert!(text.contains("not among those named"), "{text}");
        assert!(
            text.ends_with("50.00% of the weights of 2 of 3 matrices are 0, in blocks of 1x4 (outputs x inputs)\n")
        );
        r.rows = 99;
        let text = decisions(&r);
        assert!(text.ends_with(", calibrated on 99 tokens\n") && text.contains("the rest fitted"), "{text}");
    }
}
