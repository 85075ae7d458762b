//! THE walk of one request to a server behind the agent and back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use adit_common::deadline::Deadline;
use adit_common::id::UpstreamName;
use adit_common::manifest;
use adit_common::socket::{Protocol, WEBSOCKET};
use adit_common::timing::{Stage, Stopwatch};
use axum::body::Body;
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::sync::{Notify, Semaphore};

use super::body::{Answer, Ended, Given, Holding};
use super::fault::Fault;
use super::headers::{self, Visitor};
use super::pool::{Line, Pool};
use super::socket;
use crate::config::UpstreamProtocol;
use crate::metrics::UpstreamMeter;

/// A server behind the agent.
#[derive(Debug)]
pub struct Upstream {
    pub(super) told: manifest::Upstream,
    pub(super) address: Authority,
    pub(super) protocol: UpstreamProtocol,
    /// What it is told to be, instead of what the client said.
    pub(super) send_host: Option<Authority>,
    pub(super) health: Option<http::uri::PathAndQuery>,
    pub(super) interval: Duration,
    pub(super) check_timeout: Duration,
    pub(super) timeout: Duration,
    /// So many requests may be under way; each has one of the places.
    pub(super) most: usize,
    pub(super) places: Arc<Semaphore>,
    pub(super) pool: Arc<Pool>,
    pub(super) meter: Arc<UpstreamMeter>,
    /// A request found it out of reach.
    pub(super) suspected: Notify,
    /// What its sockets end with.
    pub(super) scope: Shutdown,
}

/// Counts how a request ended: it was cancelled, unless somebody says otherwise.
struct Outcome<'a>(&'a UpstreamMeter, &'static str);

impl Drop for Outcome<'_> {
    fn drop(&mut self) {
        self.0.ended(self.1);
    }
}

impl Upstream {
    /// What it is called.
    pub const fn name(&self) -> &UpstreamName {
        &self.told.name
    }

    /// Hands a request on, and returns with the answer's head, which carries its stopwatch. Dropping the future, or the answer's body,
    /// cancels the request at the server. `arrived` is when its head was there, `until` until when an answer is of use.
    pub async fn carry(
        &self,
        request: Request<Body>,
        visitor: &Visitor,
        arrived: Instant,
        until: Deadline,
    ) -> Result<Response<Body>, Fault> {
        let mut outcome = Outcome(&self.meter, "cancelled");
        let until = until.min(Deadline::after(Instant::now(), self.timeout));
        let answered = match until.instant() {
            Some(until) => {
                let walk = tokio::time::timeout_at(until.into(), self.walk(request, visitor, arrived));
                walk.await.unwrap_or_else(|_| Err(Fault::Late(self.name().clone())))
            }
            None => self.walk(request, visitor, arrived).await,
        };
        outcome.1 = match &answered {
            Ok(response) if response.status().is_server_error() => "error",
            Ok(_) => "ok",
            Err(fault) => fault.outcome(),
        };
        if matches!(answered, Err(Fault::Unreachable { .. })) {
            self.suspected.notify_one();
        }
        answered
    }

    async fn walk(&self, request: Request<Body>, visitor: &Visitor, arrived: Instant) -> Result<Response<Body>, Fault> {
        let place = self.places.clone().try_acquire_owned().map_err(|_| Fault::Full(self.name().clone()))?;
        let holding = Holding { meter: self.meter.clone(), _held: self.meter.request(), _place: place };
        let (mut head, body) = request.into_parts();
        let is_socket = match (&head.method, head.extensions.get()) {
            (&Method::CONNECT, Some(Protocol(protocol))) if protocol == WEBSOCKET => true,
            (&Method::CONNECT, _) => return Err(Fault::Invalid("no server is connected to but by WebSockets")),
            _ => false,
        };
        headers::to_server(&mut head, visitor, self.protocol, &self.address, self.send_host.as_ref())?;
        if is_socket {
            let key = socket::ask(&mut head, self.protocol);
            let (response, line, ended) = self.ask(head, Given::nothing(), true).await?;
            if socket::consents(&response, self.protocol, &key) {
                let opened = socket::open(response, self.name(), body, holding, &self.scope).await?;
                return Ok(timed(opened, &ended, arrived));
            }
            // The hops before would take it for a consent.
            if response.status() < StatusCode::MULTIPLE_CHOICES {
                return Err(self.odd(response.status(), "a WebSocket"));
            }
            return Ok(self.answer(response, line, holding, &ended, arrived));
        }
        let given = given(&head, body).await?;
        let (response, line, ended) = self.ask(head, given, false).await?;
        // They would wait for what comes after it, and nothing does.
        if response.status().is_informational() {
            return Err(self.odd(response.status(), "a plain request"));
        }
        Ok(self.answer(response, line, holding, &ended, arrived))
    }

    fn odd(&self, status: StatusCode, asked: &str) -> Fault {
        Fault::Broken { name: self.name().clone(), source: format!("it answers {status} to {asked}").into() }
    }

    /// The server's answer as the caller's.
    fn answer(
        &self,
        response: Response<Incoming>,
        line: Line,
        holding: Holding,
        ended: &Ended,
        arrived: Instant,
    ) -> Response<Body> {
        let (mut head, incoming) = response.into_parts();
        headers::to_caller(&mut head.headers);
        head.version = http::Version::default();
        head.extensions.clear();
        let body = Answer::new(incoming, line, holding, ended.clone(), self.pool.clone());
        timed(Response::from_parts(head, Body::new(body)), ended, arrived)
    }

    /// Asks on a connection of the pool; again on a fresh one where the first had been closed and the server has not seen the request,
    /// or may see it twice.
    async fn ask(&self, head: Parts, body: Given, socket: bool) -> Result<(Response<Incoming>, Line, Ended), Fault> {
        let ended = body.ended();
        let repeatable = body.is_nothing() && head.method.is_idempotent();
        let (mut next, mut fresh) = (Request::from_parts(head, body), false);
        loop {
            let mut line = self.pool.take(fresh).await?;
            if socket && !line.takes_sockets().await {
                return Err(Fault::NoSockets(self.name().clone()));
            }
            let spare = (repeatable && line.is_used()).then(|| {
                let mut spare = Request::new(Given::nothing());
                (*spare.method_mut(), *spare.uri_mut()) = (next.method().clone(), next.uri().clone());
                (*spare.version_mut(), *spare.headers_mut()) = (next.version(), next.headers().clone());
                spare
            });
            let mut failed = match line.send(next).await {
                Ok(response) => return Ok((response, line, ended)),
                Err(failed) => failed,
            };
            let again = failed.take_message().or(spare).filter(|_| line.is_used());
            let Some(again) = again else {
                return Err(Fault::Broken { name: self.name().clone(), source: failed.into_error().into() });
            };
            tracing::debug!(upstream = %self.name(), error = %failed.into_error(), "asking on a fresh connection");
            (next, fresh) = (again, true);
        }
    }
}

/// A request's body. Of one that should have none it is waited for whether it has: HTTP/1.1 would announce it.
async fn given(head: &Parts, mut body: Body) -> Result<Given, Fault> {
    let silent = matches!(head.method, Method::GET | Method::HEAD | Method::OPTIONS | Method::DELETE | Method::TRACE)
        && !head.headers.contains_key(http::header::CONTENT_LENGTH);
    if !silent || http_body::Body::is_end_stream(&body) {
        return Ok(Given::new(body));
    }
    match body.frame().await {
        None => Ok(Given::nothing()),
        Some(Ok(frame)) => Ok(Given::begun(frame, body)),
        Some(Err(_)) => Err(Fault::Invalid("the request's body broke off")),
    }
}

/// Gives the answer its stopwatch. The server's time begins with the request's last byte. Of an answer that came before it nobody can
/// tell how much of the wait was whose.
fn timed(mut response: Response<Body>, ended: &Ended, arrived: Instant) -> Response<Body> {
    let now = Instant::now();
    let ended = ended.at();
    let mut watch = Stopwatch::start_at(ended.unwrap_or(now));
    if let Some(ended) = ended {
        watch.received(ended.saturating_duration_since(arrived));
    }
    watch.lap_at(Stage::Upstream, now);
    response.extensions_mut().insert(watch);
    response
}
