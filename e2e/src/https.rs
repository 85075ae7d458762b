//! An HTTP client that knows nothing of Adit: what any program would send, over HTTPS, HTTP/1.1 or HTTP/2.

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_common::daemon::Shutdown;
use adit_common::oip::{InferResponse, header_length};
use adit_common::timing::Timing;
use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use futures_util::future::Either;
use futures_util::stream;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// Nothing takes longer, also on a busy machine; what does, hangs.
pub const LIMIT: Duration = Duration::from_secs(20);

const KEY: HeaderName = HeaderName::from_static("x-api-key");

/// A request's body.
pub type Body = UnsyncBoxBody<Bytes, Infallible>;

/// A body in one piece.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).boxed_unsync()
}

/// A body in pieces, each after a pause, that does not say how long it will be.
pub fn pieces(pause: Duration, pieces: impl IntoIterator<Item = Bytes, IntoIter: Send + 'static>) -> Body {
    let next = move |mut pieces: <Vec<Bytes> as IntoIterator>::IntoIter| async move {
        let piece = pieces.next()?;
        if !pause.is_zero() {
            sleep(pause).await;
        }
        Some((Ok(Frame::data(piece)), pieces))
    };
    let pieces: Vec<_> = pieces.into_iter().collect();
    StreamBody::new(stream::unfold(pieces.into_iter(), next)).boxed_unsync()
}

/// The version of HTTP that a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// One request at a time.
    Http1,
    /// Many requests at a time.
    Http2,
}

enum Sender {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// One connection. Dropped, it ends when its last request is answered.
pub struct Client {
    sender: Sender,
    authority: String,
    key: Option<HeaderValue>,
    scope: Shutdown,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Client").field("authority", &self.authority).finish_non_exhaustive()
    }
}

impl Client {
    /// A connection to a relay whose certificate the authority in the file `ca` has signed; its tasks belong to the scope.
    pub async fn connect(
        relay: SocketAddr,
        ca: &Path,
        version: Version,
        key: Option<&str>,
        scope: Shutdown,
    ) -> Result<Self> {
        let sender = match version {
            Version::Http1 => {
                let (sender, driver) = http1::handshake(TokioIo::new(tls(relay, ca, "http/1.1").await?)).await?;
                scope.spawn("client", driver);
                Sender::Http1(sender)
            }
            Version::Http2 => {
                let io = TokioIo::new(tls(relay, ca, "h2").await?);
                let mut builder = http2::Builder::new(InScope(scope.clone()));
                // Room for the head that must be refused.
                let (sender, driver) = builder.max_header_list_size(1 << 20).handshake(io).await?;
                scope.spawn("client", driver);
                Sender::Http2(sender)
            }
        };
        let key = key.map(HeaderValue::from_str).transpose()?;
        Ok(Self { sender, authority: relay.to_string(), key, scope })
    }

    /// Sends a request, with the client's key, and reads the answer whole. The connection is not borrowed: over HTTP/2 other
    /// requests may follow at once. Dropping the future hangs up on the request.
    pub fn send(&mut self, request: Request<Body>) -> impl Future<Output = Result<Answer>> + Send + use<> {
        let head = self.complete(request).map(|request| match &mut self.sender {
            Sender::Http1(sender) => Either::Left(sender.send_request(request)),
            Sender::Http2(sender) => Either::Right(sender.send_request(request)),
        });
        async move { Answer::read(head?.await?).await }
    }

    /// As [`Client::send`], when the connection is free, and within [`LIMIT`].
    pub async fn ask(&mut self, request: Request<Body>) -> Result<Answer> {
        let ask = async {
            match &mut self.sender {
                Sender::Http1(sender) => sender.ready().await?,
                Sender::Http2(sender) => sender.ready().await?,
            }
            self.send(request).await
        };
        timeout(LIMIT, ask).await.context("an answer should have come")?
    }

    /// Closes the connection at once, whatever is under way.
    pub fn hang_up(self) {
        self.scope.kill();
    }

    fn complete(&self, mut request: Request<Body>) -> Result<Request<Body>> {
        if let Some(key) = &self.key {
            request.headers_mut().insert(KEY, key.clone());
        }
        match self.sender {
            Sender::Http1(_) => {
                request.headers_mut().insert(header::HOST, self.authority.parse()?);
            }
            Sender::Http2(_) => {
                let uri: Uri = format!("https://{}{}", self.authority, request.uri()).parse()?;
                *request.uri_mut() = uri;
            }
        }
        Ok(request)
    }
}

/// An answer with its whole body.
#[derive(Debug)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its header fields.
    pub headers: HeaderMap,
    /// Its body.
    pub body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> Result<Self> {
        let (head, body) = response.into_parts();
        Ok(Self { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// A field as text.
    pub fn header(&self, name: &str) -> Result<&str> {
        Ok(self.headers.get(name).with_context(|| format!("no {name}: {self:?}"))?.to_str()?)
    }

    /// The body as JSON.
    pub fn json(&self) -> Result<serde_json::Value> {
        serde_json::from_slice(&self.body).with_context(|| format!("no JSON: {self:?}"))
    }

    /// The body as an answer of the Open Inference Protocol, JSON or binary.
    pub fn inferred(&self) -> Result<InferResponse> {
        ensure!(self.status == StatusCode::OK, "{self:?}");
        Ok(InferResponse::parse(&self.body, header_length(&self.headers)?)?)
    }

    /// The probabilities of the first image's classes.
    pub fn probabilities(&self) -> Result<Vec<f32>> {
        Ok(self.inferred()?.output("probabilities").context("no output")?.to_floats()?)
    }

    /// Where the time went.
    pub fn timing(&self) -> Result<Timing> {
        Timing::parse(self.header(Timing::HEADER)?).with_context(|| format!("no timing: {self:?}"))
    }

    /// The text of a refusal, which must be `{"error": "..."}` and nothing else.
    pub fn error(&self) -> Result<String> {
        ensure!(self.status.is_client_error() || self.status.is_server_error(), "{self:?}");
        ensure!(self.header("content-type")? == "application/json", "{self:?}");
        let body = self.json()?;
        let fields = body.as_object().map_or(0, serde_json::Map::len);
        ensure!(fields == 1, "{self:?}");
        Ok(body["error"].as_str().with_context(|| format!("no error: {self:?}"))?.to_owned())
    }
}

/// What a relay's admin listener says at a path.
pub(crate) async fn plain(admin: SocketAddr, path: &str, scope: &Shutdown) -> Result<String> {
    let stream = TcpStream::connect(admin).await?;
    let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await?;
    scope.spawn("admin", driver);
    let request = Request::get(path).header(header::HOST, "admin").body(full(""))?;
    let answer = Answer::read(sender.send_request(request).await?).await?;
    ensure!(answer.status == StatusCode::OK, "{answer:?}");
    Ok(String::from_utf8(answer.body.to_vec())?)
}

/// A TLS connection that speaks one protocol and trusts one authority.
pub(crate) async fn tls(relay: SocketAddr, ca: &Path, alpn: &str) -> Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca)? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(relay).await?;
    stream.set_nodelay(true)?;
    let name = ServerName::from(relay.ip());
    Ok(TlsConnector::from(Arc::new(config)).connect(name, stream).await?)
}

/// hyper's own tasks belong to the connection's scope.
#[derive(Debug, Clone)]
pub(crate) struct InScope(pub(crate) Shutdown);

impl<F> hyper::rt::Executor<F> for InScope
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("client", future);
    }
}
