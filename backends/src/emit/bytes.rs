//! Which instruction adds up products of bytes in emitted code, and why it doesn't saturate: for listings. The emitters'
//! own choice is in their `dot` modules; tests hold both together.

use bertc_ir::kernel::DotKind;

use super::x86;
use crate::target::Target;

/// How code adds up the products of the four bytes in each lane.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum ByteDots {
    /// SSE2: bytes as 16-bit integers.
    Pmaddwd,
    /// The same in registers of AVX, AVX2 or AVX-512.
    Vpmaddwd,
    /// AVX2: magnitudes by bytes that took over the signs.
    Vpmaddubsw,
    /// AVX-VNNI or AVX512_VNNI, of unsigned by signed bytes.
    Vpdpbusd,
    /// The same of signed bytes, plus 128 before and less that later.
    RaisedVpdpbusd,
    /// AArch64: 16-bit products of signed bytes.
    Smull,
    /// AArch64: the same of unsigned by signed bytes, both widened to 16 bits.
    Mul,
    /// AArch64 with dot products, of signed bytes.
    Sdot,
    /// The same of unsigned by signed bytes, less 128 before and plus that later.
    LoweredSdot,
    /// AArch64 with mixed dot products.
    Usdot,
}

impl ByteDots {
    /// What a kernel with registers of `lanes` has for `kind` on a target; `None` for what isn't of bytes.
    pub fn of(target: &Target, lanes: u8, kind: DotKind) -> Option<ByteDots> {
        use ByteDots::{LoweredSdot, Mul, Pmaddwd, RaisedVpdpbusd, Sdot, Smull, Usdot, Vpdpbusd, Vpmaddubsw, Vpmaddwd};
        let unsigned = match kind {
            DotKind::Bf16 => return None,
            DotKind::I8 | DotKind::I8Full => false,
            DotKind::U8I8 => true,
        };
        if !target.is_x86_64() {
            return Some(match (unsigned, target.has("dotprod"), target.has("i8mm")) {
                (false, true, _) => Sdot,
                (true, _, true) => Usdot,
                (true, true, false) => LoweredSdot,
                (false, false, _) => Smull,
                (true, false, false) => Mul,
            });
        }
        let wide = lanes > 4;
        let vnni = match wide {
            true => x86::has_vnni(target),
            false => unsigned && (target.has("avxvnni") || target.has("avx512vnni") && target.has("avx512vl")),
        };
        Some(match (vnni, unsigned) {
            (true, true) => Vpdpbusd,
            (true, false) => RaisedVpdpbusd,
            _ if wide && kind == DotKind::I8 && x86::lanes(target) == Some(8) => Vpmaddubsw,
            _ if wide || target.has("avx") => Vpmaddwd,
            _ => Pmaddwd,
        })
    }

    /// The instruction.
    pub fn mnemonic(self) -> &'static str {
        match self {
            ByteDots::Pmaddwd => "pmaddwd",
            ByteDots::Vpmaddwd => "vpmaddwd",
            ByteDots::Vpmaddubsw => "vpmaddubsw",
            ByteDots::Vpdpbusd | ByteDots::RaisedVpdpbusd => "vpdpbusd",
            ByteDots::Smull => "smull",
            ByteDots::Mul => "mul",
            ByteDots::Sdot | ByteDots::LoweredSdot => "sdot",
            ByteDots::Usdot => "usdot",
        }
    }

    /// Why no sum on the way to 32 bits saturates or overflows. In 32 bits sums wrap, and only their last value counts.
    pub fn reason(self) -> &'static str {
        match self {
            ByteDots::Pmaddwd | ByteDots::Vpmaddwd => {
                "bytes are widened to 16 bits; two products, at most 2*255*128 = 65280, are added in 32 bits"
            }
            ByteDots::Vpmaddubsw => {
                "two products are added in 16 bits; as no weight is -128, they are at most 2*128*127 = 32512 < 2^15"
            }
            ByteDots::Vpdpbusd => "four products are added in 32 bits, without saturation",
            ByteDots::RaisedVpdpbusd => {
                "four products of a byte plus 128 are added in 32 bits, without saturation; 128 times the weights is \
                 subtracted, which is exact as both wrap"
            }
            ByteDots::Smull => "products are at most 128*128 = 16384 < 2^15, and are added in 32 bits",
            ByteDots::Mul => "products are at most 255*128 = 32640 < 2^15, and are added in 32 bits",
            ByteDots::Sdot | ByteDots::Usdot => "four products are added in 32 bits, without saturation",
            ByteDots::LoweredSdot => {
                "four products of a byte less 128 are added in 32 bits, without saturation; 128 times the weights is \
                 added, which is exact as both wrap"
            }
        }
    }
}
