//! Kernel IR to x86-64 machine code: with AVX-512 (F, VL, DQ, BW) registers of 1, 4, 8 and 16 lanes, with AVX2 and FMA of
//! 1, 4 and 8; both with BMI2.
//!
//! With AVX-512, vector registers and scalar floats live in zmm0–31 in EVEX forms, vector masks in k1–k7, the rest in
//! general registers. With AVX2 they live in ymm0–15, the masks too, each lane all ones or zeros. Selection names EVEX
//! forms for both where the instruction is the same, and `vex` puts the other ones in their place.
//! Selection (`select`) makes instructions over virtual registers, folding loads, broadcasts and constants into the
//! operands of their users; `allocate` joins copies and colours; `encode` writes bytes. Code is position independent,
//! refers to nothing outside of itself and ends with its literals.
//!
//! Only general registers spill: a template whose vectors don't fit is an error that names the kernel. Instructions are
//! never reordered, except that a load moves to its only user if that can take it as an operand.

mod allocate;
mod codes;
mod disassemble;
mod encode;
mod live;
mod mir;
mod select;
mod uses;
mod vex;

use bertc_ir::Diag;
use bertc_ir::kernel::{Kernel, verify};
use target_lexicon::BinaryFormat;

pub use self::disassemble::disassemble;
use self::mir::{Features, Isa, Vnni};
use crate::target::Target;

/// How a function is aligned, in bytes; its literals and innermost loops are by as much.
pub const ALIGN: u64 = 64;

/// Features that code uses without asking, of every kind; then those of the wide and of the narrow one.
const NEEDED: [&str; 2] = ["bmi2", "fma"];
const WIDE: [&str; 4] = ["avx512f", "avx512dq", "avx512bw", "avx512vl"];
const NARROW: [&str; 2] = ["avx2", "f16c"];

/// The instructions for a target, if it has them.
fn isa(target: &Target) -> Option<Isa> {
    let all = |features: &[&str]| features.iter().all(|f| target.has(f));
    if !target.is_x86_64() || target.object_format() == BinaryFormat::Coff || !all(&NEEDED) {
        return None;
    }
    [(Isa::Avx512, &WIDE[..]), (Isa::Avx2, &NARROW)].into_iter().find(|(_, f)| all(f)).map(|(isa, _)| isa)
}

/// What else a target has.
fn features(isa: Isa, target: &Target) -> Features {
    let vnni = match isa {
        Isa::Avx512 if target.has("avx512vnni") => Vnni::Evex,
        Isa::Avx2 if target.has("avxvnni") => Vnni::Vex,
        _ => Vnni::None,
    };
    Features { bf16: isa == Isa::Avx512 && target.has("avx512bf16"), vnni }
}

/// Lanes of the widest registers that [`emit_kernel`] has for a target: 16 or 8; `None` if it makes no code for it.
pub fn lanes(target: &Target) -> Option<u8> {
    isa(target).map(Isa::lanes)
}

/// Whether [`emit_kernel`] has dot products of bytes for a target.
pub(super) fn has_vnni(target: &Target) -> bool {
    isa(target).is_some_and(|isa| features(isa, target).vnni != Vnni::None)
}

/// Machine code, and how its frame is laid out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MachineCode {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// What holds from an offset on, ascending.
    pub frame: Vec<(u32, Frame)>,
}

/// What a debugger has to know to find the caller.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Frame {
    /// The stack pointer is as many bytes below what the caller had, the return address included.
    Depth(u32),
    /// The caller's register of this number lies as many bytes below that.
    Saved(u8, u32),
    /// The register of this number is the caller's again.
    Restored(u8),
}

/// Bytes of [`emit`].
///
/// # Errors
/// As [`emit`].
pub fn emit_kernel(kernel: &Kernel, target: &Target) -> Result<Vec<u8>, Diag> {
    Ok(emit(kernel, target)?.bytes)
}

/// Machine code of a function `(args: *const u64, task: u64, worker: u32)` in the System V calling convention, for
/// addresses that are multiples of [`ALIGN`].
///
/// # Errors
/// The target lacks AVX2 or has another calling convention, or the kernel is invalid, has registers of two lanes or
/// more than the target's, or more live vectors than there are registers; the message names the kernel.
pub fn emit(kernel: &Kernel, target: &Target) -> Result<MachineCode, Diag> {
    let Some(isa) = isa(target) else {
        let what = format!(
            "kernel '{}': wide code is not supported on {} with cpu {}",
            kernel.name, target.triple, target.cpu
        );
        return Err(Diag::new(what).note("it needs x86-64-v3 or v4 and the System V calling convention"));
    };
    if let Err(mut all) = verify(kernel) {
        return Err(all.swap_remove(0));
    }
    let mut func = select::select(kernel, isa, features(isa, target))?;
    func.remove_dead();
    if isa == Isa::Avx2 {
        vex::translate(&mut func).map_err(|e| Diag::new(format!("kernel '{}': {e}", kernel.name)))?;
    }
    let homes = allocate::allocate(&mut func).map_err(|e| Diag::new(format!("kernel '{}': {e}", kernel.name)))?;
    encode::encode(&func, &homes)
        .map_err(|e| Diag::new(format!("kernel '{}': an instruction can't be encoded: {e}", kernel.name)))
}
