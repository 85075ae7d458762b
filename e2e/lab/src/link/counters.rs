//! What a link has seen, counted by its pumps and read from the control socket.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::line::Lost;

/// What one direction's pump counts.
#[derive(Debug, Default)]
pub(super) struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    chance: AtomicU64,
    policed: AtomicU64,
    full: AtomicU64,
    cut: AtomicU64,
    unwritten: AtomicU64,
    late_us: AtomicU64,
    late_max_us: AtomicU64,
    delivered: AtomicU64,
    queue_us: AtomicU64,
    queue_max_us: AtomicU64,
    queued: AtomicUsize,
}

/// What one direction has seen. Counts are from the start on; what is said to be recent is since the last time that somebody asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// Packets that came in.
    pub(crate) packets: u64,
    /// Their bytes.
    pub(crate) bytes: u64,
    /// Lost by chance.
    pub(crate) lost: u64,
    /// Dropped by the policer.
    pub(crate) policed: u64,
    /// Dropped because the queue was full.
    pub(crate) full: u64,
    /// Lost to a cut.
    pub(crate) cut: u64,
    /// Not taken by the other end's kernel.
    pub(crate) unwritten: u64,
    /// Packets that arrived.
    pub(crate) delivered: u64,
    /// The sum of how much later than due packets arrived.
    pub(crate) late_sum_us: u64,
    /// The same at worst, recently.
    pub(crate) late_max_us: u64,
    /// The sum of what arrived packets waited in the queue.
    pub(crate) queue_sum_us: u64,
    /// The longest wait in the queue, recently.
    pub(crate) queue_max_us: u64,
    /// Bytes that wait now.
    pub(crate) queued: usize,
}

impl Seen {
    /// What was counted since `before`; what is recent stays.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self {
            packets: self.packets - before.packets,
            bytes: self.bytes - before.bytes,
            lost: self.lost - before.lost,
            policed: self.policed - before.policed,
            full: self.full - before.full,
            cut: self.cut - before.cut,
            unwritten: self.unwritten - before.unwritten,
            delivered: self.delivered - before.delivered,
            late_sum_us: self.late_sum_us - before.late_sum_us,
            queue_sum_us: self.queue_sum_us - before.queue_sum_us,
            ..*self
        }
    }
}

/// Both directions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Both {
    /// From the first end to the second.
    pub(crate) ab: Seen,
    /// Back.
    pub(crate) ba: Seen,
}

fn micros(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

impl Counters {
    pub(super) fn came(&self, bytes: usize) {
        self.packets.fetch_add(1, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn lost(&self, why: Lost) {
        let counter = match why {
            Lost::Cut => &self.cut,
            Lost::Chance => &self.chance,
            Lost::Policed => &self.policed,
            Lost::Full => &self.full,
        };
        counter.fetch_add(1, Relaxed);
    }

    pub(super) fn arrived(&self, late: Duration, queued: Duration) {
        self.delivered.fetch_add(1, Relaxed);
        self.late_us.fetch_add(micros(late), Relaxed);
        self.late_max_us.fetch_max(micros(late), Relaxed);
        self.queue_us.fetch_add(micros(queued), Relaxed);
        self.queue_max_us.fetch_max(micros(queued), Relaxed);
    }

    pub(super) fn unwritten(&self) {
        self.unwritten.fetch_add(1, Relaxed);
    }

    pub(super) fn waits(&self, bytes: usize) {
        self.queued.store(bytes, Relaxed);
    }

    /// All of it; what is recent begins anew.
    pub(super) fn read(&self) -> Seen {
        Seen {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            lost: self.chance.load(Relaxed),
            policed: self.policed.load(Relaxed),
            full: self.full.load(Relaxed),
            cut: self.cut.load(Relaxed),
            unwritten: self.unwritten.load(Relaxed),
            delivered: self.delivered.load(Relaxed),
            late_sum_us: self.late_us.load(Relaxed),
            late_max_us: self.late_max_us.swap(0, Relaxed),
            queue_sum_us: self.queue_us.load(Relaxed),
            queue_max_us: self.queue_max_us.swap(0, Relaxed),
            queued: self.queued.load(Relaxed),
        }
    }
}
