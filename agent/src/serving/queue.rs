//! The batcher with a lock and a clock: callers put jobs in and may take them out again, workers wait for batches.
//!
//! A channel would keep the job of a caller that has hung up until a worker comes to it, and a full channel of such jobs would
//! refuse the living. Here a caller takes its job out again, and its place is free at once.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, Thread};
use std::time::Instant;

use adit_vision::{Tensor, join};

use super::batcher::{Batch, Batcher, Next, Options, Refusal, Request};
use super::job::{Job, Lost, Refused};

/// Jobs that wait for the workers of one network.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// A batch may have become full.
    grown: Condvar,
}

#[derive(Debug)]
struct State {
    batcher: Batcher<Job>,
    /// Workers that wait, of which the last is woken first: what it ran with is still warm, and a lone request after the other finds
    /// the same one. A condition would wake the one that has waited longest.
    idle: Vec<Thread>,
    prepared: Option<Prepared>,
    fault: Option<&'static str>,
    closed: bool,
}

/// The next batch's input, joined while the workers were busy.
#[derive(Debug)]
struct Prepared {
    numbers: Vec<u64>,
    /// Nothing where joining failed: whoever runs the batch will say why.
    input: Option<Tensor>,
}

/// A job's place in the queue.
#[derive(Debug)]
pub(super) struct Place {
    /// Its number, for [`Queue::remove`].
    pub(super) number: u64,
    /// How many less urgent ones had to leave for it.
    pub(super) displaced: usize,
}

/// What a worker is to run.
#[derive(Debug)]
pub(super) struct Work {
    /// For [`Queue::finished`].
    pub(super) ticket: u64,
    /// The jobs of the batch.
    pub(super) jobs: Vec<Job>,
    /// Their inputs as one, if that is ready already.
    pub(super) input: Option<Tensor>,
    /// How many passes run now, this one among them, if nobody waits for them.
    pub(super) passes: Option<usize>,
}

impl Queue {
    pub(super) fn new(options: Options) -> Self {
        let batcher = Batcher::new(options);
        let state = State { batcher, idle: Vec::new(), prepared: None, fault: None, closed: false };
        Self { state: Mutex::new(state), grown: Condvar::new() }
    }

    /// Takes a job.
    pub(super) fn push(&self, job: Job) -> Result<Place, Refused> {
        let request = Request { weight: job.images(), level: job.priority.level(), deadline: job.deadline };
        let mut state = self.lock();
        if state.closed {
            return Err(Refused::Closed);
        }
        if let Some(fault) = state.fault {
            return Err(Refused::Faulty(fault));
        }
        let taken = state.batcher.push(Instant::now(), request, job).map_err(|refusal| match refusal {
            Refusal::Full => Refused::Full,
            Refusal::Late(needed) => Refused::Late(needed),
            Refusal::Expired => Refused::Expired,
        })?;
        let (full, worker) = (state.batcher.is_full(), state.idle.pop());
        drop(state);
        // Who is not idle looks again before it waits.
        if let Some(worker) = worker {
            worker.unpark();
        }
        if full {
            self.grown.notify_one();
        }
        // Outside of the lock: an answer wakes its caller.
        let place = Place { number: taken.number, displaced: taken.displaced.len() };
        taken.displaced.into_iter().for_each(|job| job.lose(Lost::Displaced));
        Ok(place)
    }

    /// Takes a job out again, `None` when a worker has it already.
    pub(super) fn remove(&self, number: u64) -> Option<Job> {
        self.lock().batcher.remove(number)
    }

    /// The next batch; blocks until there is one. `None` once the queue is closed, or `leave` answers true.
    pub(super) fn take(&self, leave: impl Fn() -> bool) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.closed || leave() {
                return None;
            }
            let now = Instant::now();
            let expired = state.batcher.expired(now);
            if !expired.is_empty() {
                drop(state);
                expired.into_iter().for_each(|job| job.lose(Lost::Expired));
                state = self.lock();
                continue;
            }
            let until = match state.batcher.next(now) {
                Next::Batch(batch) => return Some(state.work(batch)),
                Next::Wait(until) => until,
            };
            let this = thread::current();
            state.idle.push(this.clone());
            drop(state);
            match until {
                None => thread::park(),
                Some(until) => thread::park_timeout(until.saturating_duration_since(now)),
            }
            state = self.lock();
            // Still there where the time was over, or nobody had called.
            state.idle.retain(|idle| idle.id() != this.id());
        }
    }

    /// Joins the inputs of coming batches while the workers are busy; blocks until the queue is closed.
    pub(super) fn prepare(&self) {
        let mut state = self.lock();
        while !state.closed {
            let coming = state.batcher.coming(Instant::now()).unwrap_or_default();
            let numbers: Vec<u64> = coming.iter().map(|(number, _)| *number).collect();
            if numbers.is_empty() || state.prepared.as_ref().is_some_and(|prepared| prepared.numbers == numbers) {
                state = self.grown.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            // Clones share their elements.
            let inputs: Vec<Tensor> = coming.iter().map(|(_, job)| job.input.clone()).collect();
            drop(state);
            let input = join(&inputs).ok();
            state = self.lock();
            state.prepared = Some(Prepared { numbers, input });
        }
    }

    /// A batch has left its worker. `measured` is whether its time tells anything.
    pub(super) fn finished(&self, ticket: u64, measured: bool) {
        self.lock().batcher.finished(ticket, Instant::now(), measured);
    }

    /// Goes on by other options, and lets every worker ask anew whether to leave.
    pub(super) fn set_options(&self, options: Options) {
        let mut state = self.lock();
        state.batcher.set_options(options);
        wake(state);
    }

    /// Takes nothing more and gives up what waits, for this reason; without one, takes again.
    pub(super) fn set_fault(&self, fault: Option<&'static str>) {
        let mut state = self.lock();
        state.fault = fault;
        let left = if fault.is_some() { state.batcher.clear() } else { Vec::new() };
        drop(state);
        let reason = fault.unwrap_or_default();
        left.into_iter().for_each(|job| job.lose(Lost::Failed { reason, detail: "no worker is left".to_owned() }));
    }

    /// Why nothing is taken, if so.
    pub(super) fn fault(&self) -> Option<&'static str> {
        self.lock().fault
    }

    /// Images that wait.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.lock().batcher.weight()
    }

    /// Takes nothing more, and drops what is left.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        // Dropped outside of the lock: a job's drop wakes its caller.
        let (left, prepared) = (state.batcher.clear(), state.prepared.take());
        wake(state);
        self.grown.notify_all();
        drop((left, prepared));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code of ours panics under this lock, and every state of a queue is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets every worker look again.
fn wake(mut state: MutexGuard<'_, State>) {
    let idle = std::mem::take(&mut state.idle);
    drop(state);
    idle.iter().for_each(Thread::unpark);
}

impl State {
    fn work(&mut self, batch: Batch<Job>) -> Work {
        let same = |prepared: &Prepared| prepared.numbers.iter().eq(batch.items.iter().map(|(number, _)| number));
        // What was prepared for another batch is of no use: its members have left, or others went before them.
        let input = self.prepared.take().filter(same).and_then(|prepared| prepared.input);
        let jobs = batch.items.into_iter().map(|(_, job)| job).collect();
        Work { ticket: batch.ticket, jobs, input, passes: batch.passes }
    }
}
