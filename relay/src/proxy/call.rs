//! What travels with one request: its names, its budget, its stopwatch.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use adit_common::deadline::Deadline;
use adit_common::id::{AgentId, RequestId};
use adit_common::manifest::Dialect;
use adit_common::timing::Stopwatch;
use adit_common::trace::TraceContext;
use http::HeaderMap;

/// One request with its budget.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) id: RequestId,
    pub(crate) trace: TraceContext,
    pub(crate) stopwatch: Stopwatch,
    pub(crate) deadline: Deadline,
    /// The client's address.
    pub(crate) peer: SocketAddr,
    /// Whose spelling its errors have; known once it is routed.
    pub(crate) dialect: Dialect,
    /// Whose key it came with; known once that was looked up.
    pub(crate) key: Option<std::sync::Arc<str>>,
    /// The agent that was asked last.
    pub(crate) agent: Option<AgentId>,
}

impl Call {
    /// A request whose head was there at `born`. Its id and trace are the client's where those are valid, else new.
    pub(crate) fn begin(born: Instant, budget: Duration, headers: &HeaderMap, peer: SocketAddr) -> Self {
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let trace = text(TraceContext::HEADER).and_then(TraceContext::parse);
        Self {
            id: text(RequestId::HEADER).and_then(|id| RequestId::new(id).ok()).unwrap_or_else(RequestId::random),
            trace: trace.unwrap_or_else(TraceContext::random),
            stopwatch: Stopwatch::start_at(born),
            deadline: Deadline::after(born, budget),
            peer,
            dialect: Dialect::Oip,
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
        let begin = |headers: &HeaderMap| {
            Call::begin(Instant::now(), Duration::from_secs(1), headers, ([127, 0, 0, 1], 1).into())
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-request-id", HeaderValue::from_static("order-17"));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.insert("traceparent", HeaderValue::from_static(parent));
        let call = begin(&headers);
        assert_eq!((call.id.as_str(), call.trace.to_string().as_str()), ("order-17", parent));
        headers.insert("x-request-id", HeaderValue::from_static("a\"b{\"}"));
        headers.insert("traceparent", HeaderValue::from_static("00-0-0-0"));
        let call = begin(&headers);
        assert_eq!(call.id.as_str().len(), 16);
        assert_ne!(call.trace.trace_id(), "0".repeat(32));
    }
}
