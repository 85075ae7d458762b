//! What is taken off and put on at the border: hop-by-hop fields end here, and nobody but the relay speaks for the relay.

use std::net::SocketAddr;
use std::time::Instant;

use adit_common::border::{strip_hop_by_hop, strip_ours};
use adit_common::deadline::Deadline;
use adit_common::id::RequestId;
use adit_common::manifest::UPSTREAM_HEADER;
use adit_common::timing::Timing;
use adit_common::trace::TraceContext;
use adit_common::tunnel::Client;
use http::header::{self, HeaderName, HeaderValue};
use http::response::Parts;
use http::{HeaderMap, StatusCode, request};

use super::call::Call;
use crate::fleet::agent::Outcome;

/// What a client must not tell an agent: its key is the relay's business, and where it comes from the relay saw itself.
const NOT_FOR_AGENTS: [HeaderName; 7] = [
    header::AUTHORIZATION,
    HeaderName::from_static("x-api-key"),
    header::EXPECT,
    header::FORWARDED,
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-port"),
    HeaderName::from_static("x-real-ip"),
];

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static(RequestId::HEADER);
const TRACEPARENT: HeaderName = HeaderName::from_static(TraceContext::HEADER);
const UPSTREAM: HeaderName = HeaderName::from_static(UPSTREAM_HEADER);
const BUDGET: HeaderName = HeaderName::from_static(Deadline::HEADER);
const CLIENT: HeaderName = HeaderName::from_static(Client::HEADER);
const SERVER_TIMING: HeaderName = HeaderName::from_static(Timing::HEADER);
const ALLOW_ORIGIN: HeaderName = HeaderName::from_static("timing-allow-origin");

/// From a client's fields to those of the tunnel.
pub(super) fn to_agent(headers: &mut HeaderMap, call: &Call, now: Instant) {
    let trailers = headers.get(header::TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    strip(headers);
    if !trailers {
        headers.remove(header::TE);
    }
    for name in &NOT_FOR_AGENTS {
        headers.remove(name);
    }
    let mut set = |name: HeaderName, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    set(REQUEST_ID, call.id.as_str());
    set(TRACEPARENT, &call.trace.child().to_string());
    let proto = if call.peer.secure { "https" } else { "http" };
    let peer = call.peer.address;
    let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
    set(FORWARDED_FOR, &peer.ip().to_string());
    // The older field has no room for a port.
    set(header::FORWARDED, &format!("for=\"{peer}\";proto={proto}"));
    if let Some(budget) = call.deadline.header(now) {
        set(BUDGET, &budget);
    }
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(proto));
    let client = call.key.as_deref().map_or_else(|| Client::at(peer.ip()), Client::with_key);
    headers.insert(CLIENT, client.header());
}

/// The host that a request is for, as its client wrote it.
pub(super) fn host(head: &request::Parts) -> Option<&str> {
    let field = || head.headers.get(header::HOST).and_then(|host| host.to_str().ok());
    head.uri.authority().map(http::uri::Authority::as_str).or_else(field)
}

/// Tells the agent that the request is for a server behind it.
pub(super) fn to_upstream(headers: &mut HeaderMap) {
    headers.insert(UPSTREAM, HeaderValue::from_static("1"));
}

/// From an agent's fields to a client's.
pub(super) fn to_client(headers: &mut HeaderMap) {
    strip(headers);
}

/// What every answer carries, an agent's or the relay's own.
pub(crate) fn mark(headers: &mut HeaderMap, call: &Call, timing: &Timing) {
    if let Ok(value) = HeaderValue::from_str(&timing.to_header()) {
        headers.insert(SERVER_TIMING, value);
    }
    headers.insert(ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if let Ok(value) = HeaderValue::from_str(call.id.as_str()) {
        headers.insert(REQUEST_ID, value);
    }
}

/// An agent's timing, if its answer has one.
pub(super) fn timing(headers: &HeaderMap) -> Option<Timing> {
    headers.get(SERVER_TIMING).and_then(|value| Timing::parse(value.to_str().ok()?))
}

/// What an answer's head says of the agent: that it is too busy, broken, or neither. gRPC says it in a field of its own.
pub(super) fn outcome(head: &Parts) -> Outcome {
    let grpc = head.headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse::<u8>().ok());
    match (grpc, head.status) {
        // RESOURCE_EXHAUSTED, UNAVAILABLE.
        (Some(8 | 14), _) => Outcome::Busy,
        // UNKNOWN, DEADLINE_EXCEEDED, INTERNAL, DATA_LOSS.
        (Some(2 | 4 | 13 | 15), _) => Outcome::Bad,
        (None, StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => Outcome::Busy,
        (None, status) if status.is_server_error() => Outcome::Bad,
        _ => Outcome::Good,
    }
}

fn strip(headers: &mut HeaderMap) {
    strip_hop_by_hop(headers);
    strip_ours(headers);
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::proxy::call::Peer;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn peer(address: &str, secure: bool) -> Peer {
        Peer { address: address.parse().unwrap(), secure }
    }

    #[test]
    fn a_client_cannot_speak_for_the_relay() {
        let mut headers = map(&[
            ("adit-budget", "99999999999"),
            ("adit-anything", "x"),
            ("authorization", "Bearer secret"),
            ("x-api-key", "secret"),
            ("x-forwarded-for", "10.0.0.1"),
            ("x-forwarded-proto", "http"),
            ("forwarded", "for=10.0.0.1"),
            ("connection", "keep-alive, x-hop"),
            ("x-hop", "1"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("content-type", "image/png"),
        ]);
        let now = Instant::now();
        let call = Call::begin(now, Duration::from_secs(2), &headers, peer("[::ffff:192.0.2.7]:999", true));
        to_agent(&mut headers, &call, now + Duration::from_millis(500));
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        let kept = ["adit-budget", "adit-client", "content-type", "forwarded", "te", "traceparent", "x-forwarded-for"];
        assert_eq!(names, [&kept[..], &["x-forwarded-proto", "x-request-id"]].concat());
        assert_eq!(headers["forwarded"], "for=\"192.0.2.7:999\";proto=https");
        assert_eq!(headers["adit-budget"], "1500000");
        assert_eq!(headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(headers["x-forwarded-proto"], "https");
        let sent = TraceContext::parse(headers["traceparent"].to_str().unwrap()).unwrap();
        assert_eq!(sent.trace_id(), call.trace.trace_id());
        assert_ne!(sent, call.trace, "a child of the client's span, not that span");
    }

    #[test]
    fn te_other_than_trailers_ends_here() {
        let mut headers = map(&[("te", "gzip")]);
        let call = Call::begin(Instant::now(), Duration::from_secs(2), &headers, peer("127.0.0.1:1", false));
        to_agent(&mut headers, &call, Instant::now());
        assert!(!headers.contains_key("te"));
        assert_eq!(headers["x-forwarded-proto"], "http");
    }
}
