//! An ahead-of-time compiler for BERT-class ONNX models.

pub mod import;
pub mod stub;
