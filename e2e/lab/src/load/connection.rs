//! One connection to the server: HTTP/1.1, HTTP/2, or a WebSocket, over TLS or not.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use super::upload::Upload;

/// Why a request failed, as it is counted: few kinds, whatever the details.
pub(super) type Failure = String;

/// What all kinds of connections are made of.
pub(super) trait Wire: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Wire for T {}

/// Opens connections to one server.
#[derive(Clone)]
pub(super) struct Dialler {
    pub(super) to: SocketAddr,
    pub(super) h2: bool,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl Dialler {
    /// Over TLS if there are certificates of authorities to trust.
    pub(super) fn new(to: SocketAddr, ca: Option<&Path>, name: &str, h2: bool) -> anyhow::Result<Self> {
        let Some(ca) = ca else { return Ok(Self { to, h2, tls: None }) };
        let mut roots = RootCertStore::empty();
        let certificates =
            CertificateDer::pem_file_iter(ca).with_context(|| format!("cannot read {}", ca.display()))?;
        for certificate in certificates {
            roots.add(certificate?).with_context(|| format!("{} holds no authority", ca.display()))?;
        }
        let mut config = ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        // Many clients in one: each shakes hands in full, as the first visit of each would.
        config.resumption = rustls::client::Resumption::disabled();
        let name = ServerName::try_from(name.to_owned()).context("no name of a server")?;
        Ok(Self { to, h2, tls: Some((TlsConnector::from(Arc::new(config)), name)) })
    }

    async fn wire(&self) -> Result<Box<dyn Wire>, Failure> {
        let stream = TcpStream::connect(self.to).await.map_err(|_| "connect")?;
        stream.set_nodelay(true).map_err(|_| "connect")?;
        let Some((tls, name)) = &self.tls else { return Ok(Box::new(stream)) };
        Ok(Box::new(tls.connect(name.clone(), stream).await.map_err(|_| "handshake")?))
    }

    /// A connection for requests.
    pub(super) async fn http(&self) -> Result<Http, Failure> {
        let wire = TokioIo::new(self.wire().await?);
        let mut driver = JoinSet::new();
        let sender = if self.h2 {
            let mut builder = http2::Builder::new(TokioExecutor::new());
            builder.initial_stream_window_size(4 << 20).initial_connection_window_size(16 << 20);
            let (sender, connection) = builder.handshake(wire).await.map_err(|_| "handshake")?;
            driver.spawn(async move { drop(connection.await) });
            Sender::Two(sender)
        } else {
            let (sender, connection) = http1::handshake(wire).await.map_err(|_| "handshake")?;
            driver.spawn(async move { drop(connection.await) });
            Sender::One(sender)
        };
        Ok(Http { sender, _driver: driver })
    }

    /// A WebSocket.
    pub(super) async fn socket(&self, host: &str, path: &str) -> Result<Socket, Failure> {
        let (socket, _) = tokio_tungstenite::client_async(format!("ws://{host}{path}"), self.wire().await?)
            .await
            .map_err(|_| "upgrade")?;
        Ok(Socket(socket))
    }
}

/// A connection for requests, one at a time. Dropping it closes it.
pub(super) struct Http {
    sender: Sender,
    _driver: JoinSet<()>,
}

enum Sender {
    One(http1::SendRequest<Upload>),
    Two(http2::SendRequest<Upload>),
}

impl Http {
    /// Whether another request may be sent.
    pub(super) async fn is_open(&mut self) -> bool {
        match &mut self.sender {
            Sender::One(sender) => sender.ready().await.is_ok(),
            Sender::Two(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends one request and waits for the head of its answer.
    pub(super) async fn ask(&mut self, mut request: Request<Upload>) -> Result<Response<Incoming>, Failure> {
        let answer = match &mut self.sender {
            Sender::One(sender) => sender.send_request(request).await,
            Sender::Two(sender) => {
                *request.version_mut() = Version::HTTP_2;
                sender.send_request(request).await
            }
        };
        answer.map_err(|error| if error.is_incomplete_message() { "closed".into() } else { "broken".into() })
    }
}

/// A WebSocket on which what is said comes back.
pub(super) struct Socket(WebSocketStream<Box<dyn Wire>>);

impl Socket {
    /// Says it, and waits until it has come back: how many bytes did.
    pub(super) async fn echo(&mut self, message: Bytes) -> Result<u64, Failure> {
        self.0.send(Message::Binary(message)).await.map_err(|_| "broken")?;
        match self.0.next().await {
            Some(Ok(echo)) => Ok(echo.len() as u64),
            Some(Err(_)) => Err("broken".into()),
            None => Err("closed".into()),
        }
    }
}
