//! Windows: threads, the number of CPUs, and [`Monitor`] on a slim lock and a condition variable.
//!
//! `WaitOnAddress` would fit better, but needs one more import library than kernel32, which everything links.

use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

unsafe extern "system" {
    fn CreateThread(
        attributes: *const c_void,
        stack: usize,
        entry: unsafe extern "system" fn(*mut c_void) -> u32,
        arg: *mut c_void,
        flags: u32,
        id: *mut u32,
    ) -> *mut c_void;
    fn WaitForSingleObject(handle: *mut c_void, milliseconds: u32) -> u32;
    fn CloseHandle(handle: *mut c_void) -> i32;
    safe fn GetActiveProcessorCount(group: u16) -> u32;
    fn AcquireSRWLockExclusive(lock: *mut *mut c_void);
    fn ReleaseSRWLockExclusive(lock: *mut *mut c_void);
    fn SleepConditionVariableSRW(cond: *mut *mut c_void, lock: *mut *mut c_void, milliseconds: u32, flags: u32) -> i32;
    fn WakeAllConditionVariable(cond: *mut *mut c_void);
}

const INFINITE: u32 = u32::MAX;
const ALL_PROCESSOR_GROUPS: u16 = u16::MAX;

/// The handle of a thread.
#[derive(Clone, Copy)]
pub(crate) struct Thread(*mut c_void);

/// What a new thread runs: Windows passes one pointer, so it carries both the function and its argument.
#[repr(C)]
struct Start {
    entry: extern "C" fn(*mut c_void) -> *mut c_void,
    arg: *mut c_void,
}

unsafe extern "system" fn start(block: *mut c_void) -> u32 {
    // SAFETY: `spawn` gave this thread a `Start` of its own from `allocate`.
    let Start { entry, arg } = unsafe {
        let start = block.cast::<Start>().read();
        super::release(block.cast());
        start
    };
    entry(arg);
    0
}

/// Starts a thread that runs `entry(arg)`.
pub(crate) fn spawn(entry: extern "C" fn(*mut c_void) -> *mut c_void, arg: *mut c_void) -> Option<Thread> {
    let block = super::allocate(size_of::<Start>());
    if block.is_null() {
        return None;
    }
    // SAFETY: the block has room for a `Start`; a failed `CreateThread` leaves it to us.
    unsafe {
        block.cast::<Start>().write(Start { entry, arg });
        let handle = CreateThread(ptr::null(), 0, start, block.cast(), 0, ptr::null_mut());
        if handle.is_null() {
            super::release(block);
            return None;
        }
        Some(Thread(handle))
    }
}

/// Waits for a thread's end. Each thread is joined once.
pub(crate) fn join(thread: Thread) {
    // SAFETY: the handle comes from `spawn`, and the pool joins each thread once.
    unsafe {
        WaitForSingleObject(thread.0, INFINITE);
        CloseHandle(thread.0);
    }
}

/// The number of CPUs, at least 1.
pub(crate) fn cpus() -> u32 {
    GetActiveProcessorCount(ALL_PROCESSOR_GROUPS).max(1)
}

/// One lock and one condition variable serve all the words of a pool. Zero is the initial state of both.
pub(crate) struct Monitor {
    lock: UnsafeCell<*mut c_void>,
    cond: UnsafeCell<*mut c_void>,
}

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor { lock: UnsafeCell::new(ptr::null_mut()), cond: UnsafeCell::new(ptr::null_mut()) }
    }

    pub(crate) fn init(&self) -> bool {
        true
    }

    pub(crate) fn wait(&self, word: &AtomicU32, expected: u32) {
        // SAFETY: both objects are initialised and don't move. The word is compared under the lock that `wake` takes
        // after the word has changed, so a wake-up can't fall between the comparison and the wait.
        unsafe {
            AcquireSRWLockExclusive(self.lock.get());
            while word.load(Ordering::Relaxed) == expected {
                SleepConditionVariableSRW(self.cond.get(), self.lock.get(), INFINITE, 0);
            }
            ReleaseSRWLockExclusive(self.lock.get());
        }
    }

    /// Wakes all waiters: the condition variable doesn't know who waits for which word.
    pub(crate) fn wake(&self, _: &AtomicU32, _: u32) {
        // SAFETY: both objects are initialised and don't move.
        unsafe {
            AcquireSRWLockExclusive(self.lock.get());
            WakeAllConditionVariable(self.cond.get());
            ReleaseSRWLockExclusive(self.lock.get());
        }
    }

    pub(crate) fn destroy(&self) {}
}
