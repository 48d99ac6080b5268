//! Every form of instruction that is emitted means to another disassembler, binutils' objdump, what it was meant to be.

use std::collections::BTreeMap;
use std::process::Command;

use bertc_backends::emit::x86::emit_kernel;
use bertc_backends::lower::lower;
use bertc_ir::kernel::Kernel;
use iced_x86::{Formatter, Instruction, IntelFormatter, MemorySizeOptions, Mnemonic, OpKind};

use crate::evex::instructions;
use crate::machine::{target, vectors};
use crate::{dots, graphs};

pub const TESTS: &[crate::Test] = &[("forms_mean_to_objdump_what_they_should", forms)];

/// What is missing for these tests.
pub fn obstacle() -> Option<String> {
    let found = Command::new("objdump").arg("--version").output().is_ok_and(|o| o.status.success());
    (!found).then(|| "there is no objdump".to_string())
}

/// One instruction of each form in the code of every template and of dot products of bytes, with its bytes.
fn emitted() -> Result<Vec<(Instruction, Vec<u8>)>, String> {
    let mut forms = BTreeMap::new();
    let mut kernels: Vec<Kernel> = dots::all(&vectors()).into_iter().map(|d| d.0).collect();
    for (name, g) in graphs::all() {
        let p = lower(&g, &graphs::machine(target(), &name)).map_err(|e| format!("{name}: {e:?}"))?;
        kernels.extend(p.kernels.into_iter().filter(|k| k.regs.iter().any(|r| r.lanes > 4)));
    }
    for k in &kernels {
        let code = emit_kernel(k, &target()).map_err(|d| d.to_string())?;
        for i in instructions(&code) {
            let key = (i.code() as u32, (0..i.op_count()).map(|n| i.op_kind(n) as u32).collect::<Vec<_>>());
            let masked = (i.has_op_mask(), i.zeroing_masking(), i.is_broadcast());
            forms.entry((key, masked)).or_insert_with(|| (i, code[i.ip() as usize..i.next_ip() as usize].to_vec()));
        }
    }
    Ok(forms.into_values().collect())
}

fn forms() -> Result<(), String> {
    let forms = emitted()?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let file = dir.path().join("code.bin");
    let bytes: Vec<u8> = forms.iter().flat_map(|f| f.1.clone()).collect();
    std::fs::write(&file, bytes).map_err(|e| e.to_string())?;
    let flags = ["-D", "-b", "binary", "-m", "i386:x86-64", "-M", "intel", "--no-show-raw-insn", "-w"];
    let out = Command::new("objdump").args(flags).arg(&file).output().map_err(|e| e.to_string())?;
    let text = String::from_utf8_lossy(&out.stdout);
    // "  1f:	vaddps zmm0,zmm1,zmm2        # comment"
    let theirs: BTreeMap<u64, String> = text
        .lines()
        .filter_map(|l| l.trim().split_once(":\t"))
        .filter_map(|(at, i)| Some((u64::from_str_radix(at, 16).ok()?, plain(i.split('#').next().unwrap_or(i)))))
        .collect();
    let mut formatter = IntelFormatter::new();
    let options = formatter.options_mut();
    options.set_hex_prefix("0x");
    options.set_hex_suffix("");
    options.set_uppercase_hex(false);
    options.set_small_hex_numbers_in_decimal(false);
    options.set_rip_relative_addresses(true);
    options.set_show_branch_size(false);
    options.set_memory_size_options(MemorySizeOptions::Always);
    let (mut at, mut wrong) = (0, Vec::new());
    for (i, bytes) in &forms {
        let mut ours = String::new();
        formatter.format(i, &mut ours);
        let their = theirs.get(&at).cloned().unwrap_or_else(|| "no instruction".to_string());
        let same = match i.op0_kind() {
            // Jumps go elsewhere here, and alignment does nothing: only what they are counts.
            OpKind::NearBranch64 => plain(&ours)[..2] == their[..2],
            _ if i.mnemonic() == Mnemonic::Nop => their.contains("nop") || plain(&ours) == their,
            _ => plain(&ours) == their,
        };
        if !same {
            wrong.push(format!("{bytes:02x?} is to be '{ours}' and is '{their}'"));
        }
        at += bytes.len() as u64;
    }
    if forms.len() < 50 || !wrong.is_empty() {
        return Err(format!("{} of {} forms:\n{}", wrong.len(), forms.len(), wrong.join("\n")));
    }
    Ok(())
}

/// Without what two writers of Intel syntax may differ in: spaces, how a broadcast is told, whether there is a shorter
/// encoding, an offset of 0, a factor that is the result too.
fn plain(instruction: &str) -> String {
    let mut text: String = instruction.to_lowercase().split_whitespace().collect();
    for (theirs, plain) in [
        ("{evex}", ""),
        ("{vex}", ""),
        ("bcst[", "ptr["),
        ("+0x0]", "]"),
        ("{1to4}", ""),
        ("{1to8}", ""),
        ("{1to16}", ""),
    ] {
        text = text.replace(theirs, plain);
    }
    if let Some(operands) = text.strip_prefix("imul")
        && let [a, b, c] = operands.split(',').collect::<Vec<_>>()[..]
        && a == b
    {
        return format!("imul{a},{c}");
    }
    text
}
