//! Operators of com.microsoft on tables of few bits, in blocks with a scale each.

use bertc_ir::{BinaryOp, DType, Dim, Scalar, Tensor};

use super::{matmul, quant};
use crate::import::onnx::cx::Cx;
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

fn sizes(c: &Cx<'_>) -> R<Sizes> {
    let positive = |name, default| -> R<usize> {
        let v = c.int(name, default)?;
        let v = usize::try_from(v).ok().filter(|v| (1..=1 << 31).contains(v));
        v.ok_or_else(|| Stop::Fail(format!("attribute '{name}' is missing or no size")))
    };
    let (k, n, block) = (positive("K", 0)?, positive("N", 0)?, positive("block_size", 0)?);
    let bits = positive("bits", 4)?;
    if !matches!(bits, 2 | 4 | 8) {
        return Err(format!("weights of {bits} bits are not supported, expected 2, 4 or 8").into());
    }
    if block < 16 || !block.is_power_of_two() {
        return Err(format!("block_size is {block}, expected a power of two of at least 16").into());
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
fn unpacked(v: &V, bits: usize) -> R<V> {
    let t = v.as_const().filter(|t| !t.shape().is_empty()).ok_or("data and zero_points must be constants")?;
    let each = 8 / bits;
    let len = t.len().checked_mul(each).ok_or("a size overflows")?;
    let data: Vec<u8> = (0..len).map(|i| element(t.bytes(), i, bits)).collect();
    let mut shape = t.shape().to_vec();
    *shape.last_mut().ok_or("a table has no dims")? *= each;
    Ok(Val::constant(Tensor::new(DType::U8, shape, data.into()).ok_or("a size overflows")?))
}

/// `GatherBlockQuantized`: rows of a table, (q - zero point) · scale.
pub fn gather(c: &mut Cx<'_>) -> R<Vec<V>> {
    let (mut data, indices, scales, mut zeros) = (c.input(0)?, c.input(1)?, c.input(2)?, c.opt(3));
    let small = data.small.get();
    let rank = data.rank();
    let (bits, block) = (c.int("bits", 4)?, c.int("block_size", 128)?);
    let (at, along) = (c.int("gather_axis", 0)?, c.int("quantize_axis", 1)?);
    let (at, along) = (c.axis_of(at, rank)?, c.axis_of(along, rank)?);
    if at == along {
        return Err("gather_axis and quantize_axis are the same".into());
    }
    if small.is_none() {
        if data.dtype != DType::U8 || !matches!(bits, 2 | 4 | 8) {
            return Err(format!("data of {} with {bits} bits is not supported", data.dtype).into());
        }
        data = unpacked(&data, bits as usize)?;
        zeros = match zeros {
            // Padded to whole bytes: the blocks' own are sliced off.
            Some(z) => {
                let z = unpacked(&z, bits as usize)?;
                let n = scales.shape.last().cloned().unwrap_or_default();
                Some(c.b.slice(&z, rank - 1, &Dim::constant(0), &n, 1)?)
            }
            None => Some(Val::splat(DType::U8, Vec::new(), Scalar::Int(1 << (bits - 1)))),
        };
    }
    // Scales broadcast along all other axes.
    let mut shape = data.shape.clone();
    shape[along] = scales.shape.get(along).cloned().ok_or("scales have fewer dims than data")?;
    let block = if block == 0 { data.shape[along].as_const().ok_or("a dim of data is unknown")? } else { block };
    let q = c.b.gather(&data, &indices, at)?;
    let q = match small {
        Some(s) => s.decode(c.b, &q)?,
        None => q,
    };
    let q = c.b.cast(DType::F32, &q)?;
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
        None => q,
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
