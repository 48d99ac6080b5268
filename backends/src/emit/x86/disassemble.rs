//! Listings of machine code.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use iced_x86::{Decoder, DecoderOptions, Formatter, Instruction, IntelFormatter, Mnemonic, OpKind};

/// The instructions of a function in Intel syntax, one a line with its offset; a line before the target of a jump. What
/// follows the last return is literals, listed as words.
pub fn disassemble(code: &[u8]) -> String {
    let all: Vec<Instruction> = Decoder::new(64, code, DecoderOptions::NONE).into_iter().collect();
    // The code ends with the first return that nothing jumps over.
    let mut targets = BTreeSet::new();
    let mut end = 0;
    for i in &all {
        if i.op0_kind() == OpKind::NearBranch64 {
            targets.insert(i.near_branch64());
        }
        end = i.next_ip();
        if i.mnemonic() == Mnemonic::Ret && targets.last().is_none_or(|&t| t < end) {
            break;
        }
    }
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_branch_leading_zeros(false);
    options.set_show_branch_size(false);
    options.set_space_after_operand_separator(true);
    let mut text = String::new();
    for i in all.iter().take_while(|i| i.ip() < end) {
        let mut line = String::new();
        formatter.format(i, &mut line);
        // Writing to a string can't fail.
        if targets.contains(&i.ip()) {
            let _ = writeln!(text, "{:x}:", i.ip());
        }
        let _ = writeln!(text, "  {:6x}  {line}", i.ip());
    }
    let literals = code.get(end as usize..).unwrap_or_default();
    let padding = literals.iter().take_while(|&&b| b == 0xcc).count();
    let (words, _) = literals[padding..].as_chunks();
    for (n, &w) in words.iter().enumerate() {
        let _ = writeln!(text, "  {:6x}  .long {:#010x}", end as usize + padding + 4 * n, u32::from_le_bytes(w));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_have_marked_targets_and_literals_are_words() {
        // L: inc eax; jne L; ret; int3; one literal
        let code = [0xff, 0xc0, 0x75, 0xfc, 0xc3, 0xcc, 1, 0, 0, 0];
        let text = disassemble(&code);
        assert_eq!(text, "0:\n       0  inc eax\n       2  jne 0\n       4  ret\n       6  .long 0x00000001\n");
    }
}
