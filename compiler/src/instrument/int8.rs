//! What `--int8` decided, as a table.

use bertc_passes::{Decision, Int8Report};

use crate::output::table;

/// Every matrix with its error and what became of it, then what the outputs lose.
pub fn decisions(r: &Int8Report) -> String {
    let row = |m: &bertc_passes::MatrixRow| {
        let [k, n] = m.shape;
        let (snr, cosine) =
            m.error.map_or(("–".into(), "–".into()), |(snr, c)| (format!("{snr:.1}"), format!("{c:.5}")));
        let decision = match m.decision {
            Decision::Int8 => "int8".to_string(),
            Decision::Smooth(snr) => format!("int8, smoothed ({snr:.1} dB before)"),
            Decision::Outliers(n, snr) => format!("int8, {n} outlier channels in floats ({snr:.1} dB before)"),
            Decision::Named => "kept: --keep names it".to_string(),
            Decision::Noisy => "kept: too noisy for the budget".to_string(),
        };
        vec![m.name.clone(), format!("{k} x {n}"), snr, cosine, decision]
    };
    let rows = r.matrices.iter().map(row).collect();
    let mut text = table(&["matrix", "shape", "SNR dB", "cosine", "decision"], rows, &[1, 2, 3]);
    let kept = r.matrices.iter().filter(|m| matches!(m.decision, Decision::Named | Decision::Noisy)).count();
    text += &format!("{} of {} matrices in 8 bits", r.matrices.len() - kept, r.matrices.len());
    if let Some(cosine) = r.cosine {
        let on = if r.synthetic { "made-up inputs (--calibrate takes real ones)" } else { "the inputs of --calibrate" };
        text += &format!("; least cosine of an output to f32: {cosine:.5}, on {on}");
    }
    if let Some(why) = &r.unmeasured {
        text += &format!("; not measured, as made-up inputs don't suit the model ({why}): --calibrate takes real ones");
    }
    text + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_passes::MatrixRow;

    #[test]
    fn decisions_tell_errors_and_reasons() {
        let row = |name: &str, error, decision| MatrixRow { name: name.into(), shape: [768, 3072], error, decision };
        let mut r = Int8Report {
            matrices: vec![
                row("/a", Some((38.26, 0.99992)), Decision::Int8),
                row("/b", Some((9.5, 0.9)), Decision::Noisy),
                row("/c", None, Decision::Named),
                row("/d", Some((40.0, 0.9999)), Decision::Outliers(8, 31.25)),
            ],
            cosine: Some(0.9987),
            synthetic: true,
            unmeasured: None,
        };
        let text = decisions(&r);
        let lines: Vec<Vec<_>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[1], ["/a", "768", "x", "3072", "38.3", "0.99992", "int8"], "{text}");
        assert!(text.contains("int8, 8 outlier channels in floats (31.2 dB before)"), "{text}");
        assert!(text.contains("too noisy") && text.contains("--keep names it"), "{text}");
        assert!(
            text.ends_with(
                "2 of 4 matrices in 8 bits; least cosine of an output to f32: 0.99870, on made-up inputs \
                                (--calibrate takes real ones)\n"
            ),
            "{text}"
        );
        (r.cosine, r.synthetic) = (None, false);
        assert!(decisions(&r).ends_with("2 of 4 matrices in 8 bits\n"));
    }
}
