//! Half of a block's parity, as a datagram carries it. `docs/tunnel.md` has it byte by byte.

use bytes::{BufMut, Bytes, BytesMut};

use super::block::{Block, REACH, STRIDE, UNIT, UNITS};
use crate::tunnel::frame::{get_varint, put_varint};

/// Where the second half begins: each fits into the smallest datagram that QUIC allows.
pub(super) const HALF: usize = STRIDE / 2;

const LAST: u8 = 1;
const SECOND: u8 = 2;

/// Its header at most: two small integers and a byte, after a stream's id.
const MAX_HEADER: usize = 8 + 2 + 4 + 1;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    /// The stream's id. Both directions of it have parity of their own; a datagram is about the one that it travels itself.
    pub(super) stream: u64,
    pub(super) block: Block,
    /// The first of its sums.
    pub(super) from: usize,
    pub(super) sums: Bytes,
}

impl Part {
    /// The parts of a block's parity.
    pub(super) fn of(stream: u64, block: Block, sums: &[u8; STRIDE]) -> impl Iterator<Item = Self> {
        let sums = &sums[..block.sums()];
        let parts = sums.chunks(HALF).enumerate();
        parts.map(move |(half, sums)| Self { stream, block, from: half * HALF, sums: Bytes::copy_from_slice(sums) })
    }

    pub(super) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(MAX_HEADER + self.sums.len());
        // Four ids tell one request's stream from the next (RFC 9297, section 2.1).
        put_varint(self.stream / 4, &mut out);
        put_varint(self.block.start / UNIT, &mut out);
        put_varint(self.block.length, &mut out);
        let (last, second) = (u8::from(self.block.is_last) * LAST, u8::from(self.from > 0) * SECOND);
        out.put_u8(last | second);
        out.extend_from_slice(&self.sums);
        out.freeze()
    }

    /// `None` for what is not laid out like a part. All request streams are opened by one end, so that the two bits of an id that do
    /// not travel are those of `opener`.
    pub(super) fn decode(mut datagram: Bytes, opener: u64) -> Option<Self> {
        let mut next = || {
            let (value, length) = get_varint(&datagram)?;
            let _ = datagram.split_to(length);
            Some(value)
        };
        let (quarter, unit, length) = (next()?, next()?, next()?);
        let flags = *datagram.first()?;
        // Copied, for it may wait: it would keep the whole receive that it came with.
        let sums = Bytes::copy_from_slice(&datagram[1..]);
        let is_within = unit <= REACH / UNIT && (1..=UNITS * UNIT).contains(&length) && unit * UNIT + length <= REACH;
        if !is_within || quarter >= 1 << 60 || flags & !(LAST | SECOND) != 0 {
            return None;
        }
        let block = Block { start: unit * UNIT, length, is_last: flags & LAST != 0 };
        let from = if flags & SECOND != 0 { HALF } else { 0 };
        let whole = block.sums().checked_sub(from).map(|left| left.min(HALF));
        (whole == Some(sums.len()) && !sums.is_empty()).then_some(Self {
            stream: quarter * 4 + opener,
            block,
            from,
            sums,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn parts_are_read_back(quarter in 0..1_u64 << 60, unit in 0..=REACH / UNIT, length in 1..=UNITS * UNIT, is_last: bool) {
            let start = unit * UNIT;
            let block = Block { start, length: length.min(REACH - start), is_last };
            let sums = std::array::from_fn(|place| place as u8);
            let mut found = Vec::new();
            for part in Part::of(quarter * 4 + 1, block, &sums) {
                let datagram = part.encode();
                prop_assert!(datagram.len() <= 1100, "QUIC's smallest packets have room for it");
                prop_assert_eq!(Part::decode(datagram.slice(..datagram.len() - 1), 1), None);
                prop_assert_eq!(Part::decode(datagram, 1), Some(part.clone()));
                prop_assert_eq!(part.from, found.len());
                found.extend_from_slice(&part.sums);
            }
            prop_assert_eq!(&found[..], &sums[..block.sums()]);
        }

        #[test]
        fn what_goes_beyond_reach_is_none(length in 1..=UNITS * UNIT) {
            let start = REACH / UNIT * UNIT;
            let block = Block { start, length, is_last: false };
            let part = Part::of(1, block, &[0; STRIDE]).next().unwrap();
            prop_assert_eq!(Part::decode(part.encode(), 1).is_some(), block.end() <= REACH);
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _ = Part::decode(bytes.into(), 1);
        }
    }
}
