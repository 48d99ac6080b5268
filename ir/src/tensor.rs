//! A host tensor: typed bytes in row-major order. Constants of the IR, inputs and results of the evaluator.

use bytes::Bytes;
use half::{bf16, f16};

use crate::types::DType;

/// A dense, row-major tensor with little-endian elements. Cloning shares the bytes; they need not be aligned.
#[derive(Clone, Debug)]
pub struct Tensor {
    dtype: DType,
    shape: Vec<usize>,
    data: Bytes,
}

/// One element, widened to the type its class computes in.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Scalar {
    /// A float of any width.
    Float(f64),
    /// An integer of any width (u64 values fit) or a bool (0 or 1).
    Int(i128),
}

impl Scalar {
    /// As a float.
    pub fn to_f64(self) -> f64 {
        match self {
            Scalar::Float(v) => v,
            Scalar::Int(v) => v as f64,
        }
    }

    /// As an integer; floats truncate toward zero and saturate, NaN is 0.
    pub fn to_int(self) -> i128 {
        match self {
            Scalar::Float(v) => v as i128,
            Scalar::Int(v) => v,
        }
    }
}

impl PartialEq for Tensor {
    /// Bitwise equality of type, shape and contents.
    fn eq(&self, o: &Self) -> bool {
        self.dtype == o.dtype && self.shape == o.shape && {
            let same = self.data.as_ptr() == o.data.as_ptr() && self.data.len() == o.data.len();
            same || self.data == o.data
        }
    }
}

impl Eq for Tensor {}

impl Tensor {
    /// A tensor over `data`, or `None` if its length is not the shape's product times the element size.
    pub fn new(dtype: DType, shape: Vec<usize>, data: Bytes) -> Option<Self> {
        let n = shape.iter().try_fold(dtype.size(), |a, &d| a.checked_mul(d))?;
        (n == data.len()).then_some(Tensor { dtype, shape, data })
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dims, outermost first.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Number of elements.
    pub fn len(&self) -> usize {
        self.data.len() / self.dtype.size()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.data.is_empty()
    }

    /// The elements' bytes, little-endian, possibly unaligned.
    pub fn bytes(&self) -> &Bytes {
        &self.data
    }

    /// Element `i` in row-major order. Panics when out of bounds.
    pub fn get(&self, i: usize) -> Scalar {
        let s = self.dtype.size();
        read_scalar(self.dtype, &self.data[i * s..(i + 1) * s])
    }

    /// The same elements under another shape, or `None` if the counts differ.
    pub fn reshaped(&self, shape: Vec<usize>) -> Option<Tensor> {
        Tensor::new(self.dtype, shape, self.data.clone())
    }

    /// A tensor of `dtype` from elements, each rounded (floats to nearest even) or wrapped (integers) to the type.
    /// Panics if the count differs from the shape's product: callers compute both from one shape.
    pub fn from_scalars(dtype: DType, shape: Vec<usize>, elems: impl IntoIterator<Item = Scalar>) -> Tensor {
        let mut out = Vec::with_capacity(shape.iter().product::<usize>() * dtype.size());
        for e in elems {
            write_scalar(dtype, e, &mut out);
        }
        Tensor::new(dtype, shape, out.into()).expect("element count matches shape")
    }

    /// An f32 tensor. Panics if the count differs from the shape's product.
    pub fn from_f32(shape: Vec<usize>, v: &[f32]) -> Tensor {
        Tensor::from_scalars(DType::F32, shape, v.iter().map(|&x| Scalar::Float(x.into())))
    }

    /// An i64 tensor. Panics if the count differs from the shape's product.
    pub fn from_i64(shape: Vec<usize>, v: &[i64]) -> Tensor {
        Tensor::from_scalars(DType::I64, shape, v.iter().map(|&x| Scalar::Int(x.into())))
    }

    /// A one-element, rank-0 tensor.
    pub fn scalar(dtype: DType, v: Scalar) -> Tensor {
        Tensor::from_scalars(dtype, Vec::new(), [v])
    }

    /// All elements in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Scalar> + '_ {
        let d = self.dtype;
        self.data.chunks_exact(d.size()).map(move |c| read_scalar(d, c))
    }

    /// All elements as f64.
    pub fn to_f64_vec(&self) -> Vec<f64> {
        self.iter().map(Scalar::to_f64).collect()
    }

    /// All elements as f32.
    pub fn to_f32_vec(&self) -> Vec<f32> {
        self.iter().map(|s| s.to_f64() as f32).collect()
    }

    /// All elements as i64 (u64 values above `i64::MAX` wrap).
    pub fn to_i64_vec(&self) -> Vec<i64> {
        self.iter().map(|s| s.to_int() as i64).collect()
    }

    /// The element if there is exactly one.
    pub fn single(&self) -> Option<Scalar> {
        (self.len() == 1).then(|| self.get(0))
    }
}

/// f64 to f32 rounding to odd: exact values stay, others get an odd last bit. Rounding the result further to at most
/// 22 bits then rounds the f64 value once (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums").
fn to_f32_odd(v: f64) -> f32 {
    let f = v as f32;
    if v.is_nan() || f64::from(f) == v {
        return f;
    }
    let toward_zero = if f64::from(f).abs() > v.abs() { f.to_bits() - 1 } else { f.to_bits() };
    f32::from_bits(toward_zero | 1)
}

/// f64 to f16, rounded once to nearest even (`half` drops low bits before it rounds).
pub(crate) fn f16_from_f64(v: f64) -> f16 {
    f16::from_f32(to_f32_odd(v))
}

/// f64 to bf16, rounded once to nearest even.
pub(crate) fn bf16_from_f64(v: f64) -> bf16 {
    bf16::from_f32(to_f32_odd(v))
}

fn read_scalar(d: DType, b: &[u8]) -> Scalar {
    // The slice always has the element's size, so the conversions can't fail.
    macro_rules! int {
        ($t:ty) => {
            Scalar::Int(<$t>::from_le_bytes(b.try_into().expect("element size")) as i128)
        };
    }
    match d {
        DType::F32 => Scalar::Float(f32::from_le_bytes(b.try_into().expect("element size")).into()),
        DType::F16 => Scalar::Float(f16::from_le_bytes(b.try_into().expect("element size")).into()),
        DType::BF16 => Scalar::Float(bf16::from_le_bytes(b.try_into().expect("element size")).into()),
        DType::F64 => Scalar::Float(f64::from_le_bytes(b.try_into().expect("element size"))),
        DType::I8 => int!(i8),
        DType::U8 => int!(u8),
        DType::I16 => int!(i16),
        DType::U16 => int!(u16),
        DType::I32 => int!(i32),
        DType::U32 => int!(u32),
        DType::I64 => int!(i64),
        DType::U64 => int!(u64),
        DType::Bool => Scalar::Int((b[0] != 0).into()),
    }
}

fn write_scalar(d: DType, v: Scalar, out: &mut Vec<u8>) {
    match d {
        DType::F32 => out.extend((v.to_f64() as f32).to_le_bytes()),
        DType::F16 => out.extend(f16_from_f64(v.to_f64()).to_le_bytes()),
        DType::BF16 => out.extend(bf16_from_f64(v.to_f64()).to_le_bytes()),
        DType::F64 => out.extend(v.to_f64().to_le_bytes()),
        DType::I8 => out.extend((v.to_int() as i8).to_le_bytes()),
        DType::U8 => out.extend((v.to_int() as u8).to_le_bytes()),
        DType::I16 => out.extend((v.to_int() as i16).to_le_bytes()),
        DType::U16 => out.extend((v.to_int() as u16).to_le_bytes()),
        DType::I32 => out.extend((v.to_int() as i32).to_le_bytes()),
        DType::U32 => out.extend((v.to_int() as u32).to_le_bytes()),
        DType::I64 => out.extend((v.to_int() as i64).to_le_bytes()),
        DType::U64 => out.extend((v.to_int() as u64).to_le_bytes()),
        DType::Bool => out.push(u8::from(match v {
            Scalar::Int(i) => i != 0,
            Scalar::Float(f) => f != 0.0,
        })),
    }
}
