//! Near the path's limit with hardly anything in the queue: a saw whose teeth are as deep as the queue is long.

use std::time::Duration;

use super::adaptive::{Cause, Seen, Verdict};

/// Reductions in a row without an effect on the queue after which it is somebody else's.
const VAIN: u32 = 3;

#[derive(Debug, Clone, Default)]
pub(super) struct Calm {
    /// Rounds in a row that met no queue.
    streak: u32,
    /// The last reduction for a queue, until its effect was seen.
    cut: Option<Cut>,
    /// Reductions in a row that did not empty the queue, and the window before the first, in bytes.
    vain: u32,
    before: f64,
}

/// A reduction that is an experiment: if the queue is ours it is gone a round trip later.
#[derive(Debug, Clone, Copy)]
struct Cut {
    queue: Duration,
    /// Bytes a second that arrived.
    rate: f64,
}

impl Calm {
    /// After a first reduction because of a queue.
    pub(super) fn after(seen: &Seen) -> Self {
        Self { before: seen.window, cut: Some(Cut { queue: seen.queue, rate: seen.rate() }), ..Self::default() }
    }

    pub(super) fn judge(&mut self, seen: &Seen) -> Verdict {
        if seen.since <= 1 {
            return Verdict::Keep;
        }
        if let Some(cut) = self.cut.take() {
            // A queue of our own would be short now. On a link so slow that we cannot send less it stays, and so does the rate.
            if 2 * seen.queue > cut.queue && seen.rate() < 0.85 * cut.rate {
                self.vain += 1;
                if self.vain >= VAIN {
                    return Verdict::Contest(self.before.max(seen.window));
                }
            } else {
                self.vain = 0;
            }
        }
        if seen.queue > seen.target {
            self.streak = 0;
            if !seen.busy {
                return Verdict::Keep;
            }
            if self.vain == 0 {
                self.before = seen.window;
            }
            self.cut = Some(Cut { queue: seen.queue, rate: seen.rate() });
            // A little less than fills the path, so that the floor is seen again, and by others on the path too.
            return Verdict::Reduce(0.95 * seen.carried_empty, Cause::Queue);
        }
        if seen.ours && seen.busy {
            // To what arrived and a little less; not below a half, for a burst of losses can swallow a round.
            let window = (0.9 * seen.carried).clamp(0.5 * seen.window, 0.8 * seen.window);
            return Verdict::Reduce(window, Cause::Loss);
        }
        if seen.full { Verdict::Window(seen.window + self.step(seen)) } else { Verdict::Keep }
    }

    /// Growth in a round, in bytes: as the root of the window, so that who has less catches up; and doubling while no queue is met,
    /// so that a path that became faster is soon used.
    fn step(&mut self, seen: &Seen) -> f64 {
        let step = seen.packet * (seen.packets().sqrt() / 2.0).max(1.0);
        if seen.queue < seen.target / 4 && seen.below_limit {
            self.streak += 1;
            (step * f64::from(1_u32 << (self.streak / 4).min(16))).min(seen.window / 4.0)
        } else {
            self.streak = 0;
            step
        }
    }
}
