//! WebSockets to a server behind the agent: the tunnel's extended CONNECT becomes an upgrade of HTTP/1.1 (RFC 6455), or an extended
//! CONNECT of HTTP/2 (RFC 8441), and the bytes pass through. Nobody here reads a frame.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use adit_common::daemon::Shutdown;
use adit_common::id::UpstreamName;
use adit_common::socket::{WEBSOCKET, accept};
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderValue};
use http::request::Parts;
use http::{Method, Response, StatusCode};
use http_body::Frame;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncWrite, AsyncWriteExt as _, ReadHalf, split};
use tokio::task::JoinHandle;
use tokio_util::io::poll_read_buf;

use super::body::Holding;
use super::fault::Fault;
use super::headers;
use crate::config::UpstreamProtocol;

/// How much is read at once.
const PIECE: usize = 16 << 10;

/// How long a server may go on once it has been told that nothing more will come.
const GOODBYE: Duration = Duration::from_secs(2);

/// Makes a head the wish for a socket as the server understands it; returns the key that its consent must prove to know.
pub(super) fn ask(head: &mut Parts, protocol: UpstreamProtocol) -> HeaderValue {
    let key = STANDARD.encode(rand::random::<[u8; 16]>());
    // Base64 is visible ASCII, which every field's value may be.
    let key = HeaderValue::try_from(key).unwrap_or_else(|_| HeaderValue::from_static(""));
    head.headers.insert(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    match protocol {
        UpstreamProtocol::H1 => {
            head.method = Method::GET;
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
            head.headers.insert(header::SEC_WEBSOCKET_KEY, key.clone());
        }
        UpstreamProtocol::H2c => {
            head.extensions.insert(hyper::ext::Protocol::from_static(WEBSOCKET));
        }
    }
    key
}

/// Whether an answer is the server's consent.
pub(super) fn consents(response: &Response<Incoming>, protocol: UpstreamProtocol, key: &HeaderValue) -> bool {
    match protocol {
        UpstreamProtocol::H1 => response.status() == StatusCode::SWITCHING_PROTOCOLS && knows(response, key),
        UpstreamProtocol::H2c => response.status() == StatusCode::OK,
    }
}

fn knows(response: &Response<Incoming>, key: &HeaderValue) -> bool {
    response.headers().get(header::SEC_WEBSOCKET_ACCEPT) == Some(&accept(key))
}

/// After a server's consent: carries what the client says in the request's body, and makes what the server says the answer's.
pub(super) async fn open(
    mut response: Response<Incoming>,
    name: &UpstreamName,
    said: Body,
    holding: Holding,
    scope: &Shutdown,
) -> Result<Response<Body>, Fault> {
    let upgraded = hyper::upgrade::on(&mut response).await;
    let upgraded = upgraded.map_err(|error| Fault::Broken { name: name.clone(), source: error.into() })?;
    let (mut head, _) = response.into_parts();
    headers::to_caller(&mut head.headers);
    head.headers.remove(header::SEC_WEBSOCKET_ACCEPT);
    head.headers.remove(header::CONTENT_LENGTH);
    let mut answer = Response::new(());
    *answer.headers_mut() = head.headers;
    let (read, write) = split(TokioIo::new(upgraded));
    let up = scope.spawn("socket", speak(said, write, scope.clone()));
    let heard = Heard { read, buffer: BytesMut::new(), up, _holding: holding };
    Ok(answer.map(|()| Body::new(heard)))
}

/// Says to the server what the client says. Returns only when the agent leaves and the server has had its time to say goodbye.
async fn speak<W: AsyncWrite + Unpin>(mut said: Body, mut write: W, scope: Shutdown) {
    let all = async {
        while let Some(Ok(frame)) = said.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if write.write_all(&data).await.is_err() || write.flush().await.is_err() {
                // What it still has to say, and that it has gone, is heard where it is read.
                return;
            }
        }
        let _ = write.shutdown().await;
    };
    tokio::select! {
        () = async { all.await; std::future::pending().await } => {}
        () = scope.draining() => {}
    }
    let _ = write.shutdown().await;
    tokio::time::sleep(GOODBYE).await;
}

/// What the server says. Dropped, it closes the socket.
struct Heard {
    read: ReadHalf<TokioIo<Upgraded>>,
    buffer: BytesMut,
    /// What speaks meanwhile.
    up: JoinHandle<Option<()>>,
    _holding: Holding,
}

impl Drop for Heard {
    fn drop(&mut self) {
        self.up.abort();
    }
}

impl http_body::Body for Heard {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        let this = &mut *self;
        this.buffer.reserve(PIECE);
        let read = poll_read_buf(Pin::new(&mut this.read), context, &mut this.buffer);
        if read.is_pending() && Pin::new(&mut this.up).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        Poll::Ready(match ready!(read) {
            Ok(0) => None,
            Ok(_) => Some(Ok(Frame::data(this.buffer.split().freeze()))),
            Err(error) => Some(Err(error)),
        })
    }
}
