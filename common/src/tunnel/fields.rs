//! Field sections (QPACK, RFC 9204) without IO: heads and trailers to bytes and back.
//!
//! Only the static table is used, in both directions: with no dynamic table a section never waits for another stream, which
//! is what a tunnel of many independent requests wants. Strings are written plain and read plain or Huffman-coded. Values
//! are slices of the received section, not copies. Everything a peer can make us store is bounded before it is stored.

use std::borrow::Cow;
use std::sync::LazyLock;

use bytes::{BufMut, Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, StatusCode, Uri, request, response};

use super::error::{ResetCode, TunnelError};
use super::literal::{Cursor, put_integer, put_string, unreadable};
use super::static_table::{STATIC_TABLE, field_index, name_index};
use crate::socket::Protocol;

/// Fields in one section: what a browser sends is below 30. `HeaderMap` panics at 24,576.
pub(super) const MAX_FIELDS: usize = 512;

/// What a field counts beside its name and value (RFC 9114, section 4.2.2).
const FIELD_OVERHEAD: usize = 32;

// Indexes of the static table.
const INDEX_AUTHORITY: u64 = 0;
const INDEX_PATH: u64 = 1;
const INDEX_METHOD: u64 = 15;
const INDEX_SCHEME_HTTPS: u64 = 23;
const INDEX_SCHEME_HTTP: u64 = 22;
const INDEX_STATUS: u64 = 24;

/// What an extended CONNECT asks for (RFC 9220).
const PROTOCOL: &str = ":protocol";

/// Appends the section of a request's head.
pub(super) fn encode_request(head: &request::Parts, out: &mut BytesMut) {
    begin(out);
    match head.method {
        Method::CONNECT => indexed(15, out),
        Method::DELETE => indexed(16, out),
        Method::GET => indexed(17, out),
        Method::HEAD => indexed(18, out),
        Method::OPTIONS => indexed(19, out),
        Method::POST => indexed(20, out),
        Method::PUT => indexed(21, out),
        ref other => referenced(INDEX_METHOD, other.as_str().as_bytes(), out),
    }
    indexed(if head.uri.scheme() == Some(&Scheme::HTTP) { INDEX_SCHEME_HTTP } else { INDEX_SCHEME_HTTPS }, out);
    let host = head.uri.authority().map(|authority| authority.as_str().as_bytes());
    if let Some(host) = host.or_else(|| head.headers.get(header::HOST).map(HeaderValue::as_bytes)) {
        referenced(INDEX_AUTHORITY, host, out);
    }
    match head.uri.path_and_query().map_or("/", PathAndQuery::as_str) {
        "/" | "" => indexed(INDEX_PATH, out),
        path => referenced(INDEX_PATH, path.as_bytes(), out),
    }
    if let Some(Protocol(protocol)) = head.extensions.get() {
        literal(PROTOCOL, protocol.as_bytes(), out);
    }
    encode_headers(&head.headers, out);
}

/// Appends the section of a response's head.
pub(super) fn encode_response(head: &response::Parts, out: &mut BytesMut) {
    begin(out);
    match head.status.as_u16() {
        103 => indexed(24, out),
        200 => indexed(25, out),
        304 => indexed(26, out),
        404 => indexed(27, out),
        503 => indexed(28, out),
        204 => indexed(64, out),
        400 => indexed(67, out),
        403 => indexed(68, out),
        500 => indexed(71, out),
        _ => referenced(INDEX_STATUS, head.status.as_str().as_bytes(), out),
    }
    encode_headers(&head.headers, out);
}

/// Appends the section of trailers.
pub(super) fn encode_trailers(trailers: &HeaderMap, out: &mut BytesMut) {
    begin(out);
    encode_headers(trailers, out);
}

/// Reads the head of a request; `max` bounds the section's size as RFC 9114 counts it.
pub(super) fn decode_request(section: &Bytes, max: usize) -> Result<http::Request<()>, TunnelError> {
    let fields = decode(section, max)?;
    let method = fields.method.ok_or_else(|| malformed("a request without a method"))?;
    let mut uri = http::uri::Parts::default();
    if fields.path.is_none() && method != Method::CONNECT {
        return Err(malformed("a request without a path"));
    }
    (uri.path_and_query, uri.authority) = (fields.path, fields.authority);
    // A URI has a scheme only beside an authority; without one the path alone is a valid request target.
    if uri.authority.is_some() && uri.path_and_query.is_some() {
        uri.scheme = Some(fields.scheme.ok_or_else(|| malformed("a request without a scheme"))?);
    }
    if fields.status.is_some() {
        return Err(malformed("a status in a request"));
    }
    let mut request = http::Request::new(());
    if let Some(protocol) = fields.protocol {
        if method != Method::CONNECT {
            return Err(malformed("a protocol without a CONNECT"));
        }
        request.extensions_mut().insert(Protocol(protocol));
    }
    *request.method_mut() = method;
    *request.uri_mut() = Uri::from_parts(uri).map_err(|_| malformed("a target that is none"))?;
    *request.version_mut() = http::Version::HTTP_3;
    *request.headers_mut() = fields.headers;
    Ok(request)
}

/// Reads the head of a response.
pub(super) fn decode_response(section: &Bytes, max: usize) -> Result<http::Response<()>, TunnelError> {
    let fields = decode(section, max)?;
    if fields.is_of_request() {
        return Err(malformed("a request's field in a response"));
    }
    let mut response = http::Response::new(());
    *response.status_mut() = fields.status.ok_or_else(|| malformed("a response without a status"))?;
    *response.version_mut() = http::Version::HTTP_3;
    *response.headers_mut() = fields.headers;
    Ok(response)
}

/// Reads trailers.
pub(super) fn decode_trailers(section: &Bytes, max: usize) -> Result<HeaderMap, TunnelError> {
    let fields = decode(section, max)?;
    if fields.is_of_request() || fields.status.is_some() {
        return Err(malformed("a pseudo-header in trailers"));
    }
    Ok(fields.headers)
}

const fn malformed(what: &'static str) -> TunnelError {
    TunnelError::protocol(ResetCode::MESSAGE_ERROR, what)
}

// ---- writing ----

/// A section's prefix: no dynamic table, no base.
fn begin(out: &mut BytesMut) {
    out.put_slice(&[0, 0]);
}

fn encode_headers(headers: &HeaderMap, out: &mut BytesMut) {
    for (name, value) in headers {
        if is_per_connection(name, value) || *name == header::HOST {
            continue;
        }
        if let Some(index) = field_index(name.as_str(), value.as_bytes()) {
            indexed(index, out);
        } else if let Some(index) = name_index(name.as_str()) {
            referenced(index, value.as_bytes(), out);
        } else {
            literal(name.as_str(), value.as_bytes(), out);
        }
    }
}

/// Fields that belong to one connection and make a message malformed in HTTP/3 (RFC 9114, section 4.2).
pub(super) fn is_per_connection(name: &HeaderName, value: &HeaderValue) -> bool {
    match *name {
        header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE => true,
        header::TE => value != "trailers",
        _ => matches!(name.as_str(), "keep-alive" | "proxy-connection"),
    }
}

fn indexed(index: u64, out: &mut BytesMut) {
    put_integer(0xc0, 6, index, out);
}

fn literal(name: &str, value: &[u8], out: &mut BytesMut) {
    put_integer(0x20, 3, name.len() as u64, out);
    out.put_slice(name.as_bytes());
    put_string(value, out);
}

fn referenced(name: u64, value: &[u8], out: &mut BytesMut) {
    put_integer(0x50, 4, name, out);
    put_string(value, out);
}

// ---- reading ----

/// A field's name.
enum Name<'a> {
    /// Of the static table; parsed once for all, where it is not a pseudo-header's.
    Known(&'static str, &'static HeaderName),
    /// Spelt out.
    Read(Cow<'a, [u8]>),
}

impl Name<'_> {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Known(name, _) => name.as_bytes(),
            Self::Read(name) => name,
        }
    }
}

/// A section's fields: pseudo-headers apart from the others.
#[derive(Default)]
struct Fields {
    method: Option<Method>,
    scheme: Option<Scheme>,
    authority: Option<Authority>,
    path: Option<PathAndQuery>,
    protocol: Option<String>,
    status: Option<StatusCode>,
    headers: HeaderMap,
}

impl Fields {
    fn push(&mut self, name: &Name<'_>, value: Bytes) -> Result<(), TunnelError> {
        let bytes = name.bytes();
        if bytes.first() == Some(&b':') {
            if !self.headers.is_empty() {
                return Err(malformed("a pseudo-header after the others"));
            }
            return match bytes {
                b":method" => once(&mut self.method, Method::from_bytes(&value), "a method that is none"),
                b":scheme" => once(&mut self.scheme, Scheme::try_from(&value[..]), "a scheme that is none"),
                b":authority" => {
                    once(&mut self.authority, Authority::from_maybe_shared(value), "an authority that is none")
                }
                b":path" => once(&mut self.path, PathAndQuery::from_maybe_shared(value), "a path that is none"),
                b":protocol" => once(&mut self.protocol, String::from_utf8(value.to_vec()), "a protocol that is none"),
                b":status" => once(&mut self.status, StatusCode::from_bytes(&value), "a status that is none"),
                _ => Err(malformed("a pseudo-header that nobody knows")),
            };
        }
        // Upper case is malformed too (RFC 9114, section 4.2).
        let name = match name {
            Name::Known(_, name) => HeaderName::clone(name),
            Name::Read(name) => HeaderName::from_lowercase(name).map_err(|_| malformed("a field name that is none"))?,
        };
        let value = HeaderValue::from_maybe_shared(value).map_err(|_| malformed("a field value that is none"))?;
        if is_per_connection(&name, &value) {
            return Err(malformed("a field of another connection"));
        }
        self.headers.try_append(name, value).map(drop).map_err(|_| too_many())
    }

    /// Whether there is any of a request's pseudo-headers.
    const fn is_of_request(&self) -> bool {
        self.method.is_some()
            || self.scheme.is_some()
            || self.authority.is_some()
            || self.path.is_some()
            || self.protocol.is_some()
    }
}

/// Keeps a pseudo-header's value, if it is one and the first; `wrong` says what it is if it is none.
fn once<T, E>(kept: &mut Option<T>, value: Result<T, E>, wrong: &'static str) -> Result<(), TunnelError> {
    let value = value.map_err(|_| malformed(wrong))?;
    if kept.replace(value).is_some() { Err(malformed("a pseudo-header twice")) } else { Ok(()) }
}

const fn too_many() -> TunnelError {
    TunnelError::protocol(ResetCode::EXCESSIVE_LOAD, "too many fields")
}

fn decode(section: &Bytes, max: usize) -> Result<Fields, TunnelError> {
    let mut cursor = Cursor::new(section);
    let required = cursor.integer(8)?;
    cursor.integer(7)?;
    if required != 0 {
        return Err(unreadable("a section that needs a dynamic table"));
    }
    let mut fields = Fields::default();
    let (mut size, mut count) = (0, 0);
    while let Some(first) = cursor.first() {
        let (name, value) = match first {
            0xc0.. => {
                let (name, value) = entry(cursor.integer(6)?)?;
                (name, Bytes::from_static(value.as_bytes()))
            }
            0x50..0x60 | 0x70..0x80 => (entry(cursor.integer(4)?)?.0, cursor.value(7, max)?),
            0x20..0x40 => (Name::Read(cursor.text(3, max)?), cursor.value(7, max)?),
            _ => return Err(unreadable("a field of a dynamic table")),
        };
        (size, count) = (size + name.bytes().len() + value.len() + FIELD_OVERHEAD, count + 1);
        if size > max || count > MAX_FIELDS {
            return Err(too_many());
        }
        fields.push(&name, value)?;
    }
    Ok(fields)
}

/// The static table's names as the `http` crate has them; where a pseudo-header stands, one that is never asked for.
static NAMES: LazyLock<Vec<HeaderName>> = LazyLock::new(|| {
    let parse = |(name, _): &(&'static str, _)| HeaderName::from_bytes(name.as_bytes()).unwrap_or(header::HOST);
    STATIC_TABLE.iter().map(parse).collect()
});

/// A static table's entry: its name and its value.
fn entry(index: u64) -> Result<(Name<'static>, &'static str), TunnelError> {
    let index = usize::try_from(index).unwrap_or(usize::MAX);
    match (STATIC_TABLE.get(index), NAMES.get(index)) {
        (Some((text, value)), Some(name)) => Ok((Name::Known(text, name), value)),
        _ => Err(unreadable("an index beyond the static table")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MAX: usize = 64 << 10;
    const METHOD: &str = ":method";
    const SCHEME: &str = ":scheme";
    const AUTHORITY: &str = ":authority";
    const PATH: &str = ":path";
    const STATUS: &str = ":status";

    fn request_section(request: http::Request<()>) -> Bytes {
        let mut out = BytesMut::new();
        encode_request(&request.into_parts().0, &mut out);
        out.freeze()
    }

    fn headers() -> impl Strategy<Value = HeaderMap> {
        let field = ("[a-z][a-z0-9-]{0,20}", "[!-~]{0,40}");
        let known = prop::sample::select(vec![
            ("content-type", "application/json"),
            ("content-length", "0"),
            ("accept", "*/*"),
            ("content-type", "image/webp"),
            ("user-agent", "x"),
        ]);
        prop::collection::vec(prop_oneof![field, known.prop_map(|(n, v)| (n.to_owned(), v.to_owned()))], 0..20)
            .prop_map(|fields| {
                let mut map = HeaderMap::new();
                for (name, value) in fields {
                    let (name, value) = (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
                    if !is_per_connection(&name, &value) && name != header::HOST {
                        map.append(name, value);
                    }
                }
                map
            })
    }

    proptest! {
        #[test]
        fn requests_are_read_back(
            headers in headers(),
            method in prop::sample::select(vec!["GET", "POST", "DELETE", "PATCH", "REPORT"]),
            path in "/[a-z0-9/._~-]{0,80}(\\?[a-z=&]{1,20})?",
        ) {
            let mut request = http::Request::new(());
            *request.method_mut() = method.parse().unwrap();
            *request.uri_mut() = format!("https://relay.test:8443{path}").parse().unwrap();
            *request.headers_mut() = headers.clone();
            let uri = request.uri().clone();
            let read = decode_request(&request_section(request), MAX).unwrap();
            prop_assert_eq!(read.method().as_str(), method);
            prop_assert_eq!(read.uri(), &uri);
            prop_assert_eq!(read.headers(), &headers);
        }

        #[test]
        fn responses_and_trailers_are_read_back(headers in headers(), status in 100_u16..1000) {
            let mut response = http::Response::new(());
            *response.status_mut() = StatusCode::from_u16(status).unwrap();
            *response.headers_mut() = headers.clone();
            let mut out = BytesMut::new();
            encode_response(&response.into_parts().0, &mut out);
            let read = decode_response(&out.freeze(), MAX).unwrap();
            prop_assert_eq!(read.status().as_u16(), status);
            prop_assert_eq!(read.headers(), &headers);

            let mut out = BytesMut::new();
            encode_trailers(&headers, &mut out);
            prop_assert_eq!(decode_trailers(&out.freeze(), MAX).unwrap(), headers);
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_request(&bytes, MAX);
            let _ = decode_response(&bytes, MAX);
            let _ = decode_trailers(&bytes, MAX);
        }

        #[test]
        fn damaged_sections_are_harmless(headers in headers(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut request = http::Request::new(());
            *request.headers_mut() = headers;
            let mut bytes = request_section(request).to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let _ = decode_request(&bytes.clone().into(), MAX);
            bytes.truncate(at);
            let _ = decode_request(&bytes.into(), MAX);
        }
    }

    #[test]
    fn an_extended_connect_keeps_its_protocol() {
        let mut request = http::Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = "https://relay.test/ws?json=array".parse().unwrap();
        request.extensions_mut().insert(Protocol("websocket".to_owned()));
        let section = request_section(request);
        let read = decode_request(&section, MAX).unwrap();
        assert_eq!((read.method(), read.uri().path()), (&Method::CONNECT, "/ws"));
        assert_eq!(read.extensions().get::<Protocol>().unwrap().0, "websocket");
    }

    #[test]
    fn the_limits_are_enforced() {
        let mut many = BytesMut::new();
        begin(&mut many);
        indexed(17, &mut many);
        indexed(23, &mut many);
        indexed(1, &mut many);
        for _ in 0..10_000 {
            indexed(29, &mut many);
        }
        let error = decode_request(&many.freeze(), usize::MAX).unwrap_err();
        assert!(matches!(error, TunnelError::Protocol { code: ResetCode::EXCESSIVE_LOAD, .. }), "{error}");

        let mut request = http::Request::new(());
        request.headers_mut().insert("x-big", HeaderValue::from_bytes(&[b'x'; 2000]).unwrap());
        let section = request_section(request);
        assert!(decode_request(&section, 2200).is_ok());
        assert!(decode_request(&section, 2000).is_err());
    }

    #[test]
    fn malformed_heads_are_refused() {
        let section = |fields: &[(&str, &str)]| {
            let mut out = BytesMut::new();
            begin(&mut out);
            for (name, value) in fields {
                put_integer(0x20, 3, name.len() as u64, &mut out);
                out.put_slice(name.as_bytes());
                put_string(value.as_bytes(), &mut out);
            }
            out.freeze()
        };
        let good = [(METHOD, "GET"), (SCHEME, "https"), (AUTHORITY, "a.test"), (PATH, "/"), ("x-y", "z")];
        assert!(decode_request(&section(&good), MAX).is_ok());
        let bad: [&[(&str, &str)]; 9] = [
            &[(SCHEME, "https"), (PATH, "/")],
            &[(METHOD, "GET"), (SCHEME, "https")],
            &[(METHOD, "GET"), (METHOD, "GET"), (SCHEME, "https"), (PATH, "/")],
            &[(METHOD, "GET"), (SCHEME, "https"), ("x-y", "z"), (PATH, "/")],
            &[(METHOD, "GET"), (SCHEME, "https"), (PATH, "/"), ("X-Y", "z")],
            &[(METHOD, "GET"), (SCHEME, "https"), (PATH, "/"), ("connection", "close")],
            &[(METHOD, "GET"), (SCHEME, "https"), (PATH, "/"), (STATUS, "200")],
            &[(METHOD, "GET"), (SCHEME, "https"), (PATH, "/"), (":new", "1")],
            &[(METHOD, "GET"), (SCHEME, "https"), (PATH, "/"), ("x-y", "a\nb")],
        ];
        for fields in bad {
            assert!(decode_request(&section(fields), MAX).is_err(), "{fields:?}");
        }
        assert!(decode_response(&section(&[(STATUS, "200"), (METHOD, "GET")]), MAX).is_err());
        assert!(decode_trailers(&section(&[(STATUS, "200")]), MAX).is_err());
    }
}
