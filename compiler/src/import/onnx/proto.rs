//! The protobuf types of ONNX, generated from `proto/onnx.proto` (see `tests/onnx_proto.rs`).
#![allow(missing_docs, unused_qualifications, rust_2018_idioms, clippy::all, clippy::pedantic)]

include!("onnx.rs");
