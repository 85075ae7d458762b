//! How much of what was handed to quinn, or to h2, it has not sent yet.
//!
//! h2's bytes are counted again when TLS takes them. quinn itself does not say. Its congestion control is told of every packet sent and acknowledged and of what is under way: all of that
//! has left. What was written is counted here, and with it what packets add, a little too much of it rather than too little: so an error
//! grows only towards "there is more", sending ends early one day, quinn says that it has nothing to send, and counting begins anew.

use std::any::Any;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use quinn_proto::RttEstimator;
use quinn_proto::congestion::{Controller, ControllerMetrics};

use super::turns::Turns;

/// A packet's header, its tag and its frame's header are at most this part of what it carries, where packets are full; of HTTP/2 it is
/// the frame's header.
const ADDED_BY_QUIC: u64 = 32;
const ADDED_BY_HTTP2: u64 = 1024;

/// What may be kept unsent at the least and at most, in bytes. The least is a tenth of a second of 2.5 Mbit/s; the most, 10 ms
/// of 3 Gbit/s.
const LEAST: u64 = 32 << 10;
const MOST: u64 = 4 << 20;

/// How long a writer may take to follow when there is room: as long as tasks wait on a machine with other work.
const WAKING: Duration = Duration::from_millis(10);

/// The account of one connection. Bytes.
#[derive(Debug)]
pub(super) struct Backlog {
    /// Which part of what is written comes on top of it.
    added: u64,
    unsent: AtomicI64,
    /// All that was sent so far.
    sent: AtomicU64,
    /// What may be unsent.
    room: AtomicU64,
    /// How often something was sent or arrived.
    moves: AtomicU64,
    /// Since `was_pressed` was last asked: whether all that there was had been sent at some time, and how often something had moved by then.
    dried: AtomicBool,
    asked: AtomicU64,
    /// Whether what sends waits itself, and therefore nothing moves.
    waits: AtomicBool,
}

impl Backlog {
    pub(super) const fn of_quinn() -> Self {
        Self::new(ADDED_BY_QUIC)
    }

    pub(super) const fn of_h2() -> Self {
        Self::new(ADDED_BY_HTTP2)
    }

    const fn new(added: u64) -> Self {
        Self {
            added,
            unsent: AtomicI64::new(0),
            sent: AtomicU64::new(0),
            room: AtomicU64::new(LEAST),
            moves: AtomicU64::new(0),
            dried: AtomicBool::new(true),
            asked: AtomicU64::new(0),
            waits: AtomicBool::new(false),
        }
    }

    /// So many bytes were, or are about to be, handed on.
    pub(super) fn written(&self, bytes: u64) {
        self.unsent.fetch_add(self.with_added(bytes), Ordering::Relaxed);
    }

    /// So many of them were not after all.
    pub(super) fn taken_back(&self, bytes: u64) {
        self.unsent.fetch_sub(self.with_added(bytes), Ordering::Relaxed);
    }

    /// How much more may be written now.
    pub(super) fn free(&self) -> u64 {
        let unsent = self.unsent.load(Ordering::Relaxed).max(0) as u64;
        self.room.load(Ordering::Relaxed).saturating_sub(unsent)
    }

    /// How much may be unsent at a time.
    pub(super) fn room(&self) -> u64 {
        self.room.load(Ordering::Relaxed)
    }

    /// What will have been sent when all that was written so far has been, without what comes on top of it: rather too little than too much.
    pub(super) fn mark(&self) -> u64 {
        let unsent = self.unsent.load(Ordering::Relaxed).max(0) as u64;
        self.sent.load(Ordering::Relaxed) + unsent - unsent / self.added
    }

    /// Whether so much was sent, or nothing is left to be.
    pub(super) fn has_sent(&self, mark: u64) -> bool {
        self.sent.load(Ordering::Relaxed) >= mark || self.unsent.load(Ordering::Relaxed) <= 0
    }

    /// Goes up whenever something is sent, or quinn hears of its arrival.
    pub(super) fn moves(&self) -> u64 {
        self.moves.load(Ordering::Relaxed)
    }

    /// Nothing is left to be sent.
    pub(super) fn empty(&self) {
        self.unsent.store(0, Ordering::Relaxed);
    }

    /// For want of anything to send.
    pub(super) fn dried(&self) {
        self.dried.store(true, Ordering::Relaxed);
    }

    /// Whether there has always been something to send since this was last asked, and some of it was sent.
    pub(super) fn was_pressed(&self) -> bool {
        let moves = self.moves();
        let moved = self.asked.swap(moves, Ordering::Relaxed) != moves;
        let dried = self.dried.swap(false, Ordering::Relaxed);
        moved && !dried
    }

    /// So many bytes left quinn.
    fn sent(&self, bytes: u64) {
        self.sent.fetch_add(bytes, Ordering::Relaxed);
        self.moved(-(bytes as i64));
    }

    fn moved(&self, by: i64) {
        self.unsent.fetch_add(by, Ordering::Relaxed);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// So many bytes left h2, those among them that nobody wrote here.
    pub(super) fn taken(&self, bytes: u64) {
        let left = |unsent: i64| Some((unsent - bytes as i64).max(0));
        let _ = self.unsent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, left);
        self.moves.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether what sends waits itself.
    pub(super) fn waits(&self, waits: bool) {
        self.waits.store(waits, Ordering::Relaxed);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    /// Where the kernel keeps what is under way, and this only has to follow.
    pub(super) fn set_rate(&self, bytes_per_second: f64) {
        self.room.store(((bytes_per_second * WAKING.as_secs_f64()) as u64).clamp(LEAST, MOST), Ordering::Relaxed);
    }

    fn set_room(&self, window: u64, rtt: Duration) {
        let waking = window as f64 * WAKING.as_secs_f64() / rtt.as_secs_f64().max(1e-4);
        self.room.store((window / 2 + waking as u64).clamp(LEAST, MOST), Ordering::Relaxed);
    }

    const fn with_added(&self, bytes: u64) -> i64 {
        (bytes + bytes / self.added) as i64
    }
}

/// A congestion control with an ear for what is sent.
pub(in crate::tunnel) struct Sending {
    control: Box<dyn Controller>,
    turns: Arc<Turns>,
    /// Bytes acknowledged, and those that have been counted as sent.
    acknowledged: u64,
    counted: u64,
    rtt: Duration,
}

impl Sending {
    pub(in crate::tunnel) fn new(control: Box<dyn Controller>) -> Self {
        let turns = Arc::new(Turns::over_quic());
        Self { control, turns, acknowledged: 0, counted: 0, rtt: Duration::ZERO }
    }

    /// Who waits for what is sent here.
    pub(in crate::tunnel) const fn turns(&self) -> &Arc<Turns> {
        &self.turns
    }

    /// The control itself.
    pub(in crate::tunnel) fn into_control(self) -> Box<dyn Controller> {
        self.control
    }
}

impl Controller for Sending {
    fn on_sent(&mut self, now: Instant, bytes: u64, last: u64) {
        self.control.on_sent(now, bytes, last);
        self.counted += bytes;
        self.turns.backlog().sent(bytes);
        self.turns.go_on();
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.control.on_ack(now, sent, bytes, app_limited, rtt);
        self.acknowledged += bytes;
        self.rtt = rtt.get();
    }

    fn on_end_acks(&mut self, now: Instant, in_flight: u64, app_limited: bool, largest: Option<u64>) {
        self.control.on_end_acks(now, in_flight, app_limited, largest);
        // Without what was lost, which will be sent again, and without what is never acknowledged.
        let left = self.acknowledged + in_flight;
        let backlog = self.turns.backlog();
        backlog.moved(self.counted as i64 - left as i64);
        self.counted = left;
        if app_limited {
            self.turns.ran_dry();
        }
        backlog.set_room(self.control.window(), self.rtt);
        self.turns.go_on();
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, persistent: bool, lost: u64) {
        self.control.on_congestion_event(now, sent, persistent, lost);
    }

    fn on_mtu_update(&mut self, mtu: u16) {
        self.control.on_mtu_update(mtu);
    }

    fn window(&self) -> u64 {
        self.control.window()
    }

    fn metrics(&self) -> ControllerMetrics {
        self.control.metrics()
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        let Self { turns, acknowledged, counted, rtt, .. } = self;
        let (control, turns) = (self.control.clone_box(), turns.clone());
        Box::new(Self { control, turns, acknowledged: *acknowledged, counted: *counted, rtt: *rtt })
    }

    fn initial_window(&self) -> u64 {
        self.control.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

#[cfg(test)]
mod tests {
    use quinn_proto::congestion::{ControllerFactory as _, NewRenoConfig};

    use super::*;

    fn sending() -> Sending {
        let now = Instant::now();
        Sending::new(Arc::new(NewRenoConfig::default()).build(now, 1200))
    }

    #[test]
    fn what_left_is_no_backlog_and_what_was_lost_is() {
        let mut sending = sending();
        let (now, turns) = (Instant::now(), sending.turns().clone());
        let backlog = turns.backlog();
        let unsent = || backlog.room() - backlog.free();
        backlog.written(16_000);
        assert_eq!(unsent(), 16_500);
        // With 500 bytes of acknowledgements, which are neither under way nor acknowledged themselves.
        sending.on_sent(now, 10_500, 1);
        assert_eq!(unsent(), 6_000);
        sending.on_end_acks(now, 10_000, false, None);
        assert_eq!(unsent(), 6_500);
        // A part of it is lost.
        sending.on_end_acks(now, 6_000, false, None);
        assert_eq!(unsent(), 10_500);
    }

    #[test]
    fn what_was_written_before_a_mark_is_gone_when_so_much_was_sent_or_nothing_is_left() {
        let mut sending = sending();
        let (now, turns) = (Instant::now(), sending.turns().clone());
        let backlog = turns.backlog();
        assert!(backlog.has_sent(backlog.mark()));
        backlog.written(3200);
        let mark = backlog.mark();
        backlog.written(32_000);
        sending.on_sent(now, 3100, 1);
        assert!(!backlog.has_sent(mark));
        sending.on_sent(now, 100, 2);
        assert!(backlog.has_sent(mark) && !backlog.has_sent(backlog.mark()));
        let mark = backlog.mark();
        sending.on_end_acks(now, 0, true, None);
        assert!(backlog.has_sent(mark));
    }

    #[test]
    fn when_quinn_has_nothing_left_to_send_counting_begins_anew() {
        let mut sending = sending();
        let turns = sending.turns().clone();
        turns.backlog().written(1 << 20);
        assert_eq!(turns.backlog().free(), 0);
        sending.on_end_acks(Instant::now(), 0, true, None);
        assert_eq!(turns.backlog().free(), turns.backlog().room());
    }

    #[test]
    fn there_is_room_for_what_is_sent_until_a_writer_follows() {
        let backlog = Backlog::of_quinn();
        backlog.set_room(100_000, Duration::from_millis(100));
        assert_eq!(backlog.room(), 60_000, "half of what is under way, and 10 ms of it");
        backlog.set_room(10_000, Duration::from_millis(100));
        assert_eq!(backlog.room(), LEAST);
        backlog.set_room(1 << 20, Duration::from_micros(200));
        assert_eq!(backlog.room(), MOST);
    }

    #[test]
    fn what_tls_took_has_left_h2_though_more_leaves_than_was_written() {
        let backlog = Backlog::of_h2();
        backlog.written(20 << 10);
        backlog.taken(19 << 10);
        assert_eq!(backlog.room() - backlog.free(), (1 << 10) + 20);
        backlog.taken(1 << 20);
        assert_eq!(backlog.free(), backlog.room());
        backlog.set_rate(100e6);
        assert_eq!(backlog.room(), 1_000_000, "10 ms of it");
    }
}
