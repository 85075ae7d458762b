//! One direction of a path: a rate with a queue in front of it, a delay, and what is lost for no reason. Time is passed in.

use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// What is lost that no queue is to blame for.
#[derive(Debug, Clone, Copy)]
pub enum Loss {
    None,
    /// Each packet with this probability.
    Random(f64),
    /// The share of packets that is lost, in bursts of this mean length (Gilbert and Elliott's model: a burst loses all).
    Bursts(f64, f64),
    /// Everything.
    Cut,
}

/// A direction of a path.
#[derive(Debug, Clone, Copy)]
pub struct Path {
    /// One way.
    pub delay: Duration,
    /// Delays differ by up to this much; packets keep their order.
    pub jitter: Duration,
    /// Bits a second; none for a link without a limit.
    pub rate: Option<f64>,
    /// Bytes that wait for a link with a limit.
    pub queue: u64,
    /// Instead of a queue a token bucket of `queue` bytes: what exceeds the rate is dropped at once.
    pub policer: bool,
    pub loss: Loss,
}

impl Path {
    pub fn delayed(milliseconds: u64) -> Self {
        Self {
            delay: Duration::from_millis(milliseconds),
            jitter: Duration::ZERO,
            rate: None,
            queue: 0,
            policer: false,
            loss: Loss::None,
        }
    }

    pub fn rate(self, megabits: f64, queue: u64) -> Self {
        Self { rate: Some(megabits * 1e6), queue, ..self }
    }

    pub fn policed(self, megabits: f64, bucket: u64) -> Self {
        Self { policer: true, ..self.rate(megabits, bucket) }
    }

    pub fn loss(self, loss: Loss) -> Self {
        Self { loss, ..self }
    }

    pub fn jitter(self, milliseconds: u64) -> Self {
        Self { jitter: Duration::from_millis(milliseconds), ..self }
    }
}

/// A direction at work.
pub struct Link {
    pub path: Path,
    random: StdRng,
    in_burst: bool,
    /// When what was taken so far will have left the queue.
    busy_until: Instant,
    last_arrival: Instant,
    tokens: f64,
    refilled: Instant,
    /// Packets that were offered, and of them dropped by queue or policer, and lost.
    pub offered: u64,
    pub dropped: u64,
    pub lost: u64,
    /// How long packets waited in the queue, in seconds: sum, and the longest.
    pub waited: f64,
    pub waited_longest: f64,
}

impl Link {
    pub fn new(path: Path, seed: u64, now: Instant) -> Self {
        Self {
            path,
            random: StdRng::seed_from_u64(seed),
            in_burst: false,
            busy_until: now,
            last_arrival: now,
            tokens: path.queue as f64,
            refilled: now,
            offered: 0,
            dropped: 0,
            lost: 0,
            waited: 0.0,
            waited_longest: 0.0,
        }
    }

    /// Forgets the counts.
    pub fn count_anew(&mut self) {
        (self.offered, self.dropped, self.lost) = (0, 0, 0);
        (self.waited, self.waited_longest) = (0.0, 0.0);
    }

    /// The mean wait in the queue, in seconds.
    pub fn mean_wait(&self) -> f64 {
        self.waited / (self.offered - self.dropped - self.lost).max(1) as f64
    }

    /// When a packet of so many bytes, sent now, arrives; none if it does not.
    pub fn take(&mut self, now: Instant, bytes: usize) -> Option<Instant> {
        self.offered += 1;
        if self.is_lost() {
            self.lost += 1;
            return None;
        }
        let mut leaves = now;
        if let Some(rate) = self.path.rate {
            let bytes = bytes as f64 + 28.0;
            let per_second = rate / 8.0;
            if self.path.policer {
                let refill = (now - self.refilled).as_secs_f64() * per_second;
                self.refilled = now;
                self.tokens = (self.tokens + refill).min(self.path.queue as f64);
                if self.tokens < bytes {
                    self.dropped += 1;
                    return None;
                }
                self.tokens -= bytes;
            } else {
                let wait = self.busy_until.saturating_duration_since(now).as_secs_f64();
                if wait * per_second + bytes > self.path.queue as f64 {
                    self.dropped += 1;
                    return None;
                }
                self.waited += wait;
                self.waited_longest = self.waited_longest.max(wait);
                leaves = self.busy_until.max(now) + Duration::from_secs_f64(bytes / per_second);
                self.busy_until = leaves;
            }
        }
        let jitter = self.path.jitter.mul_f64(self.random.random::<f64>());
        self.last_arrival = (leaves + self.path.delay + jitter).max(self.last_arrival);
        Some(self.last_arrival)
    }

    fn is_lost(&mut self) -> bool {
        match self.path.loss {
            Loss::None => false,
            Loss::Cut => true,
            Loss::Random(share) => self.random.random::<f64>() < share,
            Loss::Bursts(share, length) => {
                let leave = 1.0 / length;
                let enter = leave * share / (1.0 - share);
                let change = if self.in_burst { leave } else { enter };
                if self.random.random::<f64>() < change {
                    self.in_burst = !self.in_burst;
                }
                self.in_burst
            }
        }
    }
}
