//! Elements of constants: exact in both directions.

use std::fmt::Write;

use crate::tensor::{Scalar, Tensor, bf16_from_f64, f16_from_f64};
use crate::types::DType;

/// The bits of a quiet NaN without payload, which is written `nan`; others are written as hex bits.
fn plain_nan(d: DType) -> u64 {
    match d {
        DType::F16 => 0x7e00,
        DType::BF16 => 0x7fc0,
        DType::F64 => 0x7ff8_0000_0000_0000,
        _ => 0x7fc0_0000,
    }
}

fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |a, &b| a << 8 | u64::from(b))
}

/// Appends element `i` of `t`: floats in the shortest form that reads back.
pub(super) fn write_element(t: &Tensor, i: usize, out: &mut String) {
    let size = t.dtype().size();
    let raw = bits(&t.bytes()[i * size..(i + 1) * size]);
    let result = match t.get(i) {
        Scalar::Int(v) if t.dtype() == DType::Bool => write!(out, "{}", v != 0),
        Scalar::Int(v) => write!(out, "{v}"),
        Scalar::Float(v) if v.is_nan() && raw == plain_nan(t.dtype()) => write!(out, "nan"),
        Scalar::Float(v) if v.is_nan() => write!(out, "0x{raw:0w$x}", w = 2 * size),
        Scalar::Float(v) if t.dtype() == DType::F64 => write!(out, "{v:?}"),
        // f16 and bf16 are exact in f32.
        Scalar::Float(v) => write!(out, "{:?}", v as f32),
    };
    debug_assert!(result.is_ok(), "writing to a string does not fail");
}

/// A literal as written.
#[derive(Clone, Copy, Debug)]
pub(super) struct Literal<'a> {
    /// A minus sign stands before it.
    pub negative: bool,
    /// A number token, or `inf`, `nan`, `true`, `false`.
    pub text: &'a str,
}

/// Appends the little-endian bytes of a literal of type `d`.
pub(super) fn read_element(l: Literal<'_>, d: DType, out: &mut Vec<u8>) -> Result<(), String> {
    let bad = |what: &str| format!("'{}{}' is not {what} {d}", if l.negative { "-" } else { "" }, l.text);
    if d == DType::Bool {
        out.push(match l.text {
            "true" if !l.negative => 1,
            "false" if !l.negative => 0,
            _ => return Err(bad("a")),
        });
        return Ok(());
    }
    let hex = l.text.strip_prefix("0x").map(|h| u64::from_str_radix(h, 16));
    if d.is_int() {
        let v = match hex {
            Some(h) => h.map(i128::from).map_err(|_| bad("an"))?,
            None => l.text.parse::<i128>().map_err(|_| bad("an"))?,
        };
        let v = if l.negative { -v } else { v };
        let t = Tensor::scalar(d, Scalar::Int(v));
        if t.get(0) != Scalar::Int(v) {
            return Err(bad("in the range of"));
        }
        out.extend_from_slice(t.bytes());
        return Ok(());
    }
    if let Some(h) = hex {
        let h = h.ok().filter(|h| !l.negative && (d.size() == 8 || h >> (8 * d.size()) == 0));
        out.extend_from_slice(&h.ok_or_else(|| bad("the bits of an"))?.to_le_bytes()[..d.size()]);
        return Ok(());
    }
    if l.text == "nan" && !l.negative {
        out.extend_from_slice(&plain_nan(d).to_le_bytes()[..d.size()]);
        return Ok(());
    }
    if !l.text.starts_with(|c: char| c.is_ascii_digit()) && l.text != "inf" {
        return Err(bad("an"));
    }
    let text = format!("{}{}", if l.negative { "-" } else { "" }, l.text);
    let wide = || text.parse::<f64>().map_err(|_| bad("an"));
    match d {
        DType::F16 => out.extend(f16_from_f64(wide()?).to_le_bytes()),
        DType::BF16 => out.extend(bf16_from_f64(wide()?).to_le_bytes()),
        DType::F64 => out.extend(wide()?.to_le_bytes()),
        _ => out.extend(text.parse::<f32>().map_err(|_| bad("an"))?.to_le_bytes()),
    }
    Ok(())
}

/// Lower-case hex digits of `bytes`.
pub(super) fn write_hex(bytes: &[u8], out: &mut String) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    out.reserve(2 * bytes.len());
    for b in bytes {
        out.push(char::from(DIGITS[usize::from(b >> 4)]));
        out.push(char::from(DIGITS[usize::from(b & 15)]));
    }
}

/// The bytes that hex digits spell.
pub(super) fn read_hex(s: &str) -> Option<Vec<u8>> {
    let nibble = |b: u8| char::from(b).to_digit(16);
    let pairs = s.as_bytes().chunks_exact(2);
    if !pairs.remainder().is_empty() {
        return None;
    }
    pairs.map(|p| Some((nibble(p[0])? << 4 | nibble(p[1])?) as u8)).collect()
}
