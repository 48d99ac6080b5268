//! [`Monitor`] on a pthread mutex and condition variable, for systems without a public futex.

use core::cell::UnsafeCell;
use core::ffi::{c_int, c_void};
use core::ptr;
use core::sync::atomic::{AtomicU32, Ordering};

unsafe extern "C" {
    fn pthread_mutex_init(mutex: *mut c_void, attributes: *const c_void) -> c_int;
    fn pthread_mutex_lock(mutex: *mut c_void) -> c_int;
    fn pthread_mutex_unlock(mutex: *mut c_void) -> c_int;
    fn pthread_mutex_destroy(mutex: *mut c_void) -> c_int;
    fn pthread_cond_init(cond: *mut c_void, attributes: *const c_void) -> c_int;
    fn pthread_cond_wait(cond: *mut c_void, mutex: *mut c_void) -> c_int;
    fn pthread_cond_broadcast(cond: *mut c_void) -> c_int;
    fn pthread_cond_destroy(cond: *mut c_void) -> c_int;
}

/// Memory for either object: the largest known is Apple's mutex, 64 bytes.
#[repr(C, align(16))]
struct Opaque(UnsafeCell<[u8; 128]>);

impl Opaque {
    const fn new() -> Opaque {
        Opaque(UnsafeCell::new([0; 128]))
    }

    fn get(&self) -> *mut c_void {
        self.0.get().cast()
    }
}

/// One mutex and one condition variable serve all the words of a pool.
pub(crate) struct Monitor {
    mutex: Opaque,
    cond: Opaque,
}

impl Monitor {
    pub(crate) fn new() -> Monitor {
        Monitor { mutex: Opaque::new(), cond: Opaque::new() }
    }

    /// Prepares the monitor at its final address; false if the system has no room for it.
    pub(crate) fn init(&self) -> bool {
        // SAFETY: the memory is large enough, and nobody uses it yet.
        unsafe {
            if pthread_mutex_init(self.mutex.get(), ptr::null()) != 0 {
                return false;
            }
            if pthread_cond_init(self.cond.get(), ptr::null()) != 0 {
                pthread_mutex_destroy(self.mutex.get());
                return false;
            }
        }
        true
    }

    pub(crate) fn wait(&self, word: &AtomicU32, expected: u32) {
        // SAFETY: `init` has succeeded. The word is compared under the mutex that `wake` takes after the word has
        // changed, so a wake-up can't fall between the comparison and the wait.
        unsafe {
            pthread_mutex_lock(self.mutex.get());
            while word.load(Ordering::Relaxed) == expected {
                pthread_cond_wait(self.cond.get(), self.mutex.get());
            }
            pthread_mutex_unlock(self.mutex.get());
        }
    }

    /// Wakes all waiters: the condition variable doesn't know who waits for which word.
    pub(crate) fn wake(&self, _: &AtomicU32, _: u32) {
        // SAFETY: `init` has succeeded.
        unsafe {
            pthread_mutex_lock(self.mutex.get());
            pthread_cond_broadcast(self.cond.get());
            pthread_mutex_unlock(self.mutex.get());
        }
    }

    pub(crate) fn destroy(&self) {
        // SAFETY: `init` has succeeded, and no thread is left that could use the monitor.
        unsafe {
            pthread_cond_destroy(self.cond.get());
            pthread_mutex_destroy(self.mutex.get());
        }
    }
}
