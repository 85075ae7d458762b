//! QPACK's static table: the 99 fields that both ends know by number (RFC 9204, appendix A).

/// Name and value by index.
pub(super) const STATIC_TABLE: [(&str, &str); 99] = [
    (":authority", ""),
    (":path", "/"),
    ("age", "0"),
    ("content-disposition", ""),
    ("content-length", "0"),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("referer", ""),
    ("set-cookie", ""),
    (":method", "CONNECT"),
    (":method", "DELETE"),
    (":method", "GET"),
    (":method", "HEAD"),
    (":method", "OPTIONS"),
    (":method", "POST"),
    (":method", "PUT"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "103"),
    (":status", "200"),
    (":status", "304"),
    (":status", "404"),
    (":status", "503"),
    ("accept", "*/*"),
    ("accept", "application/dns-message"),
    ("accept-encoding", "gzip, deflate, br"),
    ("accept-ranges", "bytes"),
    ("access-control-allow-headers", "cache-control"),
    ("access-control-allow-headers", "content-type"),
    ("access-control-allow-origin", "*"),
    ("cache-control", "max-age=0"),
    ("cache-control", "max-age=2592000"),
    ("cache-control", "max-age=604800"),
    ("cache-control", "no-cache"),
    ("cache-control", "no-store"),
    ("cache-control", "public, max-age=31536000"),
    ("content-encoding", "br"),
    ("content-encoding", "gzip"),
    ("content-type", "application/dns-message"),
    ("content-type", "application/javascript"),
    ("content-type", "application/json"),
    ("content-type", "application/x-www-form-urlencoded"),
    ("content-type", "image/gif"),
    ("content-type", "image/jpeg"),
    ("content-type", "image/png"),
    ("content-type", "text/css"),
    ("content-type", "text/html; charset=utf-8"),
    ("content-type", "text/plain"),
    ("content-type", "text/plain;charset=utf-8"),
    ("range", "bytes=0-"),
    ("strict-transport-security", "max-age=31536000"),
    ("strict-transport-security", "max-age=31536000; includesubdomains"),
    ("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    ("vary", "accept-encoding"),
    ("vary", "origin"),
    ("x-content-type-options", "nosniff"),
    ("x-xss-protection", "1; mode=block"),
    (":status", "100"),
    (":status", "204"),
    (":status", "206"),
    (":status", "302"),
    (":status", "400"),
    (":status", "403"),
    (":status", "421"),
    (":status", "425"),
    (":status", "500"),
    ("accept-language", ""),
    ("access-control-allow-credentials", "FALSE"),
    ("access-control-allow-credentials", "TRUE"),
    ("access-control-allow-headers", "*"),
    ("access-control-allow-methods", "get"),
    ("access-control-allow-methods", "get, post, options"),
    ("access-control-allow-methods", "options"),
    ("access-control-expose-headers", "content-length"),
    ("access-control-request-headers", "content-type"),
    ("access-control-request-method", "get"),
    ("access-control-request-method", "post"),
    ("alt-svc", "clear"),
    ("authorization", ""),
    ("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    ("early-data", "1"),
    ("expect-ct", ""),
    ("forwarded", ""),
    ("if-range", ""),
    ("origin", ""),
    ("purpose", "prefetch"),
    ("server", ""),
    ("timing-allow-origin", "*"),
    ("upgrade-insecure-requests", "1"),
    ("user-agent", ""),
    ("x-forwarded-for", ""),
    ("x-frame-options", "deny"),
    ("x-frame-options", "sameorigin"),
];

/// The lowest index whose name is `name`, for a literal value with a name reference.
pub(super) fn name_index(name: &str) -> Option<u64> {
    // Only what tunnels carry: a miss costs a literal name, not correctness.
    Some(match name {
        "content-length" => 4,
        "cookie" => 5,
        "date" => 6,
        "etag" => 7,
        "last-modified" => 10,
        "location" => 12,
        "accept" => 29,
        "accept-encoding" => 31,
        "cache-control" => 36,
        "content-encoding" => 42,
        "content-type" => 44,
        "vary" => 59,
        "accept-language" => 72,
        "authorization" => 84,
        "forwarded" => 88,
        "origin" => 90,
        "server" => 92,
        "timing-allow-origin" => 93,
        "user-agent" => 95,
        "x-forwarded-for" => 96,
        _ => return None,
    })
}

/// The index of a field that the table holds whole, among those that tunnels carry often.
pub(super) fn field_index(name: &str, value: &[u8]) -> Option<u64> {
    Some(match (name, value) {
        ("content-length", b"0") => 4,
        ("accept", b"*/*") => 29,
        ("content-encoding", b"gzip") => 43,
        ("content-type", b"application/json") => 46,
        ("content-type", b"image/jpeg") => 49,
        ("content-type", b"image/png") => 50,
        ("content-type", b"text/html; charset=utf-8") => 52,
        ("content-type", b"text/plain") => 53,
        ("timing-allow-origin", b"*") => 93,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_short_cuts_point_where_they_say() {
        let lowest = |name: &str| STATIC_TABLE.iter().position(|(entry, _)| *entry == name).map(|index| index as u64);
        for (name, value) in STATIC_TABLE {
            if let Some(index) = name_index(name) {
                assert_eq!(Some(index), lowest(name), "{name}");
            }
            if let Some(index) = field_index(name, value.as_bytes()) {
                assert_eq!(STATIC_TABLE[index as usize], (name, value));
            }
        }
        assert!(field_index("content-type", b"application/json").is_some());
    }
}
