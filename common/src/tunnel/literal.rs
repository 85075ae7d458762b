//! The integers and strings that field sections are made of (RFC 7541, section 5, as RFC 9204 uses them), without IO.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::error::{ResetCode, TunnelError};
use super::huffman;

/// A section that cannot be read.
pub(super) const fn unreadable(what: &'static str) -> TunnelError {
    TunnelError::protocol(ResetCode::QPACK_DECOMPRESSION_FAILED, what)
}

pub(super) fn put_string(value: &[u8], out: &mut BytesMut) {
    put_integer(0x00, 7, value.len() as u64, out);
    out.put_slice(value);
}

/// An integer with a prefix of `bits` bits under the pattern `first` (RFC 7541, section 5.1).
pub(super) fn put_integer(first: u8, bits: u32, value: u64, out: &mut BytesMut) {
    let limit = (1_u64 << bits) - 1;
    if value < limit {
        out.put_u8(first | value as u8);
        return;
    }
    out.put_u8(first | limit as u8);
    let mut rest = value - limit;
    while rest >= 0x80 {
        out.put_u8(0x80 | rest as u8);
        rest >>= 7;
    }
    out.put_u8(rest as u8);
}

/// A walk over a section's bytes.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    section: &'a Bytes,
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(super) const fn new(section: &'a Bytes) -> Self {
        Self { section, at: 0 }
    }

    /// The next byte, left where it is; `None` at the end.
    pub(super) fn first(&self) -> Option<u8> {
        self.section.get(self.at).copied()
    }

    fn byte(&mut self) -> Result<u8, TunnelError> {
        let byte =
            self.section.get(self.at).copied().ok_or_else(|| unreadable("a section that ends within a field"))?;
        self.at += 1;
        Ok(byte)
    }

    /// An integer with a prefix of `bits` bits.
    pub(super) fn integer(&mut self, bits: u32) -> Result<u64, TunnelError> {
        let limit = (1_u64 << bits) - 1;
        let mut value = u64::from(self.byte()?) & limit;
        if value < limit {
            return Ok(value);
        }
        // Nothing in a section is longer than the section; four more bytes reach 2^28.
        for shift in [0, 7, 14, 21] {
            let byte = self.byte()?;
            value += u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(unreadable("an integer over the limit"))
    }

    /// A string whose length has a prefix of `bits` bits, below the bit that says whether it is Huffman-coded.
    pub(super) fn text(&mut self, bits: u32, max: usize) -> Result<Cow<'a, [u8]>, TunnelError> {
        let (place, coded) = self.string(bits)?;
        let raw = &self.section[place];
        if coded { Ok(Cow::Owned(plain(raw, max)?)) } else { Ok(Cow::Borrowed(raw)) }
    }

    /// As [`Cursor::text`], but a slice of the section that may outlive it.
    pub(super) fn value(&mut self, bits: u32, max: usize) -> Result<Bytes, TunnelError> {
        let (place, coded) = self.string(bits)?;
        if coded { Ok(plain(&self.section[place], max)?.into()) } else { Ok(self.section.slice(place)) }
    }

    /// Where in the section a string's bytes are, and whether they are Huffman-coded.
    fn string(&mut self, bits: u32) -> Result<(Range<usize>, bool), TunnelError> {
        let coded = self.section.get(self.at).is_some_and(|first| first & (1 << bits) != 0);
        let length = usize::try_from(self.integer(bits)?).unwrap_or(usize::MAX);
        let end = self.at.checked_add(length).filter(|end| *end <= self.section.len());
        let end = end.ok_or_else(|| unreadable("a string that ends beyond its section"))?;
        let place = self.at..end;
        self.at = end;
        Ok((place, coded))
    }
}

fn plain(coded: &[u8], max: usize) -> Result<Vec<u8>, TunnelError> {
    huffman::decode(coded, max).ok_or_else(|| unreadable("a string that is not Huffman-coded"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn integers_are_read_back(value in 0_u64..1 << 28, bits in 3_u32..=7) {
            let mut out = BytesMut::new();
            put_integer(0, bits, value, &mut out);
            let section = out.freeze();
            let mut cursor = Cursor::new(&section);
            prop_assert_eq!(cursor.integer(bits).unwrap(), value);
            prop_assert_eq!(cursor.first(), None);
        }
    }
}
