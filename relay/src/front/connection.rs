//! One client's connection from handshake to end: HTTP/1.1 or HTTP/2 as ALPN decided.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use adit_common::daemon::Shutdown;
use adit_common::tunnel::TunnelError;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, Response, StatusCode, Version};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep, timeout};

use super::body::{Linger, Reply};
use super::patience::{Active, Activity, Patient};
use super::service::Service;
use super::tls::{HandshakeError, Newcomer, Terminator, wants_http2};
use super::wire::{Wire, speaks_http2};
use crate::config::FrontConfig;
use crate::metrics::Metrics;
use crate::proxy::call::Peer;

/// While draining, an HTTP/1 connection without a request is kept for this long: a request that is on its way already would
/// otherwise meet a closed door. A round trip to the other side of the world takes less.
const FAREWELL: Duration = Duration::from_millis(500);

/// Unread bytes of one request on HTTP/2, and of all requests of a connection: 1 MiB carries 160 Mbit/s over 50 ms.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// What HTTP/2 reads of a head before it answers 431 by itself, without a body. Below what a header map can hold (32,768
/// fields of at least 33 bytes), and above what [`Service`] takes, so that its answer is given.
const HEAD_LIST: u32 = 1 << 20;

/// Bytes that the kernel takes for a client before it has sent those that it has. Who reads slowly would hold megabytes there, for a
/// socket's buffer grows.
#[cfg(target_os = "linux")]
const UNSENT: u32 = 128 << 10;

/// HTTP/1's read buffer: several records of TLS, so that a large body comes in large pieces.
const BUFFER: usize = 64 << 10;

/// A client that answers no ping for this long is gone.
const PING: Duration = Duration::from_secs(20);

/// How many times within the idle time-out a connection is looked at.
const LOOKS: u32 = 4;

/// What all connections of a front share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) service: Service,
    pub(super) config: FrontConfig,
    pub(super) metrics: Arc<Metrics>,
}

/// What the requests of one connection share.
struct Connection {
    shared: Arc<Shared>,
    peer: Peer,
    activity: Activity,
    scope: Shutdown,
}

/// Serves a connection until its end, or while draining until its last answer.
pub(super) async fn serve(
    shared: Arc<Shared>,
    terminator: Option<Terminator>,
    stream: TcpStream,
    peer: SocketAddr,
    scope: Shutdown,
) {
    // An answer's last bytes must not wait for an acknowledgement of those before. It fails on a dead socket only.
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(&stream).set_tcp_notsent_lowat(UNSENT);
    let config = shared.config.clone();
    let from = Peer { address: peer, secure: terminator.is_some() };
    let (stream, http2) = match begin(terminator, stream, peer, config.head_timeout).await {
        Ok(Some(begun)) => begun,
        Ok(None) => return,
        Err(error) => {
            shared.metrics.handshakes_failed.one();
            tracing::debug!(%peer, %error, "a client's handshake came to nothing");
            return;
        }
    };
    let connection = Arc::new(Connection { shared, peer: from, activity: Activity::default(), scope: scope.clone() });
    let inner = connection.clone();
    let service = service_fn(move |request: Request<Incoming>| {
        let (connection, active) = (inner.clone(), inner.activity.begin());
        async move { Ok::<_, Infallible>(connection.answer(request, active).await) }
    });
    let result = if http2 {
        let io = TokioIo::new(Patient::new(stream, config.write_timeout, None));
        let mut builder = http2::Builder::new(InScope(scope));
        builder
            .timer(TokioTimer::new())
            .max_concurrent_streams(config.streams)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .enable_connect_protocol()
            .max_header_list_size(HEAD_LIST)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PING);
        let http = builder.serve_connection(io, service);
        connection.drive(http, http2::Connection::graceful_shutdown, Duration::ZERO).await
    } else {
        let io = TokioIo::new(Patient::new(stream, config.write_timeout, Some(connection.activity.clone())));
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(config.head_timeout)
            .max_headers(config.max_headers)
            .max_header_size(config.max_head)
            .max_buf_size(config.max_head.max(BUFFER));
        let http = builder.serve_connection(io, service).with_upgrades();
        connection.drive(http, http1::UpgradeableConnection::graceful_shutdown, FAREWELL).await
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "a client's connection broke off");
    }
}

/// Shakes hands where TLS is spoken; true if the client speaks HTTP/2. Nothing if it was an agent: the fleet has it now.
async fn begin(
    terminator: Option<Terminator>,
    stream: TcpStream,
    peer: SocketAddr,
    patience: Duration,
) -> Result<Option<(Wire, bool)>, HandshakeError> {
    let Some(terminator) = terminator else {
        let http2 = timeout(patience, speaks_http2(&stream)).await??;
        return Ok(Some((Wire::Plain(stream), http2)));
    };
    match terminator.accept(stream).await? {
        Newcomer::Client(stream) => {
            let http2 = wants_http2(&stream);
            Ok(Some((Wire::Tls(stream), http2)))
        }
        Newcomer::Agent(gate, start) => {
            gate.take(*start, peer);
            Ok(None)
        }
    }
}

impl Connection {
    async fn answer(&self, request: Request<Incoming>, active: Active) -> Response<Counted> {
        let http1 = request.version() < Version::HTTP_2;
        // HTTP/1 ends the connection instead, and `Patient` lingers.
        let linger = (!http1).then(|| Linger::new(self.scope.clone()));
        let mut response = self.shared.service.call(self.peer, request, linger, &self.scope).await;
        // HTTP/2 says GOAWAY instead.
        let stays = response.status() != StatusCode::SWITCHING_PROTOCOLS;
        if http1 && stays && self.scope.is_draining() {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Counted { body, _active: active })
    }

    /// Polls a connection to its end, and asks it to end when draining begins (after `farewell`) or nobody uses it.
    async fn drive<C>(&self, http: C, graceful: fn(Pin<&mut C>), farewell: Duration) -> hyper::Result<()>
    where
        C: Future<Output = hyper::Result<()>>,
    {
        let mut http = pin!(http);
        let mut drain = pin!(async {
            self.scope.draining().await;
            sleep(farewell).await;
        });
        let period = (self.shared.config.idle_timeout / LOOKS).max(Duration::from_millis(1));
        let mut look = interval_at(Instant::now() + period, period);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut ending, mut quiet, mut begun) = (false, 0, 0);
        loop {
            tokio::select! {
                result = http.as_mut() => return result,
                () = drain.as_mut(), if !ending => {
                    ending = true;
                    graceful(http.as_mut());
                }
                _ = look.tick(), if !ending => {
                    let now = self.activity.begun();
                    quiet = if self.activity.is_idle() && now == begun { quiet + 1 } else { 0 };
                    begun = now;
                    if quiet >= LOOKS {
                        ending = true;
                        graceful(http.as_mut());
                    }
                }
            }
        }
    }
}

/// hyper's tasks, one for each request on HTTP/2, belong to the front's scope like any other.
#[derive(Debug, Clone)]
struct InScope(Shutdown);

impl<F> Executor<F> for InScope
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, future: F) {
        self.0.spawn("http2", future);
    }
}

/// An answer's body that keeps its connection busy while it lasts.
#[derive(Debug)]
struct Counted {
    body: Reply,
    _active: Active,
}

impl Body for Counted {
    type Data = Bytes;
    type Error = TunnelError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TunnelError>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
