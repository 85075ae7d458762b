//! HTTP/3 frames (RFC 9114, section 7) without IO: bytes are fed in, pieces are taken out.
//!
//! A request stream is HEADERS, then DATA as often as needed, then at most one more HEADERS with trailers. Data are handed
//! on as they arrive, without waiting for a frame's end and without copying; a field section is small by decree and handed
//! on whole.

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{ResetCode, TunnelError};
use super::received::{PACKETS, Received};

/// A frame's kind as it stands on the wire.
pub(super) mod kind {
    pub(in crate::tunnel) const DATA: u64 = 0x0;
    pub(in crate::tunnel) const HEADERS: u64 = 0x1;
    pub(in crate::tunnel) const CANCEL_PUSH: u64 = 0x3;
    pub(in crate::tunnel) const SETTINGS: u64 = 0x4;
    pub(in crate::tunnel) const PUSH_PROMISE: u64 = 0x5;
    pub(in crate::tunnel) const GOAWAY: u64 = 0x7;
    pub(in crate::tunnel) const MAX_PUSH_ID: u64 = 0xd;
    /// Ours, on control streams: what this end sends is limited by somebody on the way.
    pub(in crate::tunnel) const LIMITED: u64 = 0x41e;
    /// One of those that mean nothing, and that everybody skips (RFC 9114, section 7.2.8).
    pub(in crate::tunnel) const RESERVED: u64 = 0x21;
}

/// The longest a frame's header can be: two variable-length integers.
pub(super) const MAX_HEADER: usize = 16;

/// Appends a QUIC variable-length integer (RFC 9000, section 16); `value` is below 2^62.
pub(super) fn put_varint(value: u64, out: &mut impl BufMut) {
    match value {
        0..0x40 => out.put_u8(value as u8),
        0x40..0x4000 => out.put_u16(0x4000 | value as u16),
        0x4000..0x4000_0000 => out.put_u32(0x8000_0000 | value as u32),
        _ => out.put_u64(0xc000_0000_0000_0000 | value),
    }
}

/// The variable-length integer at the start of `bytes` and its length, `None` if it is not there whole.
pub(super) fn get_varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let length = 1_usize << (bytes.first()? >> 6);
    let mut whole = [0; 8];
    whole[8 - length..].copy_from_slice(bytes.get(..length)?);
    // The first two bits are the length's own.
    Some((u64::from_be_bytes(whole) & (u64::MAX >> (66 - 8 * length)), length))
}

/// Appends a frame's header.
pub(super) fn put_header(kind: u64, length: u64, out: &mut impl BufMut) {
    put_varint(kind, out);
    put_varint(length, out);
}

/// Appends a HEADERS frame whose section `encode` writes.
pub(super) fn put_section(out: &mut BytesMut, encode: impl FnOnce(&mut BytesMut)) {
    // The section's length is known once it is written, so room is left before it for a header of fixed length: integers of
    // 30 bits may be written in four bytes however small they are.
    out.put_u8(kind::HEADERS as u8);
    let length_at = out.len();
    out.put_u32(0);
    encode(out);
    let length = (out.len() - length_at - 4) as u32;
    out[length_at..length_at + 4].copy_from_slice(&(0x8000_0000 | length).to_be_bytes());
}

/// The header of a DATA frame, to be written before its bytes.
pub(super) fn data_header(length: usize) -> Bytes {
    let mut out = BytesMut::with_capacity(MAX_HEADER);
    put_header(kind::DATA, length as u64, &mut out);
    out.freeze()
}

/// What a reader hands on.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A whole field section: the head, or the trailers.
    Section(Bytes),
    /// Some of the body.
    Data(Bytes),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a frame's header.
    Header,
    /// Within a field section of this length.
    Section(usize),
    /// Within a DATA frame of which this much is left.
    Data(u64),
    /// Within a frame of an unknown kind, which is to be passed over (RFC 9114, section 9).
    Skip(u64),
}

/// Which frames may come next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Expect {
    Head,
    Body,
    Nothing,
}

/// Takes a request stream's frames apart.
#[derive(Debug)]
pub(super) struct FrameReader {
    received: Received,
    state: State,
    expect: Expect,
    max_section: usize,
    /// Responses may begin with heads of 1xx; whoever reads them says so by [`FrameReader::expect_another_head`].
    skipped: u64,
}

/// Bytes of unknown frames that a stream may carry: greasing is a few bytes, more is an attack on our time.
const MAX_SKIPPED: u64 = 64 << 10;

impl FrameReader {
    /// A reader of a stream whose field sections are at most `max_section` bytes long.
    pub(super) fn new(max_section: usize) -> Self {
        Self { received: Received::default(), state: State::Header, expect: Expect::Head, max_section, skipped: 0 }
    }

    /// How long a field section may be.
    pub(super) const fn max_section(&self) -> usize {
        self.max_section
    }

    /// Whether the next bytes are best kept in their packets, in [`FrameReader::packets`], or copied into a block, by
    /// [`FrameReader::block`].
    pub(super) fn keeps_packets(&self) -> bool {
        // More than this and a block is worth its copy; less fits into two packets.
        const BULK: u64 = 2 << 10;
        self.received.is_empty() && !matches!(self.state, State::Data(left) if left > BULK)
    }

    /// Where received packets are to be put, the first one first; only when [`FrameReader::keeps_packets`].
    pub(super) fn packets(&mut self) -> &mut [Bytes; PACKETS] {
        self.received.packets()
    }

    /// The block that received bytes are to be appended to, with room for the next read. What is left of the last one is used
    /// up first: pieces handed on share their block, so a block for each read would be mostly air.
    pub(super) fn block(&mut self) -> &mut BytesMut {
        const HEAD: usize = 2 << 10;
        const BULK: usize = 64 << 10;
        // Two packets: less would cut reads short.
        const ENOUGH: usize = 3 << 10;
        self.received.gather();
        let here = self.received.len();
        let (wanted, enough) = match self.state {
            State::Section(length) => {
                let missing = length.saturating_sub(here);
                (missing.max(HEAD), missing)
            }
            State::Data(left) => {
                let left = usize::try_from(left).unwrap_or(BULK).saturating_add(MAX_HEADER);
                (left.clamp(HEAD, BULK), left.min(ENOUGH))
            }
            // Most often all that follows is the stream's end.
            State::Header if self.expect != Expect::Head => (HEAD, MAX_HEADER),
            State::Header | State::Skip(_) => (HEAD, HEAD),
        };
        let block = self.received.block();
        if block.capacity() - block.len() < enough {
            block.reserve(wanted);
        }
        block
    }

    /// After a head of 1xx: the real one is still to come.
    pub(super) const fn expect_another_head(&mut self) {
        self.expect = Expect::Head;
    }

    /// The next piece, `None` until more bytes are fed in.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, TunnelError> {
        loop {
            match self.state {
                State::Header => {
                    let Some((kind, length, header)) = parse_header(self.received.front()) else {
                        if self.gathers(MAX_HEADER) {
                            continue;
                        }
                        return Ok(None);
                    };
                    self.received.skip(header);
                    self.state = self.enter(kind, length)?;
                }
                State::Section(length) => {
                    if self.received.front().len() < length {
                        if self.gathers(length) {
                            continue;
                        }
                        return Ok(None);
                    }
                    self.state = State::Header;
                    return Ok(Some(Piece::Section(self.received.take(length))));
                }
                State::Data(0) | State::Skip(0) => self.state = State::Header,
                State::Data(left) => {
                    let here = self.here(left);
                    if here == 0 {
                        return Ok(None);
                    }
                    self.state = State::Data(left - here as u64);
                    return Ok(Some(Piece::Data(self.received.take(here))));
                }
                State::Skip(left) => {
                    let here = self.here(left);
                    if here == 0 {
                        return Ok(None);
                    }
                    self.received.skip(here);
                    self.state = State::Skip(left - here as u64);
                }
            }
        }
    }

    /// Puts what there is together if something of these `wanted` bytes lies behind the front; false if it does not.
    fn gathers(&mut self, wanted: usize) -> bool {
        let front = self.received.front().len();
        let behind = front < wanted && front < self.received.len();
        if behind {
            self.received.gather();
        }
        behind
    }

    fn here(&self, left: u64) -> usize {
        usize::try_from(left).unwrap_or(usize::MAX).min(self.received.front().len())
    }

    /// Whether the stream may end here, with the head read.
    pub(super) fn may_end(&self) -> bool {
        let between = matches!(self.state, State::Header | State::Data(0) | State::Skip(0)) && self.received.is_empty();
        between && self.expect != Expect::Head
    }

    fn enter(&mut self, kind: u64, length: u64) -> Result<State, TunnelError> {
        match (kind, self.expect) {
            (kind::HEADERS, Expect::Head | Expect::Body) => {
                let section = usize::try_from(length).ok().filter(|length| *length <= self.max_section);
                let length = section
                    .ok_or(TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "a field section over the limit"))?;
                self.expect = if self.expect == Expect::Head { Expect::Body } else { Expect::Nothing };
                Ok(State::Section(length))
            }
            (kind::DATA, Expect::Body) => Ok(State::Data(length)),
            (
                kind::DATA
                | kind::HEADERS
                | kind::CANCEL_PUSH
                | kind::SETTINGS
                | kind::PUSH_PROMISE
                | kind::GOAWAY
                | kind::MAX_PUSH_ID,
                _,
            ) => Err(TunnelError::protocol(ResetCode::FRAME_UNEXPECTED, "a frame where it may not be")),
            // The kinds that HTTP/2 had and HTTP/3 gave up (RFC 9114, section 7.2.8).
            (0x2 | 0x6 | 0x8 | 0x9, _) => Err(TunnelError::protocol(ResetCode::FRAME_UNEXPECTED, "a frame of HTTP/2")),
            _ => {
                self.skipped = self.skipped.saturating_add(length);
                if self.skipped > MAX_SKIPPED {
                    return Err(TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "too much in unknown frames"));
                }
                Ok(State::Skip(length))
            }
        }
    }
}

/// A frame's kind, its length, and how long its header is; `None` if it is not there whole.
pub(super) fn parse_header(bytes: &[u8]) -> Option<(u64, u64, usize)> {
    let (kind, first) = get_varint(bytes)?;
    let (length, second) = get_varint(&bytes[first..])?;
    Some((kind, length, first + second))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader {
        let mut reader = FrameReader::new(1 << 10);
        reader.block().extend_from_slice(bytes);
        reader
    }

    fn message(section: &[u8], bodies: &[Vec<u8>], trailers: Option<&[u8]>) -> Vec<u8> {
        let mut out = Vec::new();
        put_header(0x21, 3, &mut out);
        out.extend_from_slice(b"any");
        put_header(kind::HEADERS, section.len() as u64, &mut out);
        out.extend_from_slice(section);
        for body in bodies {
            out.extend_from_slice(&data_header(body.len()));
            out.extend_from_slice(body);
        }
        if let Some(trailers) = trailers {
            put_header(kind::HEADERS, trailers.len() as u64, &mut out);
            out.extend_from_slice(trailers);
        }
        out
    }

    proptest! {
        #[test]
        fn varints_are_read_back(value in 0_u64..1 << 62, shift in 0_u32..62) {
            let value = value >> shift;
            let mut out = Vec::new();
            put_varint(value, &mut out);
            prop_assert_eq!(get_varint(&out), Some((value, out.len())));
            prop_assert_eq!(get_varint(&out[..out.len() - 1]), None);
        }

        #[test]
        fn a_message_survives_any_cut(
            section in prop::collection::vec(any::<u8>(), 0..100),
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..4),
            trailers in prop::option::of(prop::collection::vec(any::<u8>(), 0..50)),
            step in 1_usize..64,
            packets in any::<bool>(),
        ) {
            let bytes = message(&section, &bodies, trailers.as_deref());
            let mut reader = FrameReader::new(1 << 10);
            let (mut sections, mut data) = (Vec::new(), Vec::new());
            for chunk in bytes.chunks(step) {
                if packets && reader.keeps_packets() {
                    let (one, two) = chunk.split_at(chunk.len() / 2);
                    *reader.packets() = [Bytes::copy_from_slice(one), Bytes::copy_from_slice(two)];
                } else {
                    reader.block().extend_from_slice(chunk);
                }
                while let Some(piece) = reader.next().unwrap() {
                    match piece {
                        Piece::Section(section) => sections.push(section.to_vec()),
                        Piece::Data(some) => { prop_assert!(!some.is_empty()); data.extend_from_slice(&some) }
                    }
                }
            }
            prop_assert!(reader.may_end());
            prop_assert_eq!(&sections[0], &section);
            prop_assert_eq!(sections.get(1), trailers.as_ref());
            prop_assert_eq!(data, bodies.concat());
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let mut reader = reader(&bytes);
            let mut handed = 0;
            while let Ok(Some(piece)) = reader.next() {
                handed += match piece { Piece::Section(bytes) | Piece::Data(bytes) => bytes.len() };
            }
            prop_assert!(handed <= bytes.len());
            prop_assert!(reader.block().capacity() <= bytes.len() + (64 << 10) + MAX_HEADER);
        }
    }

    #[test]
    fn the_limits_hold_before_anything_is_stored() {
        let mut huge = Vec::new();
        put_header(kind::HEADERS, 1 << 40, &mut huge);
        assert!(matches!(reader(&huge).next(), Err(TunnelError::Protocol { code: ResetCode::EXCESSIVE_LOAD, .. })));
        let mut grease = Vec::new();
        put_header(0x21, 1 << 40, &mut grease);
        assert!(matches!(reader(&grease).next(), Err(TunnelError::Protocol { code: ResetCode::EXCESSIVE_LOAD, .. })));
    }

    #[test]
    fn frames_out_of_order_are_refused() {
        for first in [kind::DATA, kind::SETTINGS, kind::GOAWAY, kind::PUSH_PROMISE, 0x6] {
            let mut bytes = Vec::new();
            put_header(first, 0, &mut bytes);
            assert!(reader(&bytes).next().is_err(), "{first}");
        }
        let mut after = message(b"head", &[], Some(b"trailers"));
        after.extend_from_slice(&data_header(0));
        let mut reader = reader(&after);
        assert!(reader.next().is_ok() && reader.next().is_ok());
        assert!(reader.next().is_err(), "data after trailers");
    }

    #[test]
    fn a_stream_may_not_end_within_a_frame() {
        let whole = message(b"head", &[b"body".to_vec()], None);
        let mut reader = reader(&whole[..whole.len() - 1]);
        while reader.next().unwrap().is_some() {}
        assert!(!reader.may_end());
        assert!(!FrameReader::new(10).may_end(), "nor before the head");
    }
}
