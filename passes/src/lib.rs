//! Passes over the tensor IR of the bertc compiler.
