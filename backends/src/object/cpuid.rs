//! The function that asks an x86-64 CPU whether it has what the model was compiled for.

use std::collections::BTreeMap;

use bertc_ir::Diag;
use iced_x86::IcedError;
use iced_x86::code_asm::{AsmRegister32, CodeAssembler, CodeLabel, eax, ebx, ecx, edx, rbx};

use super::check::internal;
use crate::emit::x86::{Frame, MachineCode};
use crate::target::X86Feature;

/// CPUID leaf 1, ecx: the operating system has enabled XGETBV.
const OSXSAVE: u32 = 1 << 27;

/// The register's number.
const RBX: u8 = 3;

/// Machine code of `extern "C" fn() -> i32`, 1 if the CPU and the operating system have all `features`. It only executes
/// instructions whose presence it has checked.
pub(crate) fn check_function(features: &[X86Feature]) -> Result<MachineCode, Diag> {
    // Bits that must be set, by leaf with subleaf, and register.
    let mut leaves: BTreeMap<(u32, u32), [u32; 4]> = BTreeMap::from([((1, 0), [0; 4])]);
    let mut xcr0 = 0;
    for f in features {
        let registers = leaves.entry((f.leaf, f.subleaf)).or_default();
        match registers.get_mut(usize::from(f.register)) {
            Some(mask) if f.bit < 32 => *mask |= 1 << f.bit,
            _ => return Err(internal(format!("the feature '{}' has no CPUID bit", f.name))),
        }
        xcr0 |= f.xcr0;
    }
    if xcr0 != 0
        && let Some(first) = leaves.get_mut(&(1, 0))
    {
        first[2] |= OSXSAVE;
    }
    let bytes = assemble(&leaves, xcr0).map_err(|e| internal(format!("the CPU check can't be encoded: {e}")))?;
    // One byte each: the push of rbx at the start, its pop and the return at the end.
    let popped = bytes.len() as u32 - 1;
    let frame = vec![
        (1, Frame::Depth(16)),
        (1, Frame::Saved(RBX, 16)),
        (popped, Frame::Depth(8)),
        (popped, Frame::Restored(RBX)),
    ];
    Ok(MachineCode { bytes, frame })
}

fn assemble(leaves: &BTreeMap<(u32, u32), [u32; 4]>, xcr0: u32) -> Result<Vec<u8>, IcedError> {
    let mut a = CodeAssembler::new(64)?;
    let (mut fail, mut done) = (a.create_label(), a.create_label());
    // CPUID overwrites rbx, which belongs to the caller in both calling conventions.
    a.push(rbx)?;
    for (&(leaf, subleaf), masks) in leaves {
        // Every x86-64 CPU has leaf 1. The highest leaf of a range is at the range's start; of a subleaf that doesn't exist
        // all bits are 0.
        if leaf != 1 && subleaf == 0 {
            a.mov(eax, leaf & 0x8000_0000)?;
            a.cpuid()?;
            a.cmp(eax, leaf as i32)?;
            a.jb(fail)?;
        }
        a.mov(eax, leaf)?;
        a.mov(ecx, subleaf)?;
        a.cpuid()?;
        for (register, &mask) in [eax, ebx, ecx, edx].into_iter().zip(masks) {
            require(&mut a, register, mask, fail)?;
        }
    }
    if xcr0 != 0 {
        // Leaf 1 has said that XGETBV exists.
        a.xor(ecx, ecx)?;
        a.xgetbv()?;
        require(&mut a, eax, xcr0, fail)?;
    }
    a.mov(eax, 1)?;
    a.jmp(done)?;
    a.set_label(&mut fail)?;
    a.xor(eax, eax)?;
    a.set_label(&mut done)?;
    a.pop(rbx)?;
    a.ret()?;
    a.assemble(0)
}

/// Jumps to `fail` unless all bits of `mask` are set in `register`, which it may overwrite.
fn require(a: &mut CodeAssembler, register: AsmRegister32, mask: u32, fail: CodeLabel) -> Result<(), IcedError> {
    if mask == 0 {
        return Ok(());
    }
    a.and(register, mask as i32)?;
    a.cmp(register, mask as i32)?;
    a.jne(fail)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::X86_FEATURES;

    #[test]
    fn the_check_asks_for_xgetbv_only_where_it_needs_it() {
        let MachineCode { bytes: code, frame } = check_function(X86_FEATURES).unwrap();
        assert_eq!(code[frame[2].0 as usize - 1..], [0x5b, 0xc3], "pop rbx; ret");
        // push rbx; mov eax, 1; … ; pop rbx; ret
        assert_eq!((code[0], code[1], code[code.len() - 1]), (0x53, 0xb8, 0xc3));
        let xgetbv = |code: &[u8]| code.windows(3).any(|w| w == [0x0f, 0x01, 0xd0]);
        assert!(xgetbv(&code));
        assert!(!xgetbv(&check_function(&X86_FEATURES[..1]).unwrap().bytes), "{:?}", X86_FEATURES[0]);
    }
}
