//! Arbitrary valid IR for tests: property tests and fuzz targets drive the same generator by numbers.

mod graph;
mod ops;

pub use graph::{Options, graph};

/// Where decisions come from. Past their end all are 0, which ends every loop of the generator.
pub struct Source<'a>(Box<dyn FnMut() -> u64 + 'a>);

impl<'a> Source<'a> {
    /// Decisions from a function.
    pub fn new(next: impl FnMut() -> u64 + 'a) -> Self {
        Source(Box::new(next))
    }

    /// Decisions from bytes, two for each: what a fuzzer has.
    pub fn from_bytes(bytes: &'a [u8]) -> Self {
        let mut pairs = bytes.chunks(2);
        Source::new(move || pairs.next().map_or(0, |p| p.iter().fold(0, |a, &b| a << 8 | u64::from(b))))
    }

    /// Decisions from numbers: what proptest shrinks.
    pub fn from_numbers(numbers: &'a [u32]) -> Self {
        let mut numbers = numbers.iter();
        Source::new(move || numbers.next().map_or(0, |&n| n.into()))
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        ((self.0)() % (n.max(1) as u64)) as usize
    }

    /// True or false.
    pub fn flag(&mut self) -> bool {
        self.below(2) == 1
    }

    /// One of `v`, which is not empty.
    pub fn of<T: Clone>(&mut self, v: &[T]) -> T {
        v[self.below(v.len())].clone()
    }
}
