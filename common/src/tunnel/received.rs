//! Bytes of a stream that have been received and not yet been taken out. No IO.
//!
//! They come in one of two ways. What a packet brought is kept as it lies in the packet, neither copied nor allocated for: a
//! small message is one packet, and costs next to nothing. Bulk is copied into blocks of 64 KiB, because pieces as small as
//! packets would cost whoever handles them more than the copy does. A kept packet keeps the whole receive of the socket that
//! it came with, at most 64 KiB of packets that mostly belong to the same bodies.

use bytes::{Buf, Bytes, BytesMut};

/// How many packets are kept as they are: one, and one more so that a reader sees the stream's end in the same go.
pub(super) const PACKETS: usize = 2;

/// The bytes, in order: those of the packets, then those of the block.
#[derive(Debug, Default)]
pub(super) struct Received {
    packets: [Bytes; PACKETS],
    block: BytesMut,
}

impl Received {
    /// How many bytes there are.
    pub(super) fn len(&self) -> usize {
        self.packets.iter().map(Bytes::len).sum::<usize>() + self.block.len()
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.front().is_empty()
    }

    /// The first bytes, as many as lie together; empty only if there are none at all.
    pub(super) fn front(&self) -> &[u8] {
        match self.packets.iter().find(|packet| !packet.is_empty()) {
            Some(packet) => packet,
            None => &self.block,
        }
    }

    /// Takes the first `count` bytes, which must lie within the front.
    pub(super) fn take(&mut self, count: usize) -> Bytes {
        match self.packets.iter_mut().find(|packet| !packet.is_empty()) {
            Some(packet) if packet.len() == count => std::mem::take(packet),
            Some(packet) => packet.split_to(count),
            None => self.block.split_to(count).freeze(),
        }
    }

    /// Passes over the first `count` bytes, which must lie within the front.
    pub(super) fn skip(&mut self, count: usize) {
        match self.packets.iter_mut().find(|packet| !packet.is_empty()) {
            Some(packet) => packet.advance(count),
            None => self.block.advance(count),
        }
    }

    /// Where packets are put to be kept as they are; nothing else may be there.
    pub(super) fn packets(&mut self) -> &mut [Bytes; PACKETS] {
        debug_assert!(self.is_empty(), "their place would be taken");
        &mut self.packets
    }

    /// Puts all bytes together, so that the front is all of them.
    pub(super) fn gather(&mut self) {
        if self.packets.iter().all(Bytes::is_empty) {
            return;
        }
        let mut together = BytesMut::with_capacity(self.len());
        for packet in &mut self.packets {
            together.extend_from_slice(&std::mem::take(packet));
        }
        together.extend_from_slice(&self.block);
        self.block = together;
    }

    /// The block, to append to: all that is there must be in it.
    pub(super) const fn block(&mut self) -> &mut BytesMut {
        &mut self.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packets(one: &'static [u8], two: &'static [u8]) -> Received {
        let mut received = Received::default();
        *received.packets() = [Bytes::from_static(one), Bytes::from_static(two)];
        received
    }

    #[test]
    fn bytes_come_out_in_order_whichever_way_they_came() {
        let mut received = packets(b"abc", b"de");
        received.block().extend_from_slice(b"fg");
        assert_eq!((received.len(), received.front()), (7, &b"abc"[..]));
        assert_eq!(received.take(1), "a");
        received.skip(1);
        assert_eq!(received.take(1), "c");
        assert_eq!(received.take(2), "de");
        assert_eq!((received.take(1), received.len()), (Bytes::from_static(b"f"), 1));
        received.skip(1);
        assert!(received.is_empty());
    }

    #[test]
    fn gathered_bytes_lie_together() {
        let mut received = packets(b"abc", b"de");
        received.skip(1);
        received.gather();
        assert_eq!(received.front(), b"bcde");
        received.block().extend_from_slice(b"f");
        received.gather();
        assert_eq!(received.take(5), "bcdef");
        assert!(received.is_empty());
    }
}
