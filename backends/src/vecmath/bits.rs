//! Constants, and floats taken apart into sign, exponent and mantissa: f32 of any lanes and f64 alike.

use bertc_ir::CmpOp;
use bertc_ir::kernel::{Bin, Elem, KernelBuilder, Reg, RegType};

/// Whether `x` is of f64.
pub(super) fn is_double(b: &KernelBuilder, x: Reg) -> bool {
    b.ty(x).elem == Elem::F64
}

/// A constant of the type of `like`, which is a float.
pub(super) fn constant(b: &mut KernelBuilder, like: Reg, v: f64) -> Reg {
    let ty = b.ty(like);
    b.const_f(ty, v)
}

/// An integer constant with the lanes and the width of `like`, a float.
pub(super) fn int(b: &mut KernelBuilder, like: Reg, v: i64) -> Reg {
    let ty = RegType { elem: integer(b, like), lanes: b.ty(like).lanes };
    b.const_i(ty, v)
}

/// The integer that holds the bits of `like`, a float.
pub(super) fn integer(b: &KernelBuilder, like: Reg) -> Elem {
    if is_double(b, like) { Elem::I64 } else { Elem::I32 }
}

/// What differs between the formats.
struct Format {
    /// Stored bits of the mantissa.
    mantissa: u8,
    /// What the exponent's field holds for 2^0.
    bias: u16,
    /// The smallest normal number.
    least: f64,
    /// The bits of √½.
    root: i64,
}

fn format(b: &KernelBuilder, x: Reg) -> Format {
    use std::{f32, f64};
    if is_double(b, x) {
        let root = f64::consts::FRAC_1_SQRT_2.to_bits() as i64;
        Format { mantissa: 52, bias: 1023, least: f64::MIN_POSITIVE, root }
    } else {
        let root = f32::consts::FRAC_1_SQRT_2.to_bits().into();
        Format { mantissa: 23, bias: 127, least: f32::MIN_POSITIVE.into(), root }
    }
}

/// 2^n like `like`, for an integer n among the exponents of normal numbers.
pub(super) fn power_of_two(b: &mut KernelBuilder, like: Reg, n: Reg) -> Reg {
    let f = format(b, like);
    let (bias, shift) = (int(b, like, f.bias.into()), int(b, like, f.mantissa.into()));
    let e = b.add(n, bias);
    let e = b.bin(Bin::Shl, e, shift);
    let float = b.ty(like).elem;
    b.bitcast(e, float)
}

/// y·2^n in two factors: n may be up to twice what one exponent's field holds.
pub(super) fn scale(b: &mut KernelBuilder, y: Reg, n: Reg) -> Reg {
    let one = int(b, y, 1);
    let half = b.bin(Bin::ShrS, n, one);
    let rest = b.sub(n, half);
    let mut y = y;
    for part in [half, rest] {
        let factor = power_of_two(b, y, part);
        y = b.mul(y, factor);
    }
    y
}

/// m in [√½, √2) and a whole float e with x = 2^e · m, for positive finite x; numbers without meaning for others.
pub(super) fn split(b: &mut KernelBuilder, x: Reg) -> (Reg, Reg) {
    let f = format(b, x);
    let bits = f.mantissa.into();
    // Denormals are scaled into the normal range first.
    let (least, up) = (constant(b, x, f.least), constant(b, x, 2f64.powi(bits)));
    let small = b.cmp(CmpOp::Lt, x, least);
    let scaled = b.mul(x, up);
    let v = b.select(small, scaled, x);
    let integer = integer(b, x);
    let v = b.bitcast(v, integer);
    // Subtracting √½'s bits makes the exponent's field that of the nearest power of two.
    let (root, shift) = (int(b, x, f.root), int(b, x, bits.into()));
    let d = b.sub(v, root);
    let e = b.bin(Bin::ShrS, d, shift);
    let down = b.bin(Bin::Shl, e, shift);
    let m = b.sub(v, down);
    let float = b.ty(x).elem;
    let m = b.bitcast(m, float);
    let none = int(b, x, 0);
    let adjust = b.select(small, shift, none);
    let e = b.sub(e, adjust);
    (m, b.convert(e, float))
}

/// y, negated where the sign bit of `x` is set.
pub(super) fn with_sign(b: &mut KernelBuilder, y: Reg, x: Reg) -> Reg {
    let (float, integer) = (b.ty(x).elem, integer(b, x));
    let top = int(b, x, if integer == Elem::I64 { i64::MIN } else { i32::MIN.into() });
    let (x, y) = (b.bitcast(x, integer), b.bitcast(y, integer));
    let sign = b.bin(Bin::And, x, top);
    let y = b.bin(Bin::Xor, y, sign);
    b.bitcast(y, float)
}
