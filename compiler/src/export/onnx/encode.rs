//! A model's bytes. Initializers go to the file one by one from the memory that they share with the graph, so that no copy
//! of all of them is made; beyond [`LIMIT`] they are in a file of their own, as protobuf ends at 2 GB.

use std::io::{self, Write};

use bertc_ir::Tensor;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use super::Model;
use super::out::number;
use crate::import::onnx::proto::tensor_proto::DataLocation;
use crate::import::onnx::proto::{ModelProto, StringStringEntryProto, TensorProto};

/// Bytes of initializers from which on they have a file of their own.
pub const LIMIT: u64 = 1_800_000_000;

/// Smaller initializers stay in the model in any case: readers want shapes at hand.
const SMALL: usize = 1024;

/// Each tensor of a data file begins at a multiple of this, so that it can be mapped.
const PAGE: u64 = 4096;

/// Fields of `ModelProto`, `GraphProto` and `TensorProto`.
const GRAPH: u32 = 7;
const INITIALIZER: u32 = 5;
const RAW_DATA: u32 = 9;

/// Where the initializers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Files {
    /// In the model.
    One,
    /// Large ones in another file, of this name, beside it.
    Data(String),
}

/// The bytes before a part of `len` bytes.
fn head(field: u32, len: usize) -> Vec<u8> {
    let mut v = Vec::new();
    encode_key(field, WireType::LengthDelimited, &mut v);
    encode_varint(len as u64, &mut v);
    v
}

fn whole(field: u32, len: usize) -> usize {
    key_len(field) + encoded_len_varint(len as u64) + len
}

impl Model {
    /// Bytes of all initializers.
    pub fn data_bytes(&self) -> u64 {
        self.tensors.iter().map(|(_, t)| t.bytes().len() as u64).sum()
    }

    /// The initializers with their names.
    pub fn initializers(&self) -> impl Iterator<Item = (&str, &Tensor)> {
        self.tensors.iter().map(|(name, t)| (name.as_str(), t))
    }

    /// The initializers without their data, and whether that follows.
    fn headers(&self, files: &Files) -> Vec<(TensorProto, bool)> {
        let mut at = 0;
        let mut of = |(name, t): &(String, Tensor)| {
            let mut p = TensorProto {
                dims: t.shape().iter().map(|&d| d as i64).collect(),
                data_type: Some(number(t.dtype())),
                name: Some(name.clone()),
                ..TensorProto::default()
            };
            let Files::Data(location) = files else { return (p, true) };
            let Some(offset) = place(t, &mut at) else { return (p, true) };
            let entry = |k: &str, v: String| StringStringEntryProto { key: Some(k.to_string()), value: Some(v) };
            p.data_location = Some(DataLocation::External.into());
            p.external_data = vec![
                entry("location", location.clone()),
                entry("offset", offset.to_string()),
                entry("length", t.bytes().len().to_string()),
            ];
            (p, false)
        };
        self.tensors.iter().map(&mut of).collect()
    }

    /// Writes the model.
    ///
    /// # Errors
    /// Those of `w`.
    pub fn write(&self, files: &Files, w: &mut dyn Write) -> io::Result<()> {
        let mut rest = self.proto.clone();
        let nodes = rest.graph.take().unwrap_or_default().encode_to_vec();
        let headers = self.headers(files);
        let data = |i: usize| self.tensors[i].1.bytes();
        let sizes: Vec<usize> = headers
            .iter()
            .enumerate()
            .map(|(i, (p, inside))| p.encoded_len() + if *inside { whole(RAW_DATA, data(i).len()) } else { 0 })
            .collect();
        let graph = nodes.len() + sizes.iter().map(|&n| whole(INITIALIZER, n)).sum::<usize>();
        w.write_all(&rest.encode_to_vec())?;
        w.write_all(&head(GRAPH, graph))?;
        // The order of fields is free.
        w.write_all(&nodes)?;
        for (i, (p, inside)) in headers.iter().enumerate() {
            w.write_all(&head(INITIALIZER, sizes[i]))?;
            w.write_all(&p.encode_to_vec())?;
            if *inside {
                w.write_all(&head(RAW_DATA, data(i).len()))?;
                w.write_all(data(i))?;
            }
        }
        Ok(())
    }

    /// Writes the data file.
    ///
    /// # Errors
    /// Those of `w`.
    pub fn write_data(&self, w: &mut dyn Write) -> io::Result<()> {
        let (mut at, mut written) = (0, 0);
        for (_, t) in &self.tensors {
            let Some(offset) = place(t, &mut at) else { continue };
            w.write_all(&vec![0; (offset - written) as usize])?;
            w.write_all(t.bytes())?;
            written = at;
        }
        Ok(())
    }

    /// The model as the importer takes it; its initializers are not copied.
    pub fn proto(&self) -> ModelProto {
        let mut proto = self.proto.clone();
        let headers = self.headers(&Files::One).into_iter();
        let tensors =
            headers.zip(&self.tensors).map(|((p, _), (_, t))| TensorProto { raw_data: Some(t.bytes().clone()), ..p });
        if let Some(g) = &mut proto.graph {
            g.initializer = tensors.collect();
        }
        proto
    }
}

/// Where a tensor goes in the data file that is filled up to `at`; `None` for small ones.
fn place(t: &Tensor, at: &mut u64) -> Option<u64> {
    if t.bytes().len() < SMALL {
        return None;
    }
    let offset = at.next_multiple_of(PAGE);
    *at = offset + t.bytes().len() as u64;
    Some(offset)
}
