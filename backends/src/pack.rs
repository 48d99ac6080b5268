//! Constants in the layouts that kernels read, written piece by piece so that memory stays small beside the model.

use std::io::{self, Write};

use bertc_ir::{DType, Diag, Tensor};
use half::{bf16, f16};

use crate::plan::{ConstData, ConstLayout, Lane, Part};
use crate::sparse::Lanes;

/// Columns of a packed panel.
pub const PANEL: usize = 16;

/// Size in bytes of `c` in its layout. An error if a packed constant is not a matrix of a packable type.
pub fn packed_size(c: &ConstData) -> Result<u64, Diag> {
    match c.layout {
        ConstLayout::Plain => {
            let size = c.parts.iter().try_fold(0u64, |n, p| n.checked_add(p.size()?));
            size.ok_or_else(|| Diag::new("a constant is too large"))
        }
        ConstLayout::Rounded => match &c.parts[..] {
            [part] if is_float(part.dtype()) => {
                let elements = part.size().map(|n| n / part.dtype().size() as u64);
                elements.and_then(|n| n.checked_mul(2)).ok_or_else(|| Diag::new("a constant is too large"))
            }
            _ => Err(Diag::new("a rounded constant is one tensor of f32, f16 or bf16")),
        },
        ConstLayout::Packed { trans, lane } => {
            let mut total = 0u64;
            let rows = c.parts.first().map(|p| matrix(p, trans)).transpose()?.map(|(k, _)| k);
            for (i, part) in c.parts.iter().enumerate() {
                let (k, n) = matrix(part, trans)?;
                if Some(k) != rows || i + 1 < c.parts.len() && n % PANEL != 0 {
                    return Err(Diag::new(format!("a {k} x {n} constant can't be part of a packed one")));
                }
                fits(part.dtype(), k, lane).map_err(|needed| {
                    Diag::new(format!("a {k} x {n} constant of {} can't be packed so", part.dtype())).note(needed)
                })?;
                let rows = k / lane.elements();
                let bytes = n.div_ceil(PANEL).checked_mul(PANEL * 4).and_then(|r| r.checked_mul(rows));
                let bytes = bytes.ok_or_else(|| Diag::new(format!("a {k} x {n} constant is too large")))?;
                total = total.saturating_add(bytes as u64);
            }
            Ok(total)
        }
        ConstLayout::Sums { trans } => {
            let columns = c.parts.iter().try_fold(0u64, |sum, part| {
                let (_, n) = matrix(part, trans)?;
                if part.dtype() != DType::I8 {
                    return Err(Diag::new(format!("the columns of a constant of {} have no sums", part.dtype())));
                }
                Ok(sum.saturating_add(n as u64))
            })?;
            columns.checked_mul(4).ok_or_else(|| Diag::new("a constant is too large"))
        }
        ConstLayout::Sparse { trans, lane, blocks, count, array } => {
            let sizes = c.parts.iter().map(|p| matrix(p, trans)).collect::<Result<Vec<_>, _>>()?;
            let (Some(&(k, _)), n) = (sizes.first(), sizes.iter().map(|s| s.1).sum()) else {
                return Err(Diag::new("a sparse constant without a matrix"));
            };
            for part in &c.parts {
                fits(part.dtype(), k, lane).map_err(|needed| {
                    Diag::new(format!("a {k} x {n} constant of {} can't be packed so", part.dtype())).note(needed)
                })?;
            }
            Ok(blocks.bytes([k, n], lane, count, array))
        }
    }
}

/// Whether lanes can hold elements of a type, of `k` rows; an error says what they need.
fn fits(dtype: DType, k: usize, lane: Lane) -> Result<(), &'static str> {
    let (ok, needed) = match lane {
        Lane::One => (dtype != DType::I8, "i8 is packed in fours"),
        Lane::Bf16x2 => (is_float(dtype) && k.is_multiple_of(2), "pairs need floats and an even number of rows"),
        Lane::I8x4 => (dtype == DType::I8 && k.is_multiple_of(4), "fours need i8 and a multiple of four rows"),
    };
    if ok { Ok(()) } else { Err(needed) }
}

/// Writes `c` in its layout; exactly [`packed_size`] bytes.
pub fn write_packed(c: &ConstData, out: &mut dyn Write) -> io::Result<()> {
    if let ConstLayout::Sparse { trans, lane, blocks, count, array } = c.layout {
        let lanes = Lanes::of(&c.parts, trans, lane).map_err(io::Error::other)?;
        return out.write_all(&lanes.array(blocks, count, array).map_err(io::Error::other)?);
    }
    // Parts side by side are their panels one after the other.
    c.parts.iter().try_for_each(|part| {
        let t = part.tensor().map_err(io::Error::other)?;
        match c.layout {
            ConstLayout::Plain => out.write_all(t.bytes()),
            ConstLayout::Rounded => {
                let round = rounder(t.dtype());
                // In pieces, so that a table is never in memory twice.
                t.bytes().chunks(ROUNDED_BYTES).try_for_each(|piece| {
                    out.write_all(&piece.chunks_exact(t.dtype().size()).flat_map(round).collect::<Vec<u8>>())
                })
            }
            ConstLayout::Packed { trans, lane } => {
                let size = matrix(part, trans).map_err(io::Error::other)?;
                match lane {
                    Lane::One => write_panels(t, size, trans, widener(t.dtype()), out),
                    Lane::Bf16x2 => write_panels(t, size, trans, rounder(t.dtype()), out),
                    Lane::I8x4 => write_panels(t, size, trans, |e| [e[0]], out),
                }
            }
            ConstLayout::Sums { trans } => {
                let size = matrix(part, trans).map_err(io::Error::other)?;
                out.write_all(&column_sums(t, size, trans))
            }
            ConstLayout::Sparse { .. } => Err(io::Error::other("a sparse matrix is written as a whole")),
        }
    })
}

/// The sums of the columns of an i8 matrix, as i32.
fn column_sums(t: &Tensor, (k, n): (usize, usize), trans: bool) -> Vec<u8> {
    let mut sums = vec![0i32; n];
    let wide = |&e: &u8| i32::from(e as i8);
    if trans {
        let rows = t.bytes().chunks_exact(k.max(1));
        sums.iter_mut().zip(rows).for_each(|(sum, row)| *sum = row.iter().map(wide).sum());
    } else {
        for row in t.bytes().chunks_exact(n.max(1)) {
            sums.iter_mut().zip(row).for_each(|(sum, e)| *sum += wide(e));
        }
    }
    sums.into_iter().flat_map(i32::to_le_bytes).collect()
}

/// Writes the panels of a matrix; `lane` makes of an element its part of a lane, of which there are 4 bytes.
fn write_panels<const BYTES: usize>(
    t: &Tensor,
    (k, n): (usize, usize),
    trans: bool,
    lane: fn(&[u8]) -> [u8; BYTES],
    out: &mut dyn Write,
) -> io::Result<()> {
    let (src, size, group) = (t.bytes(), t.dtype().size(), 4 / BYTES);
    let mut panel = vec![0u8; k / group * PANEL * 4];
    for first in (0..n).step_by(PANEL) {
        let width = PANEL.min(n - first);
        if width < PANEL {
            panel.fill(0);
        }
        // Reads run along the source's rows, so each page of a mapped model is touched once a panel.
        if trans {
            for j in 0..width {
                let row = &src[(first + j) * k * size..(first + j + 1) * k * size];
                for (i, e) in row.chunks_exact(size).enumerate() {
                    let at = (i / group * PANEL + j) * 4 + i % group * BYTES;
                    panel[at..at + BYTES].copy_from_slice(&lane(e));
                }
            }
        } else {
            for i in 0..k {
                let at = (i * n + first) * size;
                let (row, dst) = (&src[at..at + width * size], &mut panel[i / group * PANEL * 4..][..PANEL * 4]);
                if size == 4 && BYTES == 4 {
                    dst[..row.len()].copy_from_slice(row);
                    continue;
                }
                for (e, d) in row.chunks_exact(size).zip(dst.chunks_exact_mut(4)) {
                    d[i % group * BYTES..][..BYTES].copy_from_slice(&lane(e));
                }
            }
        }
        out.write_all(&panel)?;
    }
    Ok(())
}

/// (K, N) of a packable matrix.
pub(crate) fn matrix(t: &Part, trans: bool) -> Result<(usize, usize), Diag> {
    if !matches!(t.dtype(), DType::F32 | DType::F16 | DType::BF16 | DType::I32 | DType::I8) {
        return Err(Diag::new(format!("a constant of type {} can't be packed", t.dtype()))
            .note("packed constants are f32, f16, bf16, i32 or i8"));
    }
    match *t.shape() {
        [n, k] if trans => Ok((k, n)),
        [k, n] => Ok((k, n)),
        _ => Err(Diag::new(format!("a constant of rank {} can't be packed: not a matrix", t.shape().len()))),
    }
}

fn is_float(d: DType) -> bool {
    matches!(d, DType::F32 | DType::F16 | DType::BF16)
}

/// Bytes of a table that are rounded at a time.
const ROUNDED_BYTES: usize = 1 << 20;

/// Rounds one little-endian float to bf16.
fn rounder(d: DType) -> fn(&[u8]) -> [u8; 2] {
    match d {
        DType::F16 => |e| bf16::from_f32(f16::from_le_bytes([e[0], e[1]]).to_f32()).to_le_bytes(),
        DType::BF16 => |e| [e[0], e[1]],
        _ => |e| bf16::from_f32(f32::from_le_bytes([e[0], e[1], e[2], e[3]])).to_le_bytes(),
    }
}

/// Widens one little-endian element to the 4 bytes of a lane.
fn widener(d: DType) -> fn(&[u8]) -> [u8; 4] {
    match d {
        DType::F16 => |e| f16::from_le_bytes([e[0], e[1]]).to_f32().to_le_bytes(),
        DType::BF16 => |e| bf16::from_le_bytes([e[0], e[1]]).to_f32().to_le_bytes(),
        // f32 and i32 are lanes already.
        _ => |e| [e[0], e[1], e[2], e[3]],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::Scalar;

    fn pack(c: &ConstData) -> Vec<f32> {
        let mut out = Vec::new();
        write_packed(c, &mut out).unwrap();
        assert_eq!(out.len() as u64, packed_size(c).unwrap());
        out.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
    }

    #[test]
    fn panels_of_every_source_layout_agree() {
        for (k, n) in [(1usize, 1usize), (3, 16), (5, 17), (2, 40)] {
            let at = |i: usize, j: usize| (i * 100 + j) as f64 / 4.0;
            let mut want = vec![0f32; n.div_ceil(16) * k * 16];
            for i in 0..k {
                for j in 0..n {
                    want[(j / 16 * k + i) * 16 + j % 16] = at(i, j) as f32;
                }
            }
            for dtype in [DType::F32, DType::F16] {
                let kn = (0..k * n).map(|x| Scalar::Float(at(x / n, x % n)));
                let nk = (0..k * n).map(|x| Scalar::Float(at(x % k, x / k)));
                let plain = Tensor::from_scalars(dtype, vec![k, n], kn);
                let trans = Tensor::from_scalars(dtype, vec![n, k], nk);
                let packed = |tensor, trans| {
                    pack(&ConstData {
                        parts: vec![Part::Tensor(tensor)],
                        layout: ConstLayout::Packed { trans, lane: Lane::One },
                    })
                };
                assert_eq!(packed(plain, false), want, "{dtype} {k} x {n}");
                assert_eq!(packed(trans, true), want, "{dtype} {k} x {n} transposed");
            }
        }
    }

    #[test]
    fn parts_lie_side_by_side() {
        let part = |n: usize, from: usize| {
            Part::from(Tensor::from_f32(vec![2, n], &(from..from + 2 * n).map(|x| x as f32).collect::<Vec<_>>()))
        };
        let layout = ConstLayout::Packed { trans: false, lane: Lane::One };
        let both = pack(&ConstData { parts: vec![part(32, 0), part(5, 100)], layout });
        let one = |p| pack(&ConstData { parts: vec![p], layout });
        assert_eq!(both, [one(part(32, 0)), one(part(5, 100))].concat());
        let ragged = ConstData { parts: vec![part(5, 0), part(16, 0)], layout };
        assert!(packed_size(&ragged).unwrap_err().message.contains("can't be part"));
    }

    #[test]
    fn lanes_hold_pairs_of_rows() {
        for (n, trans) in [(1usize, false), (17, false), (40, true)] {
            let k = 6;
            // 8 significant bits: exact in bf16.
            let at = |i: usize, j: usize| (i * 40 + j) as f32;
            let flat = (0..k * n).map(|x| if trans { at(x % k, x / k) } else { at(x / n, x % n) }).collect::<Vec<_>>();
            let shape = if trans { vec![n, k] } else { vec![k, n] };
            let layout = ConstLayout::Packed { trans, lane: Lane::Bf16x2 };
            let c = ConstData { parts: vec![Tensor::from_f32(shape, &flat).into()], layout };
            let mut out = Vec::new();
            write_packed(&c, &mut out).unwrap();
            assert_eq!(out.len() as u64, packed_size(&c).unwrap());
            let got: Vec<f32> = out.chunks_exact(2).map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32()).collect();
            let mut want = vec![0f32; n.div_ceil(16) * k * 16];
            for i in 0..k {
                for j in 0..n {
                    want[((j / 16 * (k / 2) + i / 2) * 16 + j % 16) * 2 + i % 2] = at(i, j);
                }
            }
            assert_eq!(got, want, "{n} {trans}");
        }
        let odd = Tensor::from_f32(vec![3, 1], &[0.0; 3]);
        let layout = ConstLayout::Packed { trans: false, lane: Lane::Bf16x2 };
        let e = packed_size(&ConstData { parts: vec![odd.into()], layout }).unwrap_err();
        assert!(e.notes.iter().any(|n| n.contains("pairs need")), "{e}");
    }

    #[test]
    fn lanes_hold_fours_of_rows() {
        for (n, trans) in [(1usize, false), (17, false), (40, true)] {
            let k = 8;
            let at = |i: usize, j: usize| (i * 31 + j * 7) as u8 as i8;
            let flat = (0..k * n).map(|x| if trans { at(x % k, x / k) } else { at(x / n, x % n) } as u8);
            let shape = if trans { vec![n, k] } else { vec![k, n] };
            let matrix = Tensor::new(DType::I8, shape, flat.collect::<Vec<u8>>().into()).unwrap();
            let packed = |layout| {
                let c = ConstData { parts: vec![matrix.clone().into()], layout };
                let mut out = Vec::new();
                write_packed(&c, &mut out).unwrap();
                assert_eq!(out.len() as u64, packed_size(&c).unwrap());
                out
            };
            let mut want = vec![0u8; n.div_ceil(16) * k * 16];
            for i in 0..k {
                for j in 0..n {
                    want[((j / 16 * (k / 4) + i / 4) * 16 + j % 16) * 4 + i % 4] = at(i, j) as u8;
                }
            }
            assert_eq!(packed(ConstLayout::Packed { trans, lane: Lane::I8x4 }), want, "{n} {trans}");
            let sums = (0..n).flat_map(|j| (0..k).map(|i| i32::from(at(i, j))).sum::<i32>().to_le_bytes());
            assert_eq!(packed(ConstLayout::Sums { trans }), sums.collect::<Vec<u8>>(), "{n} {trans}");
        }
        let six = Tensor::new(DType::I8, vec![6, 1], vec![0; 6].into()).unwrap();
        let layout = ConstLayout::Packed { trans: false, lane: Lane::I8x4 };
        let e = packed_size(&ConstData { parts: vec![six.into()], layout }).unwrap_err();
        assert!(e.notes.iter().any(|n| n.contains("fours need")), "{e}");
    }

    #[test]
    fn tables_are_rounded() {
        let table = Tensor::from_f32(vec![3], &[1.0, 1.0 + 1.0 / 256.0, 1.0 + 3.0 / 256.0]);
        let c = ConstData { parts: vec![table.into()], layout: ConstLayout::Rounded };
        let mut out = Vec::new();
        write_packed(&c, &mut out).unwrap();
        assert_eq!(out.len() as u64, packed_size(&c).unwrap());
        // Ties go to the even one.
        let want = [1.0, 1.0, 1.0 + 4.0 / 256.0].map(|x| bf16::from_f32(x).to_le_bytes());
        assert_eq!(out, want.as_flattened());
        let ints = ConstData { parts: vec![Tensor::from_i64(vec![1], &[1]).into()], layout: ConstLayout::Rounded };
        assert!(packed_size(&ints).is_err());
    }

    #[test]
    fn what_is_no_matrix_is_an_error() {
        let c = |tensor| ConstData {
            parts: vec![Part::Tensor(tensor)],
            layout: ConstLayout::Packed { trans: false, lane: Lane::One },
        };
        assert!(packed_size(&c(Tensor::from_f32(vec![4], &[0.0; 4]))).unwrap_err().message.contains("rank 1"));
        assert!(packed_size(&c(Tensor::from_i64(vec![2, 2], &[0; 4]))).unwrap_err().message.contains("i64"));
    }
}
