//! Paths that are no text.
//!
//! What is percent-encoded in a path may be any bytes. Nothing here has a name that is no text, and every dialect has its own words for
//! what is not there: so such bytes are made the character that stands for them, before the path is routed.

use http::Uri;
use http::uri::PathAndQuery;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// The same address with a path that is text; nothing where it is.
pub(super) fn legible(uri: &Uri) -> Option<Uri> {
    let path = uri.path();
    if !path.contains('%') || percent_decode_str(path).decode_utf8().is_ok() {
        return None;
    }
    let segment = |segment: &str| {
        let decoded = percent_decode_str(segment);
        if decoded.clone().decode_utf8().is_ok() {
            return segment.to_owned();
        }
        utf8_percent_encode(&decoded.decode_utf8_lossy(), NON_ALPHANUMERIC).to_string()
    };
    let mut path = path.split('/').map(segment).collect::<Vec<_>>().join("/");
    if let Some(query) = uri.query() {
        path.push('?');
        path.push_str(query);
    }
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(PathAndQuery::try_from(path).ok()?);
    Uri::from_parts(parts).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_no_text_is_changed() {
        let of = |uri: &str| legible(&uri.parse().unwrap()).map(|uri| uri.to_string());
        for uri in ["/v2/models/digits", "/v2/models/%C3%A9%2F?x=%FF", "http://agent/v2"] {
            assert_eq!(of(uri), None, "{uri}");
        }
        assert_eq!(of("/v2/%C3%A9/%FFa:b?x=%FF").unwrap(), "/v2/%C3%A9/%EF%BF%BDa%3Ab?x=%FF");
        assert_eq!(of("http://agent/%C3/x").unwrap(), "http://agent/%EF%BF%BD/x");
    }
}
