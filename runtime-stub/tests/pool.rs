//! The thread pool from Rust: each task runs once, its writes are seen, and neither callers nor nesting get in the way.
#![allow(unsafe_code)]

use bertc_rt::{MAX_THREADS, Parallel, ThreadPool, abi, bertc_pool_create, bertc_pool_destroy, bertc_pool_parallel};
use std::ffi::c_void;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Runs a closure as a `parallel_for`.
fn parallel_for<F: Fn(u64, u32) + Sync>(parallel: &Parallel, ntasks: u64, f: F) {
    unsafe extern "C" fn call<F: Fn(u64, u32) + Sync>(arg: *mut c_void, task: u64, worker: u32) {
        // SAFETY: `arg` is the closure below, which outlives the call.
        unsafe { (*arg.cast::<F>())(task, worker) }
    }
    let run = parallel.parallel_for.expect("a pool fills the function");
    // SAFETY: the closure may be called from any thread, and `parallel_for` returns after the last call.
    unsafe { run(parallel.ctx, ntasks, call::<F>, (&raw const f).cast_mut().cast()) }
}

/// One slot for each task, written without synchronisation, as a model's tasks write their tiles.
struct Slots(Vec<std::cell::UnsafeCell<u64>>);
// SAFETY: tasks write slots of their own.
unsafe impl Sync for Slots {}
impl Slots {
    fn new(n: usize) -> Slots {
        Slots((0..n).map(|_| std::cell::UnsafeCell::new(0)).collect())
    }
    fn add(&self, i: usize, value: u64) {
        // SAFETY: each slot has one writer at a time: that is what these tests are about.
        unsafe { *self.0[i].get() = (*self.0[i].get()).wrapping_mul(31).wrapping_add(value) }
    }
    fn get(&self, i: usize) -> u64 {
        // SAFETY: as above.
        unsafe { *self.0[i].get() }
    }
}

/// A chain of steps, each of which reads what other tasks wrote in the step before.
fn chain(parallel: &Parallel, steps: u64, width: usize) -> Vec<u64> {
    let (a, b) = (Slots::new(width), Slots::new(width));
    for step in 0..steps {
        let (from, to) = if step % 2 == 0 { (&a, &b) } else { (&b, &a) };
        parallel_for(parallel, width as u64, |task, _| {
            let i = task as usize;
            to.add(i, from.get((i + 1) % width) ^ from.get((i + width - 1) % width).rotate_left(7) ^ (step + task));
        });
    }
    (0..width).map(|i| a.get(i) ^ b.get(i).rotate_left(1)).collect()
}

#[test]
fn results_do_not_depend_on_the_number_of_threads() {
    let expected = chain(ThreadPool::new(1).expect("no threads needed").parallel(), 4000, 13);
    for threads in 2..=4 {
        let pool = ThreadPool::new(threads).expect("threads");
        assert_eq!(pool.parallel().max_workers, threads);
        assert_eq!(chain(pool.parallel(), 4000, 13), expected, "with {threads} threads");
    }
}

#[test]
fn each_task_runs_once_and_workers_do_not_share_a_number() {
    for threads in 1..=4 {
        let pool = ThreadPool::new(threads).expect("threads");
        for ntasks in [0u64, 1, 2, 3, 64, 1000] {
            let runs: Vec<AtomicU32> = (0..ntasks).map(|_| AtomicU32::new(0)).collect();
            let inside: Vec<AtomicU32> = (0..threads).map(|_| AtomicU32::new(0)).collect();
            parallel_for(pool.parallel(), ntasks, |task, worker| {
                assert_eq!(inside[worker as usize].fetch_add(1, Ordering::SeqCst), 0, "worker {worker} runs twice");
                runs[task as usize].fetch_add(1, Ordering::Relaxed);
                inside[worker as usize].fetch_sub(1, Ordering::SeqCst);
            });
            assert!(runs.iter().all(|n| n.load(Ordering::Relaxed) == 1), "{ntasks} tasks, {threads} threads");
        }
    }
}

#[test]
fn sleeping_workers_wake_up() {
    let pool = ThreadPool::new(3).expect("threads");
    let sum = AtomicU64::new(0);
    let rounds = 60;
    for _ in 0..rounds {
        // Longer than the workers poll, so that each round finds them asleep; the tasks are long enough to make the
        // caller wait, and to let it fall asleep too.
        std::thread::sleep(std::time::Duration::from_millis(2));
        parallel_for(pool.parallel(), 3, |task, _| {
            std::thread::sleep(std::time::Duration::from_micros(300 * task));
            sum.fetch_add(task + 1, Ordering::Relaxed);
        });
    }
    assert_eq!(sum.load(Ordering::Relaxed), rounds * 6);
}

#[test]
fn helpers_do_take_tasks() {
    // Two tasks that wait for each other end only if two threads run them.
    let pool = ThreadPool::new(2).expect("threads");
    for _ in 0..50 {
        let met = AtomicU32::new(0);
        parallel_for(pool.parallel(), 2, |_, _| {
            met.fetch_add(1, Ordering::SeqCst);
            while met.load(Ordering::SeqCst) < 2 {
                std::thread::yield_now();
            }
        });
    }
}

#[test]
fn concurrent_callers_share_a_pool() {
    let pool = ThreadPool::new(3).expect("threads");
    let expected = chain(pool.parallel(), 1500, 7);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| assert_eq!(chain(pool.parallel(), 1500, 7), expected));
        }
    });
}

#[test]
fn a_nested_call_runs_serially() {
    let pool = ThreadPool::new(3).expect("threads");
    let count = AtomicU64::new(0);
    // The struct holds a raw pointer, so tasks get at it through the pool.
    parallel_for(pool.parallel(), 8, |_, _| {
        parallel_for(pool.parallel(), 5, |_, worker| {
            assert_eq!(worker, 0);
            count.fetch_add(1, Ordering::Relaxed);
        });
    });
    assert_eq!(count.load(Ordering::Relaxed), 40);
}

#[test]
fn pools_come_and_go() {
    for i in 0..200u64 {
        let pool = ThreadPool::new((i % 4) as u32 + 1).expect("threads");
        if i % 3 != 0 {
            let count = AtomicU64::new(0);
            parallel_for(pool.parallel(), i, |_, _| {
                count.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(count.load(Ordering::Relaxed), i);
        }
    }
}

#[test]
fn odd_arguments_are_answered() {
    assert!(bertc_pool_create(MAX_THREADS + 1).is_null());
    assert!(ThreadPool::new(0).is_some_and(|pool| pool.parallel().max_workers >= 1));
    // SAFETY: null is allowed everywhere.
    unsafe {
        assert!(bertc_pool_parallel(std::ptr::null_mut()).is_null());
        bertc_pool_destroy(std::ptr::null_mut());
        bertc_rt::bertc_default_options(std::ptr::null_mut());
    }
    let mut options = abi::Options { size: 0, flags: 1, cpu_features: u64::MAX };
    // SAFETY: one `Options`.
    unsafe { bertc_rt::bertc_default_options(&mut options) };
    assert_eq!(options, abi::Options { size: 16, flags: 0, cpu_features: bertc_rt::bertc_cpu_features() });
    if cfg!(target_arch = "x86_64") {
        assert_eq!(options.cpu_features, 0);
    }
}
