//! Peak-EWMA: how slow an agent is, believing bad news at once and good news slowly.
//!
//! A sample above the average replaces it; one below pulls it down over the decay time, and so does silence, so that an
//! agent that was slow once is tried again. Pure: time is passed in.

use std::time::{Duration, Instant};

/// Over which an old sample loses its weight.
const DECAY: Duration = Duration::from_secs(10);

/// What an agent is taken for before its first answer: a small network on a CPU over a metropolitan link.
const START: Duration = Duration::from_millis(30);

/// An agent's latency as its record shows it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Latency {
    seconds: f64,
    at: Instant,
}

impl Latency {
    pub(super) fn new(now: Instant) -> Self {
        Self { seconds: START.as_secs_f64(), at: now }
    }

    /// An answer took this long.
    pub(super) fn record(&mut self, sample: Duration, now: Instant) {
        let sample = sample.as_secs_f64();
        self.seconds = if sample > self.seconds {
            sample
        } else {
            let keep = weight(self.at, now);
            self.seconds.mul_add(keep, sample * (1.0 - keep))
        };
        self.at = self.at.max(now);
    }

    /// In seconds, as silence has worn it down at `now`; never nothing, so that load always counts.
    pub(super) fn estimate(&self, now: Instant) -> f64 {
        (self.seconds * weight(self.at, now)).max(1e-6)
    }
}

fn weight(since: Instant, now: Instant) -> f64 {
    (-now.saturating_duration_since(since).as_secs_f64() / DECAY.as_secs_f64()).exp()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_news_counts_at_once_and_good_news_over_the_decay() {
        let start = Instant::now();
        let mut latency = Latency::new(start);
        latency.record(Duration::from_secs(2), start);
        assert_eq!(latency.estimate(start), 2.0);
        latency.record(Duration::from_millis(10), start + DECAY / 10);
        let after = latency.estimate(start + DECAY / 10);
        assert!((1.7..1.9).contains(&after), "{after}");
        assert!(latency.estimate(start + DECAY * 5) < 0.02);
    }

    proptest! {
        #[test]
        fn it_stays_between_what_was_seen(samples in prop::collection::vec((0_u64..60_000, 0_u64..60_000), 1..50)) {
            let mut now = Instant::now();
            let mut latency = Latency::new(now);
            let mut most = START.as_secs_f64();
            for (wait, sample) in samples {
                now += Duration::from_millis(wait);
                let sample = Duration::from_millis(sample);
                most = most.max(sample.as_secs_f64());
                latency.record(sample, now);
                let estimate = latency.estimate(now);
                prop_assert!(estimate > 0.0 && estimate <= most + 1e-9);
                prop_assert!(estimate <= latency.estimate(now - Duration::from_millis(wait)) + 1e-9);
            }
        }
    }
}
