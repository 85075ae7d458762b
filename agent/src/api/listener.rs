//! Serves a router on a TCP port of this machine: HTTP/1.1, and HTTP/2 for clients that know it is spoken.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use adit_common::daemon::Shutdown;
use adit_common::socket::{SocketBody, Upgrade, carry};
use axum::Router;
use axum::body::Body;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tower_service::Service as _;

use super::reply::refusal;
use super::router::Origin;
use crate::error::AgentError;

/// A head that takes longer is an attack or a dead line.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);

/// More connections wait in the kernel's queue: each may hold a body.
const MAX_CONNECTIONS: usize = 1024;

/// After an error of `accept`, which is nearly always a lack of file descriptors: it ends when others close theirs.
const PAUSE: Duration = Duration::from_millis(100);

/// A bound port.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
}

impl Listener {
    /// Binds the address; `purpose` is for the error.
    pub async fn bind(address: SocketAddr, purpose: &'static str) -> Result<Self, AgentError> {
        let failed = |source| AgentError::Listen { address, purpose, source };
        let socket = TcpListener::bind(address).await.map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        tracing::info!(%address, purpose, "listening");
        Ok(Self { socket, address })
    }

    /// Where it listens; a port that was 0 is known now.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the scope drains; connections then finish what they have.
    pub async fn run(self, router: Router, scope: Shutdown) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                () = scope.draining() => return,
                Ok(place) = places.clone().acquire_owned() => tokio::select! {
                    () = scope.draining() => return,
                    accepted = self.socket.accept() => accepted.map(|(stream, peer)| (stream, peer, place)),
                },
            };
            match accepted {
                Ok((stream, peer, place)) => {
                    let serving = serve(stream, peer, router.clone(), scope.clone());
                    scope.spawn("connection", async move {
                        serving.await;
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

async fn serve(stream: TcpStream, peer: SocketAddr, router: Router, scope: Shutdown) {
    // A head and a body in two segments would otherwise wait 40 ms for each other.
    let _ = stream.set_nodelay(true);
    let inner = scope.clone();
    let service = service_fn(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(Origin::Local(peer));
        let (router, scope) = (router.clone(), inner.clone());
        async move { Ok::<_, Infallible>(answer(router, request, scope).await) }
    });
    let mut builder = Builder::new(Executor(scope.clone()));
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    builder
        .http2()
        .enable_connect_protocol()
        .timer(TokioTimer::new())
        .keep_alive_interval(HEAD_TIMEOUT)
        .max_concurrent_streams(128);
    let mut connection = pin!(builder.serve_connection_with_upgrades(TokioIo::new(stream), service));
    let served = tokio::select! {
        served = connection.as_mut() => served,
        () = scope.draining() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%peer, %error, "a connection broke off");
    }
}

/// Asks the router. A socket becomes what it is in a tunnel.
async fn answer(mut router: Router, mut request: Request<Incoming>, scope: Shutdown) -> Response<Body> {
    let extended = request.extensions().get::<Protocol>().map(|protocol| protocol.as_str().to_owned());
    let upgraded = hyper::upgrade::on(&mut request);
    let (mut head, incoming) = request.into_parts();
    let mut ask = async |request: Request<Body>| -> Response<Body> {
        router.call(request).await.unwrap_or_else(|never| match never {})
    };
    match Upgrade::take(&mut head, extended.as_deref()) {
        Ok(None) => ask(Request::from_parts(head, Body::new(incoming))).await,
        Ok(Some(upgrade)) => {
            let (put, said) = SocketBody::new();
            let (mut head, answer) = ask(Request::from_parts(head, Body::new(said))).await.into_parts();
            if !upgrade.answer(&mut head) {
                return Response::from_parts(head, answer);
            }
            let leaving = scope.clone();
            scope.spawn("socket", async move {
                // The client has its answer, or is gone.
                if let Ok(upgraded) = upgraded.await {
                    carry(TokioIo::new(upgraded), put, answer, leaving.draining()).await;
                }
            });
            Response::from_parts(head, Body::empty())
        }
        Err(reason) => refusal(StatusCode::BAD_REQUEST, reason),
    }
}

/// HTTP/2 spawns a task a request; they belong to the scope like all others.
#[derive(Debug, Clone)]
struct Executor(Shutdown);

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http2", future);
    }
}
