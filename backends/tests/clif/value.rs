//! Register values on the Rust side, and what each operation must give.

use bertc_ir::CmpOp;
use bertc_ir::DType;
use bertc_ir::kernel::{Bin, Elem, Un};

#[derive(Clone, Copy, Debug)]
pub enum V {
    F32(f32),
    F64(f64),
    I32(i32),
    I64(i64),
    M(bool),
}

pub const ELEMS: [Elem; 5] = [Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::Mask];

/// The memory type that holds an element unchanged.
pub fn dtype(e: Elem) -> DType {
    match e {
        Elem::F32 => DType::F32,
        Elem::F64 => DType::F64,
        Elem::I32 => DType::I32,
        Elem::I64 => DType::I64,
        Elem::Mask => DType::Bool,
        Elem::Addr => unreachable!("addresses are no values"),
    }
}

/// Lanes that an element may have.
pub fn lanes(e: Elem) -> &'static [u8] {
    if e.vectorises() { &[1, 4] } else { &[1] }
}

impl V {
    pub fn bytes(self) -> Vec<u8> {
        match self {
            V::F32(x) => x.to_le_bytes().to_vec(),
            V::F64(x) => x.to_le_bytes().to_vec(),
            V::I32(x) => x.to_le_bytes().to_vec(),
            V::I64(x) => x.to_le_bytes().to_vec(),
            V::M(x) => vec![u8::from(x)],
        }
    }

    /// Same bits, except that all NaNs are one, and that zeros are equal if `loose`.
    pub fn same(self, bytes: &[u8], loose: bool) -> bool {
        match self {
            V::F32(x) => {
                let y = f32::from_le_bytes(bytes.try_into().expect("four bytes"));
                x.is_nan() && y.is_nan() || x.to_bits() == y.to_bits() || loose && x == y
            }
            V::F64(x) => {
                let y = f64::from_le_bytes(bytes.try_into().expect("eight bytes"));
                x.is_nan() && y.is_nan() || x.to_bits() == y.to_bits() || loose && x == y
            }
            v => v.bytes() == bytes,
        }
    }
}

/// Interesting values of an element; pairs of them exercise each operation.
pub fn samples(e: Elem) -> Vec<V> {
    let floats = [
        0.0,
        -0.0,
        1.0,
        -1.0,
        0.5,
        -0.5,
        1.5,
        -1.5,
        2.5,
        -2.5,
        0.3,
        -0.7,
        3.0,
        1e-3,
        -7.25,
        100.75,
        8388607.5,
        -8388607.5,
        8388609.0,
        16777217.0,
        2147483647.0,
        2147483648.0,
        -2147483648.0,
        4294967295.0,
        4294967296.0,
        3e9,
        9.3e18,
        -9.3e18,
        1.9e19,
        4503599627370495.5,
        -4503599627370495.5,
        1e30,
        -1e30,
        1e-40,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let ints = [
        0i64,
        1,
        -1,
        2,
        -2,
        3,
        7,
        -7,
        31,
        32,
        33,
        63,
        64,
        100,
        -100,
        255,
        256,
        65535,
        16777217,
        0x1234_5678,
        2147483647,
        -2147483648,
        -2147483647,
        2147483648,
        4294967295,
        -4294967296,
        0x1234_5678_9abc_def0,
        0x7fff_ffff_8000_0001,
        i64::MAX,
        i64::MIN,
        i64::MIN + 1,
        33 << 32,
    ];
    match e {
        Elem::F32 => floats.iter().map(|&x| V::F32(x as f32)).collect(),
        Elem::F64 => floats.iter().map(|&x| V::F64(x)).collect(),
        Elem::I32 => ints.iter().map(|&x| V::I32(x as i32)).collect(),
        Elem::I64 => ints.iter().map(|&x| V::I64(x)).collect(),
        Elem::Mask => vec![V::M(true), V::M(false)],
        Elem::Addr => unreachable!("addresses are no values"),
    }
}

/// Every pair of samples, as two columns padded to whole vectors.
pub fn pairs(e: Elem) -> (Vec<V>, Vec<V>) {
    let s = samples(e);
    let mut a: Vec<V> = s.iter().flat_map(|&x| std::iter::repeat_n(x, s.len())).collect();
    let mut b: Vec<V> = s.iter().cycle().take(a.len()).copied().collect();
    while !a.len().is_multiple_of(4) {
        a.push(s[0]);
        b.push(s[1]);
    }
    (a, b)
}

pub fn column(v: &[V]) -> Vec<u8> {
    v.iter().flat_map(|v| v.bytes()).collect()
}

/// What an operation gives; `None` if the element doesn't have it.
pub fn un(op: Un, v: V) -> Option<V> {
    Some(match (op, v) {
        (Un::Neg, V::F32(x)) => V::F32(-x),
        (Un::Neg, V::F64(x)) => V::F64(-x),
        (Un::Neg, V::I32(x)) => V::I32(x.wrapping_neg()),
        (Un::Neg, V::I64(x)) => V::I64(x.wrapping_neg()),
        (Un::Abs, V::F32(x)) => V::F32(x.abs()),
        (Un::Abs, V::F64(x)) => V::F64(x.abs()),
        (Un::Abs, V::I32(x)) => V::I32(x.wrapping_abs()),
        (Un::Abs, V::I64(x)) => V::I64(x.wrapping_abs()),
        (Un::Sqrt, V::F32(x)) => V::F32(x.sqrt()),
        (Un::Sqrt, V::F64(x)) => V::F64(x.sqrt()),
        (Un::Floor, V::F32(x)) => V::F32(x.floor()),
        (Un::Floor, V::F64(x)) => V::F64(x.floor()),
        (Un::Ceil, V::F32(x)) => V::F32(x.ceil()),
        (Un::Ceil, V::F64(x)) => V::F64(x.ceil()),
        (Un::Nearest, V::F32(x)) => V::F32(x.round_ties_even()),
        (Un::Nearest, V::F64(x)) => V::F64(x.round_ties_even()),
        (Un::Trunc, V::F32(x)) => V::F32(x.trunc()),
        (Un::Trunc, V::F64(x)) => V::F64(x.trunc()),
        (Un::Not, V::I32(x)) => V::I32(!x),
        (Un::Not, V::I64(x)) => V::I64(!x),
        (Un::Not, V::M(x)) => V::M(!x),
        _ => return None,
    })
}

macro_rules! float_bin {
    ($op:expr, $a:expr, $b:expr) => {{
        let (a, b) = ($a, $b);
        match $op {
            Bin::Add => a + b,
            Bin::Sub => a - b,
            Bin::Mul => a * b,
            Bin::Div => a / b,
            Bin::Min | Bin::Max if a.is_nan() || b.is_nan() => a + b,
            Bin::Min => a.min(b),
            Bin::Max => a.max(b),
            _ => return None,
        }
    }};
}

macro_rules! int_bin {
    ($op:expr, $a:expr, $b:expr, $signed:ty, $unsigned:ty) => {{
        let (a, b): ($signed, $signed) = ($a, $b);
        let (ua, ub) = (a as $unsigned, b as $unsigned);
        match $op {
            Bin::Add => a.wrapping_add(b),
            Bin::Sub => a.wrapping_sub(b),
            Bin::Mul => a.wrapping_mul(b),
            Bin::Div if b == 0 => 0,
            Bin::Div => a.wrapping_div(b),
            Bin::Rem if b == 0 => 0,
            Bin::Rem => a.wrapping_rem(b),
            Bin::DivU => ua.checked_div(ub).unwrap_or(0) as $signed,
            Bin::RemU => ua.checked_rem(ub).unwrap_or(0) as $signed,
            Bin::Min => a.min(b),
            Bin::Max => a.max(b),
            Bin::And => a & b,
            Bin::Or => a | b,
            Bin::Xor => a ^ b,
            Bin::Shl => a.wrapping_shl(b as u32),
            Bin::ShrS => a.wrapping_shr(b as u32),
            Bin::ShrU => ua.wrapping_shr(b as u32) as $signed,
        }
    }};
}

/// As [`un`]; vectors also lack integer division, which the caller knows.
pub fn bin(op: Bin, a: V, b: V) -> Option<V> {
    Some(match (a, b) {
        (V::F32(a), V::F32(b)) => V::F32(float_bin!(op, a, b)),
        (V::F64(a), V::F64(b)) => V::F64(float_bin!(op, a, b)),
        (V::I32(a), V::I32(b)) => V::I32(int_bin!(op, a, b, i32, u32)),
        (V::I64(a), V::I64(b)) => V::I64(int_bin!(op, a, b, i64, u64)),
        (V::M(a), V::M(b)) => V::M(match op {
            Bin::And => a & b,
            Bin::Or => a | b,
            Bin::Xor => a ^ b,
            _ => return None,
        }),
        _ => return None,
    })
}

/// A comparison's result.
pub fn cmp(op: CmpOp, unsigned: bool, a: V, b: V) -> bool {
    fn by<T: PartialOrd + Copy>(op: CmpOp, a: T, b: T) -> bool {
        match op {
            CmpOp::Eq => a == b,
            CmpOp::Ne => a != b,
            CmpOp::Lt => a < b,
            CmpOp::Le => a <= b,
            CmpOp::Gt => a > b,
            CmpOp::Ge => a >= b,
        }
    }
    match (a, b) {
        (V::F32(a), V::F32(b)) => by(op, a, b),
        (V::F64(a), V::F64(b)) => by(op, a, b),
        (V::I32(a), V::I32(b)) if unsigned => by(op, a as u32, b as u32),
        (V::I32(a), V::I32(b)) => by(op, a, b),
        (V::I64(a), V::I64(b)) if unsigned => by(op, a as u64, b as u64),
        (V::I64(a), V::I64(b)) => by(op, a, b),
        (V::M(a), V::M(b)) => by(op, a, b),
        _ => panic!("operands of different types"),
    }
}

/// A conversion's result: Rust's `as` has the same rules.
pub fn convert(v: V, to: Elem, unsigned: bool) -> V {
    macro_rules! float {
        ($x:expr) => {
            match to {
                Elem::F32 => V::F32($x as f32),
                Elem::F64 => V::F64($x as f64),
                Elem::I32 if unsigned => V::I32($x as u32 as i32),
                Elem::I32 => V::I32($x as i32),
                Elem::I64 if unsigned => V::I64($x as u64 as i64),
                Elem::I64 => V::I64($x as i64),
                Elem::Mask => V::M($x != 0.0),
                Elem::Addr => unreachable!("addresses are no values"),
            }
        };
    }
    macro_rules! int {
        ($x:expr, $zero:expr) => {
            match to {
                Elem::F32 => V::F32($x as f32),
                Elem::F64 => V::F64($x as f64),
                Elem::I32 => V::I32($x as i32),
                Elem::I64 => V::I64($x as i64),
                Elem::Mask => V::M($x != $zero),
                Elem::Addr => unreachable!("addresses are no values"),
            }
        };
    }
    match v {
        V::F32(x) => float!(x),
        V::F64(x) => float!(x),
        V::I32(x) if unsigned => int!(x as u32, 0),
        V::I32(x) => int!(x, 0),
        V::I64(x) if unsigned => int!(x as u64, 0),
        V::I64(x) => int!(x, 0),
        V::M(x) if to == Elem::Mask => V::M(x),
        V::M(x) => convert(V::I32(i32::from(x)), to, false),
    }
}
