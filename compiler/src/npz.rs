//! Reading and writing `.npz`: NumPy's zip of `.npy` arrays.
//!
//! Only what tensors need: little-endian numbers and booleans in row-major order. bfloat16, which NumPy lacks, is
//! written as its bits in `uint16`.

use std::collections::BTreeMap;
use std::io::{Read, Seek, Write};

use bertc_ir::{DType, Tensor};
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

/// What is wrong with an `.npz` file.
#[derive(Debug, thiserror::Error)]
pub enum NpzError {
    /// The file can't be read or written.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// The container is broken.
    #[error("not a valid .npz file: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// An array is broken or of an unsupported kind.
    #[error("array '{name}': {message}")]
    Array {
        /// Key of the array.
        name: String,
        /// What is wrong.
        message: String,
    },
}

const MAGIC: &[u8; 6] = b"\x93NUMPY";

/// Larger headers than this hold no plain array.
const MAX_HEADER: usize = 64 << 10;

/// NumPy's type strings without their byte-order mark.
const CODES: [(&str, DType); 12] = [
    ("f4", DType::F32),
    ("f2", DType::F16),
    ("f8", DType::F64),
    ("i1", DType::I8),
    ("u1", DType::U8),
    ("i2", DType::I16),
    ("u2", DType::U16),
    ("i4", DType::I32),
    ("u4", DType::U32),
    ("i8", DType::I64),
    ("u8", DType::U64),
    ("b1", DType::Bool),
];

/// Reads every array of an `.npz`.
///
/// # Errors
/// A broken container, or an array that is not a little-endian, row-major number or boolean array.
pub fn read(r: impl Read + Seek) -> Result<BTreeMap<String, Tensor>, NpzError> {
    let mut zip = ZipArchive::new(r)?;
    let mut arrays = BTreeMap::new();
    for i in 0..zip.len() {
        let mut entry = zip.by_index(i)?;
        let name = entry.name().trim_end_matches(".npy").to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        let t = parse_npy(bytes).map_err(|message| NpzError::Array { name: name.clone(), message })?;
        if arrays.insert(name.clone(), t).is_some() {
            return Err(NpzError::Array { name, message: "appears twice".into() });
        }
    }
    Ok(arrays)
}

/// Writes arrays in the given order, uncompressed, as `numpy.savez` does.
///
/// # Errors
/// What the writer returns.
pub fn write<'a>(
    w: impl Write + Seek,
    arrays: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<(), NpzError> {
    let mut zip = ZipWriter::new(w);
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored).large_file(true);
    for (name, t) in arrays {
        zip.start_file(format!("{name}.npy"), options)?;
        zip.write_all(&npy_header(t))?;
        zip.write_all(t.bytes())?;
    }
    zip.finish()?.flush()?;
    Ok(())
}

fn npy_header(t: &Tensor) -> Vec<u8> {
    // bfloat16 has no code of its own.
    let dtype = if t.dtype() == DType::BF16 { DType::U16 } else { t.dtype() };
    let code = CODES.iter().find(|c| c.1 == dtype).map_or("u2", |c| c.0);
    let order = if dtype.size() == 1 { '|' } else { '<' };
    let shape: String = t.shape().iter().map(|d| format!("{d}, ")).collect();
    let mut dict = format!("{{'descr': '{order}{code}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    // The data starts at a multiple of 64: NumPy maps it into memory.
    let unpadded = MAGIC.len() + 4 + dict.len() + 1;
    dict.extend(std::iter::repeat_n(' ', unpadded.next_multiple_of(64) - unpadded));
    dict.push('\n');
    let mut out = MAGIC.to_vec();
    out.extend([1, 0]);
    // A rank that overflows 16 bits of header length would need thousands of dims.
    out.extend((dict.len() as u16).to_le_bytes());
    out.extend(dict.as_bytes());
    out
}

fn parse_npy(mut bytes: Vec<u8>) -> Result<Tensor, String> {
    let bad = || "not a .npy array".to_string();
    let (Some(magic), Some(&version)) = (bytes.get(..6), bytes.get(6)) else { return Err(bad()) };
    if magic != MAGIC {
        return Err(bad());
    }
    let (len, start) = match (version, bytes.get(8..12)) {
        (1, Some(b)) => (u16::from_le_bytes([b[0], b[1]]) as usize, 10),
        (2 | 3, Some(b)) => (u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize, 12),
        _ => return Err(format!("unknown .npy version {version}")),
    };
    if len > MAX_HEADER {
        return Err("its header is too long".into());
    }
    let header = bytes.get(start..start + len).ok_or_else(bad)?;
    let header = std::str::from_utf8(header).map_err(|_| bad())?;
    let descr = field(header, "descr").ok_or_else(bad)?;
    let dtype = parse_descr(descr)?;
    match field(header, "fortran_order").map(|s| s.starts_with("True")) {
        Some(false) => {}
        Some(true) => return Err("column-major order; save it with numpy.ascontiguousarray".into()),
        None => return Err(bad()),
    }
    let shape = field(header, "shape").and_then(parse_shape).ok_or_else(bad)?;
    let data = bytes.split_off(start + len);
    let (n, text) = (data.len(), format!("{shape:?}"));
    Tensor::new(dtype, shape, data.into()).ok_or_else(|| format!("{n} bytes of data do not fit {dtype} {text}"))
}

/// The text after `'key':` in the header's Python dict.
fn field<'a>(header: &'a str, key: &str) -> Option<&'a str> {
    let at = header.find(&format!("'{key}'"))?;
    Some(header[at + key.len() + 2..].trim_start().strip_prefix(':')?.trim_start())
}

fn parse_descr(s: &str) -> Result<DType, String> {
    let text = s.strip_prefix('\'').and_then(|s| s.split('\'').next()).ok_or("is a structured array")?;
    let (order, code) = text.split_at_checked(1).ok_or("has no element type")?;
    let dtype = CODES.iter().find(|c| c.0 == code).map(|c| c.1);
    match (order, dtype) {
        ("<" | "|" | "=", Some(d)) => Ok(d),
        (">", Some(d)) if d.size() == 1 => Ok(d),
        (">", Some(_)) => Err("is big-endian; save it with .astype of a little-endian type".into()),
        _ => Err(format!("has element type '{text}'; supported are numbers up to 64 bits and booleans")),
    }
}

fn parse_shape(s: &str) -> Option<Vec<usize>> {
    let inner = s.strip_prefix('(')?.split(')').next()?;
    inner.split(',').map(str::trim).filter(|d| !d.is_empty()).map(|d| d.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::Scalar;
    use std::io::Cursor;

    fn round_trip(t: &Tensor) -> Tensor {
        let mut file = Cursor::new(Vec::new());
        write(&mut file, [("a/b:c", t)]).unwrap();
        read(file).unwrap().remove("a/b:c").unwrap()
    }

    #[test]
    fn every_type_and_rank_survives() {
        for dtype in DType::ALL {
            for shape in [vec![], vec![3], vec![2, 0, 4], vec![1, 2, 3]] {
                let n: usize = shape.iter().product();
                let t = Tensor::from_scalars(dtype, shape.clone(), (0..n).map(|i| Scalar::Int((i % 2) as i128)));
                let back = round_trip(&t);
                assert_eq!(back.shape(), shape);
                assert_eq!(back.bytes(), t.bytes());
                assert!(back.dtype() == dtype || dtype == DType::BF16);
            }
        }
    }

    #[test]
    fn data_is_aligned() {
        let h = npy_header(&Tensor::from_f32(vec![1, 2], &[1.0, 2.0]));
        assert_eq!(h.len() % 64, 0);
        assert!(h.ends_with(b"\n"));
    }

    #[test]
    fn broken_arrays_are_refused() {
        let good = |descr: &str, order: &str, shape: &str| {
            let dict = format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}\n");
            let mut b = MAGIC.to_vec();
            b.extend([1, 0]);
            b.extend((dict.len() as u16).to_le_bytes());
            b.extend(dict.as_bytes());
            b.extend([0; 8]);
            b
        };
        assert!(parse_npy(good("'<f4'", "False", "(2,)")).is_ok());
        for (descr, order, shape, why) in [
            ("'<f4'", "False", "(3,)", "8 bytes of data do not fit"),
            ("'<f4'", "True", "(2,)", "column-major"),
            ("'>f4'", "False", "(2,)", "big-endian"),
            ("'<c8'", "False", "(1,)", "element type '<c8'"),
            ("''", "False", "(1,)", "no element type"),
            ("[('a', '<f4')]", "False", "(1,)", "structured"),
            ("'<f4'", "False", "(x,)", "not a .npy"),
            ("'<f8'", "False", "(9223372036854775807, 9)", "do not fit"),
        ] {
            let e = parse_npy(good(descr, order, shape)).unwrap_err();
            assert!(e.contains(why), "{e}");
        }
        let whole = good("'<f4'", "False", "(2,)");
        for n in 0..whole.len() {
            assert!(parse_npy(whole[..n].to_vec()).is_err());
        }
        assert!(matches!(read(Cursor::new(b"PK nonsense".to_vec())), Err(NpzError::Zip(_))));
    }
}
