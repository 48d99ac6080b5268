//! Text of the kernel IR: diagnostics point into the text; what verifies is printed and read again as the same
//! kernels.

use bertc_ir::kernel::{parse, print, verify};

use super::show;
use super::text::check_spans;
use crate::Outcome;

/// Checks one text.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let src = String::from_utf8_lossy(data);
    let kernels = match parse(&src) {
        Ok(k) => k,
        Err(d) => return check_spans(&src, &d).map(|()| "refused"),
    };
    for k in &kernels {
        verify(k).map_err(|d| format!("the parser accepts what doesn't verify: {}", show(&d)))?;
    }
    let text: String = kernels.iter().map(print).collect();
    let again = parse(&text).map_err(|d| format!("printed text is refused: {}\n{text}", show(&d)))?;
    // NaNs are equal here: they are compared by their bits in the text.
    let twice: String = again.iter().map(print).collect();
    if twice != text {
        return Err(format!("printing isn't stable:\n{text}\n{twice}"));
    }
    let canonical: Vec<String> = kernels.iter().map(|k| format!("{:?}", k.canonical())).collect();
    let read: Vec<String> = again.iter().map(|k| format!("{k:?}")).collect();
    if canonical != read {
        return Err(format!("printed text is another kernel:\n{text}"));
    }
    Ok(if kernels.is_empty() { "empty" } else { "printed" })
}
