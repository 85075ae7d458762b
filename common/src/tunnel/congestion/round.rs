//! What is seen of a path in one round trip.

use std::time::{Duration, Instant};

/// A round: from a moment until something that was sent after it is acknowledged.
#[derive(Debug, Clone)]
pub(super) struct Round {
    pub(super) began: Instant,
    /// Bytes acknowledged.
    pub(super) delivered: u64,
    /// Bytes found lost, of those sent since the last reduction.
    pub(super) lost: u64,
    /// Reports of loss: packets that were lost together count once.
    pub(super) losses: u32,
    /// The most bytes that were under way.
    pub(super) peak: u64,
    least: Option<Duration>,
    /// The longest time that a packet took.
    pub(super) most: Duration,
    sum: Duration,
    samples: u32,
}

impl Round {
    pub(super) const fn new(began: Instant) -> Self {
        Self {
            began,
            delivered: 0,
            lost: 0,
            losses: 0,
            peak: 0,
            least: None,
            most: Duration::ZERO,
            sum: Duration::ZERO,
            samples: 0,
        }
    }

    /// Takes in a packet that arrived.
    pub(super) fn acknowledged(&mut self, bytes: u64, rtt: Duration) {
        self.delivered += bytes;
        self.least = Some(self.least.map_or(rtt, |least| least.min(rtt)));
        self.most = self.most.max(rtt);
        self.sum += rtt;
        self.samples += 1;
    }

    /// Takes in packets that did not.
    pub(super) fn lost(&mut self, bytes: u64) {
        self.lost += bytes;
        self.losses += 1;
    }

    /// The time that even the luckiest packet took: bursts, jitter and late acknowledgements left out, it shows what stands in the
    /// queue. As Copa's standing RTT (Arun and Balakrishnan, NSDI 2018).
    pub(super) const fn least(&self) -> Option<Duration> {
        self.least
    }

    /// The mean time, bursts included.
    pub(super) fn mean(&self) -> Duration {
        self.sum / self.samples.max(1)
    }
}
