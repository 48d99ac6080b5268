//! Operators of com.microsoft on tables of few bits, in blocks with a scale each.

use bertc_ir::{BinaryOp, DType, Dim, Scalar, Tensor};

use super::{matmul, quant};
use crate::import::onnx::cx::Cx;
use crate::import::onnx::tensor::{self, Element};
use crate::import::onnx::value::{R, Stop, V, Val};

/// Sizes of the weights.
struct Sizes {
    /// Rows of the product's right operand: what is summed over.
    k: usize,
    n: usize,
    bits: usize,
    block: usize,
    /// Blocks of a column.
    blocks: usize,
    /// Bytes of a block.
    bytes: usize,
}

/// Elements that share a scale.
fn block_size(n: i64) -> R<usize> {
    let size = usize::try_from(n).ok().filter(|n| (16..=1 << 31).contains(n) && n.is_power_of_two());
    size.ok_or_else(|| Stop::Fail(format!("block_size is {n}, expected a power of two of at least 16")))
}

fn sizes(c: &Cx<'_>) -> R<Sizes> {
    let positive = |name, default| -> R<usize> {
        let v = c.int(name, default)?;
        let v = usize::try_from(v).ok().filter(|v| (1..=1 << 31).contains(v));
        v.ok_or_else(|| Stop::Fail(format!("attribute '{name}' is missing or no size")))
    };
    let (k, n, block) = (positive("K", 0)?, positive("N", 0)?, block_size(c.int("block_size", 0)?)?);
    let bits = positive("bits", 4)?;
    if !matches!(bits, 2 | 4 | 8) {
        return Err(format!("weights of {bits} bits are not supported, expected 2, 4 or 8").into());
    }
    Ok(Sizes { k, n, bits, block, blocks: k.div_ceil(block), bytes: block * bits / 8 })
}

/// Element `i` of those packed into bytes, the first in the lowest bits.
fn element(bytes: &[u8], i: usize, bits: usize) -> u8 {
    let each = 8 / bits;
    let at = bytes[i / each] >> (bits * (i % each));
    if bits == 8 { at } else { at & ((1 << bits) - 1) }
}

/// A constant input with as many elements.
fn constant(c: &Cx<'_>, i: usize, what: &str, len: Option<usize>) -> R<Tensor> {
    let v = c.input(i)?;
    let t = v.as_const().cloned().ok_or_else(|| Stop::Fail(format!("{what} must be a constant")))?;
    if len != Some(t.len()) {
        let expected = len.map_or_else(|| "fewer".to_string(), |n| n.to_string());
        return Err(Stop::Fail(format!("{what} of {} elements, expected {expected}", t.len())));
    }
    Ok(t)
}

/// One zero point for each block: packed like the weights, of the type of scales, or the middle.
fn zero_points(c: &Cx<'_>, s: &Sizes) -> R<Vec<f32>> {
    let all = s.n.checked_mul(s.blocks).ok_or("a size overflows")?;
    let Some(z) = c.opt(3) else { return Ok(vec![(1u32 << (s.bits - 1)) as f32; all]) };
    if z.dtype != DType::U8 {
        if !z.dtype.is_float() {
            return Err(format!("zero points of {} are not supported", z.dtype).into());
        }
        let t = constant(c, 3, "zero_points", Some(all))?;
        return Ok(t.iter().map(|v| v.to_f64() as f32).collect());
    }
    let row = (s.blocks * s.bits).div_ceil(8);
    let t = constant(c, 3, "zero_points", s.n.checked_mul(row))?;
    let rows = t.bytes().chunks_exact(row.max(1));
    Ok(rows.flat_map(|r| (0..s.blocks).map(move |i| f32::from(element(r, i, s.bits)))).collect())
}

/// The block of each row: by its place, or as `g_idx` says.
fn groups(c: &Cx<'_>, s: &Sizes) -> R<Vec<usize>> {
    let Some(g) = c.opt(4) else { return Ok((0..s.k).map(|i| i / s.block).collect()) };
    let t = g.as_const().ok_or("g_idx must be a constant")?;
    if !t.dtype().is_int() || t.len() < s.k {
        return Err(format!("g_idx of {} {} elements, expected integers for {} rows", t.len(), t.dtype(), s.k).into());
    }
    let block = |i: usize| usize::try_from(t.get(i).to_int()).ok().filter(|&g| g < s.blocks);
    (0..s.k)
        .map(|i| block(i).ok_or_else(|| Stop::Fail(format!("g_idx[{i}] is not one of {} blocks", s.blocks))))
        .collect()
}

/// (q - zero point) · scale as f32, `[K, N]`.
fn weights(c: &Cx<'_>, s: &Sizes) -> R<V> {
    let column = s.blocks.checked_mul(s.bytes).ok_or("a size overflows")?;
    let q = constant(c, 1, "weights", s.n.checked_mul(column))?;
    let scales = constant(c, 2, "scales", s.n.checked_mul(s.blocks))?;
    if q.dtype() != DType::U8 || !scales.dtype().is_float() {
        return Err(format!("weights of {} with scales of {}", q.dtype(), scales.dtype()).into());
    }
    let (zeros, groups) = (zero_points(c, s)?, groups(c, s)?);
    let scales: Vec<f32> = scales.iter().map(|v| v.to_f64() as f32).collect();
    let mut w = vec![0f32; s.k.checked_mul(s.n).ok_or("a size overflows")?];
    for (n, packed) in q.bytes().chunks_exact(column).enumerate() {
        for (k, &g) in groups.iter().enumerate() {
            let at = n * s.blocks + g;
            w[k * s.n + n] = (f32::from(element(packed, k, s.bits)) - zeros[at]) * scales[at];
        }
    }
    Ok(Val::constant(Tensor::from_f32(vec![s.k, s.n], &w)))
}

/// The elements of a constant that is packed along its last dim, one a byte.
fn unpacked(v: &V, bits: u8) -> R<V> {
    let t = v.as_const().ok_or("data and zero_points must be constants")?;
    let (mut shape, each) = (t.shape().to_vec(), usize::from(8 / bits));
    let last = shape.last_mut().ok_or("data and zero_points must have dims")?;
    *last = last.checked_mul(each).filter(|&n| i64::try_from(n).is_ok()).ok_or("a size overflows")?;
    let len = t.len().checked_mul(each).ok_or("a size overflows")?;
    let data = tensor::unpacked(t.bytes(), len, bits, DType::U8);
    Ok(Val::constant(Tensor::new(DType::U8, shape, data).ok_or("a size overflows")?))
}

/// What a table of `GatherBlockQuantized` is made of.
struct Table {
    data: V,
    scales: V,
    zeros: Option<V>,
    /// The axis whose elements are picked, and that along which blocks lie.
    at: usize,
    along: usize,
    block: i64,
}

/// The operands, with elements of few bits one a byte.
fn table(c: &mut Cx<'_>) -> R<Table> {
    let (mut data, scales, mut zeros) = (c.input(0)?, c.input(2)?, c.opt(3));
    let rank = data.rank();
    let (at, along) = (c.int("gather_axis", 0)?, c.int("quantize_axis", 1)?);
    let (at, along) = (c.axis_of(at, rank)?, c.axis_of(along, rank)?);
    let bits = c.int("bits", 4)?;
    if at == along {
        return Err("gather_axis and quantize_axis are the same".into());
    }
    let [own, of_scales] = [&data, &scales].map(Element::of_value);
    if of_scales.small.is_some() || !of_scales.dtype.is_float() {
        return Err(format!("scales of {of_scales} are not supported").into());
    }
    if let Some(z) = zeros.as_ref().map(Element::of_value).filter(|z| *z != own) {
        return Err(format!("zero points of {z} for data of {own}").into());
    }
    let floats = own.small.is_some_and(|s| s.is_float());
    if floats && zeros.is_some() {
        return Err(format!("data of {own} has no zero points").into());
    }
    let block = match c.int("block_size", 128)? {
        0 if floats => data.shape[along].as_const().ok_or("a dim of data is unknown")?,
        n => block_size(n)? as i64,
    };
    if own.small.is_none() {
        let bits = u8::try_from(bits).ok().filter(|n| matches!(n, 2 | 4 | 8) && own.dtype == DType::U8);
        let bits = bits.ok_or_else(|| format!("data of {own} with these bits is not supported"))?;
        if at != 0 || along + 1 != rank {
            return Err("bytes are gathered along the first axis, and have blocks along the last one".into());
        }
        data = unpacked(&data, bits)?;
        zeros = match zeros {
            // Rows are padded to whole bytes.
            Some(z) if z.rank() == rank && scales.rank() == rank => {
                let z = unpacked(&z, bits)?;
                let (n, spare) = (scales.shape[along].clone(), Dim::constant(i64::from(8 / bits) - 1));
                let padding = z.shape[along].sub(&n).ok_or("a size overflows")?;
                if !c.b.ge(&padding, &Dim::constant(0)) || !c.b.ge(&spare, &padding) {
                    return Err("zero points are not as many as scales".into());
                }
                Some(c.b.slice(&z, along, &Dim::constant(0), &n, 1)?)
            }
            Some(_) => zeros,
            None => Some(Val::splat(DType::U8, scales.shape.clone(), Scalar::Int(1 << (bits - 1)))),
        };
    }
    let same = |v: &V, i: usize| v.shape[i] == data.shape[i] || (floats && v.shape[i].as_const() == Some(1));
    let fits = |v: &V| v.rank() == rank && (0..rank).all(|i| i == along || same(v, i));
    if !fits(&scales) || zeros.as_ref().is_some_and(|z| z.shape != scales.shape) {
        let (d, s) = (c.b.show_shape(&data.shape), c.b.show_shape(&scales.shape));
        return Err(Stop::Fail(format!("scales of shape {s}, or zero points of another one, for data of shape {d}")));
    }
    Ok(Table { data, scales, zeros, at, along, block })
}

/// `GatherBlockQuantized`: rows of a table, (q - zero point) · scale.
pub fn gather(c: &mut Cx<'_>) -> R<Vec<V>> {
    let small = c.input(0)?.small.get();
    let Table { data, scales, zeros, at, along, block } = table(c)?;
    let indices = c.input(1)?;
    let q = c.b.gather(&data, &indices, at)?;
    let q = small.map_or_else(|| Ok(q.clone()), |s| s.decode(c.b, &q))?;
    let q = c.b.cast(DType::F32, &q)?;
    // Scales of floats may be one for all rows.
    let mut shape = data.shape.clone();
    shape[along] = scales.shape[along].clone();
    // Behind the gathered axis the others have moved.
    let moved = if along > at { along + indices.rank() - 1 } else { along };
    let of_rows = |c: &mut Cx<'_>, v: &V| -> R<V> {
        let v = c.b.cast(DType::F32, v)?;
        let v = c.b.expand(&v, &shape)?;
        let v = c.b.gather(&v, &indices, at)?;
        quant::of_blocks(c.b, &v, &q, moved, block)
    };
    let s = of_rows(c, &scales)?;
    let q = match zeros {
        Some(z) => {
            let z = of_rows(c, &z)?;
            c.b.binary(BinaryOp::Sub, &q, &z)?
        }
        None => q.clone(),
    };
    let y = c.b.binary(BinaryOp::Mul, &q, &s)?;
    Ok(vec![c.b.cast(scales.dtype, &y)?])
}

/// `MatMulNBits`: the weights become floats here.
pub fn matmul_n_bits(c: &mut Cx<'_>) -> R<Vec<V>> {
    let x = c.input(0)?;
    if !x.dtype.is_float() || x.rank() == 0 {
        return Err(format!("an operand of {} and rank {}, expected a matrix of floats", x.dtype, x.rank()).into());
    }
    // A hint at how exact the product must be: it is of f32.
    c.ignore("accuracy_level");
    if c.int("weight_prepacked", 0)? != 0 {
        return Err("weights that are packed for a GPU are not supported".into());
    }
    let s = sizes(c)?;
    let last = x.shape.last().cloned().unwrap_or_default();
    c.b.require_equal(&last, &Dim::constant(i64::try_from(s.k).map_err(|e| e.to_string())?))?;
    let w = weights(c, &s)?;
    let wide = c.b.cast(DType::F32, &x)?;
    let mut y = matmul::product(c.b, &wide, &w)?;
    if let Some(bias) = c.opt(5) {
        let shape = y.shape.clone();
        let bias = c.b.cast(DType::F32, &bias)?;
        y = c.b.binary(BinaryOp::Add, &y, &bias)?;
        if y.shape != shape {
            return Err("the bias doesn't broadcast to the product's shape".into());
        }
    }
    Ok(vec![c.b.cast(x.dtype, &y)?])
}
