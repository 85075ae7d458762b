//! The least and the most of what was seen lately.

use std::time::{Duration, Instant};

/// A span is forgotten part by part.
const PARTS: usize = 5;

/// What was not seen again for this long is not believed any more, for routes change. It is what BBR takes
/// (draft-ietf-ccwg-bbr, 2.9.1).
const SPAN: Duration = Duration::from_secs(10);

/// The extreme of a sliding span of time, kept as one value for each part of it. Over a pause nothing is forgotten but what a new
/// sample replaces: an idle path does not change by being idle.
#[derive(Debug, Clone)]
struct Extreme<T> {
    parts: [Option<(Instant, T)>; PARTS],
}

impl<T: Copy> Extreme<T> {
    const fn new() -> Self {
        Self { parts: [None; PARTS] }
    }

    fn sample(&mut self, now: Instant, value: T, better: impl FnOnce(T, T) -> T) {
        match &mut self.parts[0] {
            Some((began, best)) if now.saturating_duration_since(*began) < SPAN / PARTS as u32 => {
                *best = better(*best, value);
            }
            Some(_) => {
                self.parts.rotate_right(1);
                self.parts[0] = Some((now, value));
            }
            none => *none = Some((now, value)),
        }
    }

    fn all(&self) -> impl Iterator<Item = T> {
        self.parts.iter().flatten().map(|(_, value)| *value)
    }
}

/// The round-trip time of the empty path: the least of late.
#[derive(Debug, Clone)]
pub(super) struct Floor(Extreme<Duration>);

impl Floor {
    pub(super) const fn new() -> Self {
        Self(Extreme::new())
    }

    pub(super) fn sample(&mut self, now: Instant, rtt: Duration) {
        self.0.sample(now, rtt, Duration::min);
    }

    /// None before the first sample.
    pub(super) fn get(&self) -> Option<Duration> {
        self.0.all().min()
    }
}

/// The most bytes that arrived within a round trip of late.
#[derive(Debug, Clone)]
pub(super) struct Crest(Extreme<u64>);

impl Crest {
    pub(super) const fn new() -> Self {
        Self(Extreme::new())
    }

    pub(super) fn sample(&mut self, now: Instant, bytes: u64) {
        self.0.sample(now, bytes, u64::max);
    }

    /// 0 before the first sample.
    pub(super) fn get(&self) -> u64 {
        self.0.all().max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_floor_that_is_not_seen_again_is_forgotten_after_the_span() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut floor = Floor::new();
        assert_eq!(floor.get(), None);
        floor.sample(at(0), Duration::from_millis(20));
        for second in 1..=8 {
            floor.sample(at(second), Duration::from_millis(50));
            assert_eq!(floor.get(), Some(Duration::from_millis(20)));
        }
        for second in 9..=12 {
            floor.sample(at(second), Duration::from_millis(50));
        }
        assert_eq!(floor.get(), Some(Duration::from_millis(50)));
    }

    #[test]
    fn a_pause_forgets_nothing() {
        let start = Instant::now();
        let mut crest = Crest::new();
        crest.sample(start, 900);
        crest.sample(start + Duration::from_secs(3600), 10);
        assert_eq!(crest.get(), 900);
    }
}
