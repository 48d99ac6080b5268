//! The elementwise ops on registers of any lanes. Halves compute in f32; integers compute in the register they widen
//! to and wrap when stored.

use bertc_ir::kernel::{Bin, Elem, Reg, Un};
use bertc_ir::{BinaryOp, CmpOp, DType, ReduceOp, UnaryOp};

use super::ctx::Ctx;
use super::nest::fold_over;
use crate::vecmath;

fn zero(c: &mut Ctx, x: Reg) -> Reg {
    let t = c.b.ty(x);
    c.imm(t.elem, t.lanes, 0.0)
}

/// A unary op; the operand has memory type `dtype`.
pub fn unary(c: &mut Ctx, op: UnaryOp, dtype: DType, x: Reg) -> Reg {
    let t = c.b.ty(x);
    match op {
        UnaryOp::Neg if dtype.is_float() => c.b.un(Un::Neg, x),
        UnaryOp::Neg => {
            let z = zero(c, x);
            c.b.sub(z, x)
        }
        UnaryOp::Abs if dtype.is_float() => c.b.un(Un::Abs, x),
        UnaryOp::Abs if !dtype.is_signed_int() => x,
        UnaryOp::Abs => {
            let z = zero(c, x);
            let n = c.b.sub(z, x);
            let m = c.b.cmp(CmpOp::Lt, x, z);
            c.b.select(m, n, x)
        }
        UnaryOp::Sign => sign(c, dtype, x),
        UnaryOp::Recip => {
            let one = c.imm(t.elem, t.lanes, 1.0);
            c.b.div(one, x)
        }
        UnaryOp::Sqrt => c.b.un(Un::Sqrt, x),
        UnaryOp::Exp => vecmath::exp(&mut c.b, x),
        UnaryOp::Log => vecmath::log(&mut c.b, x),
        UnaryOp::Erf => vecmath::erf(&mut c.b, x),
        UnaryOp::Tanh => vecmath::tanh(&mut c.b, x),
        UnaryOp::Sigmoid => vecmath::sigmoid(&mut c.b, x),
        UnaryOp::Sin => vecmath::sin(&mut c.b, x),
        UnaryOp::Cos => vecmath::cos(&mut c.b, x),
        UnaryOp::Gelu => vecmath::gelu(&mut c.b, x),
        UnaryOp::GeluTanh => vecmath::gelu_tanh(&mut c.b, x),
        UnaryOp::Relu if dtype.is_float() || dtype.is_signed_int() => {
            let z = zero(c, x);
            c.b.max(x, z)
        }
        UnaryOp::Relu => x,
        UnaryOp::Floor => c.b.un(Un::Floor, x),
        UnaryOp::Ceil => c.b.un(Un::Ceil, x),
        UnaryOp::Round => c.b.un(Un::Nearest, x),
        UnaryOp::Not => c.b.un(Un::Not, x),
        UnaryOp::IsNan => c.b.cmp(CmpOp::Ne, x, x),
        UnaryOp::IsInf => {
            let a = c.b.un(Un::Abs, x);
            let inf = c.imm(t.elem, t.lanes, f64::INFINITY);
            c.b.cmp(CmpOp::Eq, a, inf)
        }
    }
}

fn sign(c: &mut Ctx, dtype: DType, x: Reg) -> Reg {
    let t = c.b.ty(x);
    let z = zero(c, x);
    let (one, minus) = (c.imm(t.elem, t.lanes, 1.0), c.imm(t.elem, t.lanes, -1.0));
    if !dtype.is_float() && !dtype.is_signed_int() {
        let m = c.b.cmp(CmpOp::Ne, x, z);
        return c.b.select(m, one, z);
    }
    // Zero and NaN fall through as themselves.
    let neg = c.b.cmp(CmpOp::Lt, x, z);
    let pos = c.b.cmp(CmpOp::Gt, x, z);
    let r = c.b.select(neg, minus, x);
    c.b.select(pos, one, r)
}

/// A comparison of operands of memory type `dtype`.
pub fn compare(c: &mut Ctx, op: CmpOp, dtype: DType, x: Reg, y: Reg) -> Reg {
    if dtype == DType::Bool {
        let (x, y) = (c.b.convert(x, Elem::I32), c.b.convert(y, Elem::I32));
        return c.b.cmp(op, x, y);
    }
    c.b.cmp_sign(op, dtype == DType::U64, x, y)
}

/// A binary op; both operands and the result have memory type `dtype`.
pub fn binary(c: &mut Ctx, op: BinaryOp, dtype: DType, x: Reg, y: Reg) -> Reg {
    let unsigned = dtype == DType::U64;
    match op {
        BinaryOp::Add => c.b.add(x, y),
        BinaryOp::Sub => c.b.sub(x, y),
        BinaryOp::Mul => c.b.mul(x, y),
        BinaryOp::Div if unsigned => c.b.bin(Bin::DivU, x, y),
        BinaryOp::Div => c.b.div(x, y),
        BinaryOp::Rem | BinaryOp::Mod if dtype.is_float() => float_rem(c, op == BinaryOp::Mod, x, y),
        BinaryOp::Rem | BinaryOp::Mod if unsigned => c.b.bin(Bin::RemU, x, y),
        BinaryOp::Rem => c.b.bin(Bin::Rem, x, y),
        BinaryOp::Mod => {
            let r = c.b.bin(Bin::Rem, x, y);
            fix_sign(c, r, y)
        }
        BinaryOp::Pow if dtype.is_float() => vecmath::pow(&mut c.b, x, y),
        BinaryOp::Pow => int_pow(c, dtype, x, y),
        BinaryOp::Min | BinaryOp::Max if unsigned => {
            let cmp = if op == BinaryOp::Min { CmpOp::Lt } else { CmpOp::Gt };
            let m = c.b.cmp_sign(cmp, true, x, y);
            c.b.select(m, x, y)
        }
        BinaryOp::Min => c.b.min(x, y),
        BinaryOp::Max => c.b.max(x, y),
        BinaryOp::And => c.b.bin(Bin::And, x, y),
        BinaryOp::Or => c.b.bin(Bin::Or, x, y),
        BinaryOp::Xor => c.b.bin(Bin::Xor, x, y),
        BinaryOp::Shl | BinaryOp::Shr => shift(c, op == BinaryOp::Shr, dtype, x, y),
    }
}

/// A shift of an integer in a register that may be wider than it is.
fn shift(c: &mut Ctx, right: bool, dtype: DType, x: Reg, y: Reg) -> Reg {
    let (t, z) = (c.b.ty(x), zero(c, x));
    let bits = c.imm(t.elem, t.lanes, 8.0 * dtype.size() as f64);
    // As unsigned, a negative number of bits is too large as well.
    let none_left = c.b.cmp_sign(CmpOp::Ge, true, y, bits);
    if right && dtype.is_signed_int() {
        // All bits but one leave the sign.
        let last = c.imm(t.elem, t.lanes, 8.0 * dtype.size() as f64 - 1.0);
        let y = c.b.select(none_left, last, y);
        return c.b.bin(Bin::ShrS, x, y);
    }
    let r = c.b.bin(if right { Bin::ShrU } else { Bin::Shl }, x, y);
    c.b.select(none_left, z, r)
}

/// Whether the op exists for single lanes only on this type.
pub fn scalar_only(op: BinaryOp, dtype: DType) -> bool {
    use BinaryOp::{Div, Mod, Pow, Rem, Shl, Shr};
    !dtype.is_float() && matches!(op, Div | Rem | Mod | Pow | Shl | Shr)
}

/// x - trunc(x/y)·y: exact while the quotient is below 2^24. A quotient of 0 leaves x, also where y is infinite.
fn float_rem(c: &mut Ctx, floored: bool, x: Reg, y: Reg) -> Reg {
    let q = c.b.div(x, y);
    let q = c.b.un(Un::Trunc, q);
    let p = c.b.mul(q, y);
    let r = c.b.sub(x, p);
    let none = zero(c, q);
    let small = c.b.cmp(CmpOp::Eq, q, none);
    let r = c.b.select(small, x, r);
    if floored { fix_sign(c, r, y) } else { r }
}

/// A remainder with the dividend's sign to one with the divisor's: add y when the signs differ.
fn fix_sign(c: &mut Ctx, r: Reg, y: Reg) -> Reg {
    let z = zero(c, r);
    let (rn, yn) = (c.b.cmp(CmpOp::Lt, r, z), c.b.cmp(CmpOp::Lt, y, z));
    let differ = c.b.bin(Bin::Xor, rn, yn);
    let nonzero = c.b.cmp(CmpOp::Ne, r, z);
    let m = c.b.bin(Bin::And, differ, nonzero);
    let s = c.b.add(r, y);
    c.b.select(m, s, r)
}

/// Integer power by squaring, wrapping. A negative exponent leaves only ±1.
fn int_pow(c: &mut Ctx, dtype: DType, x: Reg, y: Reg) -> Reg {
    let t = c.b.ty(x);
    let (one, z) = (c.imm(t.elem, t.lanes, 1.0), zero(c, x));
    let bits = if t.elem == Elem::I64 { 64 } else { 32 };
    let (lo, hi) = (c.b.int(0), c.b.int(bits));
    let r = fold_over(c, lo, hi, 1, &[one, x, y], |c, _, a| {
        let low = c.b.bin(Bin::And, a[2], one);
        let odd = c.b.cmp(CmpOp::Ne, low, z);
        let p = c.b.mul(a[0], a[1]);
        let acc = c.b.select(odd, p, a[0]);
        vec![acc, c.b.mul(a[1], a[1]), c.b.bin(Bin::ShrU, a[2], one)]
    });
    if !dtype.is_signed_int() {
        return r[0];
    }
    let minus = c.imm(t.elem, t.lanes, -1.0);
    let (is_one, is_minus) = (c.b.cmp(CmpOp::Eq, x, one), c.b.cmp(CmpOp::Eq, x, minus));
    let unit = c.b.bin(Bin::Or, is_one, is_minus);
    let inverse = c.b.select(unit, r[0], z);
    let neg = c.b.cmp(CmpOp::Lt, y, z);
    c.b.select(neg, inverse, r[0])
}

/// Conversion between memory types: the value as a register of `to`, wrapped or saturated as [`bertc_ir::Op::Cast`] says.
pub fn cast(c: &mut Ctx, from: DType, to: DType, x: Reg) -> Reg {
    let (src, dst) = (Elem::of(from), Elem::of(to));
    if from.is_float() && to.is_int() {
        return float_to_int(c, to, x);
    }
    let x = if src == dst { x } else { c.b.convert_sign(x, dst, from == DType::U64 || from == DType::U32) };
    // A store wraps to the memory's width, but u32 → f32 must see the wrapped value: only stores follow here.
    x
}

/// An activation whose results become one of 256 integers each and nothing else.
pub fn coarse(c: &mut Ctx, act: UnaryOp, x: Reg) -> Reg {
    match act {
        UnaryOp::Gelu => vecmath::gelu_coarse(&mut c.b, x),
        UnaryOp::GeluTanh => vecmath::gelu_tanh_coarse(&mut c.b, x),
        _ => unary(c, act, DType::F32, x),
    }
}

/// round(x / scale) + zero as the integer type `to`, as [`bertc_ir::Op::Quantise`] says.
pub fn quantise(c: &mut Ctx, to: DType, x: Reg, scale: Reg, zero: Reg) -> Reg {
    let x = c.b.div(x, scale);
    let x = c.b.un(Un::Nearest, x);
    let zero = c.b.convert(zero, Elem::F32);
    let x = c.b.add(x, zero);
    float_to_int(c, to, x)
}

/// Float → integer, saturating at the narrow type's own bounds.
fn float_to_int(c: &mut Ctx, to: DType, x: Reg) -> Reg {
    let t = c.b.ty(x);
    let dst = Elem::of(to);
    let (lo, hi): (f64, f64) = match to {
        DType::I8 => (-128.0, 127.0),
        DType::U8 => (0.0, 255.0),
        DType::I16 => (-32768.0, 32767.0),
        DType::U16 => (0.0, 65535.0),
        DType::U32 => (0.0, 4294967295.0),
        DType::U64 => return c.b.convert_sign(x, dst, true),
        _ => return c.b.convert(x, dst),
    };
    // Clamp the integer, not the float: u32's bound is no f32, and NaN must become 0.
    let i = c.b.convert(x, dst);
    let (lo, hi) = (c.imm(dst, t.lanes, lo), c.imm(dst, t.lanes, hi));
    let i = c.b.max(i, lo);
    c.b.min(i, hi)
}

/// Start value of a reduction.
pub fn reduce_init(c: &mut Ctx, op: ReduceOp, dtype: DType, lanes: u8) -> Reg {
    let elem = Elem::of(dtype);
    let (lo, hi) = match dtype {
        _ if dtype.is_float() => (f64::NEG_INFINITY, f64::INFINITY),
        DType::I64 | DType::U64 => {
            let v = match (op, dtype) {
                (ReduceOp::Max, DType::I64) => i64::MIN,
                (ReduceOp::Min, DType::I64) => i64::MAX,
                (ReduceOp::Max, _) => 0,
                (ReduceOp::Min, _) => -1,
                (ReduceOp::Prod, _) => 1,
                _ => 0,
            };
            return c.b.const_i(bertc_ir::kernel::RegType::vector(elem, lanes), v);
        }
        DType::U32 => (0.0, f64::from(u32::MAX)),
        // What a reduction of nothing stores must be the type's own end.
        DType::I8 => (f64::from(i8::MIN), f64::from(i8::MAX)),
        DType::U8 => (0.0, f64::from(u8::MAX)),
        DType::I16 => (f64::from(i16::MIN), f64::from(i16::MAX)),
        DType::U16 => (0.0, f64::from(u16::MAX)),
        _ => (f64::from(i32::MIN), f64::from(i32::MAX)),
    };
    let v = match op {
        ReduceOp::Sum | ReduceOp::Mean => 0.0,
        ReduceOp::Prod => 1.0,
        ReduceOp::Max => lo,
        ReduceOp::Min => hi,
    };
    c.imm(elem, lanes, v)
}

/// One step of a reduction.
pub fn reduce_step(c: &mut Ctx, op: ReduceOp, dtype: DType, acc: Reg, x: Reg) -> Reg {
    let b = match op {
        ReduceOp::Sum | ReduceOp::Mean => BinaryOp::Add,
        ReduceOp::Prod => BinaryOp::Mul,
        ReduceOp::Max => BinaryOp::Max,
        ReduceOp::Min => BinaryOp::Min,
    };
    binary(c, b, dtype, acc, x)
}
