//! What is counted of one version of one model: the statistics of the Open Inference Protocol.
//!
//! Every number only grows, for as long as the process lives: a version that is reloaded or unloaded keeps its account. Clients
//! measure by the difference of two readings, and relays add the accounts of several agents up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How often something happened and how long it took in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Total {
    /// How often.
    pub count: u64,
    /// How long in all, in nanoseconds.
    pub nanos: u64,
}

#[derive(Debug, Default)]
struct Sum {
    count: AtomicU64,
    nanos: AtomicU64,
}

impl Sum {
    fn add(&self, time: Duration) {
        self.count.fetch_add(1, Relaxed);
        self.nanos.fetch_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }

    fn get(&self) -> Total {
        Total { count: self.count.load(Relaxed), nanos: self.nanos.load(Relaxed) }
    }
}

/// Why an inference gave no answer, as Triton sorts the reasons.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    /// There was no place for it, or no time.
    Rejected,
    /// Its caller left.
    Canceled,
    /// The model failed.
    Backend,
    /// Anything else, such as an image that cannot be read.
    Other,
}

impl Failure {
    /// Every reason.
    pub const ALL: [Self; 4] = [Self::Rejected, Self::Canceled, Self::Backend, Self::Other];

    /// The reason in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Rejected => "REJECTED",
            Self::Canceled => "CANCELED",
            Self::Backend => "BACKEND",
            Self::Other => "OTHER",
        }
    }
}

/// Where the time of one answered request went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Spent {
    /// Waiting for a core or a worker.
    pub queue: Duration,
    /// Decoding and preparing.
    pub input: Duration,
    /// The pass that it was in.
    pub infer: Duration,
    /// Interpreting, and writing the answer.
    pub output: Duration,
}

/// What is counted of passes of one size.
#[derive(Debug, Default)]
struct Size {
    input: Sum,
    infer: Sum,
    output: Sum,
}

/// One version's account.
#[derive(Debug, Default)]
pub struct Account {
    images: AtomicU64,
    passes: AtomicU64,
    /// Milliseconds since 1970.
    last: AtomicU64,
    pending: AtomicU64,
    success: Sum,
    failures: [Sum; Failure::ALL.len()],
    queue: Sum,
    input: Sum,
    infer: Sum,
    output: Sum,
    /// By images in a pass. There are as many sizes as batches and requests may have images, so it stays small.
    sizes: RwLock<BTreeMap<usize, Size>>,
}

/// What an account says at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Figures {
    /// Images of answered requests.
    pub images: u64,
    /// Forward passes that were run to their end.
    pub passes: u64,
    /// When a request was answered last, in milliseconds since 1970; 0 for never.
    pub last: u64,
    /// Requests that wait for a worker now.
    pub pending: u64,
    /// Answered requests, from their last byte to their answer.
    pub success: Total,
    /// The others, in the order of [`Failure::ALL`].
    pub failures: [Total; Failure::ALL.len()],
    /// Waiting, of answered requests.
    pub queue: Total,
    /// Decoding and preparing, of answered requests.
    pub input: Total,
    /// Passes, of answered requests: who shares one has all of it.
    pub infer: Total,
    /// Interpreting and writing, of answered requests.
    pub output: Total,
    /// By images in a pass: input and output of the requests in such passes, and the passes themselves.
    pub sizes: BTreeMap<usize, [Total; 3]>,
}

impl Account {
    /// A request for so many images was answered; its pass had `batch` images.
    pub fn answered(&self, images: usize, batch: usize, spent: Spent) {
        let Spent { queue, input, infer, output } = spent;
        self.images.fetch_add(images as u64, Relaxed);
        self.success.add(queue + input + infer + output);
        self.queue.add(queue);
        self.input.add(input);
        self.infer.add(infer);
        self.output.add(output);
        self.sized(batch, |size| {
            size.input.add(input);
            size.output.add(output);
        });
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        // A clock that was set back must not be told.
        self.last.fetch_max(u64::try_from(now.as_millis()).unwrap_or(u64::MAX), Relaxed);
    }

    /// A request was not answered, after so much time.
    pub fn failed(&self, why: Failure, after: Duration) {
        self.failures[why as usize].add(after);
    }

    /// A pass of so many images was run to its end.
    pub fn ran(&self, batch: usize, time: Duration) {
        self.passes.fetch_add(1, Relaxed);
        self.sized(batch, |size| size.infer.add(time));
    }

    /// A request waits for a worker until what is given is dropped.
    pub(super) fn pend(self: &Arc<Self>) -> Pending {
        self.pending.fetch_add(1, Relaxed);
        Pending(self.clone())
    }

    /// What it says now.
    pub fn figures(&self) -> Figures {
        let sizes = self.sizes.read().unwrap_or_else(PoisonError::into_inner);
        let totals = |size: &Size| [size.input.get(), size.infer.get(), size.output.get()];
        Figures {
            images: self.images.load(Relaxed),
            passes: self.passes.load(Relaxed),
            last: self.last.load(Relaxed),
            pending: self.pending.load(Relaxed),
            success: self.success.get(),
            failures: self.failures.each_ref().map(Sum::get),
            queue: self.queue.get(),
            input: self.input.get(),
            infer: self.infer.get(),
            output: self.output.get(),
            sizes: sizes.iter().map(|(batch, size)| (*batch, totals(size))).collect(),
        }
    }

    fn sized(&self, batch: usize, add: impl Fn(&Size)) {
        // Only the first pass of a size writes the table; all others add to its atomics side by side.
        if let Some(size) = self.sizes.read().unwrap_or_else(PoisonError::into_inner).get(&batch) {
            return add(size);
        }
        add(self.sizes.write().unwrap_or_else(PoisonError::into_inner).entry(batch).or_default());
    }
}

/// One request that waits for a worker: counted until it is dropped.
#[derive(Debug)]
pub struct Pending(Arc<Account>);

impl Drop for Pending {
    fn drop(&mut self) {
        self.0.pending.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn total(count: u64, millis: u64) -> Total {
        Total { count, nanos: millis * 1_000_000 }
    }

    #[test]
    fn requests_and_passes_are_added_up_by_stage_and_by_size() {
        let account = Arc::new(Account::default());
        let millis = Duration::from_millis;
        let spent = Spent { queue: millis(1), input: millis(20), infer: millis(300), output: millis(4000) };
        account.ran(3, millis(300));
        account.answered(1, 3, spent);
        account.answered(2, 3, spent);
        account.ran(1, millis(7));
        account.failed(Failure::Canceled, millis(5));
        let pending = account.pend();
        let figures = account.figures();
        assert_eq!((figures.images, figures.passes, figures.pending), (3, 2, 1));
        assert_eq!(figures.success, total(2, 2 * 4321));
        assert_eq!([figures.queue, figures.input], [total(2, 2), total(2, 40)]);
        assert_eq!([figures.infer, figures.output], [total(2, 600), total(2, 8000)]);
        assert_eq!(figures.failures, [total(0, 0), total(1, 5), total(0, 0), total(0, 0)]);
        assert_eq!(figures.sizes[&3], [total(2, 40), total(1, 300), total(2, 8000)]);
        assert_eq!(figures.sizes[&1], [total(0, 0), total(1, 7), total(0, 0)]);
        assert!(figures.last > 1_600_000_000_000, "milliseconds since 1970: {}", figures.last);
        drop(pending);
        assert_eq!(account.figures().pending, 0);
    }
}
