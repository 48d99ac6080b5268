//! Names of types and operations in text, and what an instruction reads and defines.

use std::fmt;

use super::{Bin, Elem, Inst, Place, Reg, RegType, Un};

impl Elem {
    /// Every element, in declaration order.
    pub const ALL: [Elem; 6] = [Elem::F32, Elem::F64, Elem::I32, Elem::I64, Elem::Mask, Elem::Addr];
}

impl fmt::Display for RegType {
    /// `f32` for a scalar, `f32x4` for a vector.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.elem.name())?;
        if self.lanes == 1 { Ok(()) } else { write!(f, "x{}", self.lanes) }
    }
}

impl RegType {
    /// Whether there is such a register: 1, 2, 4, 8 or 16 lanes, more than one only of an element that vectorises.
    pub fn exists(self) -> bool {
        matches!(self.lanes, 1 | 2 | 4 | 8 | 16) && (self.lanes == 1 || self.elem.vectorises())
    }

    /// The type that prints as `s`, which may be one that doesn't [exist](Self::exists).
    pub fn from_name(s: &str) -> Option<RegType> {
        let elem = Elem::ALL.into_iter().find(|e| s.starts_with(e.name()))?;
        let rest = &s[elem.name().len()..];
        if rest.is_empty() {
            return Some(RegType::scalar(elem));
        }
        let digits = rest.strip_prefix('x')?;
        // `f32x1`, `f32x04` and `f32x+4` aren't how a type prints.
        let lanes: u8 = digits.parse().ok().filter(|&n: &u8| n > 1 && n.to_string() == digits)?;
        Some(RegType::vector(elem, lanes))
    }
}

impl Un {
    /// Every operation, in declaration order.
    pub const ALL: [Un; 8] = [Un::Neg, Un::Abs, Un::Sqrt, Un::Floor, Un::Ceil, Un::Nearest, Un::Trunc, Un::Not];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Un::Neg => "neg",
            Un::Abs => "abs",
            Un::Sqrt => "sqrt",
            Un::Floor => "floor",
            Un::Ceil => "ceil",
            Un::Nearest => "nearest",
            Un::Trunc => "trunc",
            Un::Not => "not",
        }
    }

    /// The operation whose name is `s`.
    pub fn from_name(s: &str) -> Option<Un> {
        Un::ALL.into_iter().find(|o| o.name() == s)
    }
}

impl Bin {
    /// Every operation, in declaration order.
    pub const ALL: [Bin; 15] = [
        Bin::Add,
        Bin::Sub,
        Bin::Mul,
        Bin::Div,
        Bin::Rem,
        Bin::DivU,
        Bin::RemU,
        Bin::Min,
        Bin::Max,
        Bin::And,
        Bin::Or,
        Bin::Xor,
        Bin::Shl,
        Bin::ShrS,
        Bin::ShrU,
    ];

    /// The name in text.
    pub fn name(self) -> &'static str {
        match self {
            Bin::Add => "add",
            Bin::Sub => "sub",
            Bin::Mul => "mul",
            Bin::Div => "div",
            Bin::Rem => "rem",
            Bin::DivU => "div_u",
            Bin::RemU => "rem_u",
            Bin::Min => "min",
            Bin::Max => "max",
            Bin::And => "and",
            Bin::Or => "or",
            Bin::Xor => "xor",
            Bin::Shl => "shl",
            Bin::ShrS => "shr_s",
            Bin::ShrU => "shr_u",
        }
    }

    /// The operation whose name is `s`.
    pub fn from_name(s: &str) -> Option<Bin> {
        Bin::ALL.into_iter().find(|o| o.name() == s)
    }
}

/// Applies a closure to the registers an instruction reads; works on `&Inst` and on `&mut Inst`.
macro_rules! operands {
    ($inst:expr, $f:expr) => {
        match $inst {
            Inst::ConstF { .. } | Inst::ConstI { .. } | Inst::Fail => (),
            Inst::Un { a, .. }
            | Inst::Convert { a, .. }
            | Inst::Bitcast { a, .. }
            | Inst::Splat { a, .. }
            | Inst::Extract { a, .. }
            | Inst::Reduce { a, .. } => [a].into_iter().for_each($f),
            Inst::Bin { a, b, .. } | Inst::Cmp { a, b, .. } | Inst::Zip { a, b, .. } => [a, b].into_iter().for_each($f),
            Inst::Fma { a, b, c, .. } | Inst::Dot { a, b, c, .. } => [a, b, c].into_iter().for_each($f),
            Inst::Select { m, a, b, .. } => [m, a, b].into_iter().for_each($f),
            Inst::Address { index, .. } => [index].into_iter().for_each($f),
            Inst::Load { at: Place { base, index, active, .. }, .. }
            | Inst::Prefetch { at: Place { base, index, active, .. } } => {
                base.into_iter().chain([index]).chain(active).for_each($f)
            }
            Inst::Store { at: Place { base, index, active, .. }, value } => {
                base.into_iter().chain([index]).chain(active).chain([value]).for_each($f)
            }
            Inst::For { lo, hi, init, .. } => [lo, hi].into_iter().chain(init).for_each($f),
            Inst::If { cond, .. } => [cond].into_iter().for_each($f),
        }
    };
}

/// Applies a closure to the registers an instruction defines for what follows it.
macro_rules! results {
    ($inst:expr, $f:expr) => {
        match $inst {
            Inst::ConstF { dst, .. }
            | Inst::ConstI { dst, .. }
            | Inst::Un { dst, .. }
            | Inst::Bin { dst, .. }
            | Inst::Fma { dst, .. }
            | Inst::Dot { dst, .. }
            | Inst::Cmp { dst, .. }
            | Inst::Select { dst, .. }
            | Inst::Convert { dst, .. }
            | Inst::Bitcast { dst, .. }
            | Inst::Splat { dst, .. }
            | Inst::Extract { dst, .. }
            | Inst::Reduce { dst, .. }
            | Inst::Zip { dst, .. }
            | Inst::Address { dst, .. }
            | Inst::Load { dst, .. } => [dst].into_iter().for_each($f),
            Inst::For { dst, .. } | Inst::If { dst, .. } => dst.into_iter().for_each($f),
            Inst::Store { .. } | Inst::Prefetch { .. } | Inst::Fail => (),
        }
    };
}

impl Inst {
    /// The word that begins the instruction in text.
    pub fn mnemonic(&self) -> &'static str {
        match self {
            Inst::ConstF { .. } | Inst::ConstI { .. } => "const",
            Inst::Un { op, .. } => op.name(),
            Inst::Bin { op, .. } => op.name(),
            Inst::Fma { .. } => "fma",
            Inst::Dot { .. } => "dot",
            Inst::Cmp { .. } => "cmp",
            Inst::Select { .. } => "select",
            Inst::Convert { .. } => "convert",
            Inst::Bitcast { .. } => "bitcast",
            Inst::Splat { .. } => "splat",
            Inst::Extract { .. } => "extract",
            Inst::Reduce { .. } => "reduce",
            Inst::Zip { .. } => "zip",
            Inst::Address { .. } => "address",
            Inst::Load { .. } => "load",
            Inst::Store { .. } => "store",
            Inst::Prefetch { .. } => "prefetch",
            Inst::For { .. } => "for",
            Inst::If { .. } => "if",
            Inst::Fail => "fail",
        }
    }

    /// Calls `f` with each register that the instruction itself reads, in order (not those that nested blocks read).
    pub fn operands(&self, mut f: impl FnMut(Reg)) {
        operands!(self, |r: &Reg| f(*r));
    }

    /// As [`operands`](Self::operands), to change them.
    pub fn operands_mut(&mut self, mut f: impl FnMut(&mut Reg)) {
        operands!(self, |r: &mut Reg| f(r));
    }

    /// Calls `f` with each register that holds a result after the instruction.
    pub fn results(&self, mut f: impl FnMut(Reg)) {
        results!(self, |r: &Reg| f(*r));
    }

    /// As [`results`](Self::results), to change them.
    pub fn results_mut(&mut self, mut f: impl FnMut(&mut Reg)) {
        results!(self, |r: &mut Reg| f(r));
    }
}
