//! Signs of life: a loop that the relay cannot do without beats, and who asks learns which one has stopped.
//!
//! A program that merely runs may still be dead to its clients: an accept loop that hangs, a runtime whose threads are all
//! blocked. Each loop beats from within its own turn, so a beat shows that the loop and the runtime beneath it move.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often a loop beats when nothing else wakes it.
pub(crate) const BEAT: Duration = Duration::from_secs(1);

/// A loop that was silent for this long is stuck: five beats, so that a busy moment is none.
pub(crate) const SILENCE: Duration = Duration::from_secs(5);

/// A loop's name, and when it beat last: milliseconds after the birth of its [`Liveness`].
type Watched = (&'static str, Arc<AtomicU64>);

/// All loops that must live.
#[derive(Debug, Clone)]
pub(crate) struct Liveness {
    born: Instant,
    pulses: Arc<Mutex<Vec<Watched>>>,
}

impl Liveness {
    pub(crate) fn new(now: Instant) -> Self {
        Self { born: now, pulses: Arc::default() }
    }

    /// A loop to watch from now on.
    pub(crate) fn pulse(&self, name: &'static str) -> Pulse {
        let last = Arc::new(AtomicU64::new(0));
        self.pulses.lock().unwrap_or_else(PoisonError::into_inner).push((name, last.clone()));
        let pulse = Pulse { born: self.born, last };
        pulse.beat();
        pulse
    }

    /// The first loop that has been silent for too long at `now`.
    pub(crate) fn stuck(&self, now: Instant) -> Option<&'static str> {
        let age = millis(now.saturating_duration_since(self.born));
        let pulses = self.pulses.lock().unwrap_or_else(PoisonError::into_inner);
        let silent = |last: &AtomicU64| age.saturating_sub(last.load(Ordering::Relaxed)) > millis(SILENCE);
        pulses.iter().find(|(_, last)| silent(last)).map(|(name, _)| *name)
    }
}

/// One loop's sign of life.
#[derive(Debug)]
pub(crate) struct Pulse {
    born: Instant,
    last: Arc<AtomicU64>,
}

impl Pulse {
    pub(crate) fn beat(&self) {
        self.beat_at(Instant::now());
    }

    fn beat_at(&self, now: Instant) {
        self.last.store(millis(now.saturating_duration_since(self.born)), Ordering::Relaxed);
    }
}

impl Drop for Pulse {
    /// A loop that has ended in order is not stuck.
    fn drop(&mut self) {
        self.last.store(u64::MAX, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    duration.as_millis().try_into().unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_loop_is_named_and_an_ended_one_is_not() {
        let start = Instant::now();
        let liveness = Liveness::new(start);
        let (front, fleet) = (liveness.pulse("front"), liveness.pulse("fleet"));
        assert_eq!(liveness.stuck(start + SILENCE), None);
        let later = start + SILENCE * 2;
        front.beat_at(later);
        assert_eq!(liveness.stuck(later), Some("fleet"));
        drop(fleet);
        assert_eq!(liveness.stuck(later), None);
        assert_eq!(liveness.stuck(later + SILENCE * 2), Some("front"));
    }
}
