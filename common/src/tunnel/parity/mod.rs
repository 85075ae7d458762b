//! One packet's worth of parity beside every block of a message, so that a single loss is repaired without a round trip.
//!
//! A path that loses packets at random makes a request of a hundred packets wait for a second round trip nearly every time, whatever
//! decides how much may be under way. So where the path is known to do that, the sender sums up what a message's stream carries:
//! byte `i` of a block of a few dozen packets into place `i mod STRIDE`, by exclusive or. One packet leaves a gap that meets each place
//! once at most, so that the sum and all other bytes of the block give it back.
//!
//! The walk: [`cover`] sums up what a message sends and cuts the sum of each block into [`part`]s; [`desk`], one for each session, sends them
//! as datagrams once what they are about has left, and puts those of the peer on [`shelves`] for whoever reads the stream by a [`watch`], whose
//! [`repair`] puts the stream together. Streams are as they would be without: parity is only beside them, and none of it is sent again.
//!
//! A message is of use when all of it is there, so its parity goes when its last byte has gone; of what was sent two round trips before
//! that losses have been mended by then.

mod cover;
mod desk;
mod losses;
mod part;
mod repair;
mod shelves;
mod sum;
mod watch;

pub(super) use cover::Cover;
pub(super) use desk::Parity;
pub(super) use watch::Watch;

/// How many sums a block has: no packet carries more of a stream. A datagram of 1,452 bytes, which is the most that is probed for,
/// less 1 + 1 of its header, 16 of its tag and 2 of a frame's.
const STRIDE: usize = 1432;

/// Blocks begin at multiples of so many packets' bytes of a stream.
const UNIT: u64 = PACKETS * STRIDE as u64;
const PACKETS: u64 = 10;

/// A block has at most so many units.
const UNITS: u64 = 3;

/// Streams that are longer are bulk, which a round trip more does not hurt; a reader of those that are not keeps no more than this out of order.
const REACH: u64 = 9 << 17;

/// Bytes of a stream that are summed up together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Block {
    /// Where it begins, a multiple of [`UNIT`].
    start: u64,
    /// At least 1, at most [`UNITS`] units.
    length: u64,
    /// Whether the stream ends with it.
    is_last: bool,
}

impl Block {
    const fn end(self) -> u64 {
        self.start + self.length
    }

    const fn overlaps(self, other: Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// How many sums it has: a short block has one for each byte.
    fn sums(self) -> usize {
        (self.length as usize).min(STRIDE)
    }
}

/// Where a stream's byte is summed up.
const fn place(offset: u64) -> usize {
    (offset % STRIDE as u64) as usize
}
