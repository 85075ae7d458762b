//! Takes connections in, and upgrades some to WebSockets.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use clap::Args;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::answer::{Answer, answer, empty};

/// Arguments of `adit-lab stand-in`.
#[derive(Debug, Args)]
pub(crate) struct StandInArgs {
    /// Where to listen
    #[arg(long, default_value = "127.0.0.1:9000")]
    listen: SocketAddr,
    /// Microseconds that /infer takes unless it is asked for others
    #[arg(long, default_value_t = 0)]
    service_us: u64,
}

/// Serves until the process ends: HTTP/1.1 and HTTP/2, both without TLS.
pub(crate) async fn serve(args: &StandInArgs) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen).await.with_context(|| format!("cannot listen on {}", args.listen))?;
    let (mut connections, service_us) = (JoinSet::new(), args.service_us);
    loop {
        let (stream, _) = tokio::select! {
            accepted = listener.accept() => accepted.context("cannot take a connection")?,
            Some(_) = connections.join_next() => continue,
        };
        stream.set_nodelay(true).context("cannot set TCP_NODELAY")?;
        connections.spawn(async move {
            let upgrade = Upgrade::default();
            let wanted = upgrade.clone();
            let service = service_fn(move |request| respond(request, service_us, wanted.clone()));
            let builder = auto::Builder::new(TokioExecutor::new());
            // A client that went away is its own affair.
            let _ = builder.serve_connection_with_upgrades(TokioIo::new(stream), service).await;
            let upgrade = upgrade.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(upgrade) = upgrade {
                echo(upgrade).await;
            }
        });
    }
}

/// What a connection is to become once its last answer is out.
type Upgrade = Arc<Mutex<Option<OnUpgrade>>>;

/// Answers; or agrees to an upgrade, and leaves it to be done once the connection has gone over to it.
async fn respond(
    mut request: Request<Incoming>,
    service_us: u64,
    upgrade: Upgrade,
) -> Result<Response<Answer>, Infallible> {
    if request.uri().path() != "/ws" {
        return Ok(answer(request, service_us).await);
    }
    let key = request.headers().get(header::SEC_WEBSOCKET_KEY).map(|key| derive_accept_key(key.as_bytes()));
    let Some(accept) = key.and_then(|key| HeaderValue::from_str(&key).ok()) else {
        return Ok(empty(StatusCode::BAD_REQUEST));
    };
    *upgrade.lock().unwrap_or_else(PoisonError::into_inner) = Some(hyper::upgrade::on(&mut request));
    let mut switched = empty(StatusCode::SWITCHING_PROTOCOLS);
    let headers = switched.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    Ok(switched)
}

async fn echo(upgrade: OnUpgrade) {
    let Ok(upgraded) = upgrade.await else { return };
    let mut socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    while let Some(Ok(message)) = socket.next().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}
