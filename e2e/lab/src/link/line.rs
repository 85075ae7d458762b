//! One direction of a link as a pure machine: packets are put in with the time at which they came, and come out when they are due.
//!
//! A packet meets, in this order: a cut, random loss, a burst, a policer, the queue in front of the bottleneck, the
//! bottleneck itself, the delay. What waits in the queue is not given a time before its turn, so a rate that changes holds for
//! all that still waits.

use std::collections::VecDeque;
use std::time::Duration;

use super::drops::{Bucket, Chance, Weather};
use super::settings::Settings;

/// Why a packet does not arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The link was down when it came or when it should have arrived.
    Cut,
    /// By chance, alone or in a burst.
    Chance,
    /// Too much for the policer.
    Policed,
    /// No room in the queue.
    Full,
}

/// A packet that has arrived.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Arrived<P> {
    /// What was put in.
    pub(super) packet: P,
    /// When it was due; the line does not know whether somebody came in time to fetch it.
    pub(super) due: Duration,
    /// How long it waited for the bottleneck.
    pub(super) queued: Duration,
}

#[derive(Debug)]
struct Waiting<P> {
    packet: P,
    bytes: usize,
    since: Duration,
}

/// The machine. `P` is a packet; only its length is of interest.
#[derive(Debug)]
pub(super) struct Line<P> {
    settings: Settings,
    chance: Chance,
    weather: Weather,
    bucket: Bucket,
    queue: VecDeque<Waiting<P>>,
    queued: usize,
    /// When the bottleneck was done with the packet before the first of the queue.
    free: Duration,
    flying: VecDeque<Arrived<P>>,
}

impl<P> Line<P> {
    /// A wire, until it is told otherwise.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            settings: Settings::default(),
            chance: Chance::new(seed),
            weather: Weather::default(),
            bucket: Bucket::default(),
            queue: VecDeque::new(),
            queued: 0,
            free: Duration::ZERO,
            flying: VecDeque::new(),
        }
    }

    /// From now on it behaves like this; what is in flight already stays there.
    pub(super) fn set(&mut self, settings: Settings, now: Duration) {
        // What the bottleneck has already let through went by the old rate.
        self.advance(now);
        self.settings = settings;
    }

    /// A packet of so many bytes comes in; it is kept, or given back with the reason why it is lost.
    pub(super) fn put(&mut self, packet: P, bytes: usize, now: Duration) -> Result<(), (P, Lost)> {
        self.advance(now);
        if self.settings.down {
            return Err((packet, Lost::Cut));
        }
        // Both are drawn for every packet, so that neither moves the other's pattern.
        let alone = self.chance.happens(self.settings.loss);
        if self.weather.loses(self.settings.burst, &mut self.chance) || alone {
            return Err((packet, Lost::Chance));
        }
        if self.settings.police.is_some_and(|police| !self.bucket.lets_through(police, now, bytes)) {
            return Err((packet, Lost::Policed));
        }
        if self.settings.rate == 0.0 {
            self.fly(packet, now, Duration::ZERO);
            return Ok(());
        }
        if self.settings.queue > 0 && self.queued + bytes > self.settings.queue && !self.queue.is_empty() {
            return Err((packet, Lost::Full));
        }
        if self.queue.is_empty() {
            self.free = self.free.max(now);
        }
        self.queue.push_back(Waiting { packet, bytes, since: now });
        self.queued += bytes;
        Ok(())
    }

    /// The next packet that is due by now: arrived, or lost on its last metre to a cut.
    pub(super) fn take(&mut self, now: Duration) -> Option<(Arrived<P>, Option<Lost>)> {
        self.advance(now);
        if self.flying.front()?.due > now {
            return None;
        }
        Some((self.flying.pop_front()?, self.settings.down.then_some(Lost::Cut)))
    }

    /// When something is due next.
    pub(super) fn due(&self) -> Option<Duration> {
        let flies = self.flying.front().map(|first| first.due);
        // When it leaves the bottleneck is of interest to nobody before it arrives.
        let leaves = self.queue.front().map(|first| self.free + self.sending(first.bytes) + self.settings.delay);
        flies.into_iter().chain(leaves).min()
    }

    /// Bytes that wait for the bottleneck, with the one that it is at.
    pub(super) fn queued(&self) -> usize {
        self.queued
    }

    /// Lets the bottleneck work until now.
    fn advance(&mut self, now: Duration) {
        while let Some(first) = self.queue.front() {
            let sent = self.free + self.sending(first.bytes);
            if sent > now {
                break;
            }
            let Some(Waiting { packet, bytes, since }) = self.queue.pop_front() else { break };
            self.free = sent;
            self.queued -= bytes;
            self.fly(packet, sent, sent.saturating_sub(since));
        }
    }

    fn sending(&self, bytes: usize) -> Duration {
        if self.settings.rate == 0.0 {
            return Duration::ZERO;
        }
        // The slowest link that can be set takes ages for a packet, not forever.
        Duration::try_from_secs_f64(bytes as f64 * 8.0 / self.settings.rate).unwrap_or(Duration::from_secs(3600))
    }

    fn fly(&mut self, packet: P, from: Duration, queued: Duration) {
        let jitter = if self.settings.jitter.is_zero() { 0.0 } else { self.chance.share() };
        let mut due = from + self.settings.delay + self.settings.jitter.mul_f64(jitter);
        if self.settings.reorder {
            let at = self.flying.partition_point(|other| other.due <= due);
            self.flying.insert(at, Arrived { packet, due, queued });
            return;
        }
        if let Some(last) = self.flying.back() {
            due = due.max(last.due);
        }
        self.flying.push_back(Arrived { packet, due, queued });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn line(words: &str) -> Line<u32> {
        let mut line = Line::new(7);
        set(&mut line, words, Duration::ZERO);
        line
    }

    fn set(line: &mut Line<u32>, words: &str, now: Duration) {
        let mut settings = line.settings.clone();
        settings.change(words.split_whitespace()).unwrap();
        line.set(settings, now);
    }

    /// Runs the clock to the end of what is in flight: who arrived, and when.
    fn drain(line: &mut Line<u32>) -> Vec<(u32, Duration)> {
        let mut arrived = Vec::new();
        while let Some(due) = line.due() {
            while let Some((packet, lost)) = line.take(due) {
                assert_eq!(lost, None);
                arrived.push((packet.packet, packet.due));
            }
        }
        arrived
    }

    #[test]
    fn a_wire_passes_at_once_and_a_delay_delays() {
        let mut line = line("");
        line.put(1, 1500, MS).unwrap();
        assert_eq!(drain(&mut line), [(1, MS)]);
        set(&mut line, "delay=20ms", 2 * MS);
        line.put(2, 1500, 2 * MS).unwrap();
        assert_eq!(line.take(21 * MS), None);
        assert_eq!(drain(&mut line), [(2, 22 * MS)]);
    }

    #[test]
    fn jitter_stays_in_order_unless_it_may_reorder() {
        for (words, ordered) in [("delay=5ms jitter=20ms", true), ("delay=5ms jitter=20ms reorder", false)] {
            let mut line = line(words);
            (0..100).for_each(|packet| line.put(packet, 100, MS * packet).unwrap());
            let arrived = drain(&mut line);
            assert_eq!(arrived.is_sorted_by_key(|(packet, _)| *packet), ordered, "{words}");
            assert!(arrived.is_sorted_by_key(|(_, due)| *due));
            let late = arrived.iter().map(|(packet, due)| *due - MS * *packet);
            assert!(late.clone().min() >= Some(5 * MS) && late.max() <= Some(25 * MS));
        }
    }

    #[test]
    fn a_bottleneck_serves_one_after_another_and_drops_what_does_not_fit() {
        // 1000 bytes take a millisecond.
        let mut line = line("rate=8mbit queue=3000 delay=10ms");
        let lost: Vec<_> = (0..5).filter_map(|packet| line.put(packet, 1000, Duration::ZERO).err()).collect();
        assert_eq!(lost, [(3, Lost::Full), (4, Lost::Full)]);
        assert_eq!(line.queued(), 3000);
        assert_eq!(drain(&mut line), [(0, 11 * MS), (1, 12 * MS), (2, 13 * MS)]);
        // After idling it begins at once, and not in the past.
        line.put(5, 1000, 50 * MS).unwrap();
        assert_eq!(drain(&mut line), [(5, 61 * MS)]);
    }

    #[test]
    fn how_long_a_packet_waited_is_told_with_it() {
        let mut line = line("rate=8mbit queue=100k delay=10ms");
        (0..3).for_each(|packet| line.put(packet, 1000, Duration::ZERO).unwrap());
        let (mut queued, now) = (Vec::new(), Duration::from_secs(1));
        while let Some((arrived, _)) = line.take(now) {
            queued.push(arrived.queued);
        }
        assert_eq!(queued, [MS, 2 * MS, 3 * MS]);
    }

    #[test]
    fn a_changed_rate_holds_for_what_waits() {
        let mut line = line("rate=8mbit queue=100k");
        (0..4).for_each(|packet| line.put(packet, 1000, Duration::ZERO).unwrap());
        set(&mut line, "rate=800kbit", 2 * MS);
        assert_eq!(drain(&mut line), [(0, MS), (1, 2 * MS), (2, 12 * MS), (3, 22 * MS)]);
        // And without one nothing has to wait any longer.
        line.put(4, 1000, 30 * MS).unwrap();
        set(&mut line, "rate=0", 31 * MS);
        assert_eq!(drain(&mut line).len(), 1);
        assert_eq!(line.queued(), 0);
    }

    #[test]
    fn a_cut_takes_what_comes_and_what_would_arrive() {
        let mut line = line("delay=10ms");
        line.put(1, 100, Duration::ZERO).unwrap();
        set(&mut line, "down", 5 * MS);
        assert_eq!(line.put(2, 100, 6 * MS), Err((2, Lost::Cut)));
        assert!(matches!(line.take(10 * MS), Some((Arrived { packet: 1, .. }, Some(Lost::Cut)))));
        set(&mut line, "up", 11 * MS);
        line.put(3, 100, 12 * MS).unwrap();
        assert_eq!(drain(&mut line), [(3, 22 * MS)]);
    }

    #[test]
    fn losses_come_out_as_they_were_set() {
        for (words, share) in [("loss=3", 0.03), ("burst=12:25", 0.12), ("loss=1 burst=1:5", 0.0199)] {
            let mut line = line(words);
            let lost = (0..500_000).filter(|packet| line.put(*packet, 100, MS * *packet).is_err()).count();
            let measured = lost as f64 / 500_000.0;
            assert!((measured / share - 1.0).abs() < 0.06, "{words}: {measured}");
        }
    }

    #[test]
    fn a_policer_drops_and_delays_nobody() {
        let mut line = line("police=8mbit:5k");
        let lost: Vec<_> = (0..10).filter_map(|packet| line.put(packet, 1000, MS).err()).collect();
        assert_eq!(lost.len(), 5);
        assert!(lost.iter().all(|(_, why)| *why == Lost::Policed));
        assert!(drain(&mut line).iter().all(|(_, due)| *due == MS));
    }
}
