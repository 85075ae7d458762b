//! The control itself: rounds in, a window out. Time is passed in.
//!
//! It belongs to the delay-based family with a mode for company: as Copa (Arun and Balakrishnan, "Copa: Practical Delay-Based
//! Congestion Control for the Internet", NSDI 2018) it keeps the standing queue near nothing and becomes a loss-based flow beside
//! others that fill it; as BBR (draft-ietf-ccwg-bbr) it knows the path by its floor and by what was delivered, and does not take
//! loss by itself for congestion. What is its own: each question is answered by an experiment. A reduction that does not empty the queue
//! shows that the queue is not ours; sending less for two rounds, which shortens the queue by as much, shows that it is; and loss
//! counts when there is more of it at a large window than at a small one, or when what arrives does not follow what is sent.

use std::time::{Duration, Instant};

use super::calm::Calm;
use super::contested::Contested;
use super::control::{KnownPath, Mode, PathReport};
use super::evidence::Evidence;
use super::extreme::{Crest, Floor};
use super::round::Round;
use super::start::Start;

/// With fewer packets under way losses are noticed late, and quinn sends nothing at all with less than one.
pub(super) const FEWEST: u64 = 4;

/// More than quinn is ever given to keep for retransmission.
const LARGEST: u64 = 64 << 20;

/// Packets to begin with on an unknown path: RFC 9002 has ten; paced, and on a path that carried a handshake with certificates,
/// three times that is what CDNs send.
const INITIAL: u64 = 32;

/// One path's control.
#[derive(Debug, Clone)]
pub(super) struct Adaptive {
    /// Bytes of a full packet.
    packet: u64,
    window: u64,
    phase: Phase,
    floor: Floor,
    /// The floor when others came: beside them it may not be seen for longer than is remembered.
    held: Option<Duration>,
    crest: Crest,
    evidence: Evidence,
    follow: Follow,
    round: Round,
    /// The longest round trip of the round before.
    longest: Option<Duration>,
    /// Bytes acknowledged by what is being taken in.
    arrived: u64,
    /// When the newest packet was sent that arrived.
    newest: Option<Instant>,
    /// The last reduction: what was sent before it says nothing about what is sent now.
    reduced: Option<Instant>,
    /// Rounds since then.
    since: u32,
    /// Bytes a round trip carried when the last loss of ours was met.
    limit: Option<f64>,
    reductions: [u64; 3],
    /// Those because of losses while hardly anything stood in the queue.
    policed: u64,
}

#[derive(Debug, Clone)]
enum Phase {
    Start(Start),
    Calm(Calm),
    Contested(Contested),
}

/// What a round showed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seen {
    pub(super) now: Instant,
    /// Bytes of a packet, and of the window.
    pub(super) packet: f64,
    pub(super) window: f64,
    /// Bytes that arrived.
    pub(super) delivered: f64,
    /// How long the round took: longer than a round trip where a queue grew meanwhile.
    pub(super) lasted: Duration,
    /// The luckiest packet's time, and what of it is queue.
    pub(super) least: Duration,
    pub(super) queue: Duration,
    /// Whether it is so much longer than all of the round before that this is another path.
    pub(super) leapt: bool,
    /// What may stand in the queue.
    pub(super) target: Duration,
    /// Bytes that the path carries in a round trip with the queue as it is, and with an empty one.
    pub(super) carried: f64,
    pub(super) carried_empty: f64,
    /// The most that was under way of the window.
    pub(super) used: f64,
    /// Whether the window was used up, and whether so much of it was that it matters.
    pub(super) full: bool,
    pub(super) busy: bool,
    /// Whether there were losses of our doing.
    pub(super) ours: bool,
    /// Rounds since the last reduction.
    pub(super) since: u32,
    /// Whether the window is below where loss was met.
    pub(super) below_limit: bool,
}

impl Seen {
    /// Bytes a second.
    pub(super) fn rate(&self) -> f64 {
        self.delivered / self.lasted.as_secs_f64().max(1e-6)
    }

    /// By how much round trips may differ that are the same.
    pub(super) fn same(&self) -> Duration {
        (self.least / 100).max(Duration::from_millis(1))
    }

    pub(super) fn packets(&self) -> f64 {
        self.window / self.packet
    }
}

/// What follows of it. Windows are in bytes.
#[derive(Debug, Clone)]
pub(super) enum Verdict {
    Keep,
    /// Another window, with nothing to wait for.
    Window(f64),
    /// Less, and its effect has to be awaited.
    Reduce(f64, Cause),
    /// Less, and calm from now on.
    Settle(f64, Cause, Calm),
    /// Others fill the queue.
    Contest(f64),
    /// The path became longer: what was taken for a queue is its floor.
    Reroute(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    Queue,
    Loss,
    Silence,
}

impl Adaptive {
    pub(super) fn new(now: Instant, packet: u16, known: Option<KnownPath>) -> Self {
        let packet = u64::from(packet);
        // Half of what it carried: someone else may have come meanwhile, and one round trip doubles it.
        let known = known.map_or(0, |known| known.carried / 2);
        Self {
            packet,
            window: known.clamp(INITIAL * packet, LARGEST),
            phase: Phase::Start(Start::default()),
            floor: Floor::new(),
            held: None,
            crest: Crest::new(),
            evidence: Evidence::new(),
            follow: Follow::default(),
            round: Round::new(now),
            longest: None,
            arrived: 0,
            newest: None,
            reduced: None,
            since: 0,
            limit: None,
            reductions: [0; 3],
            policed: 0,
        }
    }

    /// Bytes that may be under way.
    pub(super) const fn window(&self) -> u64 {
        self.window
    }

    /// When the newest packet was sent that arrived.
    pub(super) const fn newest(&self) -> Option<Instant> {
        self.newest
    }

    /// How often less was sent because of losses of our doing that no queue explains: so a policer drops.
    pub(super) const fn policed(&self) -> u64 {
        self.policed
    }

    /// The size of a full packet, in bytes.
    pub(super) fn set_packet(&mut self, bytes: u16) {
        self.packet = u64::from(bytes);
        self.window = self.window.max(FEWEST * self.packet);
    }

    /// A packet arrived, that was sent then.
    pub(super) fn acknowledged(&mut self, now: Instant, sent: Instant, bytes: u64) {
        let rtt = now.saturating_duration_since(sent);
        self.floor.sample(now, rtt);
        self.round.acknowledged(bytes, rtt);
        self.arrived += bytes;
        self.newest = self.newest.max(Some(sent));
    }

    /// An acknowledgement was taken in whole, which leaves so many bytes under way. Returns what is known of the path at
    /// the end of a round.
    pub(super) fn all_acknowledged(&mut self, now: Instant, in_flight: u64) -> Option<KnownPath> {
        let arrived = std::mem::take(&mut self.arrived);
        // What was under way just before, which has no acknowledgements in it: nobody acknowledges those.
        self.round.peak = self.round.peak.max(in_flight + arrived);
        let floor = self.floor()?;
        if let Phase::Start(start) = &self.phase
            && start.grows(&self.round, self.window, self.round.mean().saturating_sub(floor) < target(floor))
        {
            self.window = (self.window + arrived).min(LARGEST);
        }
        if self.newest.is_none_or(|newest| newest < self.round.began) {
            return None;
        }
        self.end_round(now, floor);
        Some(KnownPath { at: now, floor, carried: self.crest.get() })
    }

    /// Packets were found lost, the last of which was sent then.
    pub(super) fn lost(&mut self, sent: Instant, bytes: u64) {
        if self.reduced.is_none_or(|reduced| sent > reduced) {
            self.round.lost(bytes);
        }
    }

    /// For longer than three probe timeouts nothing arrived (RFC 9002, 7.6). That is rarely congestion, yet what was known may be wrong.
    pub(super) fn nothing_arrived(&mut self, now: Instant) {
        if self.reduced.is_none_or(|reduced| self.newest > Some(reduced)) {
            let window = (self.window as f64 / 2.0).max(10.0 * self.packet as f64);
            self.reduce(now, window, Cause::Silence);
        }
    }

    /// What is known of the path.
    pub(super) fn report(&self) -> PathReport {
        let floor = self.floor().map_or(0.0, |floor| floor.as_secs_f64());
        PathReport {
            mode: match self.phase {
                Phase::Start(_) => Mode::Start,
                Phase::Calm(_) => Mode::Calm,
                Phase::Contested(_) => Mode::Contested,
            },
            window: self.window,
            rate: if floor > 0.0 { self.crest.get() as f64 / floor } else { 0.0 },
            floor,
            noise: self.evidence.noise(),
            reductions: self.reductions,
        }
    }

    fn end_round(&mut self, now: Instant, floor: Duration) {
        let round = std::mem::replace(&mut self.round, Round::new(now));
        let Some(least) = round.least() else { return };
        self.since += 1;
        let longest = self.longest.replace(round.most);
        self.crest.sample(now, round.delivered);
        let queue = least.saturating_sub(floor);
        let target = target(floor).max(self.time_of_few(least));
        self.weigh(&round, queue < target / 2);
        let follows = self.follow.round(self.window as f64, round.delivered as f64, self.since);
        let carried = self.carried(&round);
        let carried_empty = carried * floor.as_secs_f64() / least.as_secs_f64().max(1e-9);
        let full = 4 * round.peak >= 3 * self.window;
        // A window that was found on a faster link is not used up by what fills a slow one.
        let overfull = queue > target && 8 * round.peak >= self.window && round.peak as f64 > 2.0 * carried_empty;
        let seen = Seen {
            now,
            packet: self.packet as f64,
            window: self.window as f64,
            delivered: round.delivered as f64,
            lasted: now.saturating_duration_since(round.began).max(least),
            least,
            queue,
            leapt: longest.is_some_and(|longest| leaps(longest, least)),
            target,
            carried,
            carried_empty,
            used: (round.peak as f64).min(self.window as f64),
            full,
            busy: full || 2 * round.peak >= self.window || overfull,
            // The round after a reduction still shows what was before.
            ours: self.since > 1 && round.losses > 0 && (self.evidence.is_ours() || !follows),
            since: self.since,
            below_limit: self.limit.is_none_or(|limit| limit > self.window as f64),
        };
        let verdict = match &mut self.phase {
            Phase::Start(start) => start.judge(&seen),
            Phase::Calm(calm) => calm.judge(&seen),
            Phase::Contested(contested) => contested.judge(&seen),
        };
        self.follow_verdict(now, verdict, &seen);
    }

    fn follow_verdict(&mut self, now: Instant, verdict: Verdict, seen: &Seen) {
        if let Verdict::Reduce(_, Cause::Loss) | Verdict::Settle(_, Cause::Loss, _) = verdict {
            self.policed += u64::from(seen.queue < seen.target / 2);
        }
        match verdict {
            Verdict::Keep => {}
            Verdict::Window(window) => self.set_window(window),
            Verdict::Reduce(window, cause) => {
                let window = gently(window, cause, seen);
                if cause == Cause::Loss {
                    self.limit = Some(seen.carried);
                }
                self.reduce(now, window, cause);
            }
            Verdict::Settle(window, cause, calm) => {
                self.held = None;
                self.phase = Phase::Calm(calm);
                self.reduce(now, gently(window, cause, seen), cause);
            }
            Verdict::Reroute(window) => {
                self.set_window(window);
                self.floor = Floor::new();
                self.floor.sample(now, seen.least);
                self.crest = Crest::new();
                self.limit = None;
                self.phase = Phase::Start(Start::default());
            }
            Verdict::Contest(window) => {
                self.set_window(window);
                self.held = self.floor.get();
                self.phase = Phase::Contested(Contested::new(seen, self.window as f64));
            }
        }
    }

    fn floor(&self) -> Option<Duration> {
        let floor = self.floor.get()?;
        Some(self.held.map_or(floor, |held| held.min(floor)))
    }

    fn set_window(&mut self, window: f64) {
        self.window = (window as u64).clamp(FEWEST * self.packet, LARGEST);
    }

    fn reduce(&mut self, now: Instant, window: f64, cause: Cause) {
        self.set_window(window);
        self.reduced = Some(now);
        self.since = 0;
        self.evidence.settle();
        self.reductions[cause as usize] += 1;
    }

    /// Takes the round's losses into account as noise or as possibly ours.
    fn weigh(&mut self, round: &Round, queue_is_short: bool) {
        if self.limit.is_some_and(|limit| round.delivered as f64 > 1.1 * limit) {
            self.limit = None;
        }
        // Well below what once was lost at, or else what was carried of late.
        let safe = self.limit.map_or(0.85 * self.crest.get() as f64, |limit| 0.92 * limit);
        let sent = (round.delivered + round.lost) as f64;
        let packets = sent / self.packet as f64;
        if sent > safe || !queue_is_short {
            self.evidence.much(round.losses, packets);
        } else if self.since != 1 && !matches!(self.phase, Phase::Contested(_)) {
            // Beside others it is not for us alone to say what is little.
            self.evidence.little(round.losses, packets);
        }
    }

    /// Bytes that must be sent so that as many arrive as did.
    fn carried(&self, round: &Round) -> f64 {
        // Noise is counted in bursts and this is about packets; beyond a half the estimate would run away.
        (round.delivered as f64 / (1.0 - self.evidence.noise().min(0.5))).min(self.window as f64)
    }

    /// How long the fewest packets take on a slow link: there is no sending less than that.
    fn time_of_few(&self, least: Duration) -> Duration {
        let crest = self.crest.get().max(1) as f64;
        least.mul_f64(((FEWEST * self.packet) as f64 / crest).min(1.0))
    }
}

/// For a queue no less than half of what is under way: that shows whose it is, and costs little if it is not ours.
fn gently(window: f64, cause: Cause, seen: &Seen) -> f64 {
    if cause == Cause::Queue { window.max(seen.used / 2.0) } else { window }
}

/// Whether a round trip is so many times longer than those just before that it is another path: a queue of ours at most doubles from round
/// to round, and few queues of others hold so many round trips.
fn leaps(longest: Duration, least: Duration) -> bool {
    least > 50 * longest && least - longest > target(longest)
}

/// What may stand in the queue before we send less: a quarter of the path's own time. Below 4 ms timers and schedulers would be taken for
/// queues, and nobody notices more than 25 ms less.
fn target(floor: Duration) -> Duration {
    (floor / 4).clamp(Duration::from_millis(4), Duration::from_millis(25))
}

/// Whether more arrives when more is sent, over as much growth as noise does not hide: a policer shows in this alone.
#[derive(Debug, Clone, Default)]
struct Follow {
    /// The window and what arrived, in bytes, once the last reduction had its effect.
    anchor: Option<(f64, f64)>,
    before: f64,
}

impl Follow {
    fn round(&mut self, window: f64, delivered: f64, since_reduction: u32) -> bool {
        let mean = (delivered + self.before) / 2.0;
        self.before = delivered;
        if since_reduction == 3 || self.anchor.is_none() {
            self.anchor = Some((window, mean));
        }
        let Some((from, arrived)) = self.anchor else { return true };
        let growth = window / from - 1.0;
        // A third of what was added should arrive at the least.
        growth < 0.25 || mean > arrived * (1.0 + 0.3 * growth)
    }
}
