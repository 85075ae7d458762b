//! Terminates TLS: certificate, versions and ALPN come from the certs crate.
//!
//! What a newcomer wants is read before anything is answered. An agent whose way over UDP is blocked comes here too, for
//! port 443 is what every firewall lets out; it is handed on to the fleet.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use adit_certs::{CertsError, https_server};
use rustls::ServerConfig;
use tokio::net::TcpStream;
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::{StartHandshake, TlsStream};

use crate::fleet::gate::Gate;

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
    config: Arc<ServerConfig>,
    /// Where tunnels go that come in here.
    gate: Option<Gate>,
    patience: Duration,
}

/// Who has come.
pub(super) enum Newcomer {
    /// A client, all hands shaken.
    Client(Box<TlsStream<TcpStream>>),
    /// An agent, of whom no more than the first words were read.
    Agent(Gate, Box<StartHandshake<TcpStream>>),
}

impl Terminator {
    /// With a certificate chain and its key, and where to hand tunnels on, if anywhere.
    pub(crate) fn open(
        certificate: &Path,
        key: &Path,
        gate: Option<Gate>,
        patience: Duration,
    ) -> Result<Self, CertsError> {
        let config = Arc::new(https_server(certificate, key)?);
        Ok(Self { config, gate, patience })
    }

    /// A client's handshake, to its end or the end of patience.
    pub(super) async fn accept(&self, stream: TcpStream) -> Result<Newcomer, HandshakeError> {
        let handshake = async {
            let start = LazyConfigAcceptor::new(Default::default(), stream).await?;
            match &self.gate {
                Some(gate) if gate.is_for(&start.client_hello()) => Ok(Newcomer::Agent(gate.clone(), Box::new(start))),
                _ => Ok(Newcomer::Client(Box::new(start.into_stream(self.config.clone()).await?))),
            }
        };
        tokio::time::timeout(self.patience, handshake).await?
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
