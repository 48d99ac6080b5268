//! Dot products of bytes, of every kind and width.

use bertc_backends::emit::bytes::ByteDots;
use bertc_backends::emit::x86::{disassemble, emit_kernel};
use bertc_ir::kernel::DotKind;

use crate::machine::{Arg, Case, run, target, vectors, widest};
use crate::{Test, dots};

pub const TESTS: &[Test] = &[("dots_of_bytes", bytes), ("dots_of_bytes_are_named_as_emitted", named)];

fn bytes() -> Result<(), String> {
    let cases = dots::all(&vectors()).into_iter().map(|(kernel, buffers)| {
        let args = buffers.into_iter().map(Arg::Buffer).collect();
        Case::new(kernel, args)
    });
    run(&cases.collect::<Vec<_>>())
}

/// What listings call a kernel's instruction is in its code, and those that would saturate or be faster are not.
fn named() -> Result<(), String> {
    for (kernel, _) in dots::all(&[widest()]) {
        let kind =
            DotKind::ALL.into_iter().find(|k| kernel.name.split(' ').nth(1) == Some(k.name())).ok_or("a kind")?;
        let name = ByteDots::of(&target(), widest(), kind).ok_or("an instruction")?.mnemonic();
        let text = disassemble(&emit_kernel(&kernel, &target()).map_err(|d| d.to_string())?);
        let has = |op: &str| text.split_whitespace().any(|word| word == op);
        let better = ["vpdpbusd", "vpmaddubsw"].into_iter().find(|&op| op != name && has(op));
        if !has(name) || better.is_some() || has("vpdpbusds") {
            return Err(format!("{name} of {}, and {better:?}\n{text}", kernel.name));
        }
    }
    Ok(())
}
