//! Near the path's limit with hardly anything in the queue: a saw whose teeth are as deep as the queue is long.

use std::time::Duration;

use super::adaptive::{Cause, FEWEST, Seen, Verdict};

/// What was left out in vain, as the logarithm of its share, after which a queue is not ours: a half.
const VAIN: f64 = 0.6;

/// Packets without which a reduction shows nothing: a queue of a few of them does not become half of it.
const ENOUGH: f64 = 16.0;

/// Times the fewest packets that are sent in a trial.
const RAISED: f64 = 3.0;

/// Rounds before the next trial: at first, and at most.
const SOON: u32 = 2;
const SELDOM: u32 = 64;

#[derive(Debug, Clone)]
pub(super) struct Calm {
    /// Rounds in a row that met no queue.
    streak: u32,
    /// The last reduction for a queue, until its effect was seen.
    cut: Option<Cut>,
    /// How much less is sent after reductions that did not empty the queue, as a logarithm, and the window before the first, in
    /// bytes.
    vain: f64,
    before: f64,
    /// The shortest and the longest of the round trips that met a queue since there last was none.
    met: Option<(Duration, Duration)>,
    /// The trial that is under way, rounds until the next one, and how many that are after it.
    raise: Option<Raise>,
    wait: u32,
    pause: u32,
}

/// Sending more, where less cannot be sent and a queue is met all the same: a queue of our own on a slow link grows by as much, and the
/// time of a path that became longer does not.
#[derive(Debug, Clone, Copy)]
struct Raise {
    least: Duration,
    rounds: u32,
}

/// A reduction that is an experiment: if the queue is ours it is gone a round trip later.
#[derive(Debug, Clone, Copy)]
struct Cut {
    /// What it was made for.
    queue: Duration,
    /// Bytes, and bytes a second that arrived.
    window: f64,
    rate: f64,
}

impl Cut {
    fn of(seen: &Seen) -> Self {
        Self { queue: seen.queue, window: seen.window, rate: seen.rate() }
    }
}

impl Default for Calm {
    fn default() -> Self {
        Self { streak: 0, cut: None, vain: 0.0, before: 0.0, met: None, raise: None, wait: SOON, pause: SOON }
    }
}

impl Calm {
    /// After a first reduction because of a queue.
    pub(super) fn after(seen: &Seen) -> Self {
        Self { before: seen.window, cut: Some(Cut::of(seen)), ..Self::default() }
    }

    /// What a trial shows, or whether it is time for one, where a queue is met with the fewest packets.
    fn try_more(&mut self, seen: &Seen) -> Option<Verdict> {
        if let Some(raise) = &mut self.raise {
            raise.rounds += 1;
            if raise.rounds < 2 {
                return Some(Verdict::Keep);
            }
            let longer = seen.full && 4 * seen.least < 5 * raise.least;
            self.raise = None;
            self.pause = (2 * self.pause).min(SELDOM);
            self.wait = self.pause;
            return longer.then_some(Verdict::Reroute(seen.window));
        }
        if !seen.full || seen.queue <= seen.target || seen.packets() > FEWEST as f64 + 0.5 {
            return None;
        }
        self.wait -= 1;
        if self.wait > 0 {
            return None;
        }
        self.raise = Some(Raise { least: seen.least, rounds: 0 });
        Some(Verdict::Window(RAISED * seen.window))
    }

    pub(super) fn judge(&mut self, seen: &Seen) -> Verdict {
        let (least, most) = self.met.unwrap_or((seen.least, seen.least));
        self.met = (seen.queue > seen.target).then(|| (least.min(seen.least), most.max(seen.least)));
        if seen.since <= 1 {
            return Verdict::Keep;
        }
        if let Some(verdict) = self.try_more(seen) {
            return verdict;
        }
        if let Some(cut) = self.cut.take() {
            // A queue of our own would be short now. On a link so slow that we cannot send less it stays, and so does the rate.
            let enough = cut.window >= ENOUGH * seen.packet;
            if enough && 2 * seen.queue > cut.queue && seen.rate() < 0.85 * cut.rate {
                self.vain += (cut.window / seen.window).ln();
                if self.vain >= VAIN {
                    let window = self.before.max(seen.window);
                    // The smaller window shortens any queue by as much as we had in it, and queues of others come and go. If nothing
                    // changed at all, there is none; or they hold a queue at its limit, which then loses.
                    let rerouted = self.met.is_some_and(|(least, most)| most - least <= seen.same()) && !seen.ours;
                    return if rerouted { Verdict::Reroute(window) } else { Verdict::Contest(window) };
                }
            } else {
                self.vain = 0.0;
            }
        }
        if seen.queue > seen.target {
            self.streak = 0;
            if !seen.busy {
                return Verdict::Keep;
            }
            if self.vain == 0.0 {
                self.before = seen.window;
            }
            self.cut = Some(Cut::of(seen));
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
