//! The relay under test, its certificates and keys, and clients of it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use adit_certs::{Store, Validity};
use adit_common::manifest::{ModelState, Scope};
use adit_common::tunnel::{TransportOptions, TunnelError};
use adit_relay::{Config, KeyFile, Relay};
use bytes::Bytes;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::client::TlsStream;

use crate::agent::{Agent, Does, dial, manifest};

/// Nothing here takes longer; what does, hangs.
pub(crate) const SOON: Duration = Duration::from_secs(10);

pub(crate) const INFER: &str = "/v2/models/digits/infer";

/// Certificates for every test of this process: making them is what takes the time.
static CERTIFICATES: LazyLock<(TempDir, Store)> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::new(folder.path());
    store.init(&["127.0.0.1".parse().unwrap()], Validity::default(), false).unwrap();
    for name in ["one", "two"] {
        let id = name.parse().unwrap();
        store.issue_agent(&id, Validity::default(), &store.agent_folder(&id)).unwrap();
    }
    (folder, store)
});

pub(crate) type Body = UnsyncBoxBody<Bytes, TunnelError>;

pub(crate) struct House {
    pub(crate) relay: Relay,
    pub(crate) keys: KeyFile,
    pub(crate) key: String,
    _state: TempDir,
}

/// An answer with its whole body.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The error's text; fails unless the whole body is what every client library can read.
    pub(crate) fn error(&self) -> String {
        let body: serde_json::Value = serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("{self:?}"));
        assert_eq!(self.header("content-type"), Some("application/json"), "{self:?}");
        body["error"].as_str().unwrap_or_else(|| panic!("{self:?}")).to_owned()
    }
}

impl House {
    pub(crate) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(crate) fn with(change: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let mut config =
            Config { tls: CERTIFICATES.1.relay_folder(), state: state.path().to_owned(), ..Config::default() };
        (config.front.listen, config.tunnel.listen, config.admin.listen) = (any, any, any);
        // Most tests ask what is said of who is not there.
        config.proxy.agent_wait = Duration::ZERO;
        change(&mut config);
        let keys = KeyFile::new(config.keys_file());
        let key = keys.create("shop", &[Scope::Infer]).unwrap();
        Self { relay: Relay::start(&config).unwrap(), keys, key, _state: state }
    }

    pub(crate) fn admin(&self) -> SocketAddr {
        self.relay.addresses().admin
    }

    /// An agent with the model `digits`, registered.
    pub(crate) async fn agent(&self, id: &str, does: Does) -> Agent {
        self.agent_via(id, self.relay.addresses().tunnel, &TransportOptions::default(), does).await
    }

    pub(crate) async fn agent_via(&self, id: &str, at: SocketAddr, options: &TransportOptions, does: Does) -> Agent {
        let dialled = dial(&folder_of(id), at, options).await;
        let agent = Agent::new(dialled, manifest(id, &[("digits", ModelState::Ready)]), does);
        self.until(|fleet| entries(fleet).any(|entry| entry["agent"] == id && is_at(entry, agent.port))).await;
        agent
    }

    /// Waits until the relay says this of its fleet.
    pub(crate) async fn until(&self, holds: impl Fn(&serde_json::Value) -> bool) {
        let wait = async {
            loop {
                let (_, text) = get_plain(self.admin(), "/fleet").await;
                if holds(&serde_json::from_str(&text).unwrap()) {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(SOON, wait).await.expect("the fleet should have become so");
    }

    /// The value of a metric without labels, or with exactly these.
    pub(crate) async fn metric(&self, name: &str) -> f64 {
        let (_, text) = get_plain(self.admin(), "/metrics").await;
        let line = text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')));
        line.and_then(|line| line.rsplit(' ').next()).unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    }

    pub(crate) async fn tls(&self, alpn: &str) -> TlsStream<TcpStream> {
        tls(&CERTIFICATES.1.relay_folder().join("ca.pem"), self.relay.addresses().https, alpn).await
    }

    /// Raw bytes in, all bytes out until the relay closes.
    pub(crate) async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.tls("http/1.1").await;
        // The relay may have answered and closed before it has read all.
        let _ = stream.write_all(bytes).await;
        let mut text = Vec::new();
        let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut text)).await.expect("the relay should have closed");
        String::from_utf8_lossy(&text).into_owned()
    }

    pub(crate) async fn client(&self, version: Version) -> Client {
        Client::connect(self.relay.addresses().https, version).await
    }

    /// A request with the house's key on a connection of its own.
    pub(crate) async fn ask(&self, method: Method, path: &str, body: &'static str) -> Answer {
        let mut client = self.client(Version::Http1).await;
        client.ask(request(method, path, Some(&self.key), full(body))).await
    }

    pub(crate) async fn infer(&self) -> Answer {
        self.ask(Method::POST, INFER, "x").await
    }
}

pub(crate) fn relay_folder() -> std::path::PathBuf {
    CERTIFICATES.1.relay_folder()
}

pub(crate) fn folder_of(agent: &str) -> std::path::PathBuf {
    CERTIFICATES.1.agent_folder(&agent.parse().unwrap())
}

/// The connected agents of `/fleet`.
pub(crate) fn entries(fleet: &serde_json::Value) -> impl Iterator<Item = &serde_json::Value> {
    fleet["agents"].as_array().unwrap().iter()
}

fn is_at(entry: &serde_json::Value, port: u16) -> bool {
    entry["address"].as_str().unwrap().ends_with(&format!(":{port}"))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Version {
    Http1,
    Http2,
}

/// One connection of a client.
pub(crate) enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    pub(crate) async fn connect(relay: SocketAddr, version: Version) -> Self {
        Self::connect_by(&CERTIFICATES.1.relay_folder().join("ca.pem"), relay, version).await
    }

    /// To a relay with a certificate of this authority's.
    pub(crate) async fn connect_by(authority: &Path, relay: SocketAddr, version: Version) -> Self {
        match version {
            Version::Http1 => {
                let io = TokioIo::new(tls(authority, relay, "http/1.1").await);
                let (client, connection) = http1::handshake(io).await.unwrap();
                tokio::spawn(connection);
                Self::Http1(client)
            }
            Version::Http2 => {
                let io = TokioIo::new(tls(authority, relay, "h2").await);
                let (client, connection) = http2::Builder::new(TokioExecutor::new())
                    .max_header_list_size(1 << 20)
                    .handshake(io)
                    .await
                    .unwrap();
                tokio::spawn(connection);
                Self::Http2(client)
            }
        }
    }

    /// Sends a request and returns with the answer's head.
    pub(crate) async fn start(&mut self, mut request: Request<Body>) -> hyper::Result<http::Response<Incoming>> {
        match self {
            Self::Http1(client) => {
                // It may not have seen yet that the last answer has ended.
                client.ready().await?;
                client.send_request(request).await
            }
            Self::Http2(client) => {
                let authority = request.headers_mut().remove(header::HOST).unwrap();
                let path = request.uri().path_and_query().unwrap().as_str();
                let uri = format!("https://{}{path}", authority.to_str().unwrap());
                *request.uri_mut() = uri.parse().unwrap();
                client.send_request(request).await
            }
        }
    }

    pub(crate) async fn ask(&mut self, request: Request<Body>) -> Answer {
        let ask = async {
            let (head, body) = self.start(request).await.unwrap().into_parts();
            let body = body.collect().await.unwrap().to_bytes();
            Answer { status: head.status.as_u16(), headers: head.headers, body }
        };
        tokio::time::timeout(SOON, ask).await.expect("an answer should have come")
    }
}

pub(crate) fn full(text: impl Into<Bytes>) -> Body {
    Full::new(text.into()).map_err(|never| match never {}).boxed_unsync()
}

pub(crate) fn request(method: Method, path: &str, key: Option<&str>, body: Body) -> Request<Body> {
    let mut request =
        Request::builder().method(method).uri(path).header(header::HOST, "relay.test").body(body).unwrap();
    if let Some(key) = key {
        with(&mut request, "x-api-key", key);
    }
    request
}

pub(crate) fn with(request: &mut Request<Body>, name: &'static str, value: &str) {
    request.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
}

/// A client's TLS connection to a relay with a certificate of this authority's.
pub(crate) async fn tls(authority: &Path, relay: SocketAddr, alpn: &str) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        roots.add(certificate.unwrap()).unwrap();
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![alpn.as_bytes().to_vec()];
    let stream = TcpStream::connect(relay).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let name = ServerName::try_from("127.0.0.1").unwrap();
    tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap()
}

/// What the admin listener says.
pub(crate) async fn get_plain(admin: SocketAddr, path: &str) -> (StatusCode, String) {
    let stream = TcpStream::connect(admin).await.unwrap();
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::get(path).header(header::HOST, "admin").body(full("")).unwrap();
    let (head, body) = client.send_request(request).await.unwrap().into_parts();
    (head.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}
