//! A server that knows nothing of Adit, for agents to carry requests to: HTTP/1.1, or HTTP/2 without TLS, on a port of this machine.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::task::{Context, Poll};
use std::time::Duration;

use adit_agent::config::{UpstreamConfig, UpstreamProtocol};
use adit_common::daemon::Shutdown;
use anyhow::Result;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Frame, Incoming};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

type Answer = UnsyncBoxBody<Bytes, hyper::Error>;

/// What tests see and steer of it.
#[derive(Debug)]
pub(crate) struct Seen {
    /// What `/health` answers.
    pub(crate) well: AtomicBool,
    pub(crate) connections: AtomicUsize,
    pub(crate) requests: AtomicUsize,
    /// Requests of `/wait` that are under way.
    pub(crate) waiting: AtomicUsize,
    /// What `/wait` waits for.
    pub(crate) go: Semaphore,
}

/// It runs until it is killed or dropped.
#[derive(Debug)]
pub(crate) struct Origin {
    pub(crate) address: SocketAddr,
    pub(crate) protocol: UpstreamProtocol,
    pub(crate) seen: Arc<Seen>,
    scope: Shutdown,
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.scope.kill();
    }
}

impl Origin {
    pub(crate) async fn open(protocol: UpstreamProtocol) -> Result<Self> {
        Self::open_at(protocol, SocketAddr::from(([127, 0, 0, 1], 0)), true).await
    }

    /// At an address that may have been another's before; over HTTP/2 with or without `sockets`.
    pub(crate) async fn open_at(protocol: UpstreamProtocol, address: SocketAddr, sockets: bool) -> Result<Self> {
        let listener = TcpListener::bind(address).await?;
        let address = listener.local_addr()?;
        let seen = Arc::new(Seen {
            well: AtomicBool::new(true),
            connections: AtomicUsize::new(0),
            requests: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
            go: Semaphore::new(0),
        });
        let scope = Shutdown::new();
        let (inner, state) = (scope.clone(), seen.clone());
        scope.spawn("origin", async move {
            while let Ok((stream, _)) = listener.accept().await {
                state.connections.fetch_add(1, SeqCst);
                inner.spawn("connection", serve(stream, protocol, sockets, state.clone(), inner.clone()));
            }
        });
        Ok(Self { address, protocol, seen, scope })
    }

    /// As an agent's configuration has it; looked at often.
    pub(crate) fn config(&self, name: &str) -> UpstreamConfig {
        UpstreamConfig {
            protocol: self.protocol,
            interval: Duration::from_millis(50),
            ..UpstreamConfig::new(name.parse().unwrap(), format!("http://{}", self.address))
        }
    }

    /// Ends it with all of its connections, and waits until its port is free.
    pub(crate) async fn kill(&self) {
        self.scope.finish(Duration::ZERO).await;
    }
}

async fn serve(stream: TcpStream, protocol: UpstreamProtocol, sockets: bool, seen: Arc<Seen>, scope: Shutdown) {
    stream.set_nodelay(true).unwrap();
    let (io, inner) = (TokioIo::new(stream), scope.clone());
    let service = service_fn(move |request| {
        let (seen, scope) = (seen.clone(), inner.clone());
        async move { Ok::<_, Infallible>(answer(request, &seen, &scope).await) }
    });
    let _ = match protocol {
        UpstreamProtocol::H1 => http1::Builder::new().serve_connection(io, service).with_upgrades().await,
        UpstreamProtocol::H2c => {
            let mut builder = http2::Builder::new(Tasks(scope));
            if sockets {
                builder.enable_connect_protocol();
            }
            builder.serve_connection(io, service).await
        }
    };
}

#[derive(Debug, Clone)]
struct Tasks(Shutdown);

impl<F> hyper::rt::Executor<F> for Tasks
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("origin", future);
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

fn full(text: impl Into<Bytes>) -> Answer {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

async fn answer(mut request: Request<Incoming>, seen: &Seen, scope: &Shutdown) -> Response<Answer> {
    seen.requests.fetch_add(1, SeqCst);
    let path = request.uri().path().to_owned();
    if path.ends_with("/socket") {
        return socket(request, scope);
    }
    match path.rsplit('/').next().unwrap_or_default() {
        "health" => {
            let mut response = Response::new(full(""));
            if !seen.well.load(SeqCst) {
                *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR;
            }
            response
        }
        // Both ways at once: what comes goes back, trailers too.
        "echo" => Response::new(request.into_body().boxed_unsync()),
        // Hears nothing of the body before it has all of it.
        "count" => {
            let whole = request.body_mut().collect().await.map(|body| body.to_bytes().len());
            Response::new(full(whole.map_or_else(|error| error.to_string(), |length| length.to_string())))
        }
        // Says a piece, and never the next.
        "drip" => Response::new(Drip(Some(Bytes::from_static(b"first"))).boxed_unsync()),
        "wait" => {
            seen.waiting.fetch_add(1, SeqCst);
            let _waiting = Waiting(&seen.waiting);
            seen.go.acquire().await.unwrap().forget();
            Response::new(full("waited"))
        }
        "late" => {
            let _ = request.body_mut().collect().await;
            sleep(Duration::from_millis(300)).await;
            Response::new(full("late"))
        }
        _ => {
            let fields: serde_json::Map<_, _> = request
                .headers()
                .iter()
                .map(|(name, value)| (name.to_string(), json!(value.to_str().unwrap())))
                .collect();
            let told = json!({
                "method": request.method().as_str(), "target": request.uri().to_string(), "fields": fields,
            });
            let mut response = Response::new(full(told.to_string()));
            response.headers_mut().insert("x-origin", HeaderValue::from_static("here"));
            response.headers_mut().insert("keep-alive", HeaderValue::from_static("timeout=5"));
            response
        }
    }
}

struct Drip(Option<Bytes>);

impl hyper::body::Body for Drip {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        self.0.take().map_or(Poll::Pending, |piece| Poll::Ready(Some(Ok(Frame::data(piece)))))
    }
}

/// A WebSocket that says back what it hears, until its client ends it.
fn socket(mut request: Request<Incoming>, scope: &Shutdown) -> Response<Answer> {
    let mut response = Response::new(full(""));
    if request.method() != Method::CONNECT {
        let Some(key) = request.headers().get("sec-websocket-key") else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
            return response;
        };
        let accept = derive_accept_key(key.as_bytes()).parse().unwrap();
        *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        let fields: HeaderMap = [
            (http::header::CONNECTION, HeaderValue::from_static("Upgrade")),
            (http::header::UPGRADE, HeaderValue::from_static("websocket")),
            (http::header::SEC_WEBSOCKET_ACCEPT, accept),
        ]
        .into_iter()
        .collect();
        *response.headers_mut() = fields;
    }
    if let Some(protocol) = request.headers().get("sec-websocket-protocol") {
        response.headers_mut().insert("sec-websocket-protocol", protocol.clone());
    }
    let upgraded = hyper::upgrade::on(&mut request);
    scope.spawn("socket", async move {
        let io = TokioIo::new(upgraded.await.unwrap());
        let mut socket = WebSocketStream::from_raw_socket(io, Role::Server, None).await;
        while let Some(Ok(message)) = socket.next().await {
            if (message.is_text() || message.is_binary()) && socket.send(message).await.is_err() {
                return;
            }
        }
    });
    response
}
