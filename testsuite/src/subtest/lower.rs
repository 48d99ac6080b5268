//! `lower`, `clif` and `asm`, each with `[--target T] [--cpu C] [--emitter auto|clif]`: lowers the graph and prints the
//! kernels with the schedule that calls them, their Cranelift IR, or their machine code as text. The last two also
//! take kernels and programs.

use bertc_backends::object::{Variant, emit_asm, emit_clif};
use bertc_backends::target::{Emitter, Target};
use bertc_ir::Graph;

use super::{Outcome, State, kernel, kernels, schedule};
use crate::filetest::{Command, Kind};

/// The model's name, and so the prefix of its symbols.
pub(super) const NAME: &str = "m";

/// A target from the three options.
pub(super) fn target(triple: &str, cpu: &str, emitter: &str) -> Outcome<Target> {
    let mut t = Target::parse(triple, cpu)?;
    let known = Emitter::ALL.iter().find(|e| e.0 == emitter);
    t.emitter = known.ok_or_else(|| format!("unknown emitter '{emitter}'"))?.1;
    Ok(t)
}

pub(super) fn program(mut g: Graph, target: &Target) -> Outcome<bertc::Program> {
    g.name = NAME.to_string();
    let p = bertc_backends::lower::lower(&g, target)?;
    p.verify()?;
    Ok(p)
}

/// The parts of a listing that are kernels, without the driver around them.
fn only_kernels(listing: &str) -> String {
    let prefix = format!("; {NAME}_k_");
    let mut inside = false;
    let mut text = String::new();
    for line in listing.lines() {
        if line.starts_with("; ") && line.contains(" (u") {
            inside = line.starts_with(&prefix);
        }
        if inside {
            text.push_str(line);
            text.push('\n');
        }
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
    text
}

pub(super) fn run(s: &mut State<'_>, c: &Command) -> Outcome<String> {
    let (mut triple, mut cpu, mut emitter) = ("x86_64", "generic", "auto");
    let mut words = c.args.iter();
    while let Some(flag) = words.next() {
        let slot = match flag.as_str() {
            "--target" => &mut triple,
            "--cpu" => &mut cpu,
            "--emitter" => &mut emitter,
            _ => return Err(format!("unknown option '{flag}'").into()),
        };
        *slot = words.next().ok_or_else(|| format!("'{flag}' needs a value"))?;
    }
    let target = target(triple, cpu, emitter)?;
    let programs = match s.test.kind {
        Kind::Kir | Kind::Sir if c.name == "lower" => return Err("the file is lowered already".into()),
        Kind::Kir => kernels(s.test)?.iter().map(|k| kernel::program(k, &[], 1)).collect::<Result<Vec<_>, _>>()?,
        Kind::Sir => vec![bertc::Program { name: NAME.to_string(), ..schedule(s.test)? }],
        Kind::Tir | Kind::Onnx => {
            let g = s.graph()?;
            s.made = true;
            vec![program(g, &target)?]
        }
    };
    let mut text = String::new();
    for p in programs {
        text += &match c.name.as_str() {
            "clif" => only_kernels(&emit_clif(&[Variant { program: &p, target: &target }])?),
            "asm" => only_kernels(&emit_asm(&[Variant { program: &p, target: &target }])?),
            _ => p.print(),
        };
    }
    Ok(text)
}
