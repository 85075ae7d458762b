//! One router for the tunnel and for the local listener.
//!
//! Around every request stands `visit`: it counts it as load, puts its id and trace into every log line, and writes the
//! agent's timing into its answer.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use adit_common::daemon::Shutdown;
use adit_common::deadline::Deadline;
use adit_common::id::RequestId;
use adit_common::manifest::Endpoint;
use adit_common::timing::{Stopwatch, Timing};
use adit_common::trace::TraceContext;
use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{Next, from_fn_with_state};
use bytes::Bytes;
use http::{Extensions, HeaderMap, HeaderValue, Response, StatusCode};
use tracing::Instrument as _;

use super::carried::Carriage;
use super::coding::Coding;
use super::compat;
use super::grpc;
use super::legible::legible;
use super::oip;
use super::openapi;
use super::paths::{Need, Paths};
use super::reply::{Refusal, refusal};
use super::tfserving;
use super::upload::{Intake, Room, Upload, UploadError};
use crate::config::ApiConfig;
use crate::metrics::{InFlight, Metrics};
use crate::serving::{Catalogue, Serving};

/// Which way a request came: whoever serves it puts this into its extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Through a tunnel, from a relay that is trusted to say who the client is.
    Tunnel,
    /// Over the local listener, from this address.
    Local(SocketAddr),
}

/// When a request's head was there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Arrived(pub(super) Instant);

/// What the dialects need.
#[derive(Debug)]
pub struct Api {
    pub(super) serving: Serving,
    intake: Intake,
    pub(super) metrics: Arc<Metrics>,
    pub(super) host: String,
    /// Whether models may be loaded and unloaded, and settings changed, over the local listener.
    local_control: bool,
    carriage: Carriage,
    scope: Shutdown,
}

impl Api {
    /// Everything a router needs; `host` is what the photo dialect calls this machine, `local_control` whether models may be
    /// loaded and unloaded over the local listener, `carriage` has the servers behind it, `scope` is what its endless answers end with.
    pub fn new(
        serving: Serving,
        config: &ApiConfig,
        metrics: Arc<Metrics>,
        host: String,
        local_control: bool,
        carriage: Carriage,
        scope: Shutdown,
    ) -> Self {
        let intake = Intake::new(config.max_body, config.max_bodies);
        Self { serving, intake, metrics, host, local_control, carriage, scope }
    }

    /// Refuses to change the agent for whoever asks over the local listener, unless its configuration allows that. Relays have
    /// looked at their callers' keys.
    pub(super) fn admit_control(&self, extensions: &Extensions) -> Result<(), Refusal> {
        if self.local_control || !matches!(extensions.get::<Origin>(), Some(Origin::Local(_))) {
            return Ok(());
        }
        let message = "nothing is changed over this listener: [local] control in agent.toml allows it";
        Err(Refusal::new(StatusCode::FORBIDDEN, message))
    }

    /// Resolves when the agent begins to drain: what would go on for ever says goodbye then.
    pub(super) fn leaving(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        let scope = self.scope.clone();
        Box::pin(async move { scope.draining().await })
    }

    /// Takes a request's body in; one that is compressed comes expanded.
    pub(super) async fn take(&self, request: Request) -> Result<Upload, Refusal> {
        let coding = Coding::of(request.headers());
        let coding = coding.map_err(|message| Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message))?;
        let upload = self.receive(request.into_body()).await?;
        match coding {
            Some(coding) => self.intake.expand(upload, coding).await.map_err(|error| self.refused(&error)),
            None => Ok(upload),
        }
    }

    /// Takes a body in as it is.
    pub(super) async fn receive(&self, body: Body) -> Result<Upload, Refusal> {
        self.intake.collect(body).await.map_err(|error| self.refused(&error))
    }

    /// Room among all bodies for so many bytes that are there already.
    pub(super) fn hold(&self, length: usize) -> Result<Room, Refusal> {
        self.intake.hold(length).map_err(|error| self.refused(&error))
    }

    /// How long one body may be, in bytes.
    pub(super) const fn max_body(&self) -> usize {
        self.intake.max_body()
    }

    fn refused(&self, error: &UploadError) -> Refusal {
        let status = match error {
            UploadError::TooLong(_) => StatusCode::PAYLOAD_TOO_LARGE,
            UploadError::NoRoom => {
                self.metrics.overloaded.add();
                StatusCode::SERVICE_UNAVAILABLE
            }
            UploadError::Broken | UploadError::Coding(_) => StatusCode::BAD_REQUEST,
        };
        Refusal::new(status, error.to_string())
    }
}

/// Every dialect.
fn dialects() -> Vec<Paths> {
    vec![
        oip::rest::paths(),
        oip::grpc::paths(),
        grpc::health(),
        grpc::reflection(),
        tfserving::rest::paths(),
        tfserving::grpc::paths(),
        compat::photo::paths(),
        compat::deepstack::paths(),
        compat::detect::paths(),
        compat::annotate::paths(),
        compat::predictions::paths(),
        compat::frames::paths(),
        openapi::page::paths(),
    ]
}

/// What is declared, whatever models there are.
pub(super) fn declared() -> Vec<Endpoint> {
    dialects().iter().flat_map(|paths| paths.endpoints(|_| true)).collect()
}

/// What may be asked, as the manifest says it to relays, of an agent with these models.
pub fn endpoints(catalogue: &Catalogue) -> Vec<Endpoint> {
    let has = |need| match need {
        Need::Nothing => true,
        Need::Classifier => catalogue.first_classifier().is_some(),
        Need::Detector => catalogue.detectors().next().is_some(),
    };
    dialects().iter().flat_map(|paths| paths.endpoints(has)).collect()
}

/// The router over all dialects.
pub fn router(api: Arc<Api>) -> Router {
    let all = dialects().into_iter().fold(Router::new(), |all, paths| all.merge(paths.router()));
    let all = all
        .fallback(async |request: Request| {
            let message = format!("there is nothing at {}", request.uri().path());
            if grpc::is_grpc(request.headers()) {
                return tonic::Status::unimplemented(message).into_http();
            }
            refusal(StatusCode::NOT_FOUND, &message)
        })
        .method_not_allowed_fallback(async |request: Request| {
            let message = format!("{} is not for {}", request.method(), request.uri().path());
            refusal(StatusCode::METHOD_NOT_ALLOWED, &message)
        })
        .with_state(api.clone());
    // Around the routing, too: it goes by the path that `visit` leaves.
    Router::new().fallback_service(all).layer(from_fn_with_state(api, visit))
}

async fn visit(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response<Body> {
    let arrived = Instant::now();
    let in_flight = api.metrics.arrive();
    let id =
        text(request.headers(), RequestId::HEADER).and_then(|id| id.parse().ok()).unwrap_or_else(RequestId::random);
    let trace = text(request.headers(), TraceContext::HEADER).and_then(TraceContext::parse);
    let trace = trace.unwrap_or_else(TraceContext::random);
    let span = tracing::info_span!("request", %id, trace = trace.trace_id());
    request.extensions_mut().insert(Arrived(arrived));
    let server = api.carriage.server(&mut request, &api.serving, &id, trace);
    if server.is_none()
        && let Some(uri) = legible(request.uri())
    {
        *request.uri_mut() = uri;
    }
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());

    let mut response = match server {
        None => next.run(request).instrument(span.clone()).await,
        // Boxed: few requests need room for it.
        Some(server) => Box::pin(server.answer(request)).instrument(span.clone()).await,
    };
    let timing = match response.extensions_mut().remove::<Stopwatch>() {
        Some(watch) => {
            let timing = watch.finish();
            api.metrics.observe(&timing);
            timing
        }
        None => Stopwatch::start_at(arrived).finish(),
    };
    let status = response.status().as_u16();
    let _span = span.entered();
    if status >= 500 {
        tracing::warn!(%method, path, status, total = ?timing.total(), "answered");
    } else {
        tracing::debug!(%method, path, status, total = ?timing.total(), "answered");
    }
    let headers = response.headers_mut();
    for (name, value) in [(Timing::HEADER, timing.to_header()), (RequestId::HEADER, id.to_string())] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(name, value);
        }
    }
    // The request is over when its answer is written, or nobody wants it any more.
    response.map(|body| Body::new(Counted { body, _in_flight: in_flight }))
}

/// An answer's body that counts as load until it is dropped. It says of itself what the body says, so that a length that
/// is known stays known.
struct Counted {
    body: Body,
    _in_flight: InFlight,
}

impl http_body::Body for Counted {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// A header as text, if it is there once and readable.
pub(super) fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// When a request's head was there; the router has noted it.
pub(super) fn arrived(request: &Request) -> Instant {
    request.extensions().get::<Arrived>().map_or_else(Instant::now, |arrived| arrived.0)
}

/// Until when the answer is of use, as the hop before says.
pub(super) fn deadline(request: &Request) -> Deadline {
    let header = text(request.headers(), Deadline::HEADER);
    header.map_or(Deadline::never(), |header| Deadline::parse(arrived(request), header))
}
