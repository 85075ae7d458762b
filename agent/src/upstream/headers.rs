//! A request's head as a server behind the agent is to see it, and an answer's as the caller is. Pure.
//!
//! Fields of one connection end here (RFC 9110, section 7.6.1). The server is told which host the client meant, who it is, and the
//! request's id and trace; what is only between relay and agent it is not.

use std::net::IpAddr;

use adit_common::border::{strip_hop_by_hop, strip_ours};
use adit_common::id::RequestId;
use adit_common::trace::TraceContext;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Uri, Version};
use percent_encoding::percent_decode_str;

use super::fault::Fault;
use crate::config::UpstreamProtocol;

/// What a client on the local listener must not say of itself; relays have seen to it.
const FORGED: [HeaderName; 3] =
    [header::FORWARDED, HeaderName::from_static("x-forwarded-port"), HeaderName::from_static("x-real-ip")];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const REQUEST_ID: HeaderName = HeaderName::from_static(RequestId::HEADER);
const TRACEPARENT: HeaderName = HeaderName::from_static(TraceContext::HEADER);

/// Whose request it is.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Its id.
    pub id: RequestId,
    /// Its trace, as the hop before said it.
    pub trace: TraceContext,
    /// The client's address, where it is this agent that knows it and not a relay.
    pub peer: Option<IpAddr>,
}

/// The host that a request is for, as its client wrote it.
pub(super) fn host<'a>(uri: &'a Uri, headers: &'a HeaderMap) -> Option<&'a str> {
    let field = || headers.get(header::HOST).and_then(|host| host.to_str().ok());
    uri.authority().map(Authority::as_str).or_else(field)
}

/// Makes a request's head the server's. `own` is where the server is, `told` what it is told to be instead of what the client said.
pub(super) fn to_server(
    head: &mut Parts,
    visitor: &Visitor,
    protocol: UpstreamProtocol,
    own: &Authority,
    told: Option<&Authority>,
) -> Result<(), Fault> {
    let path = head.uri.path_and_query().cloned().unwrap_or_else(|| PathAndQuery::from_static("/"));
    if climbs(path.path()) {
        return Err(Fault::Invalid("a path with `.` or `..` in it is handed on to no server"));
    }
    let said = host(&head.uri, &head.headers).and_then(|host| host.parse::<Authority>().ok());
    let trailers = head.headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip_hop_by_hop(&mut head.headers);
    strip_ours(&mut head.headers);
    let headers = &mut head.headers;
    headers.remove(header::EXPECT);
    headers.remove(header::TE);
    if let Some(peer) = visitor.peer {
        FORGED.iter().for_each(|name| drop(headers.remove(name)));
        set(headers, FORWARDED_FOR, &peer.to_canonical().to_string());
        headers.insert(FORWARDED_PROTO, HeaderValue::from_static("http"));
    }
    headers.remove(FORWARDED_HOST);
    if let Some(said) = &said {
        set(headers, FORWARDED_HOST, said.as_str());
    }
    set(headers, REQUEST_ID, visitor.id.as_str());
    set(headers, TRACEPARENT, &visitor.trace.child().to_string());
    let host = told.or(said.as_ref()).unwrap_or(own);
    let mut uri = http::uri::Parts::default();
    uri.path_and_query = Some(path);
    match protocol {
        UpstreamProtocol::H1 => {
            join_cookies(headers);
            set(headers, header::HOST, host.as_str());
            head.version = Version::HTTP_11;
        }
        UpstreamProtocol::H2c => {
            headers.remove(header::HOST);
            if trailers {
                headers.insert(header::TE, HeaderValue::from_static("trailers"));
            }
            (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(host.clone()));
            head.version = Version::HTTP_2;
        }
    }
    head.uri = Uri::from_parts(uri).map_err(|_| Fault::Invalid("a request's target that is none"))?;
    head.extensions.clear();
    Ok(())
}

/// Makes an answer's fields the caller's.
pub(super) fn to_caller(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

/// HTTP/2 and the tunnel may carry cookies one by one, HTTP/1.1 may not (RFC 9113, section 8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    if headers.get_all(header::COOKIE).iter().nth(1).is_none() {
        return;
    }
    let all: Vec<&[u8]> = headers.get_all(header::COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&all.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Whether a path leads out of what it begins with, for a server that resolves dots, also encoded ones.
fn climbs(path: &str) -> bool {
    let decoded = percent_decode_str(path).decode_utf8_lossy();
    decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(uri: &str, fields: &[(&'static str, &'static str)]) -> Parts {
        let mut request = http::Request::get(uri).body(()).unwrap();
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    fn visitor(peer: Option<&str>) -> Visitor {
        let (id, trace) = ("order-17".parse().unwrap(), TraceContext::random());
        Visitor { id, trace, peer: peer.map(|peer| peer.parse().unwrap()) }
    }

    const OWN: Authority = Authority::from_static("127.0.0.1:8000");

    fn names(head: &Parts) -> Vec<&str> {
        let mut names: Vec<_> = head.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn a_servers_head_has_nothing_of_the_hops_before() {
        let fields = [
            ("connection", "x-hop, keep-alive"),
            ("x-hop", "1"),
            ("adit-upstream", "1"),
            ("adit-budget", "17"),
            ("expect", "100-continue"),
            ("te", "trailers"),
            ("cookie", "a=1"),
            ("cookie", "b=2"),
            ("x-forwarded-for", "192.0.2.7"),
            ("x-forwarded-host", "forged"),
            ("content-type", "text/plain"),
        ];
        let mut head = head("https://relay.test:8443/a/b?c=d", &fields);
        let visitor = visitor(None);
        to_server(&mut head, &visitor, UpstreamProtocol::H1, &OWN, None).unwrap();
        assert_eq!((head.uri.to_string().as_str(), head.version), ("/a/b?c=d", Version::HTTP_11));
        assert_eq!(
            names(&head),
            ["content-type", "cookie", "host", "traceparent", "x-forwarded-for", "x-forwarded-host", "x-request-id"]
        );
        let field = |name: &str| head.headers[name].to_str().unwrap();
        assert_eq!((field("host"), field("x-forwarded-host")), ("relay.test:8443", "relay.test:8443"));
        assert_eq!((field("cookie"), field("x-request-id")), ("a=1; b=2", "order-17"));
        assert_eq!(field("x-forwarded-for"), "192.0.2.7", "the relay has seen it");
        let trace = TraceContext::parse(field("traceparent")).unwrap();
        assert!(trace.trace_id() == visitor.trace.trace_id() && trace != visitor.trace);
    }

    #[test]
    fn over_http_2_the_host_is_the_authority_and_trailers_are_asked_for() {
        let mut asked = head("/x", &[("host", "relay.test"), ("te", "trailers")]);
        to_server(&mut asked, &visitor(None), UpstreamProtocol::H2c, &OWN, None).unwrap();
        assert_eq!(asked.uri, "http://relay.test/x");
        assert_eq!(names(&asked), ["te", "traceparent", "x-forwarded-host", "x-request-id"]);
        let told = Authority::from_static("localhost");
        let mut asked = head("/x", &[("host", "relay.test")]);
        to_server(&mut asked, &visitor(None), UpstreamProtocol::H2c, &OWN, Some(&told)).unwrap();
        assert_eq!(
            (asked.uri.to_string().as_str(), &asked.headers["x-forwarded-host"]),
            ("http://localhost/x", &"relay.test".parse::<HeaderValue>().unwrap())
        );
    }

    #[test]
    fn a_client_on_the_local_listener_cannot_say_where_it_comes_from() {
        let mut asked =
            head("/", &[("x-forwarded-for", "10.0.0.1"), ("forwarded", "for=x"), ("x-real-ip", "10.0.0.1")]);
        to_server(&mut asked, &visitor(Some("::ffff:192.0.2.9")), UpstreamProtocol::H1, &OWN, None).unwrap();
        assert_eq!(asked.headers["x-forwarded-for"], "192.0.2.9");
        assert_eq!(asked.headers["host"], "127.0.0.1:8000", "it named none");
        assert!(!asked.headers.contains_key("forwarded") && !asked.headers.contains_key("x-real-ip"));
    }

    #[test]
    fn a_path_cannot_climb_out_of_its_prefix() {
        for path in ["/v2/../admin", "/v2/%2e%2e/admin", "/v2/..%2fadmin", "/v2/%2E", "/v2/..%5cadmin", "/.."] {
            let refused = to_server(&mut head(path, &[]), &visitor(None), UpstreamProtocol::H1, &OWN, None);
            assert!(matches!(refused, Err(Fault::Invalid(_))), "{path}");
        }
        for path in ["/v2/...", "/v2/a..b", "/v2/.hidden", "/v2?x=../y", "/v2//x"] {
            assert!(
                to_server(&mut head(path, &[]), &visitor(None), UpstreamProtocol::H1, &OWN, None).is_ok(),
                "{path}"
            );
        }
    }

    #[test]
    fn an_answers_connection_ends_here() {
        let mut answer =
            head("/", &[("connection", "x-hop"), ("x-hop", "1"), ("keep-alive", "timeout=5"), ("etag", "x")]);
        to_caller(&mut answer.headers);
        assert_eq!(names(&answer), ["etag"]);
    }
}
