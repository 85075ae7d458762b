//! Where a request's time went. This file alone holds the time-keeping of requests.
//!
//! A [`Stopwatch`] is born with the request on each hop and laps once at each [`Stage`]; a hop knows durations only, never
//! another machine's clock. The agent's [`Timing`] rides back in its answer as a `Server-Timing` header, and the relay
//! merges it into its own: what is left of its wait once the agent's total is taken out is [`Stage::Transit`]. Header,
//! metrics, logs and the client's waterfall are all written from this one value, with the names of [`Stage::name`].
//!
//! Resolution: one microsecond. The stages add up to the total; what no stage covers is [`Stage::Other`], never hidden.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

/// A part of a request's way, in the order in which it is walked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Stage {
    /// Relay: from the request's head to the permit (authentication, routing, admission).
    Admit,
    /// Relay: choosing an agent, until the stream is open and the head is sent.
    Pick,
    /// Relay: until the last request byte was handed to the tunnel; a slow client or flow control shows here.
    Upload,
    /// The wire and the framing, both ways: the relay's wait for the answer's head minus the agent's own total.
    Transit,
    /// Agent: from the last request byte received: parsing the body, decoding the image.
    Decode,
    /// Agent: resizing and normalising into a tensor.
    Prepare,
    /// Agent: waiting for the device.
    Queue,
    /// Agent: the network's forward pass.
    Forward,
    /// Agent: from the network's heads to classes or boxes.
    Interpret,
    /// Agent: writing the answer.
    Encode,
    /// Agent: a server behind it that the request was handed on to, from the request's last byte to the answer's first.
    Upstream,
    /// What no stage covers.
    Other,
}

/// Who a stage's time belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hop {
    /// The relay's own work and its wait for the client's bytes.
    Relay,
    /// The way between relay and agent.
    Tunnel,
    /// The agent.
    Agent,
    /// Nobody's in particular.
    Unattributed,
}

impl Hop {
    /// The hop's name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Tunnel => "tunnel",
            Self::Agent => "agent",
            Self::Unattributed => "other",
        }
    }
}

/// How many stages there are.
const STAGES: usize = Stage::ALL.len();

impl Stage {
    /// Every stage, in the order in which it is walked and printed.
    pub const ALL: [Self; 12] = [
        Self::Admit,
        Self::Pick,
        Self::Upload,
        Self::Transit,
        Self::Decode,
        Self::Prepare,
        Self::Queue,
        Self::Forward,
        Self::Interpret,
        Self::Encode,
        Self::Upstream,
        Self::Other,
    ];

    /// The stage's name in `Server-Timing`, metrics, logs and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Admit => "admit",
            Self::Pick => "pick",
            Self::Upload => "upload",
            Self::Transit => "transit",
            Self::Decode => "decode",
            Self::Prepare => "prepare",
            Self::Queue => "queue",
            Self::Forward => "forward",
            Self::Interpret => "interpret",
            Self::Encode => "encode",
            Self::Upstream => "upstream",
            Self::Other => "other",
        }
    }

    /// Whose time it is.
    pub const fn hop(self) -> Hop {
        match self {
            Self::Admit | Self::Pick | Self::Upload => Hop::Relay,
            Self::Transit => Hop::Tunnel,
            Self::Other => Hop::Unattributed,
            _ => Hop::Agent,
        }
    }

    fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stage| stage.name() == name)
    }
}

/// Measures one request on one hop.
#[derive(Debug, Clone)]
pub struct Stopwatch {
    born: Instant,
    last: Instant,
    laps: [Option<Duration>; STAGES],
    receive: Option<Duration>,
    note: Option<String>,
}

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self::start_at(Instant::now())
    }

    /// Started at `born`: when the request's head (relay) or its last byte (agent) was there.
    pub const fn start_at(born: Instant) -> Self {
        Self { born, last: born, laps: [None; STAGES], receive: None, note: None }
    }

    /// Gives the time since the last lap to `stage`, and returns it. A stage may be lapped more than once: its laps add up.
    pub fn lap(&mut self, stage: Stage) -> Duration {
        self.lap_at(stage, Instant::now())
    }

    /// As [`Stopwatch::lap`], at an instant that was noted before.
    pub fn lap_at(&mut self, stage: Stage, now: Instant) -> Duration {
        let lap = now.saturating_duration_since(self.last);
        self.last = self.last.max(now);
        *self.laps[stage as usize].get_or_insert_default() += lap;
        lap
    }

    /// How long the request's body took to arrive, head to last byte. It overlaps the relay's upload, so it stands beside the sum.
    pub fn received(&mut self, receive: Duration) {
        self.receive = Some(receive);
    }

    /// Says on what the forward pass ran, such as `cuda:0 b=4`: printable ASCII without quotes.
    pub fn note(&mut self, note: impl Into<String>) {
        self.note = Some(note.into());
    }

    /// When it was started.
    pub const fn born(&self) -> Instant {
        self.born
    }

    /// What was given to one stage so far.
    pub fn lapped(&self, stage: Stage) -> Duration {
        self.laps[stage as usize].unwrap_or_default()
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.born.elapsed()
    }

    /// Stops: the total runs until now, and what no lap covers is [`Stage::Other`].
    pub fn finish(&self) -> Timing {
        self.finish_at(Instant::now())
    }

    /// As [`Stopwatch::finish`], at an instant that was noted before.
    pub fn finish_at(&self, now: Instant) -> Timing {
        let total = now.saturating_duration_since(self.born);
        let mut timing = Timing { stages: self.laps, receive: self.receive, total, note: self.note.clone() };
        timing.settle();
        timing
    }
}

/// Where the time went: a duration per stage, and their total.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Timing {
    stages: [Option<Duration>; STAGES],
    receive: Option<Duration>,
    total: Duration,
    note: Option<String>,
}

impl Timing {
    /// The header (or trailer) that carries it.
    pub const HEADER: &'static str = "server-timing";

    /// The relay's own timing, of which `waited` went by between the last request byte and the answer's head, merged with
    /// the agent's: transit is what the agent did not account for.
    pub fn merge(relay: Self, waited: Duration, agent: Option<&Self>) -> Self {
        let mut merged = relay;
        let spent = agent.map_or(Duration::ZERO, |agent| agent.total);
        merged.stages[Stage::Transit as usize] = Some(waited.saturating_sub(spent));
        if let Some(agent) = agent {
            for stage in Stage::ALL {
                if stage.hop() == Hop::Agent {
                    merged.stages[stage as usize] = agent.stages[stage as usize];
                }
            }
            merged.receive = agent.receive;
            merged.note.clone_from(&agent.note);
        }
        merged.settle();
        merged
    }

    /// Sets [`Stage::Other`] to what the other stages leave of the total.
    fn settle(&mut self) {
        self.stages[Stage::Other as usize] = None;
        let known: Duration = self.stages.iter().flatten().sum();
        self.stages[Stage::Other as usize] = Some(self.total.saturating_sub(known));
    }

    /// The time of one stage, `None` if the request did not pass it.
    pub const fn stage(&self, stage: Stage) -> Option<Duration> {
        self.stages[stage as usize]
    }

    /// The stages that were passed, in order.
    pub fn stages(&self) -> impl Iterator<Item = (Stage, Duration)> + '_ {
        Stage::ALL.into_iter().filter_map(|stage| Some((stage, self.stages[stage as usize]?)))
    }

    /// From the start to the answer's head.
    pub const fn total(&self) -> Duration {
        self.total
    }

    /// How long the body took to arrive at the agent; beside the sum.
    pub const fn receive(&self) -> Option<Duration> {
        self.receive
    }

    /// On what the forward pass ran.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }

    /// The value of a `Server-Timing` header: milliseconds with three decimals, so that a digit is a microsecond.
    pub fn to_header(&self) -> String {
        let mut out = String::with_capacity(256);
        for (stage, time) in self.stages() {
            metric(&mut out, stage.name(), time);
            if let (Stage::Forward, Some(note)) = (stage, &self.note) {
                let plain = note.chars().filter(|c| (' '..='~').contains(c) && !matches!(c, '"' | '\\'));
                // invariant: writing to a String cannot fail.
                let _ = write!(out, ";desc=\"{}\"", plain.take(64).collect::<String>());
            }
        }
        if let Some(receive) = self.receive {
            metric(&mut out, "receive", receive);
        }
        metric(&mut out, "total", self.total);
        out
    }

    /// Reads a `Server-Timing` value; metrics of other names are passed over, `None` without a total.
    pub fn parse(header: &str) -> Option<Self> {
        let mut timing = Self::default();
        let mut seen_total = false;
        for entry in header.split(',') {
            let mut parts = entry.split(';').map(str::trim);
            let name = parts.next()?;
            let (mut time, mut note) = (None, None);
            for part in parts {
                match part.split_once('=') {
                    Some(("dur", value)) => time = parse_millis(value),
                    Some(("desc", value)) => note = Some(value.trim_matches('"').to_owned()),
                    _ => {}
                }
            }
            let Some(time) = time else { continue };
            match (name, Stage::parse(name)) {
                ("total", _) => (timing.total, seen_total) = (time, true),
                ("receive", _) => timing.receive = Some(time),
                (_, Some(stage)) => {
                    timing.stages[stage as usize] = Some(time);
                    timing.note = note.or(timing.note);
                }
                _ => {}
            }
        }
        seen_total.then_some(timing)
    }
}

fn metric(out: &mut String, name: &str, time: Duration) {
    let micros = time.as_micros();
    let comma = if out.is_empty() { "" } else { ", " };
    // invariant: writing to a String cannot fail.
    let _ = write!(out, "{comma}{name};dur={}.{:03}", micros / 1000, micros % 1000);
}

fn parse_millis(text: &str) -> Option<Duration> {
    let millis: f64 = text.parse().ok()?;
    // An hour bounds what a foreign header can make us add up.
    (0.0..3.6e6).contains(&millis).then(|| Duration::from_nanos((millis * 1e6).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    fn agent(born: Instant) -> Timing {
        let mut watch = Stopwatch::start_at(born);
        watch.received(ms(7));
        watch.note("cpu b=1");
        watch.lap_at(Stage::Decode, born + ms(4));
        watch.lap_at(Stage::Prepare, born + ms(5));
        watch.lap_at(Stage::Queue, born + ms(6));
        watch.lap_at(Stage::Forward, born + ms(16));
        watch.finish_at(born + ms(17))
    }

    #[test]
    fn laps_and_other_add_up_to_the_total() {
        let timing = agent(Instant::now());
        assert_eq!(timing.stage(Stage::Forward), Some(ms(10)));
        assert_eq!(timing.stage(Stage::Other), Some(ms(1)));
        assert_eq!(timing.stages().map(|(_, time)| time).sum::<Duration>(), timing.total());
    }

    #[test]
    fn transit_is_the_wait_without_the_agents_total() {
        let born = Instant::now();
        let mut watch = Stopwatch::start_at(born);
        watch.lap_at(Stage::Admit, born + ms(1));
        watch.lap_at(Stage::Pick, born + ms(2));
        watch.lap_at(Stage::Upload, born + ms(12));
        let relay = watch.finish_at(born + ms(50));
        let merged = Timing::merge(relay, ms(38), Some(&agent(born)));
        assert_eq!(merged.stage(Stage::Transit), Some(ms(21)));
        assert_eq!(merged.stage(Stage::Upload), Some(ms(10)));
        assert_eq!(merged.stage(Stage::Decode), Some(ms(4)));
        assert_eq!(merged.stage(Stage::Other), Some(ms(1)));
        assert_eq!(merged.receive(), Some(ms(7)));
        assert_eq!(merged.stages().map(|(_, time)| time).sum::<Duration>(), merged.total());
    }

    #[test]
    fn the_header_is_read_back_to_the_microsecond() {
        let timing = agent(Instant::now());
        let header = timing.to_header();
        assert_eq!(
            header,
            "decode;dur=4.000, prepare;dur=1.000, queue;dur=1.000, forward;dur=10.000;desc=\"cpu b=1\", \
             other;dur=1.000, receive;dur=7.000, total;dur=17.000"
        );
        assert_eq!(Timing::parse(&header), Some(timing));
    }

    #[test]
    fn a_foreign_header_is_no_timing_and_hurts_nobody() {
        for text in
            ["", "db;dur=53, app;dur=47.2", "total", "total;dur=-1", "total;dur=inf", ";;;,,,=", "total;dur=1e300"]
        {
            assert_eq!(Timing::parse(text), None, "{text}");
        }
        assert_eq!(
            Timing::parse("cache;desc=hit, total;dur=1.5").map(|timing| timing.total()),
            Some(Duration::from_micros(1500))
        );
    }
}
