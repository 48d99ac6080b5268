//! The runtime stub: a thread pool and CPU detection behind a C ABI, for apps that link a compiled model.
//!
//! A compiled model needs none of this: it has no undefined symbols, and runs serially when its `parallel` argument is
//! null. An app that wants threads links `libbertc_rt.a` (C, C++, Swift, …) or depends on this crate (Rust).
//!
//! The same sources are built in two ways:
//!
//! - as an ordinary `no_std` library, for Rust apps and for `bertc run`;
//! - as one relocatable object without any undefined Rust symbol, by `build/stub.rs`, with `--cfg bertc_stub`.
//!   With the feature `embed` that object is the constant `STUB_OBJECT`.
//!
//! Nothing here may panic: the stub has no panic machinery, and its panic handler stops the process.
#![no_std]
#![allow(unsafe_code)]

#[cfg(feature = "embed")]
extern crate std;

pub mod abi;
#[cfg(feature = "embed")]
pub mod archive;
mod cpu;
mod os;
mod pool;

pub use abi::{ABI_VERSION, Dim, Model, Options, Parallel, Symbol, Task, Tensor};
pub use cpu::{bertc_cpu_features, bertc_default_options};
pub use pool::{MAX_THREADS, Pool, ThreadPool, bertc_pool_create, bertc_pool_destroy, bertc_pool_parallel};

/// The text of `bertc.h`: the part of the ABI that all models share. Generated headers carry it behind its guard.
pub const ABI_HEADER: &str = include_str!("../include/bertc.h");

/// The text of `bertc_rt.h`: the C declarations of this crate.
pub const RT_HEADER: &str = include_str!("../include/bertc_rt.h");

/// The stub as one relocatable object for [`STUB_TARGET`]; empty if the build could not make it.
#[cfg(feature = "embed")]
pub const STUB_OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/bertc_rt.o"));

/// The triple that [`STUB_OBJECT`] is for: the target of this build.
#[cfg(feature = "embed")]
pub const STUB_TARGET: &str = env!("BERTC_RT_TARGET");

/// Reached only through a bug: every operation in this crate is written not to panic.
#[cfg(bertc_stub)]
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    os::abort()
}
