//! What the pool needs of an operating system: memory, threads, the number of CPUs, and sleeping on a 32-bit word.
//!
//! `Monitor` has the contract of a futex: `wait(word, expected)` sleeps while `*word == expected`, and may return at any
//! time; a change of `*word` that is followed by `wake(word, n)` ends the sleep of `n` waiters (or of more). The
//! comparison and the falling asleep are one step as far as `wake` can tell, so no wake-up is lost.

#[cfg(all(
    any(target_os = "linux", target_os = "android"),
    any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
))]
#[path = "futex.rs"]
mod monitor;

#[cfg(all(
    unix,
    not(all(
        any(target_os = "linux", target_os = "android"),
        any(target_arch = "x86_64", target_arch = "aarch64", target_arch = "riscv64")
    ))
))]
#[path = "condvar.rs"]
mod monitor;

#[cfg(unix)]
#[path = "posix.rs"]
mod system;

#[cfg(windows)]
#[path = "windows.rs"]
mod system;

#[cfg(windows)]
use system as monitor;

pub(crate) use monitor::Monitor;
pub(crate) use system::{Thread, cpus, join, spawn};

use core::ffi::c_void;

unsafe extern "C" {
    fn malloc(bytes: usize) -> *mut c_void;
    fn free(block: *mut c_void);
    #[cfg(bertc_stub)]
    #[link_name = "abort"]
    safe fn c_abort() -> !;
}

/// A block of `bytes` bytes, aligned to 16 (or to twice a pointer); null if there is no memory.
pub(crate) fn allocate(bytes: usize) -> *mut u8 {
    // SAFETY: `malloc` has no precondition.
    unsafe { malloc(bytes) }.cast()
}

/// Gives a block back.
///
/// # Safety
///
/// `block` came from [`allocate`], and nobody uses it any more.
pub(crate) unsafe fn release(block: *mut u8) {
    // SAFETY: as the caller promises.
    unsafe { free(block.cast()) }
}

/// Stops the process.
#[cfg(bertc_stub)]
pub(crate) fn abort() -> ! {
    c_abort()
}
