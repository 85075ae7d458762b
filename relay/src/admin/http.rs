//! The admin listener.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::fleet;
use crate::fleet::registry::Registry;
use crate::liveness::{BEAT, Liveness, Pulse};
use crate::metrics::Metrics;

/// Operators and a scraper or two.
const CONNECTIONS: usize = 64;

/// A connection lives no longer: this is no place for long answers.
const LIFETIME: Duration = Duration::from_secs(60);

const JSON: &str = "application/json";
const PLAIN: &str = "text/plain; charset=utf-8";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The admin listener.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    shared: Arc<Shared>,
    pulse: Pulse,
}

#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    liveness: Liveness,
    ready: Arc<AtomicBool>,
}

impl Admin {
    /// Opens the port. `ready` says whether clients should come here.
    pub(crate) fn bind(
        address: SocketAddr,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        liveness: Liveness,
        ready: Arc<AtomicBool>,
    ) -> io::Result<Self> {
        let socket = std::net::TcpListener::bind(address)?;
        socket.set_nonblocking(true)?;
        let pulse = liveness.pulse("admin listener");
        let shared = Arc::new(Shared { registry, metrics, liveness, ready });
        Ok(Self { listener: TcpListener::from_std(socket)?, shared, pulse })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Answers until draining begins.
    pub(crate) async fn run(self, scope: Shutdown) {
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = beat.tick() => {
                    self.pulse.beat();
                    continue;
                }
                () = scope.draining() => return,
            };
            let Ok((stream, _)) = accepted else {
                sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(permit) = room.clone().try_acquire_owned() else { continue };
            let (shared, inner) = (self.shared.clone(), scope.clone());
            scope.spawn("admin", async move {
                tokio::select! {
                    _ = timeout(LIFETIME, shared.serve(stream)) => {}
                    () = inner.draining() => {}
                }
                drop(permit);
            });
        }
    }
}

impl Shared {
    async fn serve(&self, stream: TcpStream) {
        let service = service_fn(async |request: Request<Incoming>| Ok::<_, Infallible>(self.answer(&request)));
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(LIFETIME);
        if let Err(error) = builder.serve_connection(TokioIo::new(stream), service).await {
            tracing::debug!(%error, "an operator's connection broke off");
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut response = reply(StatusCode::METHOD_NOT_ALLOWED, PLAIN, "only GET is answered here\n".into());
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let now = Instant::now();
        let unavailable = StatusCode::SERVICE_UNAVAILABLE;
        match request.uri().path() {
            "/healthz" => match self.liveness.stuck(now) {
                None => reply(StatusCode::OK, PLAIN, "alive\n".into()),
                Some(name) => reply(unavailable, PLAIN, format!("stuck: {name}\n")),
            },
            // Ready without any agent: clients are then told 503 with a time to come back, which a dead door could not do.
            "/readyz" if self.ready.load(Ordering::Acquire) => reply(StatusCode::OK, PLAIN, "ready\n".into()),
            "/readyz" => reply(unavailable, PLAIN, "not ready: starting or draining\n".into()),
            "/metrics" => {
                let mut text = String::with_capacity(32 << 10);
                self.metrics.write(&mut text);
                fleet::write_metrics(&self.registry.snapshot(), now, &mut text);
                reply(StatusCode::OK, PROMETHEUS, text)
            }
            "/fleet" => match fleet::listing(&self.registry.snapshot(), now) {
                Ok(text) => reply(StatusCode::OK, JSON, text + "\n"),
                Err(error) => reply(StatusCode::INTERNAL_SERVER_ERROR, PLAIN, format!("{error}\n")),
            },
            _ => reply(StatusCode::NOT_FOUND, PLAIN, "here are /healthz, /readyz, /metrics and /fleet\n".into()),
        }
    }
}

fn reply(status: StatusCode, kind: &'static str, text: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}
