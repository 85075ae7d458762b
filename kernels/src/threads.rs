//! A few threads that share out the loops of one network: fork and join, dozens of times in a millisecond.
//!
//! Why not rayon: its pool is shared, and waking it takes longer than a small layer. Here whoever runs a network owns the threads;
//! they spin for a moment between two loops and sleep between two passes.

use std::cell::UnsafeCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering, fence};
use std::thread::{self, JoinHandle, Thread};

use crate::error::KernelError;

/// More threads than any processor has use for.
pub(crate) const MOST: usize = 256;

/// Looks for a new loop before a thread sleeps: some 50 us, longer than what a pass does between two loops.
const PATIENCE: u32 = 2_000;

/// Looks for the end of a loop before the processor is offered to others, for machines with more threads than cores.
const IMPATIENCE: u32 = 4_000;

/// Tasks for each thread, where planes can be cut; rows that are not worth another task; and rows that are worth one anyway.
const EACH: usize = 4;
const ROWS: usize = 4;
const TALL: usize = 32;

/// In `gate`: the number of the loop, whether it can be joined, and how many have joined it and not left.
const OPEN: u64 = 1 << 16;
const JOINED: u64 = OPEN - 1;
const LOOP: u64 = 1 << 17;

/// The loop that is under way.
struct Work {
    body: *const (dyn Fn(usize, usize) + Sync),
    count: usize,
}

/// Alone in its cache lines, so that who looks at it does not hold up who writes beside it; two of them, because processors fetch
/// the neighbour as well.
#[repr(align(128))]
struct Apart<T>(T);

struct Shared {
    gate: Apart<AtomicU64>,
    /// For each thread the next number of its own share that nobody has taken.
    next: Vec<Apart<AtomicUsize>>,
    /// Written by the owner while nobody has joined, read by those who have.
    work: UnsafeCell<Work>,
    failed: AtomicBool,
    ended: AtomicBool,
    asleep: Vec<AtomicBool>,
}

// SAFETY: `work` is written only between two loops, when nobody has joined (`Pool::run`), and what it points to is `Sync`.
unsafe impl Sync for Shared {}
// SAFETY: as above.
unsafe impl Send for Shared {}

/// Threads that run loops together with whoever owns them; the owner is one of them.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<(Thread, Option<JoinHandle<()>>)>,
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Pool").field("threads", &self.threads()).finish()
    }
}

impl Pool {
    /// A pool of so many threads, the caller's among them.
    pub(crate) fn new(threads: usize) -> Result<Self, KernelError> {
        if !(1..=MOST).contains(&threads) {
            return Err(KernelError::Option { what: "the number of threads", most: MOST, found: threads });
        }
        fn nothing(_: usize, _: usize) {}
        let shared = Arc::new(Shared {
            gate: Apart(AtomicU64::new(0)),
            work: UnsafeCell::new(Work { body: &nothing, count: 0 }),
            next: (0..threads).map(|_| Apart(AtomicUsize::new(0))).collect(),
            failed: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            asleep: (1..threads).map(|_| AtomicBool::new(false)).collect(),
        });
        let mut pool = Self { shared, threads: Vec::new() };
        for place in 0..threads - 1 {
            let shared = Arc::clone(&pool.shared);
            let started = thread::Builder::new().name(format!("kernels {place}")).spawn(move || serve(&shared, place));
            // Those that were started end as the pool is dropped.
            let handle = started.map_err(|_| KernelError::Threads)?;
            pool.threads.push((handle.thread().clone(), Some(handle)));
        }
        Ok(pool)
    }

    pub(crate) fn threads(&self) -> usize {
        self.threads.len() + 1
    }

    /// Calls `body` once with each number below `count`, from several threads, and returns when all calls have. Each thread begins with a
    /// share of its own, the same one for the same count. A panic in one
    /// of them comes out here, after the others have ended.
    ///
    /// It needs the pool for itself, so that no two loops meet.
    pub(crate) fn run(&mut self, count: usize, body: &(dyn Fn(usize) + Sync)) {
        self.run_on(count, &|place, _| body(place));
    }

    /// As [`Self::run`]; `body` is also told on which thread it is called, from 0 on, for memory of that thread's own.
    pub(crate) fn run_on(&mut self, count: usize, body: &(dyn Fn(usize, usize) + Sync)) {
        if self.threads.is_empty() || count <= 1 {
            (0..count).for_each(|place| body(place, 0));
            return;
        }
        let shared = &*self.shared;
        // SAFETY: the gate is closed and nobody is inside: the last `run` waited for that, and each has `&mut self`. The lifetime
        // that is taken away ends after this call does, and whoever joins has left before it does, even if it unwinds.
        unsafe {
            let body: *const (dyn Fn(usize, usize) + Sync) = body;
            let body =
                std::mem::transmute::<*const (dyn Fn(usize, usize) + Sync), *const (dyn Fn(usize, usize) + Sync)>(body);
            *shared.work.get() = Work { body, count };
        }
        for (thread, next) in shared.next.iter().enumerate() {
            next.0.store(shared.share(count, thread)[0], Ordering::Relaxed);
        }
        let number = shared.gate.0.load(Ordering::Relaxed) & !(LOOP - 1);
        shared.gate.0.store(number.wrapping_add(LOOP) | OPEN, Ordering::Release);
        // A thread says that it sleeps and then looks once more; the loop is opened and then is looked for sleepers. So one of
        // both sees the other.
        fence(Ordering::SeqCst);
        for ((thread, _), asleep) in self.threads.iter().zip(&shared.asleep) {
            if asleep.load(Ordering::Relaxed) {
                thread.unpark();
            }
        }
        let end = Join(shared);
        shared.take_part(count, body, 0);
        drop(end);
        if shared.failed.swap(false, Ordering::Relaxed) {
            resume_unwind(Box::new("a thread of the pool panicked"));
        }
    }
}

/// In how many parts of its rows each of so many planes is to be cut, so that no thread is left without work for long, and each has rows
/// of its own where there are many: who reads the results reads all planes of some rows.
pub(crate) fn parts(planes: usize, rows: usize, pool: &Pool) -> usize {
    match pool.threads() {
        1 => 1,
        threads => {
            let own = if rows >= TALL { threads } else { 1 };
            (EACH * threads).div_ceil(planes).max(own).min(rows / ROWS).max(1)
        }
    }
}

/// Closes the gate when it is dropped, and waits for those inside.
struct Join<'a>(&'a Shared);

impl Drop for Join<'_> {
    fn drop(&mut self) {
        // Nobody begins with another number, even if the owner unwinds.
        for next in &self.0.next {
            next.0.fetch_max(usize::MAX / 2, Ordering::Relaxed);
        }
        self.0.gate.0.fetch_and(!OPEN, Ordering::AcqRel);
        let mut looks = 0u32;
        while self.0.gate.0.load(Ordering::Acquire) & JOINED > 0 {
            looks += 1;
            if looks < IMPATIENCE { std::hint::spin_loop() } else { thread::yield_now() }
        }
    }
}

impl Shared {
    /// A thread's own share: the first number, and the one behind the last.
    fn share(&self, count: usize, thread: usize) -> [usize; 2] {
        [thread, thread + 1].map(|thread| count * thread / self.next.len())
    }

    /// Takes what is left of the thread's own share, and then of the others': neighbouring numbers are mostly neighbours in memory,
    /// and what a thread wrote in one loop lies in its cache for the next one.
    fn take_part(&self, count: usize, body: &(dyn Fn(usize, usize) + Sync), thread: usize) {
        let threads = self.next.len();
        for other in (thread..threads).chain(0..thread) {
            let [_, end] = self.share(count, other);
            loop {
                let place = self.next[other].0.fetch_add(1, Ordering::Relaxed);
                if place >= end {
                    break;
                }
                body(place, thread);
            }
        }
    }
}

fn serve(shared: &Shared, place: usize) {
    let mut last = 0;
    let mut looks = 0u32;
    loop {
        let gate = shared.gate.0.load(Ordering::Acquire);
        if gate & OPEN > 0 && gate / LOOP != last {
            if shared.gate.0.compare_exchange_weak(gate, gate + 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
                continue;
            }
            last = gate / LOOP;
            looks = 0;
            let run = || {
                // SAFETY: it was written before the gate was opened, is not written before this thread has left, and what it
                // points to lives as long.
                unsafe {
                    let Work { body, count } = &*shared.work.get();
                    shared.take_part(*count, &**body, place + 1);
                }
            };
            if catch_unwind(AssertUnwindSafe(run)).is_err() {
                shared.failed.store(true, Ordering::Relaxed);
            }
            shared.gate.0.fetch_sub(1, Ordering::Release);
        } else if shared.ended.load(Ordering::Relaxed) {
            return;
        } else if looks < PATIENCE {
            looks += 1;
            std::hint::spin_loop();
        } else {
            shared.asleep[place].store(true, Ordering::Relaxed);
            fence(Ordering::SeqCst);
            let gate = shared.gate.0.load(Ordering::Relaxed);
            if (gate & OPEN == 0 || gate / LOOP == last) && !shared.ended.load(Ordering::Relaxed) {
                thread::park();
            }
            shared.asleep[place].store(false, Ordering::Relaxed);
            looks = 0;
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        for (thread, handle) in &mut self.threads {
            thread.unpark();
            if let Some(handle) = handle.take() {
                // It catches what its loops panic with.
                drop(handle.join());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(pool: &mut Pool, count: usize) -> usize {
        let total = AtomicUsize::new(0);
        pool.run(count, &|place| {
            total.fetch_add(place + 1, Ordering::Relaxed);
        });
        total.into_inner()
    }

    #[test]
    fn every_number_is_called_once() {
        for threads in [1, 2, 5] {
            let mut pool = Pool::new(threads).unwrap();
            assert_eq!(pool.threads(), threads);
            for count in [0, 1, 2, 3, 1000] {
                for _ in 0..50 {
                    assert_eq!(sum(&mut pool, count), count * (count + 1) / 2);
                }
            }
        }
        assert!(Pool::new(0).is_err() && Pool::new(MOST + 1).is_err());
    }

    #[test]
    fn no_two_calls_at_a_time_are_told_the_same_thread() {
        let mut pool = Pool::new(4).unwrap();
        let busy: Vec<AtomicBool> = (0..pool.threads()).map(|_| AtomicBool::new(false)).collect();
        for _ in 0..50 {
            pool.run_on(100, &|_, thread| {
                assert!(!busy[thread].swap(true, Ordering::SeqCst), "two calls on thread {thread}");
                thread::yield_now();
                busy[thread].store(false, Ordering::SeqCst);
            });
        }
    }

    #[test]
    fn sleepers_wake() {
        let mut pool = Pool::new(3).unwrap();
        for _ in 0..20 {
            while !pool.shared.asleep.iter().all(|asleep| asleep.load(Ordering::Relaxed)) {
                thread::yield_now();
            }
            // Each waits for another thread to come: without one that wakes it would never end.
            let met = AtomicUsize::new(0);
            pool.run(2, &|_| {
                met.fetch_add(1, Ordering::SeqCst);
                while met.load(Ordering::SeqCst) < 2 {
                    thread::yield_now();
                }
            });
        }
    }

    #[test]
    fn a_panic_comes_out_and_the_pool_goes_on() {
        let mut pool = Pool::new(3).unwrap();
        for culprit in [0, 7, 99] {
            let run = AssertUnwindSafe(|| pool.run(100, &|place| assert_ne!(place, culprit, "planted")));
            assert!(catch_unwind(run).is_err());
            assert_eq!(sum(&mut pool, 100), 5050);
        }
    }

    #[test]
    fn several_owners_do_not_meet() {
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut pool = Pool::new(2).unwrap();
                    for _ in 0..200 {
                        assert_eq!(sum(&mut pool, 64), 64 * 65 / 2);
                    }
                });
            }
        });
    }
}
