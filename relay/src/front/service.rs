//! Any front's request becomes a call, and an error becomes an answer. The one place where that happens.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use adit_common::manifest::Dialect;
use adit_common::socket::{SocketBody, Upgrade, carry};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Request, Response, StatusCode, Version};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde_json::json;
use tracing::Instrument;
use tracing::field::Empty;

use super::body::{FrontBody, Linger, Reply, Said};
use crate::config::FrontConfig;
use crate::error::{Kind, Origin, ProxyError};
use crate::metrics::Metrics;
use crate::proxy::call::{Call, Peer};
use crate::proxy::forward::Proxy;
use crate::proxy::mark;

/// The target of the line of each request, so that a filter can leave it out.
const ACCESS: &str = "adit_relay::access";

/// What a field of a head costs beside its name and value, as RFC 9113 (6.5.2) counts it.
const FIELD: usize = 32;

/// What a `grpc-message` spells in percent: all but printable ASCII.
const GRPC_MESSAGE: &AsciiSet = &CONTROLS.add(b'%');

/// How much of a path a log line shows.
const LOGGED: usize = 200;

/// Counts the requests that nobody waits for any more.
struct Waiting<'a> {
    metrics: &'a Metrics,
    answered: bool,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if !self.answered {
            self.metrics.cancelled.one();
            tracing::debug!("the client gave up waiting");
        }
    }
}

/// What every front hands its requests to.
#[derive(Debug)]
pub(crate) struct Service {
    proxy: Proxy,
    metrics: Arc<Metrics>,
    budget: Duration,
    max_headers: usize,
    max_head: usize,
    max_body: u64,
    body_timeout: Duration,
}

impl Service {
    /// `budget` is a request's time until its answer's head.
    pub(crate) fn new(proxy: Proxy, config: &FrontConfig, budget: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            proxy,
            metrics,
            budget,
            max_headers: config.max_headers,
            max_head: config.max_head,
            max_body: config.max_body,
            body_timeout: config.body_timeout,
        }
    }

    /// Answers a request, whatever happens.
    pub(super) async fn call(
        &self,
        peer: Peer,
        request: Request<Incoming>,
        linger: Option<Linger>,
        scope: &Shutdown,
    ) -> Response<Reply> {
        let path = request.uri().path();
        let call = Call::begin(Instant::now(), self.budget, request.headers(), peer);
        let span = tracing::info_span!(
            "request",
            request_id = %call.id,
            trace_id = call.trace.trace_id(),
            method = %request.method(),
            path = path.get(..path.len().min(LOGGED)).unwrap_or_default(),
            agent = Empty,
        );
        self.admit(call, request, linger, scope).instrument(span).await
    }

    /// Tells a socket from a request.
    async fn admit(
        &self,
        mut call: Call,
        mut request: Request<Incoming>,
        linger: Option<Linger>,
        scope: &Shutdown,
    ) -> Response<Reply> {
        let extended = request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
        let endless = call.endless.clone();
        let body = |said| FrontBody::new(said, self.max_body, self.body_timeout, linger, endless);
        let upgraded = hyper::upgrade::on(&mut request);
        let (mut head, incoming) = request.into_parts();
        match Upgrade::take(&mut head, extended.as_deref()) {
            Ok(None) => self.answer(&mut call, Request::from_parts(head, body(Said::Body(incoming)))).await,
            Ok(Some(upgrade)) => {
                call.endless.begin();
                let (put, said) = SocketBody::new();
                let request = Request::from_parts(head, body(Said::Socket(said)));
                let (mut head, reply) = self.answer(&mut call, request).await.into_parts();
                let Reply::Answer(answer) = reply else { return Response::from_parts(head, reply) };
                if !upgrade.answer(&mut head) {
                    return Response::from_parts(head, Reply::Answer(answer));
                }
                let leaving = scope.clone();
                scope.spawn("socket", async move {
                    // The client has its answer, or is gone.
                    if let Ok(upgraded) = upgraded.await {
                        carry(TokioIo::new(upgraded), put, answer, leaving.draining()).await;
                    }
                });
                Response::from_parts(head, Reply::Own(None))
            }
            Err(reason) => self.refuse(&call, &ProxyError::new(Kind::BadRequest, reason)),
        }
    }

    async fn answer(&self, call: &mut Call, request: Request<FrontBody>) -> Response<Reply> {
        let mut waiting = Waiting { metrics: &self.metrics, answered: false };
        let result = match self.check(&request) {
            Ok(()) => self.proxy.forward(call, request).await,
            Err(error) => Err(error),
        };
        waiting.answered = true;
        let (status, response) = match result {
            Ok(response) => (response.status(), response.map(Reply::Answer)),
            Err(error) => (error.status(), self.refuse(call, &error)),
        };
        self.metrics.answered(status);
        tracing::info!(
            target: ACCESS,
            status = status.as_u16(),
            micros = call.stopwatch.elapsed().as_micros() as u64,
            peer = %call.peer.address,
            key = call.key.as_deref().unwrap_or("-"),
            "answered"
        );
        response
    }

    /// Looks at the head, before anything is looked up for it.
    fn check(&self, request: &Request<FrontBody>) -> Result<(), ProxyError> {
        let headers = request.headers();
        if headers.len() > self.max_headers {
            let message = format!("the request has more than {} header fields", self.max_headers);
            return Err(ProxyError::new(Kind::HeadTooLarge, message));
        }
        if size(headers) + request.uri().path().len() > self.max_head {
            let limit = adit_common::daemon::format_bytes(self.max_head as u64);
            return Err(ProxyError::new(Kind::HeadTooLarge, format!("the request's head is larger than {limit}")));
        }
        // RFC 9112, section 3.2: without exactly one nobody knows whom it is for.
        if request.version() == Version::HTTP_11 && headers.get_all(header::HOST).iter().count() != 1 {
            return Err(ProxyError::new(Kind::BadRequest, "the request needs exactly one host field"));
        }
        request.body().check()
    }

    /// An error as its caller's dialect spells it.
    fn refuse(&self, call: &Call, error: &ProxyError) -> Response<Reply> {
        self.metrics.failed(error.kind);
        let (kind, cause, origin) = (error.kind.name(), error.detail(), error.kind.origin());
        if origin == Origin::Client {
            tracing::debug!(kind, error = %error, cause, "refused");
        } else {
            tracing::warn!(kind, error = %error, cause, sent = ?error.sent, "no answer");
        }
        let is_grpc = call.dialect == Dialect::Grpc;
        let body = if is_grpc { None } else { Some(spell(call.dialect, &error.message)) };
        let mut response = Response::new(Reply::Own(body));
        let headers = response.headers_mut();
        mark(headers, call, &call.stopwatch.finish());
        if is_grpc {
            // The status of the call stands in the head, whose own is always 200, and there is nothing else.
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert("grpc-status", HeaderValue::from(error.kind.grpc_code()));
            let message = utf8_percent_encode(&error.message, GRPC_MESSAGE).to_string();
            if let Ok(message) = HeaderValue::from_str(&message) {
                headers.insert("grpc-message", message);
            }
            return response;
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        *response.status_mut() = error.status();
        let headers = response.headers_mut();
        let mut set = |name: HeaderName, value: Option<&str>| {
            if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
                headers.insert(name, value);
            }
        };
        set(header::RETRY_AFTER, error.retry_after());
        set(header::ALLOW, error.allow.as_deref());
        set(header::WWW_AUTHENTICATE, (error.status() == StatusCode::UNAUTHORIZED).then_some("Bearer"));
        response
    }
}

/// The size of a head's fields.
fn size(headers: &HeaderMap) -> usize {
    headers.iter().map(|(name, value)| name.as_str().len() + value.len() + FIELD).sum()
}

/// An error's body.
fn spell(dialect: Dialect, message: &str) -> Bytes {
    let body = match dialect {
        Dialect::Deepstack => json!({ "success": false, "error": message, "duration": 0 }),
        Dialect::Boxes => json!({ "data": null, "error": message, "success": false }),
        Dialect::Annotated => json!({ "message": message }),
        _ => json!({ "error": message }),
    };
    body.to_string().into()
}
