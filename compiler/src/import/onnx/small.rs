//! ONNX's types of 8 bits and fewer that the IR doesn't have. Their tensors are 8-bit integers here, one element a byte:
//! integers as what they are, floats as their codes. What a value is in truth, [`Val::small`](super::value::Val) says.

use bertc_ir::{BinaryOp, CmpOp, DType, Tensor, UnaryOp};

use super::build::Builder;
use super::proto::tensor_proto::DataType;
use super::value::{R, V, Val};

/// A type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Small {
    /// Integers of so many bits.
    Int {
        /// Whether there are negative ones.
        signed: bool,
        /// 4 or 2.
        bits: u8,
    },
    /// Floats.
    Float(Format),
}

/// How floats are coded: a sign, an exponent, a mantissa. Codes without the sign bit are in the order of their values.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Format {
    name: &'static str,
    bits: u8,
    /// Bits of the mantissa.
    mantissa: u8,
    /// What the exponent is above the true one.
    bias: i32,
    signed: bool,
    /// The code of the largest finite value.
    max: u8,
    /// The code of what is beyond: an infinity, or NaN. `None`: the largest value stands for it.
    beyond: Option<u8>,
    nan: u8,
}

impl Format {
    /// Whether there is one zero only, whose code with the sign bit means NaN.
    fn is_fnuz(&self) -> bool {
        self.nan == self.sign() && self.beyond == Some(self.nan)
    }

    /// The sign bit; 0 if there is none.
    fn sign(&self) -> u8 {
        if self.signed { 1 << (self.bits - 1) } else { 0 }
    }

    /// The value of a code.
    fn value(&self, code: u8) -> f32 {
        let sign = if code & self.sign() != 0 { -1.0 } else { 1.0 };
        let code = i32::from(code);
        let magnitude = code & !i32::from(self.sign());
        // One zero only: the code of the other is NaN.
        if self.is_fnuz() && code == i32::from(self.nan) {
            return f32::NAN;
        }
        if magnitude > self.max.into() {
            let infinite = self.beyond != Some(self.nan) && self.beyond.map(i32::from) == Some(magnitude);
            return if infinite { sign * f32::INFINITY } else { f32::NAN };
        }
        let one = 1 << self.mantissa;
        let (e, m) = (magnitude / one, magnitude % one);
        // Without a mantissa there is nothing subnormal, nor a zero.
        let (m, e) = if e == 0 && self.mantissa > 0 { (m, 1) } else { (m + one, e) };
        let exponent = e - self.bias - i32::from(self.mantissa);
        sign * (f64::from(m) * f64::from(exponent).exp2()) as f32
    }
}

/// How a float between two others becomes one without a mantissa. All others are rounded to the nearest, ties to even.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Rounding {
    /// To the nearest, ties away from zero.
    Away,
    /// To the larger one.
    Up,
    /// To the smaller one.
    Down,
}

/// How a float becomes one of a small type.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Conversion {
    /// What is too large becomes the largest value, infinities too.
    pub saturate: bool,
    /// For types without a mantissa.
    pub rounding: Rounding,
}

impl Default for Conversion {
    /// ONNX's.
    fn default() -> Self {
        Conversion { saturate: true, rounding: Rounding::Up }
    }
}

impl Small {
    /// The type with ONNX number `n`, if it is one of these.
    pub fn of(n: i32) -> Option<Self> {
        use DataType as T;
        let format = |name, bits, mantissa, bias, max, beyond, nan| {
            Small::Float(Format { name, bits, mantissa, bias, signed: mantissa > 0, max, beyond, nan })
        };
        Some(match T::try_from(n).ok()? {
            T::Int4 => Small::Int { signed: true, bits: 4 },
            T::Uint4 => Small::Int { signed: false, bits: 4 },
            T::Int2 => Small::Int { signed: true, bits: 2 },
            T::Uint2 => Small::Int { signed: false, bits: 2 },
            T::Float8e4m3fn => format("float8e4m3fn", 8, 3, 7, 0x7e, Some(0x7f), 0x7f),
            T::Float8e4m3fnuz => format("float8e4m3fnuz", 8, 3, 8, 0x7f, Some(0x80), 0x80),
            T::Float8e5m2 => format("float8e5m2", 8, 2, 15, 0x7b, Some(0x7c), 0x7e),
            T::Float8e5m2fnuz => format("float8e5m2fnuz", 8, 2, 16, 0x7f, Some(0x80), 0x80),
            T::Float8e8m0 => format("float8e8m0", 8, 0, 127, 0xfe, Some(0xff), 0xff),
            // There is no NaN: as in ONNX's reference implementation the negative zero stands for it.
            T::Float4e2m1 => format("float4e2m1", 4, 1, 1, 0x7, None, 0x8),
            _ => return None,
        })
    }

    /// The IR's type of such tensors.
    pub fn dtype(&self) -> DType {
        match self {
            Small::Int { signed: true, .. } => DType::I8,
            _ => DType::U8,
        }
    }

    /// Bits of an element in a file.
    pub fn bits(&self) -> u8 {
        match self {
            Small::Int { bits, .. } => *bits,
            Small::Float(f) => f.bits,
        }
    }

    /// ONNX's name.
    pub fn name(&self) -> String {
        match self {
            Small::Int { signed, bits } => format!("{}int{bits}", if *signed { "" } else { "u" }),
            Small::Float(f) => f.name.to_string(),
        }
    }

    /// Whether these are floats.
    pub fn is_float(&self) -> bool {
        matches!(self, Small::Float(_))
    }

    /// What the codes of a tensor mean: integers in 8 bits, floats as f32.
    pub fn decode(&self, b: &mut Builder, x: &V) -> R<V> {
        let Small::Float(f) = self else { return Ok(Val::new(x.dtype, x.shape.clone(), x.kind.clone())) };
        let table: Vec<f32> = (0..1u16 << f.bits).map(|code| f.value(code as u8)).collect();
        if let Some(t) = x.as_const() {
            let codes = t.iter().map(|s| table.get(s.to_int() as usize).copied().unwrap_or(f32::NAN));
            return Ok(Val::constant(Tensor::from_f32(t.shape().to_vec(), &codes.collect::<Vec<_>>())));
        }
        let (table, codes) = (Val::constant(Tensor::from_f32(vec![table.len()], &table)), b.cast(DType::I32, x)?);
        b.gather(&table, &codes, 0)
    }

    /// A tensor of this type: of integers those of the fewer bits, as they are below; floats rounded once, from f32.
    pub fn encode(&self, b: &mut Builder, x: &V, how: Conversion) -> R<V> {
        let y = match *self {
            Small::Int { signed, bits } => wrapped(b, x, signed, bits)?,
            Small::Float(f) => {
                let x = b.cast(DType::F32, x)?;
                encoded(b, &x, &f, how)?
            }
        };
        let y = b.cast(self.dtype(), &y)?;
        y.small.set(Some(*self));
        Ok(y)
    }
}

/// The low bits of `x`, as i32.
fn wrapped(b: &mut Builder, x: &V, signed: bool, bits: u8) -> R<V> {
    let x = b.cast(DType::I32, x)?;
    let scalar = |b: &Builder, v: u8| b.scalar(DType::I32, v.into());
    let (values, half) = (scalar(b, 1 << bits), scalar(b, if signed { 1 << (bits - 1) } else { 0 }));
    let x = b.binary(BinaryOp::Add, &x, &half)?;
    let x = b.binary(BinaryOp::Mod, &x, &values)?;
    b.binary(BinaryOp::Sub, &x, &half)
}

/// The codes of f32 numbers, as f32. The exponent is found by halving: all products are by powers of two, and exact.
fn encoded(b: &mut Builder, x: &V, f: &Format, how: Conversion) -> R<V> {
    let n = |b: &Builder, v: f64| b.scalar(DType::F32, v);
    let m = i32::from(f.mantissa);
    let a = b.unary(UnaryOp::Abs, x)?;
    let zero = n(b, 0.0);
    let (mut t, mut e, steps) = if f.mantissa > 0 {
        // Beyond twice the largest value all are alike. From here on the least normal number is 1.
        let (top, up) = (2.0 * f64::from(f.value(f.max)), f64::from(f.bias - 1).exp2());
        // The largest power of two among the exponents that there are then.
        let steps = 1 << ((top * up).log2() as u32).ilog2();
        let (top, up) = (n(b, top), n(b, up));
        let t = b.binary(BinaryOp::Min, &a, &top)?;
        (b.binary(BinaryOp::Mul, &t, &up)?, zero.clone(), steps)
    } else {
        // f32's own range: numbers below 1 are brought up from the least power of two.
        let (one, up, half) = (n(b, 1.0), n(b, 127f64.exp2()), n(b, 127.0));
        let below = b.compare(CmpOp::Lt, &a, &one)?;
        let raised = b.binary(BinaryOp::Mul, &a, &up)?;
        (b.select(&below, &raised, &a)?, b.select(&below, &zero, &half)?, 64)
    };
    let mut k = steps;
    while k > 0 {
        let (power, down) = (n(b, f64::from(k).exp2()), n(b, f64::from(-k).exp2()));
        let large = b.compare(CmpOp::Ge, &t, &power)?;
        let halved = b.binary(BinaryOp::Mul, &t, &down)?;
        t = b.select(&large, &halved, &t)?;
        let step = n(b, f64::from(k << m));
        let more = b.binary(BinaryOp::Add, &e, &step)?;
        e = b.select(&large, &more, &e)?;
        k /= 2;
    }
    let one = n(b, f64::from(1 << m));
    t = b.binary(BinaryOp::Mul, &t, &one)?;
    let mut code = if m > 0 {
        // Below the least normal number the mantissa counts from 0, above from 1, which is then the exponent's step.
        let r = b.unary(UnaryOp::Round, &t)?;
        b.binary(BinaryOp::Add, &e, &r)?
    } else {
        let r = match how.rounding {
            Rounding::Up => b.unary(UnaryOp::Ceil, &t)?,
            Rounding::Down => b.unary(UnaryOp::Floor, &t)?,
            Rounding::Away => {
                let half = n(b, 0.5);
                let t = b.binary(BinaryOp::Add, &t, &half)?;
                b.unary(UnaryOp::Floor, &t)?
            }
        };
        let r = b.binary(BinaryOp::Sub, &r, &one)?;
        b.binary(BinaryOp::Add, &e, &r)?
    };
    let max = n(b, f.max.into());
    let beyond = f.beyond.filter(|_| !how.saturate);
    let over = b.compare(CmpOp::Gt, &code, &max)?;
    code = b.binary(BinaryOp::Min, &code, &max)?;
    if m == 0 {
        let under = b.compare(CmpOp::Lt, &t, &one)?;
        let least = beyond.map_or_else(|| zero.clone(), |v| n(b, v.into()));
        code = b.select(&under, &least, &code)?;
    }
    if let Some(v) = beyond.filter(|_| !f.is_fnuz()) {
        let v = n(b, v.into());
        code = b.select(&over, &v, &code)?;
    }
    if f.signed {
        // A negative zero is told by its reciprocal.
        let recip = b.unary(UnaryOp::Recip, x)?;
        let below = b.compare(CmpOp::Lt, x, &zero)?;
        let below_zero = b.compare(CmpOp::Lt, &recip, &zero)?;
        let mut negative = b.binary(BinaryOp::Or, &below, &below_zero)?;
        if f.is_fnuz() {
            let some = b.compare(CmpOp::Gt, &code, &zero)?;
            negative = b.binary(BinaryOp::And, &negative, &some)?;
        }
        let sign = n(b, f.sign().into());
        let signed = b.binary(BinaryOp::Add, &code, &sign)?;
        code = b.select(&negative, &signed, &code)?;
    }
    let nan = n(b, f.nan.into());
    if beyond.is_some() && f.is_fnuz() {
        code = b.select(&over, &nan, &code)?;
    }
    let number = b.compare(CmpOp::Eq, x, x)?;
    b.select(&number, &code, &nan)
}
