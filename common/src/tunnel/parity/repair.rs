//! Puts a stream together of what arrived of it and of the parity beside it. No IO.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::block::{Block, REACH, STRIDE, UNIT, UNITS, place};
use super::part::{HALF, Part};
use super::sum::Sum;

/// Pieces that wait for what is before them: of a peer that cuts a stream into crumbs nobody keeps the books.
const MOST_PIECES: usize = 4096;

/// There is more of a stream than parity may be about, or in too many pieces.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TooMuch;

/// One stream as far as it is known.
#[derive(Debug, Default)]
pub(super) struct Repair {
    /// All before this was handed on.
    next: u64,
    /// Of the bytes that arrived, by units.
    sums: BTreeMap<u64, Sum>,
    /// What lies beyond `next`, by offsets; no two overlap.
    held: BTreeMap<u64, Bytes>,
    blocks: Vec<Known>,
    /// Where the stream ends.
    end: Option<u64>,
    repaired: u64,
    /// Whether anything has come since gaps were last looked for.
    is_new: bool,
}

/// A block and what has come of its parity.
#[derive(Debug)]
struct Known {
    block: Block,
    sums: Box<[u8; STRIDE]>,
    /// Whether the first half of them has come, and the second.
    halves: [bool; 2],
}

impl Repair {
    /// The next bytes of the stream have arrived, and are handed on.
    pub(super) fn passed(&mut self, bytes: &[u8]) {
        self.sum_up(self.next, bytes);
        self.go_on(bytes.len() as u64);
    }

    /// How much was handed on.
    pub(super) const fn next(&self) -> u64 {
        self.next
    }

    /// Gaps that were closed, in bytes.
    pub(super) const fn repaired(&self) -> u64 {
        self.repaired
    }

    /// Whether this is parity of something that has not been handed on, or tells that all was.
    pub(super) fn wants(&self, part: &Part) -> bool {
        part.block.end() + u64::from(part.block.is_last) > self.next
    }

    /// Takes in some parity.
    pub(super) fn learn(&mut self, part: &Part) {
        let block = part.block;
        if block.is_last && self.wants(part) {
            self.end.get_or_insert(block.end());
        }
        // No sender's blocks overlap, and who looks for gaps need not look at a byte twice.
        let spoils = |known: &Known| known.block != block && known.block.overlaps(block);
        if block.end() <= self.next || self.blocks.iter().any(spoils) {
            return;
        }
        self.is_new = true;
        let same = |known: &Known| known.block == block;
        if !self.blocks.iter().any(same) {
            self.blocks.push(Known { block, sums: Box::new([0; STRIDE]), halves: [false; 2] });
        }
        let Some(known) = self.blocks.iter_mut().find(|known| same(known)) else { return };
        let places = part.from..part.from + part.sums.len();
        known.sums[places].copy_from_slice(&part.sums);
        known.halves[part.from / HALF] = true;
    }

    /// Whether the whole stream was handed on.
    pub(super) fn is_over(&self) -> bool {
        self.end == Some(self.next)
    }

    /// Takes in bytes from anywhere in the stream; those that are known are passed over.
    pub(super) fn hold(&mut self, offset: u64, bytes: &[u8]) -> Result<(), TooMuch> {
        let end = offset + bytes.len() as u64;
        if end > REACH {
            return Err(TooMuch);
        }
        for gap in self.gaps(offset..end) {
            let piece = &bytes[(gap.start - offset) as usize..(gap.end - offset) as usize];
            self.sum_up(gap.start, piece);
            // Copied: it would keep the whole receive that it came with.
            self.held.insert(gap.start, Bytes::copy_from_slice(piece));
            self.is_new = true;
        }
        if self.held.len() > MOST_PIECES { Err(TooMuch) } else { Ok(()) }
    }

    /// The next bytes to hand on, if they are here.
    pub(super) fn take(&mut self) -> Option<Bytes> {
        let bytes = self.held.remove(&self.next)?;
        self.go_on(bytes.len() as u64);
        Some(bytes)
    }

    /// Closes what gaps can be closed; whether there were any.
    pub(super) fn repair(&mut self) -> bool {
        if !std::mem::take(&mut self.is_new) {
            return false;
        }
        let mut found = Vec::new();
        for known in &self.blocks {
            let gaps = self.gaps(known.block.start..known.block.end());
            if known.gives(&gaps) {
                let sums = self.sums_of(known);
                let byte = |offset| sums[place(offset)];
                found.extend(gaps.into_iter().map(|gap| (gap.start, gap.map(byte).collect::<Vec<_>>())));
            }
        }
        for (offset, bytes) in &found {
            // It lies within a block, and so within reach; that there are too many pieces is said when the next one comes.
            let _ = self.hold(*offset, bytes);
            self.repaired += bytes.len() as u64;
        }
        !found.is_empty()
    }

    /// What of a block's sums its missing bytes must be.
    fn sums_of(&self, known: &Known) -> [u8; STRIDE] {
        let mut sums = *known.sums;
        let units = known.block.start / UNIT..known.block.end().div_ceil(UNIT);
        for (_, arrived) in self.sums.range(units) {
            for (sum, arrived) in sums.iter_mut().zip(arrived.bytes()) {
                *sum ^= arrived;
            }
        }
        sums
    }

    /// The parts of this range that are not known.
    fn gaps(&self, range: Range<u64>) -> Vec<Range<u64>> {
        let mut gaps = Vec::new();
        let mut at = range.start.max(self.next);
        // The last piece that begins before the range may reach into it.
        let before = self.held.range(..=at).next_back().map(|(start, bytes)| start + bytes.len() as u64);
        at = at.max(before.unwrap_or(0));
        for (&start, bytes) in self.held.range(at..range.end.max(at)) {
            if start > at {
                gaps.push(at..start);
            }
            at = start + bytes.len() as u64;
        }
        if at < range.end {
            gaps.push(at..range.end);
        }
        gaps
    }

    fn sum_up(&mut self, mut offset: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let unit = offset / UNIT;
            let (piece, rest) = bytes.split_at(bytes.len().min(((unit + 1) * UNIT - offset) as usize));
            self.sums.entry(unit).or_insert_with(Sum::new).add(offset, piece);
            (offset, bytes) = (offset + piece.len() as u64, rest);
        }
    }

    fn go_on(&mut self, by: u64) {
        let before = self.next / UNIT;
        self.next += by;
        self.blocks.retain(|known| known.block.end() > self.next);
        // Of a block that is not over, the first unit may have been over for as long as the others take.
        let needed = (self.next / UNIT).saturating_sub(UNITS - 1);
        if before != self.next / UNIT {
            self.sums = self.sums.split_off(&needed);
        }
    }
}

impl Known {
    /// Whether these gaps, and no others, can be closed: each place is known and missing once at most.
    fn gives(&self, gaps: &[Range<u64>]) -> bool {
        if gaps.is_empty() || gaps.iter().map(|gap| gap.end - gap.start).sum::<u64>() > STRIDE as u64 {
            return false;
        }
        let mut missing = [false; STRIDE];
        gaps.iter().cloned().flatten().all(|offset| {
            let place = place(offset);
            self.halves[place / HALF] && !std::mem::replace(&mut missing[place], true)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// The parity of all of a stream, in blocks of so many units.
    fn parity(stream: &[u8], units: u64) -> Vec<Part> {
        let mut parts = Vec::new();
        let length = (units * UNIT) as usize;
        for (index, bytes) in stream.chunks(length).enumerate() {
            let start = index * length;
            let mut sum = Sum::new();
            sum.add(start as u64, bytes);
            let is_last = start + bytes.len() == stream.len();
            let block = Block { start: start as u64, length: bytes.len() as u64, is_last };
            parts.extend(Part::of(1, block, sum.bytes()));
        }
        parts
    }

    fn stream(length: usize) -> Vec<u8> {
        let mut state = 1_u32;
        let mut byte = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| byte()).collect()
    }

    fn taken(repair: &mut Repair) -> Vec<u8> {
        std::iter::from_fn(|| repair.take()).flatten().collect()
    }

    proptest! {
        #[test]
        fn whatever_the_order_and_the_losses_nothing_wrong_comes_out_and_one_loss_is_repaired(
            length in 1_usize..100_000,
            units in 1..=UNITS,
            packet_size in 200_usize..=STRIDE,
            in_order in 0_usize..30,
            shuffled in any::<prop::sample::Index>(),
            lost in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            first in any::<bool>(),
        ) {
            let bytes = stream(length);
            let parts = parity(&bytes, units);
            let packet = |at: usize| (at as u64, &bytes[at..length.min(at + packet_size)]);
            let packets: Vec<_> = (0..length).step_by(packet_size).map(packet).collect();
            let lost: BTreeSet<_> = lost.iter().map(|lost| lost.index(packets.len())).collect();
            let mut repair = Repair::default();
            let mut out = Vec::new();
            let in_order = in_order.min(*lost.first().unwrap_or(&packets.len()));
            for (_, packet) in &packets[..in_order] {
                repair.passed(packet);
                out.extend_from_slice(packet);
            }
            if first {
                parts.iter().for_each(|part| repair.learn(part));
            }
            let mut rest: Vec<_> = (in_order..packets.len()).filter(|i| !lost.contains(i)).collect();
            if !rest.is_empty() {
                let by = shuffled.index(rest.len());
                rest.rotate_left(by);
            }
            for i in rest {
                repair.hold(packets[i].0, packets[i].1).unwrap();
                repair.repair();
                out.extend(taken(&mut repair));
            }
            parts.iter().for_each(|part| repair.learn(part));
            repair.repair();
            out.extend(taken(&mut repair));
            prop_assert_eq!(&out[..], &bytes[..out.len()]);
            // What no two losses of a block hide is whole.
            let block = |i: usize| packets[i].0 / (units * UNIT)..=(packets[i].0 + packets[i].1.len() as u64 - 1) / (units * UNIT);
            let hidden = lost.iter().any(|&one| lost.iter().any(|&two| one < two && block(one).end() >= block(two).start()));
            if !hidden {
                prop_assert_eq!(out.len(), length);
                prop_assert!(repair.is_over());
            }
            // What is sent again completes the rest.
            for &i in &lost {
                repair.hold(packets[i].0, packets[i].1).unwrap();
                repair.repair();
                out.extend(taken(&mut repair));
            }
            prop_assert_eq!(out, bytes);
            prop_assert!(repair.is_over());
        }
    }
}
