//! Constants of the object: where each lies in the one section of constants, and that section's bytes.
//!
//! Non-goal: memory. The bytes go through a panel-sized buffer into an unlinked temporary file, and its map is what the
//! object is written from, so that a model of any size costs page cache only.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use bertc_ir::{DType, Diag};
use memmap2::Mmap;

use crate::pack;
use crate::plan::{ALIGN, ConstData, ConstLayout, Program};

/// Code reaches constants by offsets of 32 bits with a sign; this leaves room for the code itself.
const MAX_BYTES: u64 = 1_900_000_000;

/// Where the constants lie.
pub(crate) struct Layout {
    /// Offset of each program's constants; equal constants share one.
    pub offsets: Vec<Vec<u64>>,
    /// Size of the section, at least one alignment unit.
    pub size: u64,
    /// The constants to write, in the order of their offsets: program, number, offset.
    unique: Vec<(usize, usize, u64)>,
}

/// Two constants are the same if their layouts and source bytes are.
#[derive(PartialEq, Eq, Hash)]
struct Key {
    hash: blake3::Hash,
    len: u64,
    layout: ConstLayout,
    /// Types and shapes of the parts, on which a packed layout depends.
    parts: Vec<(DType, Vec<usize>)>,
}

impl Key {
    /// `hashes` has those of bytes that were met before, by their place in memory: variants of a program share tensors.
    fn new(c: &ConstData, hashes: &mut HashMap<Vec<(usize, usize)>, blake3::Hash>) -> Result<Key, Diag> {
        let packed = c.layout != ConstLayout::Plain;
        let parts = c.parts.iter().filter(|_| packed).map(|t| (t.dtype(), t.shape().to_vec())).collect();
        let bytes = c.parts.iter().map(|p| Ok(&p.tensor()?.bytes()[..])).collect::<Result<Vec<&[u8]>, Diag>>()?;
        let places = bytes.iter().map(|b| (b.as_ptr().addr(), b.len())).collect();
        let hash = *hashes.entry(places).or_insert_with(|| {
            let mut hash = blake3::Hasher::new();
            bytes.iter().for_each(|b| {
                hash.update(b);
            });
            hash.finalize()
        });
        let len = bytes.iter().map(|b| b.len() as u64).sum();
        Ok(Key { len, hash, layout: c.layout, parts })
    }
}

impl Layout {
    /// Assigns offsets in the constants' order.
    pub fn new<'a>(programs: impl IntoIterator<Item = &'a Program>) -> Result<Layout, Vec<Diag>> {
        let mut seen: HashMap<Key, u64> = HashMap::new();
        let mut hashes = HashMap::new();
        let mut layout = Layout { offsets: Vec::new(), size: 0, unique: Vec::new() };
        let mut errors = Vec::new();
        for (which, program) in programs.into_iter().enumerate() {
            let mut offsets = Vec::with_capacity(program.consts.len());
            for (i, c) in program.consts.iter().enumerate() {
                let (size, key) = match pack::packed_size(c).and_then(|size| Ok((size, Key::new(c, &mut hashes)?))) {
                    Ok(found) => found,
                    Err(d) => {
                        errors.push(d.note(format!("constant {i}")));
                        continue;
                    }
                };
                let offset = *seen.entry(key).or_insert(layout.size);
                if offset == layout.size {
                    // An empty constant takes a unit too, so that equal offsets mean equal constants.
                    layout.size = layout.size.saturating_add(size.max(1)).saturating_add(ALIGN - 1) / ALIGN * ALIGN;
                    layout.unique.push((which, i, offset));
                }
                offsets.push(offset);
            }
            layout.offsets.push(offsets);
        }
        if layout.size > MAX_BYTES {
            let d = Diag::new(format!("the weights need {} bytes, more than {MAX_BYTES}", layout.size));
            errors.push(d.note("an object's code reaches 2 GB; use a smaller model"));
        }
        if errors.is_empty() { Ok(layout) } else { Err(errors) }
    }

    /// The section's bytes, in a temporary file in `dir` (by default the system's folder) that has no name any more.
    /// `programs` are those of [`Layout::new`].
    pub fn write(&self, programs: &[&Program], dir: Option<&Path>) -> io::Result<Mmap> {
        let file = match dir {
            Some(d) => tempfile::tempfile_in(d)?,
            None => tempfile::tempfile()?,
        };
        let mut out = Counted { out: BufWriter::with_capacity(1 << 20, file), at: 0 };
        for &(which, i, offset) in &self.unique {
            out.pad_to(offset)?;
            pack::write_packed(&programs[which].consts[i], &mut out)?;
        }
        out.pad_to(self.size)?;
        let file = out.out.into_inner().map_err(io::IntoInnerError::into_error)?;
        map(&file)
    }
}

#[allow(unsafe_code)]
fn map(file: &File) -> io::Result<Mmap> {
    // SAFETY: the file has no name and its only handle is ours, so nothing changes or truncates it while it is mapped.
    unsafe { Mmap::map(file) }
}

/// A writer that knows how much it has written.
struct Counted<W> {
    out: W,
    at: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.out.write(buf)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

impl<W: Write> Counted<W> {
    fn pad_to(&mut self, at: u64) -> io::Result<()> {
        io::copy(&mut io::Read::take(io::repeat(0), at - self.at), self).map(|_| ())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bertc_ir::{Symbols, Tensor};

    #[test]
    fn equal_constants_share_aligned_bytes() {
        let plain = |v: &[f32]| ConstData {
            parts: vec![Tensor::from_f32(vec![v.len()], v).into()],
            layout: ConstLayout::Plain,
        };
        let packed = |v: &[f32]| ConstData {
            parts: vec![Tensor::from_f32(vec![1, v.len()], v).into()],
            layout: ConstLayout::Packed { trans: false, lane: crate::plan::Lane::One },
        };
        let program = Program {
            name: "m".into(),
            symbols: Symbols::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            kernels: Vec::new(),
            consts: vec![plain(&[1.0, 2.0]), plain(&[]), packed(&[1.0, 2.0]), plain(&[1.0, 2.0]), plain(&[3.0; 17])],
            buffers: Vec::new(),
            slots: Vec::new(),
            steps: Vec::new(),
        };
        let layout = Layout::new([&program, &program]).unwrap();
        assert_eq!(layout.offsets, [[0, 64, 128, 0, 192]; 2]);
        let bytes = layout.write(&[&program, &program], None).unwrap();
        assert_eq!(bytes.len() as u64, layout.size);
        assert_eq!(layout.size, 320);
        assert_eq!(&bytes[..8], &bytes[128..136]);
        assert_eq!(&bytes[192 + 64..192 + 68], 3f32.to_le_bytes());
    }
}
