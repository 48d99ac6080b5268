//! Runtime stub.
