//! Takes tunnels in over TLS on TCP: at a port of their own, and at the fronts', where ALPN tells them from clients.
//!
//! What a newcomer wants is read before anything is answered: only who speaks the tunnel's protocol is asked for a certificate.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_certs::TUNNEL_TCP_ALPN;
use adit_common::daemon::Shutdown;
use rustls::ServerConfig;
use rustls::server::ClientHello;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{sleep, timeout};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::server::StartHandshake;

use super::reception::{Reception, Refusal};

/// After a refused accept (no file descriptors left): long enough for one to be closed.
const RECOVER: Duration = Duration::from_millis(50);

/// Where tunnels over TCP come in; clones are the same.
#[derive(Clone)]
pub(crate) struct Gate {
    tls: Arc<ServerConfig>,
    reception: Arc<Reception>,
    handshakes: Arc<Semaphore>,
    scope: Shutdown,
}

impl Gate {
    pub(super) fn new(
        tls: Arc<ServerConfig>,
        reception: Arc<Reception>,
        handshakes: Arc<Semaphore>,
        scope: &Shutdown,
    ) -> Self {
        Self { tls, reception, handshakes, scope: scope.clone() }
    }

    /// Whether this newcomer is an agent: nobody else speaks the tunnel's protocol.
    pub(crate) fn is_for(&self, hello: &ClientHello<'_>) -> bool {
        hello.alpn().is_some_and(|mut protocols| protocols.any(|protocol| protocol == TUNNEL_TCP_ALPN))
    }

    /// Takes a newcomer over: from here on it is a task of the fleet's.
    pub(crate) fn take(&self, start: StartHandshake<TcpStream>, peer: SocketAddr) {
        let Some(place) = self.place() else { return };
        let gate = self.clone();
        self.scope.spawn("session", async move {
            // Boxed, for it is over long before the session is.
            let admitted = Box::pin(gate.reception.admit_over_tcp(start, gate.tls));
            gate.reception.receive(peer, admitted, place, &gate.scope).await;
        });
    }

    /// Takes a connection at the tunnels' own port.
    fn welcome(&self, stream: TcpStream, peer: SocketAddr) {
        let Some(place) = self.place() else { return };
        let gate = self.clone();
        self.scope.spawn("session", async move {
            let admitted = Box::pin(async {
                let acceptor = LazyConfigAcceptor::new(Default::default(), stream);
                let start = timeout(gate.reception.config.handshake_timeout, acceptor).await;
                let start = start.map_err(|_| Refusal::Slow)??;
                gate.reception.admit_over_tcp(start, gate.tls.clone()).await
            });
            gate.reception.receive(peer, admitted, place, &gate.scope).await;
        });
    }

    /// A place for a handshake; none while draining or when there are too many.
    fn place(&self) -> Option<OwnedSemaphorePermit> {
        let place = self.handshakes.clone().try_acquire_owned().ok().filter(|_| !self.scope.is_draining());
        if place.is_none() {
            self.reception.metrics.tunnels_refused.one();
        }
        place
    }
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Gate").finish_non_exhaustive()
    }
}

/// The tunnels' own TCP port.
#[derive(Debug)]
pub(crate) struct TcpPort {
    listener: TcpListener,
    gate: Gate,
}

impl TcpPort {
    pub(super) const fn new(listener: TcpListener, gate: Gate) -> Self {
        Self { listener, gate }
    }

    /// Accepts until draining begins: then the port is closed, and agents find another relay.
    pub(crate) async fn run(self, scope: Shutdown) {
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                () = scope.draining() => return,
            };
            match accepted {
                Ok((stream, peer)) => self.gate.welcome(stream, peer),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a tunnel over tcp");
                    sleep(RECOVER).await;
                }
            }
        }
    }
}
