//! Kernel IR to x86-64 machine code with AVX-512 (F, VL, DQ, BW) and BMI2: registers of 1, 4, 8 and 16 lanes.
//!
//! Vector registers and scalar floats live in zmm0–31 in EVEX forms, vector masks in k1–k7, the rest in general registers.
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

use bertc_ir::Diag;
use bertc_ir::kernel::{Kernel, verify};
use target_lexicon::BinaryFormat;

pub use self::disassemble::disassemble;
use crate::target::Target;

/// How a function is aligned, in bytes; its literals and innermost loops are by as much.
pub const ALIGN: u64 = 64;

/// Features that the code uses without asking.
const NEEDED: [&str; 6] = ["bmi2", "fma", "avx512f", "avx512dq", "avx512bw", "avx512vl"];

/// Whether [`emit_kernel`] can make code for a target.
pub fn supports(target: &Target) -> bool {
    target.is_x86_64() && target.object_format() != BinaryFormat::Coff && NEEDED.iter().all(|f| target.has(f))
}

/// Machine code of a function `(args: *const u64, task: u64, worker: u32)` in the System V calling convention, for
/// addresses that are multiples of [`ALIGN`].
///
/// # Errors
/// The target lacks AVX-512 or has another calling convention, or the kernel is invalid, has registers of two lanes or
/// more live vectors than there are registers; the message names the kernel.
pub fn emit_kernel(kernel: &Kernel, target: &Target) -> Result<Vec<u8>, Diag> {
    if !supports(target) {
        let what = format!(
            "kernel '{}': AVX-512 code is not supported on {} with cpu {}",
            kernel.name, target.triple, target.cpu
        );
        return Err(Diag::new(what).note("it needs x86-64-v4 and the System V calling convention"));
    }
    if let Err(mut all) = verify(kernel) {
        return Err(all.swap_remove(0));
    }
    let mut func = select::select(kernel)?;
    func.remove_dead();
    let homes = allocate::allocate(&mut func).map_err(|e| Diag::new(format!("kernel '{}': {e}", kernel.name)))?;
    encode::encode(&func, &homes)
        .map_err(|e| Diag::new(format!("kernel '{}': an instruction can't be encoded: {e}", kernel.name)))
}
