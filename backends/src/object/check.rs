//! What the object writer relies on, checked before any code is made.
//!
//! - The name is a C identifier that collides with nothing of the ABI.
//! - Every index is in range, and every step binds each parameter of its kernel to an argument of its kind.
//! - Nothing writes an input or a constant; a step that can fail comes before every step that writes an output.
//! - Every polynomial that the object evaluates stays below 2^62 for all dims in range, so wrapping arithmetic is exact.

use bertc_ir::kernel::Param;
use bertc_ir::{Diag, Dim};

use super::Variant;
use crate::plan::{ALIGN, Arg, Program, Step};

/// Bound of every size and index, which leaves room for a sum of two.
const LIMIT: i128 = 1 << 62;

/// All that is wrong with `program`.
pub(crate) fn check(program: &Program) -> Vec<Diag> {
    let mut out = Vec::new();
    name(program, &mut out);
    symbols(program, &mut out);
    if !out.is_empty() {
        return out;
    }
    sizes(program, &mut out);
    let mut writes_output = None;
    for (i, step) in program.steps.iter().enumerate() {
        if let Err(d) = self::step(program, step) {
            out.push(d.note(format!("step {i}: {}", step.source)));
            continue;
        }
        if step.fallible
            && let Some(w) = writes_output
        {
            out.push(internal(format!("step {i} can fail, but step {w} has already written an output")));
        }
        if step.args.iter().any(|a| matches!(a, Arg::Output(_))) {
            writes_output.get_or_insert(i);
        }
    }
    out
}

/// Variants are of one model, the first suits every CPU, and each has a name of its own.
pub(crate) fn variants(variants: &[Variant<'_>]) -> Result<(), Diag> {
    let Some((first, others)) = variants.split_first() else { return Err(internal("an object without a program")) };
    let interface = |v: &Variant<'_>| (v.program.symbols.clone(), v.program.inputs.clone(), v.program.outputs.clone());
    for (i, v) in others.iter().enumerate() {
        if interface(v) != interface(first) || v.target.triple != first.target.triple {
            return Err(internal("variants of different models or targets"));
        }
        if variants[..=i].iter().any(|w| w.target.cpu == v.target.cpu) || v.target.required_x86_features().is_empty() {
            return Err(internal(format!("no CPU would choose the variant for '{}'", v.target.cpu)));
        }
    }
    if !others.is_empty() && !first.target.required_x86_features().is_empty() {
        return Err(internal(format!("the first variant is for '{}'", first.target.cpu)));
    }
    Ok(())
}

/// An error that no input of a user should lead to.
pub(crate) fn internal(message: impl std::fmt::Display) -> Diag {
    Diag::new(format!("the compiler made an invalid program: {message}"))
        .note("this is a bug of bertc, please report it")
}

fn name(program: &Program, out: &mut Vec<Diag>) {
    let n = &program.name;
    let identifier =
        n.starts_with(|c: char| c.is_ascii_alphabetic()) && n.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    if !identifier {
        let d = Diag::new(format!("the model's name '{n}' is not a C identifier"));
        out.push(d.note("start it with a letter and use letters, digits and '_' only, for example --name bert"));
    } else if matches!(n.as_str(), "bertc" | "bertc_rt") {
        let d = Diag::new(format!("the model's name '{n}' belongs to the C interface common to all models"));
        out.push(d.note("choose another one, for example --name bert"));
    }
}

fn symbols(program: &Program, out: &mut Vec<Diag>) {
    for (_, s) in program.symbols.iter() {
        if s.min < 0 || s.min > s.max {
            let d = Diag::new(format!("dim '{}' has the empty or negative range {}..={}", s.name, s.min, s.max));
            out.push(d.note(format!("give it a range, for example --dim {}=1..512", s.name)));
        }
    }
}

fn sizes(program: &Program, out: &mut Vec<Diag>) {
    let mut total = 0i128;
    let mut parts = Vec::new();
    for slot in &program.slots {
        let largest = slot.sizes.iter().map(|d| d.bounds(&program.symbols).1).max().unwrap_or(0);
        total = total.saturating_add(largest.max(0)).saturating_add(ALIGN.into());
        parts.extend(slot.sizes.iter());
    }
    if total >= LIMIT {
        out.push(too_large(program, "the size of the workspace in bytes", total, &parts));
        return;
    }
    for (kind, port) in program.inputs.iter().map(|p| ("input", p)).chain(program.outputs.iter().map(|p| ("output", p)))
    {
        let bytes = port.ty.elements().and_then(|n| n.mul(&Dim::constant(port.ty.dtype.size() as i64)));
        let hi = bytes.as_ref().map_or(i128::MAX, |b| b.bounds(&program.symbols).1);
        if hi >= LIMIT {
            let dims: Vec<&Dim> = port.ty.shape.iter().collect();
            out.push(too_large(program, &format!("the size of {kind} '{}' in bytes", port.name), hi, &dims));
        }
    }
}

fn too_large(program: &Program, what: &str, value: i128, dims: &[&Dim]) -> Diag {
    let mut d = Diag::new(format!("{what} is {value} at the largest dims, 2^62 or more"));
    for (id, s) in program.symbols.iter() {
        if dims.iter().any(|d| d.iter().any(|(_, m)| m.iter().any(|f| f.0 == id))) {
            d = d.note(format!("narrow dim '{0}', which is {1}..={2}: --dim {0}={1}..MAX", s.name, s.min, s.max));
        }
    }
    d
}

fn step(program: &Program, step: &Step) -> Result<(), Diag> {
    let kernel = program.kernels.get(step.kernel).ok_or_else(|| internal(format!("no kernel {}", step.kernel)))?;
    if kernel.params.len() != step.args.len() {
        let (want, got) = (kernel.params.len(), step.args.len());
        return Err(internal(format!("kernel '{}' takes {want} arguments, not {got}", kernel.name)));
    }
    for (i, (param, arg)) in kernel.params.iter().zip(&step.args).enumerate() {
        let written = matches!(param, Param::Ptr { write: true, .. });
        let pointer = matches!(param, Param::Ptr { .. });
        let ok = match arg {
            Arg::Buffer(b) => pointer && program.buffers.get(*b).is_some_and(|b| b.slot < program.slots.len()),
            Arg::Input(n) => pointer && !written && *n < program.inputs.len(),
            Arg::Output(n) => pointer && *n < program.outputs.len(),
            Arg::Const(n) => pointer && !written && *n < program.consts.len(),
            Arg::Scratch(_) => pointer,
            Arg::Again(n) => pointer && matches!(step.args[..i].get(*n), Some(Arg::Scratch(_))),
            Arg::Int(d) => {
                fits(program, d)?;
                !pointer
            }
            Arg::Chunk(d, c) => {
                fits(program, d)?;
                !pointer && c.is_valid()
            }
        };
        if !ok {
            return Err(internal(format!("argument {i} of kernel '{}' can't be {arg:?}", kernel.name)));
        }
    }
    let mut tasks = 1i128;
    for (extent, chunk) in &step.tasks {
        if !chunk.is_valid() {
            return Err(internal(format!("a task of kernel '{}' has {chunk} elements", kernel.name)));
        }
        tasks = tasks.saturating_mul(fits(program, extent)?.max(0));
    }
    if tasks >= LIMIT {
        let dims: Vec<&Dim> = step.tasks.iter().map(|t| &t.0).collect();
        return Err(too_large(program, "the number of tasks", tasks, &dims));
    }
    Ok(())
}

/// The upper bound of a dim that stays within ±2^62.
fn fits(program: &Program, d: &Dim) -> Result<i128, Diag> {
    let (lo, hi) = d.bounds(&program.symbols);
    if lo <= -LIMIT || hi >= LIMIT {
        return Err(too_large(program, "an index", hi, &[d]));
    }
    Ok(hi)
}
