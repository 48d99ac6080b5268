//! Random graphs: the passes keep them valid and keep what they compute.

use bertc_passes::registry::PASSES;

use super::{inputs, optimise, seed_of, show, text_of};
use crate::Outcome;
use crate::graph::generate;
use crate::oracle::expect;
use crate::random::Random;

/// The pass that `--bf16` is for. Compiled code is compared with what it makes.
pub const BF16: &str = "use-bf16";

/// The pass that `--int8` is for.
pub const INT8: &str = "use-int8";

/// The passes that round to fewer bits or leave weights out, and so change results by more than the oracle allows.
pub const INEXACT: [&str; 4] = [BF16, INT8, "prune", "prune-structured"];

/// Checks the graph that `data` stands for. The first byte chooses the passes.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let (how, rest) = data.split_first().unwrap_or((&0, &[]));
    let (before, dims) = generate(rest);
    bertc_ir::verify::verify(&before).map_err(|d| format!("a generated graph doesn't verify: {}", show(&d)))?;
    let mut r = Random::new(seed_of(data), 0);
    let names: Vec<&str> = match how % 4 {
        0 => (0..1 + how / 16)
            .filter_map(|_| r.pick(PASSES).map(|e| e.pass.name()))
            .filter(|n| !INEXACT.contains(n))
            .collect(),
        level => bertc_passes::pipeline(level),
    };
    let mut after = before.clone();
    let context = |m: String| format!("{m}\npasses: {}\ndims: {dims:?}\n{}", names.join(","), text_of(&before));
    if !optimise(&mut after, &names).map_err(context)? {
        return Ok("refused by a pass");
    }
    let x = inputs(&before, &dims, 5, &mut r).ok_or("inputs are too large")?;
    let Some(mut expected) = expect(&before, &dims, &x, &mut r) else { return Ok("an index is out of range") };
    let got = bertc_ir::eval::eval(&after, &dims, &x).map_err(|d| context(format!("fails after the passes: {d}")))?;
    expected.allow(&after, &dims, &x, &mut r);
    expected.compare(&got).map_err(|m| context(format!("passes changed a result: {m}\n{}", text_of(&after))))?;
    Ok(if expected.overflows() { "overflows" } else { "equal" })
}
