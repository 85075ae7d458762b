//! Takes tunnels in over QUIC, and opens the port for both transports: UDP, and TCP at the same number.
//!
//! The loop does nothing but accept: handshakes are the `reception`'s, each in a task of its own.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use adit_certs::{Bundle, CertsError, relay_tunnel, relay_tunnel_over_tcp, reset_key};
use adit_common::daemon::Shutdown;
use adit_common::tunnel::{RelayTransport, TunnelError, UdpBuffers, bind_udp, relay_endpoint};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval};

use super::gate::{Gate, TcpPort};
use super::paths::Paths;
use super::reception::Reception;
use super::registry::Registry;
use crate::config::TunnelConfig;
use crate::listening::listen;
use crate::liveness::{BEAT, Liveness, Pulse};
use crate::metrics::Metrics;

/// How often the system is asked for a port that is free for both transports.
const TRIES: usize = 16;

/// Why the tunnel's port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("the tunnel's certificates cannot be used")]
    Certificates(#[from] CertsError),
    #[error("cannot bind udp {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("cannot bind tcp {address} for tunnels: free that port, or set `tcp = false` in [tunnel]")]
    BindTcp { address: SocketAddr, source: io::Error },
    #[error("cannot open the tunnel's endpoint")]
    Endpoint(#[from] TunnelError),
}

/// The tunnel's port.
#[derive(Debug)]
pub(crate) struct Listener {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    reception: Arc<Reception>,
    gate: Option<Gate>,
    tcp: Option<TcpListener>,
    handshakes: Arc<Semaphore>,
    pulse: Pulse,
}

impl Listener {
    /// Opens the port. `certificates` is the folder of `tunnel.pem`, `tunnel.key` and `ca.pem`. Of the addresses that are
    /// `taken` by a front, the front lets tunnels over TCP in. Sessions over TCP belong to `scope`.
    #[allow(clippy::too_many_arguments, reason = "all that a tunnel needs, handed over once")]
    pub(crate) fn bind(
        config: &TunnelConfig,
        certificates: &Bundle,
        reset_key_file: &Path,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        liveness: &Liveness,
        taken: &[SocketAddr],
        scope: &Shutdown,
    ) -> Result<Self, ListenError> {
        let tls = relay_tunnel(certificates)?;
        let key = reset_key(reset_key_file)?;
        let (socket, buffers, tcp) = open(config, taken)?;
        let failed = |source| ListenError::Bind { address: config.listen, source };
        let address = socket.local_addr().map_err(failed)?;
        metrics.udp_send_buffer.set(buffers.send as u64);
        metrics.udp_receive_buffer.set(buffers.receive as u64);
        metrics.udp_send_segments.set(buffers.sends as u64);
        metrics.udp_receive_segments.set(buffers.receives as u64);
        tracing::info!(
            gso = buffers.sends,
            gro = buffers.receives,
            "UDP packets that the kernel takes or gives at a time"
        );
        if buffers.is_short() {
            // The kernel reports twice what it allows.
            let allow = buffers.wanted / 2;
            tracing::warn!(
                send = buffers.send,
                receive = buffers.receive,
                wanted = buffers.wanted,
                "the UDP buffers are smaller than wanted, bursts will be lost: \
                 sysctl -w net.core.rmem_max={allow} net.core.wmem_max={allow}"
            );
        } else {
            tracing::info!(send = buffers.send, receive = buffers.receive, "the UDP buffers are as wanted");
        }
        let transport = RelayTransport::new(tls, config.transport())?;
        let endpoint = relay_endpoint(socket, &transport, &key)?;
        let handshakes = Arc::new(Semaphore::new(config.max_handshakes));
        let reception =
            Arc::new(Reception { registry, metrics, config: config.clone(), transport, paths: Paths::default() });
        let gate = if config.tcp {
            let tls = Arc::new(relay_tunnel_over_tcp(certificates)?);
            Some(Gate::new(tls, reception.clone(), handshakes.clone(), scope))
        } else {
            None
        };
        let pulse = liveness.pulse("tunnel listener");
        Ok(Self { endpoint, address, reception, gate, tcp, handshakes, pulse })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where tunnels over TCP come in, for fronts that share their port.
    pub(crate) fn gate(&self) -> Option<Gate> {
        self.gate.clone()
    }

    /// The TCP port of the same number, where it is opened.
    pub(crate) fn tcp(&mut self) -> Option<TcpPort> {
        Some(TcpPort::new(self.tcp.take()?, self.gate.clone()?))
    }

    /// The endpoint, for whoever closes it at the end.
    pub(crate) fn endpoint(&self) -> quinn::Endpoint {
        self.endpoint.clone()
    }

    /// Accepts until the endpoint is closed. While draining every newcomer is refused, and every agent is told to go.
    pub(crate) async fn run(self, scope: Shutdown) {
        let mut beat = interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let incoming = tokio::select! {
                incoming = self.endpoint.accept() => incoming,
                _ = beat.tick() => {
                    self.pulse.beat();
                    continue;
                }
            };
            let Some(incoming) = incoming else { return };
            let permit = self.handshakes.clone().try_acquire_owned();
            let (false, Ok(permit)) = (scope.is_draining(), permit) else {
                self.reception.metrics.tunnels_refused.one();
                incoming.refuse();
                continue;
            };
            // Half of the places taken looks like an attack from forged addresses: let newcomers show theirs first.
            if self.handshakes.available_permits() < self.reception.config.max_handshakes / 2
                && !incoming.remote_address_validated()
                && incoming.may_retry()
            {
                // It fails only when a retry is not possible, which was just asked.
                let _ = incoming.retry();
                continue;
            }
            let (reception, inner) = (self.reception.clone(), scope.clone());
            scope.spawn("session", async move {
                let peer = incoming.remote_address();
                reception.receive(peer, reception.admit(incoming), permit, &inner).await;
            });
        }
    }
}

/// A UDP socket and, where it is wanted and no front has it, a TCP one at the same port.
fn open(
    config: &TunnelConfig,
    taken: &[SocketAddr],
) -> Result<(UdpSocket, UdpBuffers, Option<TcpListener>), ListenError> {
    for tries in 1.. {
        let failed = |source| ListenError::Bind { address: config.listen, source };
        let (socket, buffers) = bind_udp(config.listen, config.udp_buffer).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        if !config.tcp || taken.iter().any(|other| meet(*other, address)) {
            return Ok((socket, buffers, None));
        }
        match listen(address) {
            Ok(tcp) => return Ok((socket, buffers, Some(tcp))),
            // The system chose the port for UDP alone: let it choose again.
            Err(error) if config.listen.port() == 0 && error.kind() == ErrorKind::AddrInUse && tries < TRIES => {}
            Err(source) => return Err(ListenError::BindTcp { address, source }),
        }
    }
    // invariant: the loop has no end but its returns.
    unreachable!("{TRIES} tries")
}

/// Whether two addresses cannot both be listened on.
fn meet(one: SocketAddr, other: SocketAddr) -> bool {
    let any = one.ip().is_unspecified() || other.ip().is_unspecified();
    one.port() == other.port() && (any || one.ip() == other.ip())
}
