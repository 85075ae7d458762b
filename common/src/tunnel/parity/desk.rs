//! The parity of one session: what is to be sent of it, and who reads the streams that it is about.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, SendDatagramError, StreamId};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::block::{PACKETS, UNITS};
use super::cover::Cover;
use super::losses::Losses;
use super::part::Part;
use super::shelves::Shelves;
use super::watch::Watch;
use crate::tunnel::error::TunnelError;
use crate::tunnel::turns::Lane;

/// A path that loses fewer than one packet of so many is left alone.
const SELDOM: f64 = 1000.0;

/// And one that loses fewer than one of so many, where messages are shorter than a block would be: the parity of one packet is its copy.
const OFTEN: f64 = 200.0;

/// The losses that a block may expect: with more, two are lost too often; with fewer, parity is too much of what is sent.
const EXPECTED: f64 = 0.3;

/// Losses are noticed and mended in so many round trips.
const MENDED: f64 = 2.0;

/// How long readers expect the peer's parity after some of it has come.
const HEARD: Duration = Duration::from_secs(60);

/// How long parity waits at the least: what it is about goes first, and not in the same packet.
const PAUSE: Duration = Duration::from_millis(1);

/// And at the most, or until losses are mended without it if that takes longer.
const LATE: Duration = Duration::from_millis(100);

/// The two lowest bits of the ids of request streams: the relay opens them, which is QUIC's server.
const OPENER: u64 = 1;

/// What waits to be sent at the most, in datagrams.
const MOST_WAITING: usize = 512;

/// Streams that are put together of what arrives in any order at a time; they may keep a megabyte each.
const MOST_SCATTERED: usize = 64;

/// The parity of both directions of a session.
#[derive(Debug)]
pub(in crate::tunnel) struct Parity {
    lane: Arc<Lane>,
    /// Whether this end wants it.
    is_wanted: bool,
    /// Whether the peer said that it can use it.
    is_understood: AtomicBool,
    /// How many units a block has; 0 where nothing is covered.
    units: AtomicU64,
    losses: Mutex<Losses>,
    covers_short: AtomicBool,
    /// How long it takes until a loss is mended without parity, in microseconds.
    mending: AtomicU64,
    outbox: Mutex<VecDeque<Waiting>>,
    posted: Notify,
    /// When the peer last sent any, in milliseconds after `began`; 0 if it never did. Without any nobody watches.
    heard: AtomicU64,
    began: Instant,
    shelves: Mutex<Shelves>,
    scattered: AtomicUsize,
    sent: AtomicU64,
    repaired: AtomicU64,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    /// What has been sent when all that was written before has left.
    mark: u64,
    datagram: Bytes,
}

impl Parity {
    /// Of a session whose messages are written in this lane.
    pub(in crate::tunnel) fn new(lane: Arc<Lane>, is_wanted: bool) -> Self {
        Self {
            lane,
            is_wanted,
            is_understood: AtomicBool::new(false),
            units: AtomicU64::new(0),
            losses: Mutex::default(),
            covers_short: AtomicBool::new(false),
            mending: AtomicU64::new(0),
            outbox: Mutex::default(),
            posted: Notify::new(),
            heard: AtomicU64::new(0),
            began: Instant::now(),
            shelves: Mutex::default(),
            scattered: AtomicUsize::new(0),
            sent: AtomicU64::new(0),
            repaired: AtomicU64::new(0),
        }
    }

    /// The peer can use it.
    pub(in crate::tunnel) fn understood(&self) {
        self.is_understood.store(true, Ordering::Relaxed);
    }

    /// So many packets of this path are lost, of one, whatever is sent; and what quinn knows of it.
    pub(in crate::tunnel) fn set_path(&self, noise: f64, path: &quinn::PathStats) {
        if !self.is_wanted {
            return;
        }
        let losses = &mut *self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.count(path.lost_packets, path.congestion_events);
        let covers = noise * SELDOM >= 1.0 && losses.are_single();
        let units = if covers { ((EXPECTED / noise) as u64 / PACKETS).clamp(1, UNITS) } else { 0 };
        self.units.store(units, Ordering::Relaxed);
        self.covers_short.store(noise * OFTEN >= 1.0, Ordering::Relaxed);
        self.mending.store(path.rtt.mul_f64(MENDED).as_micros() as u64, Ordering::Relaxed);
    }

    /// How long it takes until a loss is mended without parity.
    pub(super) fn mending(&self) -> Duration {
        Duration::from_micros(self.mending.load(Ordering::Relaxed))
    }

    /// Whether messages of a few packets have parity too.
    pub(super) fn covers_short(&self) -> bool {
        self.covers_short.load(Ordering::Relaxed)
    }

    /// The sums of a message that is about to be sent, if it should have any.
    pub(in crate::tunnel) fn cover(self: &Arc<Self>, stream: StreamId) -> Option<Cover> {
        let units = self.units.load(Ordering::Relaxed);
        let covers = units > 0 && self.is_understood.load(Ordering::Relaxed);
        covers.then(|| Cover::new(self.clone(), stream.into(), units))
    }

    /// What a stream's reader keeps, if the peer sends parity.
    pub(in crate::tunnel) fn watch(self: &Arc<Self>, stream: StreamId) -> Option<Watch> {
        let heard = self.heard.load(Ordering::Relaxed);
        if heard == 0 || self.began.elapsed() > Duration::from_millis(heard) + HEARD {
            return None;
        }
        let stream = stream.into();
        let shelf = self.shelves().begin(stream);
        Some(Watch::new(self.clone(), stream, shelf))
    }

    /// The right to put one more stream together of what arrives in any order; given back when it is forgotten.
    pub(super) fn may_scatter(&self) -> bool {
        let more = |scattered| (scattered < MOST_SCATTERED).then_some(scattered + 1);
        self.scattered.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_ok()
    }

    /// Nobody reads this stream any more, of which so many bytes were repaired if it was scattered.
    pub(super) fn forget(&self, stream: u64, repaired: Option<u64>) {
        self.shelves().end(stream);
        let Some(repaired) = repaired else { return };
        self.scattered.fetch_sub(1, Ordering::Relaxed);
        self.repaired.fetch_add(repaired, Ordering::Relaxed);
    }

    /// To be sent after all that has been written so far.
    pub(super) fn post(&self, datagrams: impl Iterator<Item = Bytes>) {
        let mut outbox = self.outbox();
        let (since, mark) = (Instant::now(), self.lane.mark());
        for datagram in datagrams {
            if outbox.len() < MOST_WAITING {
                outbox.push_back(Waiting { since, mark, datagram });
            }
        }
        drop(outbox);
        self.posted.notify_one();
    }

    /// Bytes of parity that were sent, and bytes of streams that were repaired.
    pub(in crate::tunnel) fn counts(&self) -> (u64, u64) {
        (self.sent.load(Ordering::Relaxed), self.repaired.load(Ordering::Relaxed))
    }

    /// Sends and receives it until the session is over, and says why it is.
    pub(in crate::tunnel) async fn run(&self, connection: &Connection) -> TunnelError {
        tokio::select! {
            error = self.receive(connection) => error,
            error = self.send(connection) => error,
        }
    }

    async fn receive(&self, connection: &Connection) -> TunnelError {
        loop {
            let datagram = match connection.read_datagram().await {
                Ok(datagram) => datagram,
                Err(error) => return error.into(),
            };
            // Of what is not laid out like parity nobody knows what it is; like any datagram it may as well have been lost.
            let Some(part) = Part::decode(datagram, OPENER) else { continue };
            if self.is_wanted {
                self.heard.store(self.began.elapsed().as_millis() as u64 + 1, Ordering::Relaxed);
                self.shelves().put(part);
            }
        }
    }

    async fn send(&self, connection: &Connection) -> TunnelError {
        loop {
            self.posted.notified().await;
            while !self.outbox().is_empty() {
                sleep(PAUSE).await;
                while let Some(datagram) = self.next_due() {
                    let bytes = datagram.len() as u64;
                    match connection.send_datagram(datagram) {
                        Ok(()) => {
                            self.lane.written(bytes);
                            self.sent.fetch_add(bytes, Ordering::Relaxed);
                        }
                        Err(SendDatagramError::ConnectionLost(error)) => return error.into(),
                        // The peer takes no datagrams after all.
                        Err(_) => self.is_understood.store(false, Ordering::Relaxed),
                    }
                }
            }
        }
    }

    /// The next datagram, if it is time for it.
    fn next_due(&self) -> Option<Bytes> {
        let late = self.mending().max(LATE);
        let mut outbox = self.outbox();
        while let Some(waiting) = outbox.front() {
            let age = waiting.since.elapsed();
            if age < PAUSE || (age < late && !self.lane.has_sent(waiting.mark)) {
                return None;
            }
            let waiting = outbox.pop_front()?;
            if age < late {
                return Some(waiting.datagram);
            }
        }
        None
    }

    fn outbox(&self) -> MutexGuard<'_, VecDeque<Waiting>> {
        self.outbox.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shelves(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::block::{REACH, STRIDE, UNIT};
    use super::*;
    use crate::tunnel::turns::Turns;

    fn desk(noise: f64) -> Arc<Parity> {
        let desk = Arc::new(Parity::new(Arc::new(Lane::over_tcp(Arc::new(Turns::over_tcp()))), true));
        desk.understood();
        desk.set_path(noise, &path(0, 0));
        desk
    }

    fn path(lost: u64, times: u64) -> quinn::PathStats {
        let mut path = quinn::PathStats::default();
        (path.rtt, path.lost_packets, path.congestion_events) = (Duration::from_secs(1), lost, times);
        path
    }

    fn cover(desk: &Arc<Parity>) -> Option<Cover> {
        desk.cover(StreamId::from(quinn::VarInt::from_u32(5)))
    }

    /// What waits of a message of so many bytes.
    fn waiting(desk: &Arc<Parity>, bytes: usize) -> Vec<Part> {
        let mut message = cover(desk);
        for piece in vec![7; bytes].chunks(1000) {
            message.take_if(|message| !message.add(piece));
        }
        message.into_iter().for_each(Cover::finish);
        let waiting = std::mem::take(&mut *desk.outbox());
        waiting.into_iter().map(|waiting| Part::decode(waiting.datagram, OPENER).unwrap()).collect()
    }

    #[test]
    fn the_more_is_lost_the_more_parity_there_is() {
        let packets = |noise| waiting(&desk(noise), 90 * STRIDE).len() / 2;
        assert_eq!([0.0, 0.0005, 0.001, 0.01, 0.015, 0.03, 0.5].map(packets), [0, 0, 3, 3, 5, 9, 9]);
        let copies = |noise| waiting(&desk(noise), 100).len();
        assert_eq!([0.001, 0.004, 0.005, 0.5].map(copies), [0, 0, 1, 1]);
    }

    #[test]
    fn bursts_have_none() {
        let desk = desk(0.03);
        assert!(cover(&desk).is_some());
        desk.set_path(0.03, &path(100, 10));
        assert!(cover(&desk).is_none());
    }

    #[test]
    fn a_peer_that_did_not_ask_gets_none() {
        let desk = Arc::new(Parity::new(Arc::new(Lane::over_tcp(Arc::new(Turns::over_tcp()))), true));
        desk.set_path(0.1, &path(0, 0));
        assert!(cover(&desk).is_none());
    }

    #[test]
    fn the_last_block_says_that_it_is_the_last() {
        for (bytes, blocks) in [(1, 1), (700, 1), (2 * UNIT as usize, 2), (2 * UNIT as usize + 1, 3)] {
            let parts = waiting(&desk(0.03), bytes);
            let ends: Vec<_> = parts.iter().filter(|part| part.from == 0).map(|part| part.block).collect();
            assert_eq!(ends.len(), blocks);
            assert!(ends.iter().all(|block| block.is_last == (block.end() == bytes as u64)), "{ends:?}");
        }
    }

    #[test]
    fn bulk_has_none() {
        assert!(!waiting(&desk(0.01), REACH as usize).is_empty());
        assert!(waiting(&desk(0.01), REACH as usize + 1).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_mended_by_then_is_left_out() {
        let desk = desk(0.03);
        let mut message = cover(&desk).unwrap();
        message.add(&vec![7; 5 * UNIT as usize]);
        tokio::time::advance(Duration::from_secs(3)).await;
        message.add(&vec![7; UNIT as usize]);
        message.finish();
        let starts: Vec<_> = desk
            .outbox()
            .iter()
            .map(|waiting| Part::decode(waiting.datagram.clone(), OPENER).unwrap().block.start)
            .collect();
        assert_eq!(starts, [4 * UNIT, 4 * UNIT, 5 * UNIT, 5 * UNIT]);
    }
}
