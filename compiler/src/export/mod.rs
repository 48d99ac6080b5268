//! What a graph is written as for other tools.

pub mod onnx;
