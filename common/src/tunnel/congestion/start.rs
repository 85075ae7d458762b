//! Until the path's limit is met: doubling each round trip, as slow start does.

use super::adaptive::{Cause, Seen, Verdict};
use super::calm::Calm;
use super::round::Round;

/// Rounds without growth after which there is none to be had (as BBR's start-up).
const PLATEAU: u32 = 3;

#[derive(Debug, Clone, Default)]
pub(super) struct Start {
    /// The most that arrived in a round, in bytes.
    best: f64,
    /// Rounds since it grew.
    plateau: u32,
}

impl Start {
    /// Whether what arrives makes the window grow. Bursts shorter than a window are paced by it: while they do not queue, a window
    /// of four times their size costs nothing and has them sent sooner.
    pub(super) const fn grows(&self, round: &Round, window: u64, no_queue: bool) -> bool {
        4 * round.peak >= 3 * window || no_queue && 4 * round.peak >= window
    }

    pub(super) fn judge(&mut self, seen: &Seen) -> Verdict {
        if seen.leapt {
            return Verdict::Reroute(seen.window);
        }
        if !seen.busy {
            return Verdict::Keep;
        }
        if seen.delivered > 1.25 * self.best {
            self.best = seen.delivered;
            self.plateau = 0;
        } else if seen.full {
            self.plateau += 1;
        }
        if seen.queue > seen.target {
            Verdict::Settle(seen.carried_empty, Cause::Queue, Calm::after(seen))
        } else if self.plateau >= PLATEAU || seen.ours && self.plateau > 0 {
            Verdict::Settle(self.best.min(seen.window), Cause::Loss, Calm::default())
        } else {
            Verdict::Keep
        }
    }
}
