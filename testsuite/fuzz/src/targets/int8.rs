//! Random graphs about products of 8-bit integers, with `--int8` or their own: compiled code computes what the evaluator
//! does, on every kind of CPU that this machine can be.

use std::sync::Arc;

use bertc_backends::target::{Emitter, Target};
use bertc_ir::{Graph, Tensor};
use bertc_passes::{FailureKind, Int8Settings, Sample, Settings};

use super::compile::compare;
use super::passes::{BF16, INT8};
use super::{check_diags, inputs, seed_of, text_of};
use crate::Outcome;
use crate::graph::generate_bytes;
use crate::random::Random;

/// CPUs without dot products of bytes, with them by the machine's widest registers, and 128 bits through Cranelift.
const CPUS: [(&str, Emitter); 6] = [
    ("native", Emitter::Auto),
    ("x86-64-v3", Emitter::Auto),
    ("native", Emitter::Clif),
    ("x86-64-v4", Emitter::Auto),
    ("generic", Emitter::Clif),
    ("native", Emitter::Auto),
];

/// What the command line has flags for.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Flags {
    /// The graph's own integers.
    None,
    Int8,
    /// Attentions on bf16, too.
    Attention,
    Bf16,
    Budget(f64),
    SkipPadding,
}

const FLAGS: [Flags; 8] = [
    Flags::Int8,
    Flags::None,
    Flags::Int8,
    Flags::Attention,
    Flags::Bf16,
    Flags::Budget(0.999),
    Flags::Budget(0.999_999),
    Flags::SkipPadding,
];

/// The target that a byte stands for, or the machine's own, where it can't run that.
fn target(how: usize) -> Result<Target, String> {
    let host = bertc::CompileOptions::default().target;
    let parse = |cpu| Target::parse(&host, cpu).map_err(|d| d.to_string());
    let (cpu, emitter) = CPUS[how % CPUS.len()];
    let mut target = match parse(cpu) {
        Ok(t) if t.runs_here() => t,
        _ => parse("native")?,
    };
    target.emitter = emitter;
    Ok(target)
}

/// Runs the passes that the flags ask for; whether they went through.
fn optimise(g: &mut Graph, flags: Flags, level: u8, sample: (&[i64], &[Tensor])) -> Result<bool, String> {
    let mut names = bertc_passes::pipeline(level);
    let end = names.len() - 1;
    let more: &[&str] = match flags {
        Flags::None => &[],
        Flags::Attention | Flags::Bf16 => &[INT8, BF16],
        Flags::Int8 | Flags::Budget(_) | Flags::SkipPadding => &[INT8],
    };
    names.splice(end..end, more.iter().copied());
    let mut steps = bertc_passes::steps(&names).map_err(|d| d.to_string())?;
    for step in &mut steps {
        match (step.pass.name(), flags) {
            (BF16, Flags::Attention) => step.options.push(("attention-only", 1)),
            ("skip-padding", Flags::SkipPadding) => step.options.push(("outputs", 1)),
            _ => {}
        }
    }
    let settings = match flags {
        Flags::Budget(budget) => {
            let sample = Sample { dims: sample.0.to_vec(), inputs: sample.1.to_vec() };
            Some(Int8Settings { budget, samples: vec![vec![sample]], ..Int8Settings::default() })
        }
        _ => None,
    };
    let settings = Arc::new(Settings { int8: settings, ..Settings::default() });
    let options = bertc_passes::Options { verify_each: true };
    match bertc_passes::run_steps_with(g, &steps, &options, &settings, &mut bertc_passes::Unwatched) {
        Ok(()) => Ok(true),
        // A budget that can't be kept, for example.
        Err(f) if f.kind == FailureKind::Pass => check_diags(&[f.diag]).map(|()| false),
        Err(f) => Err(format!("passes broke the graph: {f}")),
    }
}

/// Checks the graph that `data` stands for. The first byte chooses flags, optimisation level and target.
///
/// # Errors
/// The finding.
pub fn run(data: &[u8]) -> Result<Outcome, String> {
    let (&how, rest) = data.split_first().unwrap_or((&0, &[]));
    let how = usize::from(how);
    let (graph, dims) = generate_bytes(rest);
    let mut r = Random::new(seed_of(data), 0);
    let (target, flags) = (target(how)?, FLAGS[how / CPUS.len() % FLAGS.len()]);
    // Fusion comes with -O2.
    let level = if how < 192 { 3 } else { [2, 0, 1][how % 3] };
    let x = inputs(&graph, &dims, 5, &mut r).ok_or("inputs are too large")?;
    let mut optimised = graph.clone();
    let context = |m: String| {
        let machine = format!("cpu {}, emitter {:?}", target.cpu, target.emitter);
        format!("{m}\n-O{level}, {flags:?}, dims: {dims:?}, {machine}\n{}", text_of(&graph))
    };
    if !optimise(&mut optimised, flags, level, (&dims, &x)).map_err(context)? {
        return Ok("refused by a pass");
    }
    // Rounded operands are part of what is to be computed, and so is nothing at padding.
    let meant = if flags == Flags::None { &graph } else { &optimised };
    let done = compare(meant, &optimised, &target, (&dims, &x), &mut r);
    done.map_err(|m| if flags == Flags::None { m } else { format!("{m}\n{}", text_of(&optimised)) }).map_err(context)
}
