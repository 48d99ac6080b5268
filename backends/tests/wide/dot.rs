//! Dot products of bytes, of every kind and width.

use crate::machine::{Arg, Case, run, vectors};
use crate::{Test, dots};

pub const TESTS: &[Test] = &[("dots_of_bytes", bytes)];

fn bytes() -> Result<(), String> {
    let cases = dots::all(&vectors()).into_iter().map(|(kernel, buffers)| {
        let args = buffers.into_iter().map(Arg::Buffer).collect();
        Case::new(kernel, args)
    });
    run(&cases.collect::<Vec<_>>())
}
