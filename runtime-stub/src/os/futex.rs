//! [`Monitor`] on Linux's futex.

use core::ffi::{c_int, c_long, c_void};
use core::ptr;
use core::sync::atomic::AtomicU32;

unsafe extern "C" {
    fn syscall(number: c_long, ...) -> c_long;
}

#[cfg(target_arch = "x86_64")]
const SYS_FUTEX: c_long = 202;
#[cfg(not(target_arch = "x86_64"))]
const SYS_FUTEX: c_long = 98;
const FUTEX_WAIT_PRIVATE: c_int = 128;
const FUTEX_WAKE_PRIVATE: c_int = 129;

/// The kernel keeps the queues, so there is nothing to hold.
pub(crate) struct Monitor;

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor
    }

    /// Nothing to prepare: see `condvar.rs`.
    pub(crate) fn init(&self) -> bool {
        true
    }

    pub(crate) fn wait(&self, word: &AtomicU32, expected: u32) {
        // SAFETY: the word outlives the call, and a null timeout means to wait for ever. All errors (the word has
        // changed, a signal came) are returns that `wait` may make.
        unsafe {
            syscall(SYS_FUTEX, word.as_ptr(), FUTEX_WAIT_PRIVATE, expected, ptr::null::<c_void>());
        }
    }

    pub(crate) fn wake(&self, word: &AtomicU32, count: u32) {
        let count = count.min(c_int::MAX as u32) as c_int;
        // SAFETY: the word is valid; waking touches no memory of ours.
        unsafe {
            syscall(SYS_FUTEX, word.as_ptr(), FUTEX_WAKE_PRIVATE, count);
        }
    }

    pub(crate) fn destroy(&self) {}
}
