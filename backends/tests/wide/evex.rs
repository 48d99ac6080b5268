//! Runs code with AVX-VNNI's dot products on a machine that has only AVX512_VNNI's, which are the same in EVEX forms.

use std::collections::BTreeMap;

use bertc_backends::emit::x86::disassemble;
use iced_x86::{Code, Decoder, DecoderOptions, Encoder, Instruction, OpKind};

/// The instructions of some code, without what is behind them.
pub fn instructions(code: &[u8]) -> Vec<Instruction> {
    // The listing knows where the code ends.
    let count = disassemble(code).lines().filter(|l| l.starts_with("  ") && !l.contains(".long")).count();
    Decoder::new(64, code, DecoderOptions::NONE).iter().take(count).collect()
}

/// The same code, in EVEX forms behind the original, whose literals it goes on to read and whose start jumps to it.
pub fn in_evex(code: &[u8]) -> Vec<u8> {
    let mut all = code.to_vec();
    all.resize(code.len().next_multiple_of(16), 0xcc);
    let insts: Vec<Instruction> = instructions(code).into_iter().map(substitute).collect();
    let (mut encoder, mut moved) = (Encoder::new(64), BTreeMap::new());
    let start = all.len() as u64;
    // Jumps have four bytes of displacement wherever they go, so the first pass knows every place.
    for _ in 0..2 {
        all.truncate(start as usize);
        for old in &insts {
            let mut i = *old;
            if i.op0_kind() == OpKind::NearBranch64 {
                i.set_near_branch64(*moved.get(&i.near_branch64()).unwrap_or(&start));
            }
            let at = all.len() as u64;
            moved.insert(old.ip(), at);
            encoder.encode(&i, at).unwrap_or_else(|e| panic!("{e}: {i}"));
            all.extend(encoder.take_buffer());
        }
    }
    let jump = Instruction::with_branch(Code::Jmp_rel32_64, start).expect("a jump");
    encoder.encode(&jump, 0).expect("a jump");
    let jump = encoder.take_buffer();
    all[..jump.len()].copy_from_slice(&jump);
    all
}

fn substitute(mut i: Instruction) -> Instruction {
    let code = match i.code() {
        Code::VEX_Vpdpbusd_xmm_xmm_xmmm128 => Code::EVEX_Vpdpbusd_xmm_k1z_xmm_xmmm128b32,
        Code::VEX_Vpdpbusd_ymm_ymm_ymmm256 => Code::EVEX_Vpdpbusd_ymm_k1z_ymm_ymmm256b32,
        other => other,
    };
    i.set_code(code);
    i
}
