//! Opens connections: address, TCP, TLS, and the version of HTTP that both sides speak.
//!
//! Each part is timed, because a fresh connection often costs more than the question. Its driver and HTTP/2's own tasks
//! run in the caller's [`Shutdown`] scope.

use std::fmt;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_common::daemon::Shutdown;
use http::HeaderValue;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::TokioIo;
use rustls::client::Resumption;
use rustls::client::danger::ServerCertVerifier;
use rustls::crypto::aws_lc_rs;
use rustls::{CertificateError, ClientConfig, HandshakeKind, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::connection::{Connection, Sender, Setup};
use crate::error::ClientError;
use crate::target::Target;

/// An API key of a relay. Its `Debug` form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(HeaderValue);

impl Key {
    /// Takes a key as it was printed; white space around it is dropped.
    pub fn new(text: &str) -> Result<Self, ClientError> {
        let text = text.trim();
        let plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        let mut value = HeaderValue::from_str(&format!("Bearer {text}")).map_err(|_| ClientError::Key)?;
        value.set_sensitive(true);
        if plain { Ok(Self(value)) } else { Err(ClientError::Key) }
    }

    /// The value of the `authorization` header.
    pub(crate) fn bearer(&self) -> HeaderValue {
        self.0.clone()
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("Key(..)")
    }
}

/// Whose signature makes a relay's certificate good.
#[derive(Debug, Clone, Default)]
pub enum Trust {
    /// The authorities that this machine trusts.
    #[default]
    Platform,
    /// The certificates in a PEM file alone.
    File(PathBuf),
    /// These certificates alone.
    Authorities(Vec<CertificateDer<'static>>),
}

/// How to reach a relay.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where it is.
    pub target: Target,
    /// Whose certificates are good.
    pub trust: Trust,
    /// What to show it.
    pub key: Option<Key>,
    /// Until when a connection must be open, and after that each exchange over.
    pub timeout: Duration,
    /// Do not offer HTTP/2.
    pub http1_only: bool,
    /// Take up an earlier TLS session where there is one. A measurement does not, else all but its first connection would
    /// be cheaper than a user's.
    pub resumption: bool,
}

impl Options {
    /// To `target`, trusting what this machine trusts, without a key, with 30 seconds of patience.
    pub fn new(target: Target) -> Self {
        Self {
            target,
            trust: Trust::Platform,
            key: None,
            timeout: Duration::from_secs(30),
            http1_only: false,
            resumption: true,
        }
    }
}

/// Opens connections to one relay; TLS sessions are remembered from one to the next.
#[derive(Clone)]
pub struct Connector {
    options: Arc<Options>,
    tls: Option<(TlsConnector, ServerName<'static>)>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Connector").field("options", &self.options).finish_non_exhaustive()
    }
}

/// Opens one connection. Its tasks belong to `scope` and end with it.
pub async fn connect(options: Options, scope: &Shutdown) -> Result<Connection, ClientError> {
    Connector::new(options)?.connect(scope).await
}

impl Connector {
    /// Reads what is to be trusted.
    pub fn new(options: Options) -> Result<Self, ClientError> {
        let tls = options.target.is_secure().then(|| tls(&options)).transpose()?;
        Ok(Self { options: Arc::new(options), tls })
    }

    /// How it connects.
    pub fn options(&self) -> &Options {
        &self.options
    }

    /// Opens a connection. Its tasks belong to `scope` and end with it.
    pub async fn connect(&self, scope: &Shutdown) -> Result<Connection, ClientError> {
        let limit = self.options.timeout;
        let authority = self.options.target.authority();
        let opened = tokio::time::timeout(limit, self.open(scope)).await;
        opened.map_err(|_| ClientError::ConnectTimeout { authority, limit })?
    }

    async fn open(&self, scope: &Shutdown) -> Result<Connection, ClientError> {
        let (tcp, mut setup) = self.dial().await?;
        let Some((connector, name)) = &self.tls else {
            return self.speak(tcp, false, setup, scope).await;
        };
        let started = Instant::now();
        let stream = connector.connect(name.clone(), tcp).await.map_err(|error| self.tls_error(error))?;
        setup.tls = Some(started.elapsed());
        let session = stream.get_ref().1;
        setup.resumed = session.handshake_kind() == Some(HandshakeKind::Resumed);
        let http2 = session.alpn_protocol() == Some(b"h2");
        self.speak(stream, http2, setup, scope).await
    }

    /// Finds the host and opens TCP to the first of its addresses that takes it.
    async fn dial(&self) -> Result<(TcpStream, Setup), ClientError> {
        let (host, port) = (self.options.target.host(), self.options.target.port());
        let resolve_error = |source| ClientError::Resolve { host: host.to_owned(), source };
        let started = Instant::now();
        let addresses: Vec<_> = tokio::net::lookup_host((host, port)).await.map_err(resolve_error)?.collect();
        let resolve = started.elapsed();
        // An address that swallows packets must leave time for the next.
        let share = self.options.timeout / addresses.len().clamp(1, 8) as u32;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in addresses {
            let started = Instant::now();
            match tokio::time::timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    let tcp = started.elapsed();
                    // A question's last packet must not wait for the answer to the one before.
                    let nodelay = stream.set_nodelay(true);
                    nodelay.map_err(|source| self.connect_error(source))?;
                    return Ok((stream, Setup { resolve, tcp, ..Setup::default() }));
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(self.connect_error(last))
    }

    async fn speak<S>(&self, stream: S, http2: bool, setup: Setup, scope: &Shutdown) -> Result<Connection, ClientError>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let stream = TokioIo::new(stream);
        let sender = if http2 {
            let shaken = http2::Builder::new(ScopeExecutor(scope.clone())).handshake(stream).await;
            let (sender, driver) = shaken.map_err(ClientError::Closed)?;
            // The driver's end is seen by every exchange on the connection; nobody has to be told twice.
            scope.spawn("connection", driver);
            Sender::Http2(sender)
        } else {
            let (sender, driver) = http1::handshake(stream).await.map_err(ClientError::Closed)?;
            scope.spawn("connection", driver);
            Sender::Http1(sender)
        };
        Ok(Connection::new(sender, self.options.clone(), setup))
    }

    fn connect_error(&self, source: io::Error) -> ClientError {
        let authority = self.options.target.authority();
        match source.kind() {
            io::ErrorKind::ConnectionRefused => ClientError::Refused { authority },
            io::ErrorKind::TimedOut => ClientError::ConnectTimeout { authority, limit: self.options.timeout },
            _ => ClientError::Connect { authority, source },
        }
    }

    fn tls_error(&self, source: io::Error) -> ClientError {
        let (host, authority) = (self.options.target.host().to_owned(), self.options.target.authority());
        let inner = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            // A certificate that is its own authority but was not made to be one is as unknown.
            Some(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => ClientError::UnknownAuthority { host },
            Some(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext { presented, .. })) => {
                ClientError::WrongName { host, names: presented.join(", ") }
            }
            Some(rustls::Error::InvalidMessage(_)) => ClientError::NotTls { authority },
            _ => ClientError::Tls { authority, source },
        }
    }
}

/// The TLS settings, and the name to ask for.
fn tls(options: &Options) -> Result<(TlsConnector, ServerName<'static>), ClientError> {
    let host = options.target.host().to_owned();
    let name = ServerName::try_from(host.clone());
    let name = name.map_err(|_| ClientError::Url { url: host, why: "its host is no name that a certificate has" })?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ClientError::Platform)?;
    let mut config = match roots(&options.trust)? {
        Some(roots) => builder.with_root_certificates(roots).with_no_client_auth(),
        None => {
            let verifier = rustls_platform_verifier::Verifier::new(provider).map_err(ClientError::Platform)?;
            let verifier: Arc<dyn ServerCertVerifier> = Arc::new(verifier);
            // "Dangerous" is the name of the door to any verifier of one's own; this one is the machine's.
            builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth()
        }
    };
    if !options.resumption {
        config.resumption = Resumption::disabled();
    }
    let http2 = (!options.http1_only).then(|| b"h2".to_vec());
    config.alpn_protocols = http2.into_iter().chain([b"http/1.1".to_vec()]).collect();
    Ok((TlsConnector::from(Arc::new(config)), name))
}

fn roots(trust: &Trust) -> Result<Option<RootCertStore>, ClientError> {
    let mut store = RootCertStore::empty();
    match trust {
        Trust::Platform => return Ok(None),
        Trust::Authorities(certificates) => {
            store.add_parsable_certificates(certificates.iter().cloned());
        }
        Trust::File(path) => {
            let pem = std::fs::read(path).map_err(|source| ClientError::File { path: path.clone(), source })?;
            store.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
            if store.is_empty() {
                return Err(ClientError::NoCertificate(path.clone()));
            }
        }
    }
    Ok(Some(store))
}

/// Lets HTTP/2 start its own tasks in our scope.
#[derive(Clone)]
struct ScopeExecutor(Shutdown);

impl<F> hyper::rt::Executor<F> for ScopeExecutor
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, future: F) {
        self.0.spawn("http2", future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_trimmed_checked_and_never_shown() {
        let key = Key::new("  adit_abc123\n").unwrap();
        assert_eq!(key.bearer(), "Bearer adit_abc123");
        assert!(!format!("{key:?}").contains("abc123"));
        for bad in ["", "  ", "two words", "line\nbreak", "schlüssel"] {
            assert!(Key::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_without_certificates_is_no_authority() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut options = Options::new("https://localhost".parse().unwrap());
        options.trust = Trust::File(file.path().to_owned());
        let error = Connector::new(options.clone()).unwrap_err().to_string();
        assert!(error.contains("holds no certificate"), "{error}");
        options.trust = Trust::File("/nowhere/ca.pem".into());
        assert_eq!(Connector::new(options).unwrap_err().to_string(), "cannot read /nowhere/ca.pem");
    }
}
