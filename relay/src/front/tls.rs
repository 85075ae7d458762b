//! Terminates TLS: certificate, versions and ALPN come from the certs crate.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_certs::{CertsError, https_server};
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// What ALPN calls HTTP/2.
const HTTP2: &[u8] = b"h2";

/// Why a handshake came to nothing.
#[derive(Debug, thiserror::Error)]
pub(super) enum HandshakeError {
    #[error("the handshake failed")]
    Failed(#[from] std::io::Error),
    #[error("the handshake took too long")]
    Slow(#[from] tokio::time::error::Elapsed),
}

/// Terminates TLS for the front.
#[derive(Clone)]
pub(crate) struct Terminator {
    acceptor: TlsAcceptor,
    patience: Duration,
}

impl Terminator {
    /// With a certificate chain and its key.
    pub(crate) fn open(certificate: &Path, key: &Path, patience: Duration) -> Result<Self, CertsError> {
        let config = https_server(certificate, key)?;
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), patience })
    }

    /// A handshake, to its end or the end of patience.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<TlsStream<TcpStream>, HandshakeError> {
        Ok(tokio::time::timeout(self.patience, self.acceptor.accept(stream)).await??)
    }
}

/// Whether the client asked for HTTP/2.
pub(super) fn wants_http2(stream: &TlsStream<TcpStream>) -> bool {
    stream.get_ref().1.alpn_protocol() == Some(HTTP2)
}

impl std::fmt::Debug for Terminator {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Terminator").field("patience", &self.patience).finish_non_exhaustive()
    }
}
