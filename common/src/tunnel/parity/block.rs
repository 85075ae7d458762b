//! How a stream is cut into blocks.

/// How many sums a block has: no packet carries more of a stream. A datagram of 1,452 bytes, which is the most that is probed for,
/// less 1 + 1 of its header, 16 of its tag and 2 of a frame's.
pub(super) const STRIDE: usize = 1432;

/// Blocks begin at multiples of so many packets' bytes of a stream.
pub(super) const UNIT: u64 = PACKETS * STRIDE as u64;

/// So many of them.
pub(super) const PACKETS: u64 = 10;

/// A block has at most so many units.
pub(super) const UNITS: u64 = 3;

/// Streams that are longer are bulk, which a round trip more does not hurt; a reader of those that are not keeps no more than this out of order.
pub(super) const REACH: u64 = 9 << 17;

/// Bytes of a stream that are summed up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    /// Where it begins, a multiple of [`UNIT`].
    pub(super) start: u64,
    /// At least 1, at most [`UNITS`] units.
    pub(super) length: u64,
    /// Whether the stream ends with it.
    pub(super) is_last: bool,
}

impl Block {
    pub(super) const fn end(self) -> u64 {
        self.start + self.length
    }

    pub(super) const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// How many sums it has: a short block has one for each byte.
    pub(super) fn sums(self) -> usize {
        (self.length as usize).min(STRIDE)
    }
}

/// Where a stream's byte is summed up.
pub(super) const fn place(offset: u64) -> usize {
    (offset % STRIDE as u64) as usize
}
