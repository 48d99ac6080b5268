//! Element types, and constants: `TensorProto`, raw, typed or external.

use std::fmt;

use bertc_ir::{DType, Tensor};
use bytes::Bytes;

use super::load::External;
use super::proto::{TensorProto, tensor_proto};
use super::small::Small;
use super::value::{V, Val};

/// The element type with ONNX number `n`.
///
/// # Errors
/// Types that tensors of the IR can't have (strings, complex numbers, and those of [`Small`]).
pub fn dtype(n: i32) -> Result<DType, String> {
    use tensor_proto::DataType as T;
    Ok(match T::try_from(n) {
        Ok(T::Float) => DType::F32,
        Ok(T::Uint8) => DType::U8,
        Ok(T::Int8) => DType::I8,
        Ok(T::Uint16) => DType::U16,
        Ok(T::Int16) => DType::I16,
        Ok(T::Int32) => DType::I32,
        Ok(T::Int64) => DType::I64,
        Ok(T::Bool) => DType::Bool,
        Ok(T::Float16) => DType::F16,
        Ok(T::Double) => DType::F64,
        Ok(T::Uint32) => DType::U32,
        Ok(T::Uint64) => DType::U64,
        Ok(T::Bfloat16) => DType::BF16,
        Ok(t) => return Err(format!("element type {} is not supported", t.as_str_name().to_lowercase())),
        Err(_) => return Err(format!("element type {n} is unknown")),
    })
}

/// An element type of ONNX.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Element {
    /// The IR's type of such tensors.
    pub dtype: DType,
    /// What the type is if the IR doesn't have it.
    pub small: Option<Small>,
}

impl Element {
    /// The type with ONNX number `n`.
    ///
    /// # Errors
    /// Strings, complex numbers, numbers that name no type.
    pub fn of(n: i32) -> Result<Self, String> {
        let small = Small::of(n);
        Ok(Element { dtype: small.map_or_else(|| dtype(n), |s| Ok(s.dtype()))?, small })
    }

    /// The same for an attribute.
    ///
    /// # Errors
    /// As [`Element::of`].
    pub fn of_attribute(n: i64) -> Result<Self, String> {
        Element::of(i32::try_from(n).map_err(|_| format!("element type {n} is unknown"))?)
    }

    /// What a value's elements are.
    pub fn of_value(v: &V) -> Self {
        Element { dtype: v.dtype, small: v.small.get() }
    }

    /// Smallest and largest value of an integer type.
    pub fn range(&self) -> (i128, i128) {
        let bits = self.small.map_or(8 * self.dtype.size() as u32, |s| s.bits().into());
        if self.dtype.is_signed_int() { (-(1 << (bits - 1)), (1 << (bits - 1)) - 1) } else { (0, (1 << bits) - 1) }
    }
}

impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.small {
            Some(s) => f.write_str(&s.name()),
            None => self.dtype.fmt(f),
        }
    }
}

/// The constant of a `TensorProto`. Raw and external data are slices of the file's map, not copies.
///
/// # Errors
/// What is wrong with it: type, dims, data of another size, external data out of reach.
pub fn constant(t: &TensorProto, external: &mut External) -> Result<V, String> {
    let Element { dtype, small } = Element::of(t.data_type())?;
    let bits = small.map_or(8, |s| s.bits());
    let shape: Vec<usize> = (t.dims.iter().map(|&d| usize::try_from(d)).collect::<Result<_, _>>())
        .map_err(|_| format!("dims {:?} are negative", t.dims))?;
    if shape.len() > bertc_ir::infer::MAX_RANK {
        return Err(format!("rank {} is above the limit of {}", shape.len(), bertc_ir::infer::MAX_RANK));
    }
    if t.segment.is_some() {
        return Err("segmented tensors are not supported".to_string());
    }
    // A size of 0 hides what the others overflow to, until something replaces it.
    let others = shape.iter().filter(|&&d| d > 0).try_fold(8usize, |a, &d| a.checked_mul(d));
    if others.is_none_or(|n| i64::try_from(n).is_err()) {
        return Err("its size overflows 64 bits".to_string());
    }
    let mut bytes = shape.iter().product::<usize>() * dtype.size();
    let elements = bytes;
    if bits < 8 {
        bytes = bytes.div_ceil(usize::from(8 / bits));
    }
    let data = if t.data_location() == tensor_proto::DataLocation::External {
        external_data(t, bytes as u64, external)?
    } else if let Some(raw) = &t.raw_data {
        raw.clone()
    } else {
        typed_data(t, dtype)
    };
    // A bool of a stray byte value would be neither 0 nor 1 in arithmetic.
    let data = if dtype == DType::Bool && data.iter().any(|&b| b > 1) {
        data.iter().map(|&b| u8::from(b != 0)).collect::<Vec<u8>>().into()
    } else {
        data
    };
    let found = data.len();
    let data = if bits < 8 && found == bytes { unpacked(&data, elements, bits, dtype) } else { data };
    let t = Tensor::new(dtype, shape, data).filter(|_| found == bytes).ok_or_else(|| {
        let element = Element { dtype, small };
        format!("dims {:?} of {element} need {bytes} bytes, the file has {found}", t.dims)
    })?;
    let v = Val::constant(t);
    v.small.set(small);
    Ok(v)
}

/// Elements of fewer than 8 bits, the first in the lowest bits of a byte, as one byte each.
pub fn unpacked(data: &[u8], elements: usize, bits: u8, dtype: DType) -> Bytes {
    let each = usize::from(8 / bits);
    let spare = 8 - u32::from(bits);
    let one = |i: usize| {
        // At the top of a byte; from there down again, with the sign if there is one.
        let high = data[i / each] << (spare - u32::from(bits) * (i % each) as u32);
        if dtype.is_signed_int() { (high.cast_signed() >> spare).cast_unsigned() } else { high >> spare }
    };
    (0..elements).map(one).collect::<Vec<u8>>().into()
}

fn external_data(t: &TensorProto, bytes: u64, external: &mut External) -> Result<Bytes, String> {
    let (mut location, mut offset, mut length) = (None, 0u64, None);
    for e in &t.external_data {
        let number = || e.value().parse::<u64>().map_err(|_| format!("external data {} '{}'", e.key(), e.value()));
        match e.key() {
            "location" => location = Some(e.value()),
            "offset" => offset = number()?,
            "length" => length = Some(number()?),
            _ => {}
        }
    }
    let location = location.ok_or("external data without a location")?;
    if let Some(n) = length.filter(|&n| n != bytes) {
        return Err(format!("external data has length {n}, its type needs {bytes}"));
    }
    external.slice(location, offset, Some(bytes))
}

fn typed_data(t: &TensorProto, dtype: DType) -> Bytes {
    let v: Vec<u8> = match dtype {
        DType::F32 => t.float_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::F64 => t.double_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I64 => t.int64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U64 => t.uint64_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::U32 => t.uint64_data.iter().flat_map(|&v| (v as u32).to_le_bytes()).collect(),
        // Narrow types, 16-bit floats as their bits among them, lie in the low bits of an int32.
        DType::I32 => t.int32_data.iter().flat_map(|v| v.to_le_bytes()).collect(),
        DType::I16 | DType::U16 | DType::F16 | DType::BF16 => {
            t.int32_data.iter().flat_map(|&v| (v as u16).to_le_bytes()).collect()
        }
        DType::I8 | DType::U8 => t.int32_data.iter().map(|&v| v as u8).collect(),
        DType::Bool => t.int32_data.iter().map(|&v| u8::from(v != 0)).collect(),
    };
    v.into()
}
