//! Dials a relay over TLS on TCP, for where UDP is blocked.
//!
//! At the tunnel's own port first, and at that of HTTPS, which every firewall lets out: there the relay knows an agent by the
//! protocol that it names in its first words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_certs::Bundle;
use adit_common::tunnel::{Role, Session, SessionLimits, TransportOptions, prepare_tcp};
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsConnector;

use super::addresses::resolve;
use super::failure::Failure;
use super::quic::{PATIENCE, STAGGER};
use crate::config::RelayConfig;

/// For how long a connection over TCP that stands lets QUIC try once more: a relay that was just started is found by TCP first,
/// since QUIC repeats itself rarely.
pub(super) const GRACE: Duration = Duration::from_millis(300);

/// The way over TCP to one relay.
#[derive(Debug)]
pub(super) struct TcpWay {
    relay: RelayConfig,
    identity: Bundle,
    options: TransportOptions,
    /// What the last dial used: a certificate that is being replaced is unreadable for a moment.
    tls: Option<Arc<ClientConfig>>,
    /// Where the relay answered last.
    last: Option<SocketAddr>,
}

impl TcpWay {
    pub(super) const fn new(relay: RelayConfig, identity: Bundle, options: TransportOptions) -> Self {
        Self { relay, identity, options, tls: None, last: None }
    }

    /// One dial: every address once. Where one is connected `go` is asked before the relay hears anything of it.
    pub(super) async fn dial<G>(&mut self, go: impl Fn() -> G) -> Result<Session, Failure>
    where
        G: Future<Output = ()>,
    {
        let tls = self.client_config()?;
        let name = self.relay.server_name();
        let server = ServerName::try_from(name.to_owned()).map_err(|_| Failure::name(name))?;
        let addresses = self.resolve().await?;
        let one = async |address: SocketAddr| {
            let attempt = async {
                let socket = TcpStream::connect(address).await.map_err(|error| Failure::tcp(address, &error))?;
                prepare_tcp(&socket, self.options.idle_timeout);
                go().await;
                let connector = TlsConnector::from(tls.clone());
                let stream = connector.connect(server.clone(), socket).await;
                let stream = stream.map_err(|error| Failure::tls(address, &error.into(), name))?;
                let limits = SessionLimits::default();
                // It waits for the relay's first words, which are said only once it has accepted this agent's certificate.
                let session = Session::over_tcp(stream.into(), Role::Agent, &self.options, limits).await;
                session.map_err(|error| Failure::tls(address, &error, name))
            };
            let done = timeout(PATIENCE, attempt).await;
            (address, done.unwrap_or_else(|_| Err(Failure::tcp(address, &std::io::ErrorKind::TimedOut.into()))))
        };
        let (mut attempts, mut failures) = (FuturesUnordered::new(), Vec::new());
        let (mut tries, mut next) = (0, Instant::now());
        loop {
            tokio::select! {
                () = sleep_until(next), if tries < addresses.len() => {
                    attempts.push(one(addresses[tries]));
                    tries += 1;
                    next = Instant::now() + STAGGER;
                }
                Some((address, done)) = attempts.next() => match done {
                    Ok(session) => {
                        drop(attempts);
                        self.last = Some(address);
                        return Ok(session);
                    }
                    Err(failure) => {
                        failures.push(failure);
                        next = Instant::now();
                    }
                },
                else => return Err(Failure::all(failures)),
            }
        }
    }

    /// Every address of every place, each once.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let (mut addresses, mut failed) = (Vec::new(), None);
        for place in self.relay.tcp_addresses() {
            match resolve(&place, self.last).await {
                Ok(found) => {
                    addresses.extend(found.into_iter().filter(|one| !addresses.contains(one)).collect::<Vec<_>>())
                }
                Err(failure) => failed = Some(failure),
            }
        }
        if let Some(place) = self.last.and_then(|last| addresses.iter().position(|address| *address == last)) {
            addresses[..=place].rotate_right(1);
        }
        match failed {
            Some(failure) if addresses.is_empty() => Err(failure),
            _ => Ok(addresses),
        }
    }

    /// The TLS settings from the files as they are now.
    fn client_config(&mut self) -> Result<Arc<ClientConfig>, Failure> {
        match (adit_certs::agent_tunnel_over_tcp(&self.identity), &self.tls) {
            (Ok(config), _) => Ok(self.tls.insert(Arc::new(config)).clone()),
            (Err(error), Some(config)) => {
                tracing::warn!("dialling with the certificate that was read before: {error}");
                Ok(config.clone())
            }
            (Err(error), None) => Err(Failure::identity(&error)),
        }
    }
}

/// Lets a connection be used as soon as it stands.
pub(super) fn at_once() -> std::future::Ready<()> {
    std::future::ready(())
}
