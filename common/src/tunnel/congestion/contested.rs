//! Beside flows that fill the queue: who leaves it empty gets nothing there, so we take our share as CUBIC would, and look now and then
//! whether they are gone.

use std::time::{Duration, Instant};

use super::adaptive::{Cause, Seen, Verdict};
use super::calm::Calm;
use super::cubic::{BETA, Cubic};

/// What is left of the window in a trial.
const TRIAL: f64 = 0.8;

/// Rounds of a trial: one until its effect is seen, by others too, two until theirs is, and one for those who are late.
const ROUNDS: u32 = 4;

/// By how much round trips become shorter when somebody else makes a trial: four who share make them so by a twentieth each.
const ASKED: f64 = 0.04;

/// Rounds before somebody else's trial is joined: three that show how long round trips were, and more and more after those in vain,
/// for flows that react to loss make round trips shorter too.
const JOIN: u32 = 3;
const JOIN_SELDOM: u32 = 48;

/// Trials in a row that say that the queue is ours, before it is believed: once, others may have cut back at the same moment.
const SURE: u32 = 2;

/// Seconds in which the window doubles until losses show where the limit is, and the most that it grows in a round: who comes late begins
/// with less than a share. In seconds, as CUBIC grows, whatever the queue makes of round trips.
const DOUBLES: f64 = 0.6;
const HUNT: f64 = 1.5;

/// The window to return to after that first loss, in windows: it said where the queue was full, and not yet what our share is.
const BEYOND: f64 = 1.5;

/// Rounds of one and the same round trip after which there is no company, if the window changed by this much meanwhile: queues
/// of others come and go, and ours would follow the window.
const STILL: u32 = 8;
const CHANGED: f64 = 1.4;

/// Rounds, and a time, in which others would have filled the queue.
const QUIET: u32 = 32;
const QUIET_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Clone)]
pub(super) struct Contested {
    cubic: Cubic,
    /// No loss was met yet.
    hunting: bool,
    trial: Option<Trial>,
    last_trial: Instant,
    /// Round trips of late, while we sent no less than before.
    steady: Steady,
    /// Trials in a row in which the queue was ours.
    alone: u32,
    still: Still,
    /// Since when the queue is short, and for how many rounds.
    quiet: Option<(Instant, u32)>,
    /// The window at first, in bytes.
    first: f64,
}

/// For how long round trips did not change, between which windows in bytes.
#[derive(Debug, Clone, Copy)]
struct Still {
    rounds: u32,
    least: Duration,
    windows: (f64, f64),
}

impl Still {
    const fn new(seen: &Seen) -> Self {
        Self { rounds: 0, least: seen.least, windows: (seen.window, seen.window) }
    }

    fn goes_on(&mut self, seen: &Seen) -> bool {
        if seen.least.abs_diff(self.least) > seen.same() {
            *self = Self::new(seen);
        }
        self.rounds += 1;
        self.windows = (self.windows.0.min(seen.window), self.windows.1.max(seen.window));
        self.rounds >= STILL && self.windows.1 > CHANGED * self.windows.0
    }
}

/// Round trips of the last rounds in which nothing that we did made them shorter: a reduction of ours is in the first.
#[derive(Debug, Clone, Copy)]
struct Steady {
    rounds: u32,
    /// How many of them have to pass.
    wait: u32,
    before: Duration,
    last: Duration,
}

impl Steady {
    const fn new(wait: u32) -> Self {
        Self { rounds: 0, wait, before: Duration::ZERO, last: Duration::ZERO }
    }

    /// Takes a round in. Returns how long round trips were, if somebody else has made them shorter.
    fn fell(&mut self, seen: &Seen) -> Option<Duration> {
        let was = self.before.max(self.last);
        (self.before, self.last) = (self.last, seen.least);
        self.rounds += 1;
        (self.rounds > self.wait && was.saturating_sub(seen.least) > was.mul_f64(ASKED).max(seen.same())).then_some(was)
    }
}

/// Sending less for a few rounds, to see whose queue it is: if it is ours alone, round trips become shorter by the share that we left
/// out. Others of our kind who see them become shorter do the same at once, so that a queue that is ours together looks like one of
/// our own.
#[derive(Debug, Clone, Copy)]
struct Trial {
    rtt: Duration,
    window: f64,
    /// The least since it had its effect.
    least: Duration,
    rounds: u32,
}

impl Contested {
    /// Begins with a window of so many bytes.
    pub(super) fn new(seen: &Seen, window: f64) -> Self {
        let (now, packets) = (seen.now, window / seen.packet);
        let cubic = Cubic::new(now, packets, packets);
        let still = Still::new(seen);
        let steady = Steady::new(JOIN);
        Self { cubic, hunting: true, trial: None, last_trial: now, steady, alone: 0, still, quiet: None, first: window }
    }

    /// Whether there is nobody, or nobody any more.
    fn company_is_gone(&mut self, seen: &Seen) -> Option<Verdict> {
        if !seen.full {
            return None;
        }
        if self.still.goes_on(seen) {
            return Some(Verdict::Reroute(self.first.max(seen.window)));
        }
        if seen.queue > seen.target / 2 {
            self.quiet = None;
            return None;
        }
        let (since, rounds) = self.quiet.get_or_insert((seen.now, 0));
        *rounds += 1;
        let gone = *rounds > QUIET && seen.now.saturating_duration_since(*since) > QUIET_FOR;
        gone.then(|| Verdict::Settle(seen.window, Cause::Queue, Calm::default()))
    }

    pub(super) fn judge(&mut self, seen: &Seen) -> Verdict {
        if let Some(verdict) = self.company_is_gone(seen) {
            return verdict;
        }
        if seen.ours {
            self.trial = None;
            self.steady = Steady::new(self.steady.wait);
            let most = if self.hunting { BEYOND } else { 1.0 } * seen.packets();
            self.hunting = false;
            self.cubic = Cubic::new(seen.now, BETA * seen.packets(), most);
            return Verdict::Reduce(BETA * seen.window, Cause::Loss);
        }
        if let Some(trial) = self.trial.take() {
            return self.go_on(trial, seen);
        }
        if !seen.full {
            return Verdict::Keep;
        }
        let asked = self.steady.fell(seen);
        if asked.is_some() || self.is_time(seen) {
            let rtt = asked.unwrap_or(seen.least);
            self.trial = Some(Trial { rtt, window: seen.window, least: rtt, rounds: 0 });
            return Verdict::Window(TRIAL * seen.carried);
        }
        let window = seen.packet * self.cubic.window(seen.now, seen.least, seen.delivered / seen.window);
        let hunt = (seen.least.as_secs_f64() / DOUBLES).exp2().min(HUNT);
        let window = if self.hunting { window.max(hunt * seen.window) } else { window };
        Verdict::Window(window.clamp(seen.window, HUNT * seen.window))
    }

    fn is_time(&self, seen: &Seen) -> bool {
        let pause = if self.alone > 0 { seen.least * 3 } else { (seen.least * 12).max(Duration::from_secs(2)) };
        seen.queue > seen.target && seen.since > 1 && seen.now.saturating_duration_since(self.last_trial) > pause
    }

    fn go_on(&mut self, mut trial: Trial, seen: &Seen) -> Verdict {
        trial.rounds += 1;
        if trial.rounds > 1 {
            trial.least = trial.least.min(seen.least);
        }
        if trial.rounds < ROUNDS {
            self.trial = Some(trial);
            return Verdict::Keep;
        }
        self.last_trial = seen.now;
        // Three quarters of the effect that it has on a queue of our own; beside one equal flow it is a half.
        let ours = trial.rtt.mul_f64(0.75 * (1.0 - TRIAL));
        self.alone = if trial.rtt.saturating_sub(trial.least) > ours { self.alone + 1 } else { 0 };
        let wait = if self.alone > 0 { JOIN } else { (2 * self.steady.wait).min(JOIN_SELDOM) };
        self.steady = Steady::new(wait);
        if self.alone >= SURE {
            Verdict::Settle(seen.carried_empty, Cause::Queue, Calm::default())
        } else {
            Verdict::Window(trial.window)
        }
    }
}
