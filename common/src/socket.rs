//! WebSockets on their way: an upgrade of HTTP/1.1 (RFC 6455) and an extended CONNECT of HTTP/2 (RFC 8441) both become an
//! extended CONNECT of the tunnel (RFC 9220), whose two bodies carry the socket's bytes.
//!
//! Nobody on the way reads a frame: what a client says goes to the agent as it is, and back.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, StatusCode, request, response};
use http_body::{Body, Frame};
use http_body_util::BodyExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;

/// What an extended CONNECT asks for, as an extension of its request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol(pub String);

/// The one that is known here.
pub const WEBSOCKET: &str = "websocket";

/// What is appended to a client's key before it is hashed (RFC 6455, section 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A key is the base64 of 16 bytes.
const KEY_LENGTH: usize = 24;

/// How much is read at once, and how many such pieces may wait for the tunnel.
const PIECE: usize = 16 << 10;
const PIECES: usize = 4;

/// A client's wish to speak through a socket.
#[derive(Debug)]
pub struct Upgrade {
    /// What an HTTP/1.1 client expects in `sec-websocket-accept`.
    accept: Option<HeaderValue>,
}

impl Upgrade {
    /// Takes the wish out of a request's head, which becomes an extended CONNECT. `extended` is what an HTTP/2 client's
    /// `:protocol` said. `None` for any other request; an error says what is wrong with the wish.
    pub fn take(head: &mut request::Parts, extended: Option<&str>) -> Result<Option<Self>, &'static str> {
        let accept = if head.method == Method::CONNECT {
            if extended.is_none_or(|protocol| !protocol.eq_ignore_ascii_case(WEBSOCKET)) {
                return Ok(None);
            }
            None
        } else {
            if head.method != Method::GET || !has_token(&head.headers, &header::UPGRADE, WEBSOCKET) {
                return Ok(None);
            }
            if !has_token(&head.headers, &header::CONNECTION, "upgrade") {
                return Err("a WebSocket's request needs \"Connection: Upgrade\"");
            }
            let key = head.headers.get(header::SEC_WEBSOCKET_KEY).filter(|key| key.len() == KEY_LENGTH);
            Some(accept(key.ok_or("a WebSocket's request needs a sec-websocket-key of 16 bytes in base64")?))
        };
        if head.headers.get(header::SEC_WEBSOCKET_VERSION).is_some_and(|version| version != "13") {
            return Err("only version 13 of the WebSocket protocol is spoken");
        }
        head.method = Method::CONNECT;
        head.extensions.insert(Protocol(WEBSOCKET.to_owned()));
        for name in [header::UPGRADE, header::CONNECTION, header::SEC_WEBSOCKET_KEY] {
            head.headers.remove(name);
        }
        Ok(Some(Self { accept }))
    }

    /// Makes an agent's consent one that the client understands. False, with nothing changed, if it is none.
    pub fn answer(&self, head: &mut response::Parts) -> bool {
        if head.status != StatusCode::OK {
            return false;
        }
        head.headers.remove(header::CONTENT_LENGTH);
        if let Some(accept) = &self.accept {
            head.status = StatusCode::SWITCHING_PROTOCOLS;
            head.headers.insert(header::UPGRADE, HeaderValue::from_static(WEBSOCKET));
            head.headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
            head.headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept.clone());
        }
        true
    }
}

/// What a server answers to a key, to show that it has understood it (RFC 6455, section 4.2.2).
pub fn accept(key: &HeaderValue) -> HeaderValue {
    let digest = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID.as_bytes()].concat());
    // Base64 is visible ASCII, which every field's value may be.
    HeaderValue::try_from(STANDARD.encode(digest)).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(token))
}

/// What a client says, as the body of its extended CONNECT.
#[derive(Debug)]
pub struct SocketBody(mpsc::Receiver<Bytes>);

impl SocketBody {
    /// A body, and where its bytes are put in; dropping that ends it.
    pub fn new() -> (mpsc::Sender<Bytes>, Self) {
        let (put, take) = mpsc::channel(PIECES);
        (put, Self(take))
    }
}

impl Body for SocketBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}

/// Carries bytes both ways until the agent's answer has ended, or the client is gone. Once `leaving` resolves the agent is
/// told that nothing more will come, so that it can say goodbye.
pub async fn carry<I, B>(client: I, put: mpsc::Sender<Bytes>, mut answer: B, leaving: impl Future<Output = ()>)
where
    I: AsyncRead + AsyncWrite,
    B: Body<Data = Bytes> + Unpin,
{
    let (mut read, mut write) = tokio::io::split(client);
    let up = async {
        let said = async {
            let mut buffer = BytesMut::new();
            loop {
                buffer.reserve(PIECE);
                match read.read_buf(&mut buffer).await {
                    Ok(1..) if put.send(buffer.split().freeze()).await.is_ok() => {}
                    _ => return,
                }
            }
        };
        tokio::select! {
            () = said => {}
            () = leaving => {}
        }
        drop(put);
        // What the agent still has to say is carried.
        std::future::pending::<()>().await
    };
    let down = async {
        while let Some(Ok(frame)) = answer.frame().await {
            let Ok(data) = frame.into_data() else { continue };
            if write.write_all(&data).await.is_err() || write.flush().await.is_err() {
                return;
            }
        }
        // A client that has gone already need not be told.
        let _ = write.shutdown().await;
    };
    tokio::select! {
        () = up => {}
        () = down => {}
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::StreamBody;

    use super::*;

    fn head(method: Method, fields: &[(&'static str, &'static str)]) -> request::Parts {
        let mut request = http::Request::new(());
        *request.method_mut() = method;
        for (name, value) in fields {
            request.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        request.into_parts().0
    }

    const GOOD: [(&str, &str); 4] = [
        ("upgrade", "websocket"),
        ("connection", "keep-alive, Upgrade"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("sec-websocket-version", "13"),
    ];

    #[test]
    fn an_upgrade_becomes_an_extended_connect_and_is_accepted_as_the_rfc_has_it() {
        let mut asked = head(Method::GET, &GOOD);
        let upgrade = Upgrade::take(&mut asked, None).unwrap().unwrap();
        assert_eq!(
            (asked.method, asked.extensions.get::<Protocol>().unwrap().0.as_str()),
            (Method::CONNECT, WEBSOCKET)
        );
        assert!(!asked.headers.contains_key("connection") && asked.headers.contains_key("sec-websocket-version"));
        let mut answer = http::Response::new(()).into_parts().0;
        assert!(upgrade.answer(&mut answer));
        assert_eq!(answer.status, 101);
        assert_eq!(answer.headers["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn an_extended_connect_stays_one() {
        let mut asked = head(Method::CONNECT, &[("sec-websocket-version", "13")]);
        let upgrade = Upgrade::take(&mut asked, Some("websocket")).unwrap().unwrap();
        let mut answer = http::Response::new(()).into_parts().0;
        assert!(upgrade.answer(&mut answer));
        assert_eq!((answer.status.as_u16(), answer.headers.len()), (200, 0));
        answer.status = StatusCode::NOT_FOUND;
        assert!(!upgrade.answer(&mut answer));
    }

    #[test]
    fn other_requests_are_left_alone_and_bad_wishes_refused() {
        for (method, fields) in [
            (Method::GET, &GOOD[1..2]),
            (Method::POST, &GOOD[..]),
            (Method::GET, &[("upgrade", "h2c")]),
            (Method::CONNECT, &[]),
        ] {
            assert!(Upgrade::take(&mut head(method, fields), None).unwrap().is_none());
        }
        assert!(Upgrade::take(&mut head(Method::GET, &GOOD[..1]), None).is_err());
        assert!(Upgrade::take(&mut head(Method::GET, &GOOD[..2]), None).is_err());
        let old = [GOOD[0], GOOD[1], GOOD[2], ("sec-websocket-version", "8")];
        assert!(Upgrade::take(&mut head(Method::GET, &old), None).is_err());
    }

    #[tokio::test]
    async fn bytes_go_both_ways_and_an_end_is_passed_on() {
        let (mut client, relay) = tokio::io::duplex(64);
        let (put, mut body) = SocketBody::new();
        let (say, hear) = mpsc::channel::<Bytes>(1);
        let answer = StreamBody::new(Box::pin(stream::unfold(hear, |mut hear| async move {
            let piece = hear.recv().await?;
            Some((Ok::<_, Infallible>(Frame::data(piece)), hear))
        })));
        let carried = carry(relay, put, answer, std::future::pending());
        let talk = async move {
            client.write_all(b"ask").await.unwrap();
            assert_eq!(body.frame().await.unwrap().unwrap().into_data().unwrap(), "ask");
            say.send(Bytes::from_static(b"answer")).await.unwrap();
            let mut heard = [0; 6];
            client.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"answer");
            client.shutdown().await.unwrap();
            assert!(body.frame().await.is_none(), "the agent learns that the client has ended");
            say.send(Bytes::from_static(b"bye")).await.unwrap();
            drop(say);
            let mut rest = Vec::new();
            client.read_to_end(&mut rest).await.unwrap();
            assert_eq!(rest, b"bye");
        };
        tokio::join!(carried, talk);
    }

    #[tokio::test]
    async fn who_leaves_lets_the_agent_say_goodbye() {
        let (mut client, relay) = tokio::io::duplex(64);
        let (put, mut body) = SocketBody::new();
        let answer = StreamBody::new(Box::pin(stream::once(async move {
            assert!(body.frame().await.is_none());
            Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"bye")))
        })));
        carry(relay, put, answer, std::future::ready(())).await;
        let mut rest = Vec::new();
        client.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"bye");
    }
}
