//! Threads and the number of CPUs on POSIX systems.

use core::ffi::{c_int, c_long, c_void};
use core::ptr;

unsafe extern "C" {
    fn pthread_create(
        thread: *mut usize,
        attributes: *const c_void,
        entry: extern "C" fn(*mut c_void) -> *mut c_void,
        arg: *mut c_void,
    ) -> c_int;
    fn pthread_join(thread: usize, result: *mut *mut c_void) -> c_int;
    safe fn sysconf(name: c_int) -> c_long;
}

/// `pthread_t` is an integer or a pointer of a pointer's size on every supported system.
#[derive(Clone, Copy)]
pub(crate) struct Thread(usize);

/// Starts a thread that runs `entry(arg)`.
pub(crate) fn spawn(entry: extern "C" fn(*mut c_void) -> *mut c_void, arg: *mut c_void) -> Option<Thread> {
    let mut thread = 0;
    // SAFETY: `thread` has room for a `pthread_t`, null means default attributes, and `entry` has the right type.
    let status = unsafe { pthread_create(&mut thread, ptr::null(), entry, arg) };
    (status == 0).then_some(Thread(thread))
}

/// Waits for a thread's end. Each thread is joined once.
pub(crate) fn join(thread: Thread) {
    // SAFETY: the handle comes from `spawn`, and the pool joins each thread once.
    unsafe {
        pthread_join(thread.0, ptr::null_mut());
    }
}

/// The number of CPUs that this process may use, at least 1.
pub(crate) fn cpus() -> u32 {
    affinity().unwrap_or_else(|| {
        #[cfg(target_os = "linux")]
        const SC_NPROCESSORS_ONLN: c_int = 84;
        #[cfg(target_os = "android")]
        const SC_NPROCESSORS_ONLN: c_int = 97;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const SC_NPROCESSORS_ONLN: c_int = 58;
        u32::try_from(sysconf(SC_NPROCESSORS_ONLN)).unwrap_or(1).max(1)
    })
}

/// The size of the process's CPU set: containers and `taskset` shrink it, and `sysconf` would not tell.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn affinity() -> Option<u32> {
    unsafe extern "C" {
        fn sched_getaffinity(pid: c_int, bytes: usize, mask: *mut u64) -> c_int;
    }
    let mut mask = [0u64; 16];
    // SAFETY: the mask has as many bytes as are said; pid 0 is the calling thread.
    let status = unsafe { sched_getaffinity(0, size_of_val(&mask), mask.as_mut_ptr()) };
    let count = mask.iter().map(|word| word.count_ones()).sum::<u32>();
    (status == 0 && count > 0).then_some(count)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn affinity() -> Option<u32> {
    None
}
