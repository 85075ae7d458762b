//! The binary tensor extension: tensors as bytes behind the JSON, in its order.
//!
//! A header says how long the JSON is and each tensor how many bytes are its own, so all sizes are known before anything
//! is read: they have to add up exactly to the body. An element of a BYTES tensor is its length (u32, little endian) and
//! its bytes. Reading makes slices of the body; nothing is copied.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::datatype::Datatype;
use super::error::{OipError, quote};
use super::tensor::{TensorData, elements};

/// The header that says how many bytes of the body are JSON.
pub const HEADER_LENGTH: &str = "inference-header-content-length";

/// A message as it travels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The value of [`HEADER_LENGTH`]; `None` if the body is JSON alone and the header must be left out.
    pub header_length: Option<usize>,
    /// JSON, and the binary tensors behind it.
    pub body: Bytes,
}

impl Encoded {
    /// The `content-type` of the message.
    pub const fn content_type(&self) -> &'static str {
        match self.header_length {
            Some(_) => "application/octet-stream",
            None => "application/json",
        }
    }
}

/// Reads [`HEADER_LENGTH`]; `None` where it is absent.
pub fn header_length(headers: &http::HeaderMap) -> Result<Option<usize>, OipError> {
    let read = |value: &http::HeaderValue| {
        let text = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()));
        text.and_then(|text| text.parse().ok()).ok_or(OipError::HeaderLength)
    };
    headers.get(HEADER_LENGTH).map(read).transpose()
}

/// The JSON of a body, and what follows it.
pub(super) fn split(body: &Bytes, header_length: Option<usize>) -> Result<(Bytes, Bytes), OipError> {
    let length = header_length.unwrap_or(body.len());
    if length > body.len() {
        return Err(OipError::HeaderBeyondBody { length, body: body.len() });
    }
    Ok((body.slice(..length), body.slice(length..)))
}

/// A body of JSON and the binary tensors that follow it.
pub(super) fn join<'a>(json: Vec<u8>, tensors: impl Iterator<Item = &'a TensorData> + Clone) -> Encoded {
    let mut sizes = tensors.clone().map(size).peekable();
    if sizes.peek().is_none() {
        return Encoded { header_length: None, body: json.into() };
    }
    let mut body = BytesMut::with_capacity(json.len() + sizes.sum::<usize>());
    body.put_slice(&json);
    tensors.for_each(|data| write(data, &mut body));
    Encoded { header_length: Some(json.len()), body: body.freeze() }
}

/// How many bytes a tensor's data takes behind the JSON.
pub(super) fn size(data: &TensorData) -> usize {
    match data {
        TensorData::Numbers(bytes) => bytes.len(),
        TensorData::Elements(elements) => elements.iter().map(|element| 4 + element.len()).sum(),
    }
}

fn write(data: &TensorData, body: &mut BytesMut) {
    match data {
        TensorData::Numbers(bytes) => body.put_slice(bytes),
        TensorData::Elements(elements) => {
            for element in elements {
                body.put_u32_le(element.len() as u32);
                body.put_slice(element);
            }
        }
    }
}

/// One tensor's data, as it would be behind JSON.
pub(super) fn write_alone(name: &str, data: &TensorData) -> Result<Bytes, OipError> {
    if !is_writable(data) {
        return Err(OipError::Shape { name: quote(name), limit: "an element of 4 GiB" });
    }
    let mut body = BytesMut::with_capacity(size(data));
    write(data, &mut body);
    Ok(body.freeze())
}

/// Whether every element is short enough for its length to be written.
pub(super) fn is_writable(data: &TensorData) -> bool {
    match data {
        TensorData::Numbers(_) => true,
        TensorData::Elements(elements) => elements.iter().all(|element| u32::try_from(element.len()).is_ok()),
    }
}

/// The bytes of one tensor as its data.
pub(super) fn read(name: &str, datatype: Datatype, shape: &[usize], bytes: Bytes) -> Result<TensorData, OipError> {
    let count = elements(name, datatype, shape)?;
    if datatype.size().is_some() {
        return Ok(TensorData::Numbers(bytes));
    }
    // Each element has four bytes at least: a shape alone cannot make us reserve more than the body pays for.
    let mut found = Vec::with_capacity(count.min(bytes.len() / 4));
    let mut rest = bytes;
    while !rest.is_empty() {
        if found.len() == count {
            let (wanted, found) = (format!("{count} elements"), format!("{} bytes more", rest.len()));
            return Err(OipError::Size { name: quote(name), wanted, found });
        }
        let cut = || OipError::Element { name: quote(name), index: found.len() };
        let length = rest.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize).ok_or_else(cut)?;
        let end = length.checked_add(4).filter(|end| *end <= rest.len()).ok_or_else(cut)?;
        found.push(rest.slice(4..end));
        rest = rest.slice(end..);
    }
    Ok(TensorData::Elements(found))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue};

    use super::*;

    #[test]
    fn elements_have_a_little_endian_length_each() {
        let data = TensorData::Elements(vec![Bytes::from_static(b"ab"), Bytes::new()]);
        let encoded = join(b"{}".to_vec(), std::iter::once(&data));
        assert_eq!(encoded.header_length, Some(2));
        assert_eq!(&encoded.body[..], b"{}\x02\0\0\0ab\0\0\0\0");
        assert_eq!(read("t", Datatype::Bytes, &[2], encoded.body.slice(2..)).unwrap(), data);
    }

    #[test]
    fn elements_that_are_cut_off_or_too_many_are_refused() {
        let element = |bytes: &'static [u8], shape| read("t", Datatype::Bytes, &[shape], Bytes::from_static(bytes));
        assert!(matches!(element(b"\x02\0\0\0a", 1), Err(OipError::Element { index: 0, .. })));
        assert!(matches!(element(b"\x01\0\0\0a\x01\0", 2), Err(OipError::Element { index: 1, .. })));
        assert!(matches!(element(b"\xff\xff\xff\xffa", 1), Err(OipError::Element { index: 0, .. })));
        assert!(matches!(element(b"\0\0\0\0\0\0\0\0", 1), Err(OipError::Size { .. })));
    }

    #[test]
    fn the_header_is_a_whole_number_or_absent() {
        let mut headers = HeaderMap::new();
        assert_eq!(header_length(&headers).unwrap(), None);
        headers.insert(HEADER_LENGTH, HeaderValue::from_static("123"));
        assert_eq!(header_length(&headers).unwrap(), Some(123));
        for bad in ["", "-1", "+1", "1.5", "0x10", "99999999999999999999999"] {
            headers.insert(HEADER_LENGTH, HeaderValue::from_static(bad));
            assert!(header_length(&headers).is_err(), "{bad}");
        }
    }
}
