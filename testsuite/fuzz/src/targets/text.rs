//! Text of the tensor IR: diagnostics point into the text; what verifies is printed and read again as the same graph;
//! the passes keep it valid.

use bertc_ir::text::{PrintOptions, no_resources, parse, print, structurally_equal};
use bertc_ir::{Diag, Loc};

use super::{check_diags, optimise, show};
use crate::Outcome;

/// Graphs above this many values are not optimised: that takes long and shows nothing that a smaller one doesn't.
const MAX_VALUES: usize = 300;

/// What holds of the errors in a text.
///
/// # Errors
/// One of them lies outside of the text or inside a character.
pub fn check_spans(src: &str, diags: &[Diag]) -> Result<(), String> {
    check_diags(diags)?;
    for d in diags {
        if let Loc::Text { start, end } = d.loc
            && src.get(start..end).is_none()
        {
            return Err(format!("bytes {start}..{end} of a diagnostic are no part of the text: {d:?}"));
        }
    }
    Ok(())
}

/// Checks one text.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let src = String::from_utf8_lossy(data);
    let mut g = match parse(&src, &no_resources) {
        Ok(g) => g,
        Err(d) => return check_spans(&src, &d).map(|()| "refused"),
    };
    if let Err(d) = bertc_ir::verify::verify(&g) {
        return check_spans(&src, &d).map(|()| "refused by the verifier");
    }
    let text = print(&g, &PrintOptions { inline_constants: true, locations: false });
    let again = parse(&text, &no_resources).map_err(|d| format!("printed text is refused: {}\n{text}", show(&d)))?;
    if !structurally_equal(&g, &again) {
        return Err(format!("printed text is another graph:\n{text}"));
    }
    let twice = print(&again, &PrintOptions { inline_constants: true, locations: false });
    if twice != text {
        return Err(format!("printing isn't stable:\n{text}\n{twice}"));
    }
    if g.len() > MAX_VALUES {
        return Ok("printed");
    }
    Ok(if optimise(&mut g, &bertc_passes::pipeline(3))? { "optimised" } else { "refused by a pass" })
}
