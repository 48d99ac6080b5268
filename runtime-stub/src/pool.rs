//! The thread pool.
//!
//! A call of `parallel_for` is a *job*. The caller, worker 0, publishes the job, claims tasks like every other worker,
//! and waits for the workers that took part. A worker that comes too late (it slept, or has lost its CPU) takes no part,
//! and nobody waits for it: that keeps short jobs short on a busy machine.
//!
//! # Why it is right on a weakly ordered CPU
//!
//! The *gate* is one word: `OPEN`, `WAIT` (the caller sleeps), and the number of workers inside. Its history for a job:
//!
//! | step | who | operation |
//! |---|---|---|
//! | 1 | caller | writes `job` and `next` while the gate is shut and empty |
//! | 2 | caller | `gate.store(OPEN, Release)` |
//! | 3 | worker | enters: compare-exchange `g → g + 1`, `Acquire`, only where `g` has `OPEN` |
//! | 4 | worker | reads `job`, claims tasks from `next` and runs them |
//! | 5 | worker | leaves: `gate.fetch_sub(1, Release)` |
//! | 6 | caller | has found no task left: `gate.fetch_and(!OPEN, Acquire)` |
//! | 7 | caller | loads the gate, `Acquire`, until nobody is inside |
//!
//! - *2 happens before 4.* Between a store of step 2 and the shutting of the gate, only read-modify-writes change the
//!   word (3, 5), so they all belong to the release sequence of that store, and the acquire of step 3 synchronises with
//!   it whatever it reads. Hence a worker sees the job and all that the caller wrote before it, the tasks of
//!   earlier jobs included.
//! - *4 happens before what follows 7.* After step 2 all writes to the word are read-modify-writes, so the value that
//!   step 6 or 7 reads belongs to the release sequence of each `fetch_sub` before it: the acquire synchronises with
//!   all workers that have left, and an empty gate says that all who had entered have left.
//! - *No worker touches `job` or `next` in step 1.* They do so only between 3 and 5, and a shut gate lets nobody in.
//! - *Each task runs once.* `next.fetch_add(1)` is atomic whatever its ordering, and gives each number once; the
//!   caller's own claim has failed before step 6, so all tasks are claimed, by the caller or by somebody inside.
//!
//! # Sleeping
//!
//! A worker with nothing to do polls `epoch` for a while, then sleeps on it. The caller bumps `epoch` after step 2 and
//! wakes sleepers if there are any. Either may see the other late, so this is Dekker's pattern, and takes sequentially
//! consistent operations: the worker adds itself to `sleepers`, then compares `epoch` again; the caller bumps
//! `epoch`, then reads `sleepers`. At least one of them sees the other's write. Should a wake-up be missed nevertheless
//! (2³² jobs pass between two looks at `epoch`), the job only has one helper less.

use crate::abi::{Parallel, Task};
use crate::os::{self, Monitor, Thread};
use core::cell::UnsafeCell;
use core::ffi::c_void;
use core::hint::spin_loop;
use core::mem::{align_of, size_of};
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The most threads that a pool can have, the caller included.
pub const MAX_THREADS: u32 = 1024;

const OPEN: u32 = 1 << 31;
const WAIT: u32 = 1 << 30;
const COUNT: u32 = WAIT - 1;

/// Polls before a thread sleeps: some ten microseconds, longer than the serial code between two jobs of a model.
const SPINS: u32 = 2000;
/// With more threads than CPUs, a polling thread keeps a working one from running.
const SPINS_CROWDED: u32 = 20;

/// A cache line (two on x86, which prefetches pairs) of its own, so that claiming tasks disturbs no other word.
#[repr(align(128))]
struct Line<T>(T);

#[derive(Clone, Copy)]
struct Job {
    task: Task,
    arg: *mut c_void,
    ntasks: u64,
}

/// `bertc_pool`: opaque for C. Rust apps use [`ThreadPool`].
#[repr(C)]
pub struct Pool {
    parallel: Parallel,
    monitor: Monitor,
    /// The block from [`os::allocate`] that holds this pool and its workers.
    block: *mut u8,
    workers: *mut Worker,
    /// The workers that run: all but worker 0. Constant once the pool is handed out; atomic because the first workers
    /// already look at the pool while `create` starts the others.
    started: AtomicU32,
    spins: u32,
    stop: AtomicU32,
    /// 1 while a call of `parallel_for` owns the pool.
    busy: AtomicU32,
    /// Written by the owner of `busy` while the gate is shut and empty, read by workers inside the gate.
    job: UnsafeCell<Option<Job>>,
    gate: Line<AtomicU32>,
    next: Line<AtomicU64>,
    epoch: Line<AtomicU32>,
    sleepers: AtomicU32,
}

// SAFETY: the pool's mutable parts are atomics, `job` (guarded by `busy` and the gate, see the module's docs) and the
// monitor (whose functions are thread-safe); the rest is constant after `Pool::create`. Pointers in it are never used
// for anything else.
unsafe impl Sync for Pool {}

/// What a thread of the pool is told.
#[repr(C)]
struct Worker {
    pool: *const Pool,
    index: u32,
    thread: Option<Thread>,
}

/// `bertc_pool_create`: a pool of `threads` threads, the caller of `parallel_for` included; 0: one for each CPU.
///
/// Null: out of memory or threads, or more than [`MAX_THREADS`].
#[unsafe(no_mangle)]
pub extern "C" fn bertc_pool_create(threads: u32) -> *mut Pool {
    let cpus = os::cpus();
    let threads = if threads == 0 { cpus.min(MAX_THREADS) } else { threads };
    if threads > MAX_THREADS {
        return ptr::null_mut();
    }
    let spins = if threads > cpus { SPINS_CROWDED } else { SPINS };
    create(threads, spins)
}

/// `bertc_pool_destroy`: stops and joins the threads, and frees the pool. Null is ignored.
///
/// # Safety
///
/// `pool` is null or from [`bertc_pool_create`], it was not destroyed before, and no `parallel_for` runs on it or
/// comes later.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertc_pool_destroy(pool: *mut Pool) {
    if !pool.is_null() {
        // SAFETY: as the caller promises.
        unsafe { destroy(pool) }
    }
}

/// `bertc_pool_parallel`: the struct to hand to a model's `run`, valid until the pool is destroyed; null for null.
///
/// # Safety
///
/// `pool` is null or a living pool.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn bertc_pool_parallel(pool: *mut Pool) -> *const Parallel {
    if pool.is_null() {
        return ptr::null();
    }
    // SAFETY: the pool lives; its field is constant.
    unsafe { &raw const (*pool).parallel }
}

/// Allocates a pool with its workers in one block and starts the threads.
fn create(threads: u32, spins: u32) -> *mut Pool {
    const { assert!(align_of::<Pool>() >= align_of::<Worker>()) };
    let helpers = threads - 1;
    let bytes = size_of::<Pool>() + helpers as usize * size_of::<Worker>();
    let block = os::allocate(bytes + align_of::<Pool>());
    if block.is_null() {
        return ptr::null_mut();
    }
    // `allocate` aligns less than a cache line, so the block has room to move up.
    let pool: *mut Pool = block.wrapping_add(block.align_offset(align_of::<Pool>())).cast();
    let workers: *mut Worker = pool.wrapping_add(1).cast();
    let value = Pool {
        parallel: Parallel {
            ctx: pool.cast(),
            max_workers: threads,
            reserved: 0,
            parallel_for: Some(pool_parallel_for),
        },
        monitor: Monitor::new(),
        block,
        workers,
        started: AtomicU32::new(0),
        spins,
        stop: AtomicU32::new(0),
        busy: AtomicU32::new(0),
        job: UnsafeCell::new(None),
        gate: Line(AtomicU32::new(0)),
        next: Line(AtomicU64::new(0)),
        epoch: Line(AtomicU32::new(0)),
        sleepers: AtomicU32::new(0),
    };
    // SAFETY: the block has room for an aligned pool and for `helpers` workers behind it.
    unsafe {
        pool.write(value);
        if !(*pool).monitor.init() {
            os::release(block);
            return ptr::null_mut();
        }
        for i in 0..helpers {
            let worker = workers.add(i as usize);
            worker.write(Worker { pool, index: i + 1, thread: None });
            // The new thread doesn't read `thread`, which is written while it may already run.
            let thread = os::spawn(work, worker.cast());
            (&raw mut (*worker).thread).write(thread);
            if thread.is_none() {
                destroy(pool);
                return ptr::null_mut();
            }
            (*pool).started.store(i + 1, Ordering::Relaxed);
        }
    }
    pool
}

/// Stops, joins and frees.
///
/// # Safety
///
/// As for [`bertc_pool_destroy`]; the first `started` workers run.
unsafe fn destroy(pool: *mut Pool) {
    // SAFETY: the pool lives until `release`, after all other threads have ended.
    unsafe {
        let (block, workers, started) = ((*pool).block, (*pool).workers, (*pool).started.load(Ordering::Relaxed));
        {
            let pool = &*pool;
            // Read by workers after the acquire of `epoch`, in `work`.
            pool.stop.store(1, Ordering::Relaxed);
            pool.epoch.0.fetch_add(1, Ordering::SeqCst);
            pool.monitor.wake(&pool.epoch.0, u32::MAX);
        }
        for i in 0..started as usize {
            if let Some(thread) = (&raw const (*workers.add(i)).thread).read() {
                os::join(thread);
            }
        }
        (*pool).monitor.destroy();
        os::release(block);
    }
}

/// `parallel_for` of the struct that a pool hands out.
unsafe extern "C" fn pool_parallel_for(ctx: *mut c_void, ntasks: u64, task: Task, arg: *mut c_void) {
    let job = Job { task, arg, ntasks };
    // SAFETY: `ctx` is the pool of this struct, which lives as long as the struct.
    let pool = unsafe { &*ctx.cast::<Pool>() };
    let parallel = ntasks > 1 && pool.started.load(Ordering::Relaxed) > 0;
    // A second caller, or a task that calls again, must not wait for the first: it does its tasks by itself.
    // Acquire: pairs with the release below, so that this caller may write `job` and `next`.
    if parallel && pool.busy.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
        // SAFETY: this call owns `busy`; the caller vouches for the task.
        unsafe { pool.run(job) };
        pool.busy.store(0, Ordering::Release);
    } else {
        for i in 0..ntasks {
            // SAFETY: the caller vouches for the task. Workers are numbered in each call anew, so 0 is free.
            unsafe { (job.task)(job.arg, i, 0) };
        }
    }
}

impl Pool {
    /// Runs a job on the caller and on the workers that come in time.
    ///
    /// # Safety
    ///
    /// The caller owns `busy`, and the job's task may be called for each of its numbers.
    unsafe fn run(&self, job: Job) {
        // SAFETY: the gate is shut and empty, and `busy` keeps other callers away.
        unsafe { *self.job.get() = Some(job) };
        self.next.0.store(0, Ordering::Relaxed);
        self.gate.0.store(OPEN, Ordering::Release);

        self.epoch.0.fetch_add(1, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let helpers = u64::from(self.started.load(Ordering::Relaxed)).min(job.ntasks - 1);
            self.monitor.wake(&self.epoch.0, helpers as u32);
        }

        // SAFETY: the tasks claimed here are nobody else's.
        unsafe { self.claim(job, 0) };

        let mut gate = self.gate.0.fetch_and(!OPEN, Ordering::Acquire) & !OPEN;
        let mut polls = 0;
        while gate & COUNT != 0 {
            if polls < self.spins {
                polls += 1;
                spin_loop();
            } else if gate & WAIT != 0 {
                self.monitor.wait(&self.gate.0, gate);
            } else {
                // The last worker wakes the caller if it sees `WAIT`; if the exchange fails, somebody has just left.
                let _ = self.gate.0.compare_exchange(gate, gate | WAIT, Ordering::Relaxed, Ordering::Relaxed);
            }
            gate = self.gate.0.load(Ordering::Acquire);
        }
    }

    /// Claims tasks and runs them until there are none left.
    ///
    /// # Safety
    ///
    /// The caller is inside the gate, or has opened it, and `job` is the current job.
    unsafe fn claim(&self, job: Job, worker: u32) {
        loop {
            // Each thread overshoots once: a wrap would take 2⁶⁴ tasks.
            let i = self.next.0.fetch_add(1, Ordering::Relaxed);
            if i >= job.ntasks {
                return;
            }
            // SAFETY: the caller of `parallel_for` vouches for the task, and each number is claimed once.
            unsafe { (job.task)(job.arg, i, worker) };
        }
    }

    /// Enters the gate if it is open.
    fn enter(&self) -> bool {
        let mut gate = self.gate.0.load(Ordering::Relaxed);
        while gate & OPEN != 0 {
            match self.gate.0.compare_exchange_weak(gate, gate + 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => gate = now,
            }
        }
        false
    }

    /// Leaves the gate, and wakes the caller if it sleeps and nobody is left.
    fn leave(&self) {
        // No job ends before this subtraction, and the pool outlives its threads: `wake` finds the word alive.
        if self.gate.0.fetch_sub(1, Ordering::Release) == WAIT | 1 {
            self.monitor.wake(&self.gate.0, 1);
        }
    }

    /// Waits until `epoch` is no longer `seen`; returns the new one.
    fn next_epoch(&self, seen: u32) -> u32 {
        for _ in 0..self.spins {
            let epoch = self.epoch.0.load(Ordering::Acquire);
            if epoch != seen {
                return epoch;
            }
            spin_loop();
        }
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let mut epoch = self.epoch.0.load(Ordering::SeqCst);
        while epoch == seen {
            self.monitor.wait(&self.epoch.0, seen);
            epoch = self.epoch.0.load(Ordering::SeqCst);
        }
        self.sleepers.fetch_sub(1, Ordering::Relaxed);
        epoch
    }
}

/// The life of a worker.
extern "C" fn work(worker: *mut c_void) -> *mut c_void {
    let worker: *const Worker = worker.cast();
    // SAFETY: `create` wrote these fields before it started this thread; the block outlives the thread. No reference to
    // the `Worker` is made, because `create` may still write its `thread`.
    let (pool, index) = unsafe { (&*(*worker).pool, (*worker).index) };
    let mut seen = 0;
    loop {
        seen = pool.next_epoch(seen);
        if pool.stop.load(Ordering::Relaxed) != 0 {
            return ptr::null_mut();
        }
        if pool.enter() {
            // SAFETY: this thread is inside the gate, so the job is the current one, and nobody writes it.
            unsafe {
                if let Some(job) = *pool.job.get() {
                    pool.claim(job, index);
                }
            }
            pool.leave();
        }
    }
}

/// A pool for Rust code: created, used and destroyed without `unsafe`.
///
/// ```
/// let pool = bertc_rt::ThreadPool::new(2).expect("two threads");
/// assert_eq!(pool.parallel().max_workers, 2);
/// ```
pub struct ThreadPool(NonNull<Pool>);

// SAFETY: a pool may be used and destroyed by any thread.
unsafe impl Send for ThreadPool {}
// SAFETY: concurrent calls of `parallel_for` are safe, and nothing else takes `&self`.
unsafe impl Sync for ThreadPool {}

impl ThreadPool {
    /// A pool of `threads` threads, the caller included; 0: one for each CPU. None: as for [`bertc_pool_create`].
    #[must_use]
    pub fn new(threads: u32) -> Option<ThreadPool> {
        NonNull::new(bertc_pool_create(threads)).map(ThreadPool)
    }

    /// The struct to hand to a model's `run`.
    #[must_use]
    pub fn parallel(&self) -> &Parallel {
        // SAFETY: the pool lives as long as `self`; the field is constant.
        unsafe { &*bertc_pool_parallel(self.0.as_ptr()) }
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        // SAFETY: `self` owns the pool, and borrows of `parallel` have ended. A copy of the struct that is used later
        // would need `unsafe` to call it.
        unsafe { bertc_pool_destroy(self.0.as_ptr()) }
    }
}
