//! HTTPS over TCP, or HTTP where a port was opened without TLS: the accept loop, and each connection in a task of its own.
//!
//! The loop does nothing but accept: handshakes, slow clients and broken ones are their own task's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use adit_common::daemon::Shutdown;
use futures_util::FutureExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::connection::{Shared, serve};
use super::service::Service;
use super::tls::Terminator;
use crate::config::FrontConfig;
use crate::listening::listen;
use crate::liveness::{BEAT, Liveness, Pulse};
use crate::metrics::Metrics;

/// After a refused accept (no file descriptors left): long enough for one to be closed.
const RECOVER: Duration = Duration::from_millis(50);

/// The public HTTPS front.
#[derive(Debug)]
pub(crate) struct TcpFront {
    listener: TcpListener,
    /// `None` for a port without TLS.
    terminator: Option<Terminator>,
    shared: Arc<Shared>,
    room: Arc<Semaphore>,
    pulse: Pulse,
}

impl TcpFront {
    /// Opens the port.
    pub(crate) fn bind(
        config: &FrontConfig,
        terminator: Terminator,
        service: Service,
        metrics: Arc<Metrics>,
        liveness: &Liveness,
    ) -> io::Result<Self> {
        let listener = listen(config.listen)?;
        let room = Arc::new(Semaphore::new(config.max_connections));
        let shared = Arc::new(Shared { service, config: config.clone(), metrics });
        let terminator = Some(terminator);
        Ok(Self { listener, terminator, shared, room, pulse: liveness.pulse("https front") })
    }

    /// Opens a further port to the same service, with TLS or without. All of them share the room for connections.
    pub(crate) fn also(&self, address: SocketAddr, secure: bool, liveness: &Liveness) -> io::Result<Self> {
        Ok(Self {
            listener: listen(address)?,
            terminator: self.terminator.clone().filter(|_| secure),
            shared: self.shared.clone(),
            room: self.room.clone(),
            pulse: liveness.pulse("further front"),
        })
    }

    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Accepts until draining begins, and then what the kernel has accepted already.
    pub(crate) async fn run(self, scope: Shutdown) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let accepted = tokio::select! {
                accepted = self.listener.accept() => accepted,
                _ = beat.tick() => {
                    self.pulse.beat();
                    continue;
                }
                () = scope.draining() => break,
            };
            match accepted {
                Ok((stream, peer)) => self.welcome(stream, peer, &scope),
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    sleep(RECOVER).await;
                }
            }
        }
        while let Some(Ok((stream, peer))) = self.listener.accept().now_or_never() {
            self.welcome(stream, peer, &scope);
        }
    }

    fn welcome(&self, stream: TcpStream, peer: SocketAddr, scope: &Shutdown) {
        let metrics = &self.shared.metrics;
        metrics.connections_total.one();
        let Ok(permit) = self.room.clone().try_acquire_owned() else {
            metrics.connections_refused.one();
            return;
        };
        let held = metrics.connections.hold();
        let (shared, terminator, inner) = (self.shared.clone(), self.terminator.clone(), scope.clone());
        scope.spawn("connection", async move {
            serve(shared, terminator, stream, peer, inner).await;
            drop((permit, held));
        });
    }
}
