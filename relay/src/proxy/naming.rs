//! The model that a request names in its body: looked for in what has come of it, and no further than it must be.
//!
//! Pure: bytes in, a finding out. What of a body was read for it is sent all the same.

use std::borrow::Cow;
use std::io::Read as _;

use adit_common::manifest::Naming;
use flate2::read::{GzDecoder, ZlibDecoder};
use http::{HeaderMap, header};
use memchr::memmem::find;

/// No name is longer; what claims to be is none.
const LONGEST: usize = 256;

/// The length of what stands before each message of gRPC: whether it is compressed, and how long it is.
const PREFIX: usize = 5;

/// What the beginning of a body tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// The model's name.
    Name(String),
    /// Not yet: more of the body may.
    More,
    /// Nothing, and more of it will not either.
    Nothing,
}

/// How a request's body is to be read.
#[derive(Debug)]
pub(super) enum Reader<'a> {
    /// Fields that lead to the name; whether and how messages are compressed.
    Protobuf(&'a [u32], Coding),
    /// The form's boundary and its field.
    Form(String, &'a str),
}

/// gRPC's own compression of messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    Plain,
    Gzip,
    Deflate,
}

impl<'a> Reader<'a> {
    /// For requests of this naming and these fields; `None` where the body tells nothing.
    pub(super) fn new(naming: &'a Naming, headers: &HeaderMap) -> Option<Self> {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        match naming {
            Naming::Path => None,
            Naming::Protobuf(fields) => {
                let coding = match text("grpc-encoding") {
                    Some("gzip") => Coding::Gzip,
                    Some("deflate") => Coding::Deflate,
                    _ => Coding::Plain,
                };
                Some(Self::Protobuf(fields, coding))
            }
            Naming::Form(field) => {
                // A form that is compressed as a whole is not opened here.
                if headers.contains_key(header::CONTENT_ENCODING) {
                    return None;
                }
                Some(Self::Form(boundary(text("content-type")?)?, field))
            }
        }
    }

    /// Looks at the beginning of a body; `whole` if there is no more of it.
    pub(super) fn look(&self, body: &[u8], whole: bool) -> Finding {
        let found = match self {
            Self::Protobuf(fields, coding) => message(body, *coding, fields),
            Self::Form(boundary, field) => form(body, boundary, field),
        };
        match found {
            Finding::Name(name) if name.is_empty() || name.len() > LONGEST => Finding::Nothing,
            Finding::More if whole => Finding::Nothing,
            found => found,
        }
    }
}

/// The name in the first message of a gRPC call.
fn message(body: &[u8], coding: Coding, fields: &[u32]) -> Finding {
    let Some((prefix, rest)) = body.split_first_chunk::<PREFIX>() else { return Finding::More };
    let [compressed, length @ ..] = *prefix;
    let length = u32::from_be_bytes(length) as usize;
    let whole = rest.len() >= length;
    let message = &rest[..rest.len().min(length)];
    let message = match (compressed, coding) {
        (0, _) => Cow::Borrowed(message),
        (_, Coding::Plain) => return Finding::Nothing,
        (_, Coding::Gzip) => Cow::Owned(beginning(GzDecoder::new(message))),
        (_, Coding::Deflate) => Cow::Owned(beginning(ZlibDecoder::new(message))),
    };
    match field(&message, fields) {
        Finding::More if whole => Finding::Nothing,
        found => found,
    }
}

/// The first of what is compressed: names stand at the beginning.
fn beginning(decoder: impl std::io::Read) -> Vec<u8> {
    let mut out = Vec::new();
    // What has not come yet is an error to the decoder; what came before it is there.
    let _ = decoder.take(4 * LONGEST as u64).read_to_end(&mut out);
    out
}

/// The string that these fields of a message lead to.
fn field(mut message: &[u8], fields: &[u32]) -> Finding {
    let Some((wanted, inner)) = fields.split_first() else { return Finding::Nothing };
    loop {
        let Some((key, rest)) = varint(message) else { return Finding::More };
        let (number, kind) = (key >> 3, key & 7);
        let skip = match kind {
            0 => match varint(rest) {
                Some((_, after)) => rest.len() - after.len(),
                None => return Finding::More,
            },
            1 => 8,
            5 => 4,
            2 => {
                let Some((length, after)) = varint(rest) else { return Finding::More };
                let Ok(length) = usize::try_from(length) else { return Finding::Nothing };
                if number == u64::from(*wanted) {
                    let there = &after[..after.len().min(length)];
                    if !inner.is_empty() {
                        // Its fields end where it ends, not where the message does.
                        return match field(there, inner) {
                            Finding::More if there.len() == length => Finding::Nothing,
                            found => found,
                        };
                    }
                    if length > LONGEST {
                        return Finding::Nothing;
                    }
                    if there.len() < length {
                        return Finding::More;
                    }
                    return match std::str::from_utf8(there) {
                        Ok(name) => Finding::Name(name.to_owned()),
                        Err(_) => Finding::Nothing,
                    };
                }
                let Some(skip) = (rest.len() - after.len()).checked_add(length) else { return Finding::Nothing };
                skip
            }
            // Groups are long gone, and what else there is, is nonsense.
            _ => return Finding::Nothing,
        };
        // Writers put fields in the order of their numbers: behind a later one it does not come.
        if number > u64::from(*wanted) {
            return Finding::Nothing;
        }
        match rest.get(skip..) {
            Some(rest) => message = rest,
            None => return Finding::More,
        }
    }
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0_u64;
    for (index, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * index).min(63);
        if byte & 0x80 == 0 {
            return Some((value, &bytes[index + 1..]));
        }
    }
    None
}

/// The boundary in a form's content type.
fn boundary(content_type: &str) -> Option<String> {
    let (kind, parameters) = content_type.split_once(';')?;
    if !kind.trim().eq_ignore_ascii_case("multipart/form-data") {
        return None;
    }
    let value = parameters.split(';').find_map(|parameter| {
        let (name, value) = parameter.trim().split_once('=')?;
        name.eq_ignore_ascii_case("boundary").then(|| value.trim_matches('"').to_owned())
    })?;
    // RFC 2046, section 5.1.1.
    (1..=70).contains(&value.len()).then_some(value)
}

/// The value of a form's field.
fn form(body: &[u8], boundary: &str, field: &str) -> Finding {
    let delimiter = format!("--{boundary}");
    let mut rest = body;
    loop {
        let Some(at) = find(rest, delimiter.as_bytes()) else { return Finding::More };
        rest = &rest[at + delimiter.len()..];
        if rest.starts_with(b"--") {
            return Finding::Nothing;
        }
        let Some(end) = find(rest, b"\r\n\r\n") else { return Finding::More };
        let (head, value) = (&rest[..end], &rest[end + 4..]);
        if names(head, field) {
            return match find(value, format!("\r\n{delimiter}").as_bytes()) {
                Some(end) => match std::str::from_utf8(&value[..end]) {
                    Ok(name) => Finding::Name(name.trim().to_owned()),
                    Err(_) => Finding::Nothing,
                },
                None if value.len() > LONGEST + delimiter.len() => Finding::Nothing,
                None => Finding::More,
            };
        }
        rest = value;
    }
}

/// Whether a part's head says that it is this field.
fn names(head: &[u8], field: &str) -> bool {
    let head = String::from_utf8_lossy(head);
    let disposition = head.split("\r\n").find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.trim().eq_ignore_ascii_case("content-disposition").then(|| value.to_owned())
    });
    disposition.is_some_and(|value| {
        value.split(';').any(|parameter| {
            parameter
                .trim()
                .split_once('=')
                .is_some_and(|(name, value)| name == "name" && value.trim_matches('"') == field)
        })
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use proptest::prelude::*;

    use super::*;

    const FIRST: &[u32] = &[1];
    const NESTED: &[u32] = &[1, 1];

    fn framed(message: &[u8], compressed: u8) -> Vec<u8> {
        let mut body = vec![compressed];
        body.extend((message.len() as u32).to_be_bytes());
        body.extend(message);
        body
    }

    /// A field of bytes.
    fn part(number: u8, value: &[u8]) -> Vec<u8> {
        let mut out = vec![number << 3 | 2, value.len() as u8];
        out.extend(value);
        out
    }

    fn name(text: &str) -> Finding {
        Finding::Name(text.to_owned())
    }

    #[test]
    fn a_name_is_found_as_soon_as_it_is_there() {
        let body = framed(&[part(1, b"digits"), part(3, b"id"), part(7, &[9; 100])].concat(), 0);
        let reader = Reader::Protobuf(FIRST, Coding::Plain);
        for length in 0..13 {
            assert_eq!(reader.look(&body[..length], false), Finding::More, "{length}");
        }
        assert_eq!(reader.look(&body[..13], false), name("digits"));
        assert_eq!(reader.look(&body, true), name("digits"));
        let nested = framed(&part(1, &[part(1, b"mnist"), part(3, b"serving_default")].concat()), 0);
        assert_eq!(Reader::Protobuf(NESTED, Coding::Plain).look(&nested[..14], false), name("mnist"));
    }

    #[test]
    fn a_message_without_a_name_is_not_waited_for() {
        let reader = Reader::Protobuf(FIRST, Coding::Plain);
        assert_eq!(reader.look(&framed(b"", 0), false), Finding::Nothing);
        assert_eq!(reader.look(&framed(&part(5, &[0; 90]), 0)[..20], false), Finding::Nothing);
        assert_eq!(reader.look(&framed(&part(1, b""), 0), false), Finding::Nothing);
        assert_eq!(reader.look(b"\0\0", true), Finding::Nothing);
        // A model spec with a version alone.
        let nested = framed(&part(1, &[2 << 3, 7]), 0);
        assert_eq!(Reader::Protobuf(NESTED, Coding::Plain).look(&nested, false), Finding::Nothing);
    }

    #[test]
    fn compressed_messages_are_opened_as_far_as_needed() {
        let message = [part(1, b"digits"), part(7, &[9; 100])].concat();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&message).unwrap();
        let body = framed(&gzip.finish().unwrap(), 1);
        assert_eq!(Reader::Protobuf(FIRST, Coding::Gzip).look(&body, true), name("digits"));
        assert_eq!(Reader::Protobuf(FIRST, Coding::Plain).look(&body, true), Finding::Nothing);
        let mut zlib = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
        zlib.write_all(&message).unwrap();
        let body = framed(&zlib.finish().unwrap(), 1);
        assert_eq!(Reader::Protobuf(FIRST, Coding::Deflate).look(&body, true), name("digits"));
    }

    #[test]
    fn a_forms_field_is_found_before_or_behind_its_file() {
        let file = "--x\r\nContent-Disposition: form-data; name=\"image\"; filename=\"model\"\r\n\r\nJPEG\r\n";
        let model = "--x\r\ncontent-disposition: form-data; name=\"model\"\r\n\r\ndigits\r\n";
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "multipart/form-data; charset=utf-8; boundary=\"x\"".parse().unwrap());
        let naming = Naming::Form("model".to_owned());
        let reader = Reader::new(&naming, &headers).unwrap();
        for body in [format!("{model}{file}--x--\r\n"), format!("{file}{model}--x--\r\n")] {
            assert_eq!(reader.look(body.as_bytes(), true), name("digits"));
        }
        assert_eq!(reader.look(model.as_bytes(), false), Finding::More, "the value may go on");
        assert_eq!(reader.look(format!("{file}--x--\r\n").as_bytes(), false), Finding::Nothing);
        headers.insert("content-type", "application/json".parse().unwrap());
        assert!(Reader::new(&naming, &headers).is_none());
    }

    proptest! {
        #[test]
        fn no_bytes_are_too_strange(body in proptest::collection::vec(any::<u8>(), 0..200), whole: bool) {
            for coding in [Coding::Plain, Coding::Gzip] {
                Reader::Protobuf(NESTED, coding).look(&body, whole);
            }
            let found = Reader::Form("x".to_owned(), "model").look(&body, whole);
            prop_assert!(!(whole && found == Finding::More));
        }
    }
}
