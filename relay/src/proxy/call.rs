//! What travels with one request: its names, its budget, its stopwatch.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_common::deadline::Deadline;
use adit_common::id::{AgentId, RequestId};
use adit_common::manifest::Dialect;
use adit_common::timing::Stopwatch;
use adit_common::trace::TraceContext;
use http::{HeaderMap, header};

/// Whether a request's body may go on for ever: from then on neither its length nor its silence is minded. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Endless(Arc<AtomicBool>);

impl Endless {
    pub(crate) fn begin(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// Where a request comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Peer {
    /// The client's address.
    pub(crate) address: SocketAddr,
    /// Whether it came over TLS.
    pub(crate) secure: bool,
}

/// One request with its budget.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: RequestId,
    pub(crate) trace: TraceContext,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) deadline: Deadline,
    pub(crate) peer: Peer,
    /// Whose spelling its errors have; known once it is routed, and of gRPC at once.
    pub(crate) dialect: Dialect,
    /// Whose key it came with; known once that was looked up.
    pub(crate) key: Option<Arc<str>>,
    /// Whether its body has no end.
    pub(crate) endless: Endless,
    /// The agent that was asked last.
    pub(crate) agent: Option<AgentId>,
}

impl Call {
    /// A request whose head was there at `born`. Its id and trace are the client's where those are valid, else new.
    pub(crate) fn begin(born: Instant, budget: Duration, headers: &HeaderMap, peer: Peer) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let is_grpc = text(header::CONTENT_TYPE.as_str()).is_some_and(|kind| kind.starts_with("application/grpc"));
        let own = text(Deadline::GRPC_HEADER).filter(|_| is_grpc);
        let own = own.map_or(Deadline::never(), |own| Deadline::parse_grpc(born, own));
        let trace = text(TraceContext::HEADER).and_then(TraceContext::parse);
        Self {
            id: text(RequestId::HEADER).and_then(|id| RequestId::new(id).ok()).unwrap_or_else(RequestId::random),
            trace: trace.unwrap_or_else(TraceContext::random),
            stopwatch: Stopwatch::start_at(born),
            deadline: Deadline::after(born, budget).min(own),
            peer,
            dialect: if is_grpc { Dialect::Grpc } else { Dialect::Oip },
            endless: Endless::default(),
            key: None,
            agent: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    #[test]
    fn a_clients_names_are_kept_where_they_are_valid() {
        let peer = Peer { address: ([127, 0, 0, 1], 1).into(), secure: true };
        let begin = |headers: &HeaderMap| Call::begin(Instant::now(), Duration::from_secs(1), headers, peer);
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("order-17"));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", HeaderValue::from_static(parent));
        let call = begin(&headers);
        assert_eq!((call.id.as_str(), call.trace.to_string().as_str()), ("order-17", parent));
        assert_eq!(call.dialect, Dialect::Oip);
        headers.insert("content-type", HeaderValue::from_static("application/grpc+proto"));
        headers.insert("grpc-timeout", HeaderValue::from_static("50m"));
        let call = begin(&headers);
        assert_eq!(call.dialect, Dialect::Grpc);
        assert!(call.deadline.remaining(Instant::now()).unwrap() <= Duration::from_millis(50));
        headers.insert("x-request-id", HeaderValue::from_static("a\"b{\"}"));
        headers.insert("traceparent", HeaderValue::from_static("00-0-0-0"));
        let call = begin(&headers);
        assert_eq!(call.id.as_str().len(), 16);
        assert_ne!(call.trace.trace_id(), "0".repeat(32));
    }
}
