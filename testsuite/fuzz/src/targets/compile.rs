//! Random graphs: compiled code computes what the evaluator does.

use bertc_backends::target::{Emitter, Target};
use bertc_ir::{Graph, Tensor};

use super::passes::BF16;
use super::{inputs, optimise, seed_of, text_of};
use crate::Outcome;
use crate::graph::generate;
use crate::native::{self, Native};
use crate::oracle::expect;
use crate::random::Random;

/// The target that a byte stands for, if this machine can run it: 128 bits through Cranelift, or what there is.
fn target(how: u8) -> Result<Target, String> {
    let host = bertc::CompileOptions::default().target;
    let mut target = Target::parse(&host, "native").map_err(|d| d.to_string())?;
    if how % 3 == 1 {
        target.emitter = Emitter::Clif;
    } else if how % 3 == 2 {
        target = Target::parse(&host, "generic").map_err(|d| d.to_string())?;
    }
    Ok(target)
}

/// Checks the graph that `data` stands for. The first byte chooses the optimisation level and the target.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let (&how, rest) = data.split_first().unwrap_or((&0, &[]));
    let (graph, dims) = generate(rest);
    let mut r = Random::new(seed_of(data), 0);
    let level = [3, 3, 0, 1, 2][usize::from(how / 3) % 5];
    let target = target(how)?;
    let mut optimised = graph.clone();
    let mut names = bertc_passes::pipeline(level);
    let bf16 = level > 1 && how >= 128;
    if bf16 {
        names.insert(names.len() - 1, BF16);
    }
    let context = |m: String| {
        let emitter = target.emitter;
        format!(
            "{m}\n{}, dims: {dims:?}, emitter {emitter:?}\n{}",
            format_args!("-O{level}{}", if bf16 { " --bf16" } else { "" }),
            text_of(&graph)
        )
    };
    if !optimise(&mut optimised, &names).map_err(context)? {
        return Ok("refused by a pass");
    }
    let x = inputs(&graph, &dims, 5, &mut r).ok_or("inputs are too large")?;
    // Rounded operands are part of what is to be computed.
    let meant = if bf16 { &optimised } else { &graph };
    compare(meant, &optimised, &target, (&dims, &x), &mut r).map_err(context)
}

/// Whether the code of the `optimised` graph computes what is `meant`.
///
/// # Errors
/// It doesn't.
pub(super) fn compare(
    meant: &Graph,
    optimised: &Graph,
    target: &Target,
    (dims, x): (&[i64], &[Tensor]),
    r: &mut Random,
) -> Result<Outcome, String> {
    let expected = expect(meant, dims, x, r);
    match (expected, native::run(optimised, target, dims, x)?) {
        (_, Native::Refused) => Ok("refused by the lowering"),
        (None, Native::Failed) => Ok("an index is out of range"),
        // A value that nobody needs may be gone, and its error with it.
        (None, Native::Ran(_)) => Ok("ran without what fails"),
        (Some(_), Native::Failed) => Err("the code reports an index out of range".to_string()),
        (Some(mut a), Native::Ran(b)) => {
            a.allow(optimised, dims, x, r);
            a.compare(&b).map_err(|m| format!("the code differs: {m}"))?;
            Ok(if a.overflows() { "overflows" } else { "equal" })
        }
    }
}
