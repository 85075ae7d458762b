//! Fields of a head that no program hands on: those of one connection, and those that only Adit's own programs may send. Pure.

use http::header::{self, HeaderMap, HeaderName};

/// Fields of one connection (RFC 9110, section 7.6.1), and the old ones that everybody still strips.
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// The prefix of fields between Adit's own programs.
const OURS: &str = "adit-";

/// Takes away what belongs to the connection that a head came over. `te`, which may say something to the next one, is left.
pub fn strip_hop_by_hop(headers: &mut HeaderMap) {
    if headers.contains_key(header::CONNECTION) {
        // A sender may name further fields of the connection.
        let named = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named: Vec<HeaderName> =
            named.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok()).collect();
        named.iter().for_each(|name| drop(headers.remove(name)));
    }
    HOP_BY_HOP.iter().for_each(|name| drop(headers.remove(name)));
}

/// Takes away what somebody else says in fields that are ours.
pub fn strip_ours(headers: &mut HeaderMap) {
    if headers.keys().any(|name| name.as_str().starts_with(OURS)) {
        let ours: Vec<HeaderName> = headers.keys().filter(|name| name.as_str().starts_with(OURS)).cloned().collect();
        ours.iter().for_each(|name| drop(headers.remove(name)));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn left(fields: &[(&'static str, &'static str)], strip: fn(&mut HeaderMap)) -> Vec<String> {
        let pairs = fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let mut headers: HeaderMap = pairs.collect();
        strip(&mut headers);
        headers.keys().map(ToString::to_string).collect()
    }

    #[test]
    fn a_connections_fields_end_with_it_also_those_that_it_names() {
        let fields = [
            ("connection", "close, X-Own , te"),
            ("x-own", "1"),
            ("te", "trailers"),
            ("upgrade", "h2c"),
            ("x-not", "2"),
        ];
        assert_eq!(left(&fields, strip_hop_by_hop), ["x-not"]);
        assert_eq!(left(&[("te", "trailers"), ("keep-alive", "5")], strip_hop_by_hop), ["te"]);
    }

    #[test]
    fn nobody_else_speaks_in_our_fields() {
        assert_eq!(left(&[("adit-budget", "9"), ("x-adit", "1"), ("adit-any", "x")], strip_ours), ["x-adit"]);
    }
}
