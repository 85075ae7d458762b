//! Reads the Huffman code of HPACK and QPACK strings (RFC 7541, appendix B).
//!
//! We never write it: a tunnel's fields are few, and plain strings cost no time. A foreign HTTP/3 peer may. The code is
//! canonical, so the lengths alone determine it: codes of one length are consecutive, in the order of their symbols.

use std::sync::LazyLock;

/// The length in bits of each byte's code; the end-of-string symbol has 30 bits and comes last among those.
const LENGTHS: [u8; 256] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28,
    28, 28, 28, 6, 10, 10, 12, 13, 6, 8, 11, 10, 10, 8, 11, 8, 6, 6, 6, 5, 5, 5, 6, 6, 6, 6, 6, 6, 6, 7, 8, 15, 6, 12,
    10, 13, 6, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 7, 8, 7, 8, 13, 19, 13, 14, 6, 15, 5, 6,
    5, 6, 5, 6, 6, 6, 5, 7, 7, 6, 6, 6, 5, 6, 7, 6, 5, 5, 6, 7, 7, 7, 7, 7, 15, 11, 14, 13, 28, 20, 22, 20, 20, 22, 22,
    22, 23, 22, 23, 23, 23, 23, 23, 24, 23, 24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24, 22, 21, 20,
    22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23, 21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25, 19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28,
    27, 27, 27, 20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23, 26, 27, 26, 26, 27, 27, 27, 27, 27, 28,
    27, 27, 27, 27, 27, 26,
];

const LONGEST: usize = 30;

/// For each length: the first code, how many codes, and where their symbols start in `symbols`.
struct Table {
    first: [u32; LONGEST + 1],
    count: [u32; LONGEST + 1],
    start: [usize; LONGEST + 1],
    symbols: Vec<u8>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    let mut table = Table {
        first: [0; LONGEST + 1],
        count: [0; LONGEST + 1],
        start: [0; LONGEST + 1],
        symbols: Vec::with_capacity(256),
    };
    let mut code = 0;
    for length in 1..=LONGEST {
        code <<= 1;
        (table.first[length], table.start[length]) = (code, table.symbols.len());
        table.symbols.extend((0..=255_u8).filter(|symbol| usize::from(LENGTHS[usize::from(*symbol)]) == length));
        table.count[length] = (table.symbols.len() - table.start[length]) as u32;
        code += table.count[length];
    }
    table
});

/// The decoded string, `None` if it is not one or is longer than `limit` bytes.
pub(super) fn decode(coded: &[u8], limit: usize) -> Option<Vec<u8>> {
    let table = &*TABLE;
    let mut out = Vec::with_capacity((coded.len() * 8 / 5).min(limit));
    let (mut code, mut length) = (0_u32, 0_usize);
    for byte in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(byte >> bit & 1);
            length += 1;
            let offset = code.wrapping_sub(table.first[length]);
            if offset < table.count[length] {
                if out.len() == limit {
                    return None;
                }
                out.push(table.symbols[table.start[length] + offset as usize]);
                (code, length) = (0, 0);
            } else if length == LONGEST {
                // The end-of-string symbol inside a string is an error, and no other code is this long.
                return None;
            }
        }
    }
    // What is left must be padding: fewer than eight bits, all ones.
    (length < 8 && code == (1 << length) - 1).then_some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_rfc_are_read() {
        // RFC 7541, C.4.1 and C.6.1.
        assert_eq!(
            decode(&[0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff], 99).unwrap(),
            b"www.example.com"
        );
        assert_eq!(decode(&[0x64, 0x02], 99).unwrap(), b"302");
        assert_eq!(decode(&[], 99).unwrap(), b"");
    }

    #[test]
    fn bad_padding_and_long_strings_are_refused() {
        assert_eq!(decode(&[0x00], 99), None, "padding of zeros");
        assert_eq!(decode(&[0xff], 99), None, "eight bits of padding");
        assert_eq!(decode(&[0xff, 0xff, 0xff, 0xff], 99), None, "end of string");
        assert_eq!(decode(&[0x64, 0x02], 2), None, "over the limit");
    }
}
