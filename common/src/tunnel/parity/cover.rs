//! Sums up what a message sends.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use tokio::time::Instant;

use super::block::{Block, REACH, UNIT};
use super::desk::Parity;
use super::part::Part;
use super::sum::Sum;

/// The sums of one message's stream, as far as it has been written.
#[derive(Debug)]
pub(in crate::tunnel) struct Cover {
    desk: Arc<Parity>,
    stream: u64,
    /// How long a block is meant to be, in bytes.
    block: u64,
    start: u64,
    at: u64,
    sum: Sum,
    /// Datagrams of the blocks before this one, and since when.
    full: VecDeque<(Instant, Bytes)>,
}

impl Cover {
    /// Of a stream of which nothing has been written yet, in blocks of so many units.
    pub(super) fn new(desk: Arc<Parity>, stream: u64, units: u64) -> Self {
        Self { desk, stream, block: units * UNIT, start: 0, at: 0, sum: Sum::new(), full: VecDeque::new() }
    }

    /// These bytes are written next. False once the stream is too long for parity.
    pub(in crate::tunnel) fn add(&mut self, mut bytes: &[u8]) -> bool {
        while !bytes.is_empty() {
            // Only when there is more: the last block says that it is the last.
            if self.at == self.start + self.block {
                self.close(false);
            }
            let (piece, rest) = bytes.split_at(bytes.len().min((self.start + self.block - self.at) as usize));
            self.sum.add(self.at, piece);
            self.at += piece.len() as u64;
            bytes = rest;
        }
        self.at <= REACH
    }

    /// All was written, and may be repaired from now on.
    pub(in crate::tunnel) fn finish(mut self) {
        if self.at < UNIT && !self.desk.covers_short() {
            return;
        }
        self.close(true);
        let Self { desk, full, .. } = self;
        desk.post(full.into_iter().map(|(_, datagram)| datagram));
    }

    fn close(&mut self, is_last: bool) {
        let (now, length) = (Instant::now(), self.at - self.start);
        let mended = |(since, _): &(Instant, Bytes)| now.saturating_duration_since(*since) > self.desk.mending();
        while self.full.front().is_some_and(mended) {
            self.full.pop_front();
        }
        if length > 0 {
            let block = Block { start: self.start, length, is_last };
            self.full.extend(Part::of(self.stream, block, self.sum.bytes()).map(|part| (now, part.encode())));
        }
        (self.start, self.sum) = (self.at, Sum::new());
    }
}
