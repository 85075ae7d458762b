//! Dials a relay over QUIC.
//!
//! The name is resolved at each dial, because a relay that moves keeps its name. All addresses are tried, a quarter of a
//! second apart, and each again every second while the first handshake is still open: a handshake that began while the relay
//! was down waits in QUIC's growing retransmission timers, and a fresh one does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use adit_certs::Bundle;
use adit_common::tunnel::{
    PathMemory, ResetCode, Session, SessionLimits, TransportOptions, TunnelError, agent_config, agent_endpoint,
    bind_udp,
};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use quinn::{ClientConfig, Endpoint};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::addresses::resolve;
use super::failure::Failure;
use crate::config::{RelayConfig, TunnelConfig};
use crate::error::AgentError;
use crate::metrics::Metrics;

/// Between the first tries of two addresses: RFC 8305 (happy eyeballs) recommends it.
pub(super) const STAGGER: Duration = Duration::from_millis(250);

/// Between two handshakes with one address.
const REPEAT: Duration = Duration::from_secs(1);

/// After this long without any handshake a dial has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// The agent's UDP socket, shared by all its tunnels.
#[derive(Debug, Clone)]
pub struct Socket {
    endpoint: Endpoint,
}

impl Socket {
    /// Binds any port, for IPv6 and IPv4 where the machine has both, and reports the buffers that the kernel gave.
    pub fn bind(config: &TunnelConfig, metrics: &Metrics) -> Result<Self, AgentError> {
        let any = |ip: IpAddr| bind_udp(SocketAddr::new(ip, 0), config.udp_buffer);
        let (socket, buffers) = any(Ipv6Addr::UNSPECIFIED.into())
            .or_else(|_| any(Ipv4Addr::UNSPECIFIED.into()))
            .map_err(TunnelError::Socket)?;
        metrics.udp_buffers(&buffers);
        tracing::info!(
            gso = buffers.sends,
            gro = buffers.receives,
            "UDP packets that the kernel takes or gives at a time"
        );
        let (send, receive, wanted) = (buffers.send, buffers.receive, buffers.wanted);
        if buffers.is_short() {
            tracing::warn!(
                send,
                receive,
                wanted,
                "the kernel gave smaller UDP buffers than asked for, bursts may be lost: raise net.core.rmem_max and net.core.wmem_max"
            );
        } else {
            tracing::info!(send, receive, "UDP buffers");
        }
        Ok(Self { endpoint: agent_endpoint(socket)? })
    }

    /// Closes what is still open, in order, and gives the last packets a moment to leave.
    pub async fn close(&self) {
        self.endpoint.close(quinn::VarInt::from_u32(ResetCode::NO_ERROR.0 as u32), b"the agent has stopped");
        let _ = tokio::time::timeout(Duration::from_secs(1), self.endpoint.wait_idle()).await;
    }
}

/// The way over QUIC to one relay.
#[derive(Debug)]
pub(super) struct QuicWay {
    relay: RelayConfig,
    socket: Socket,
    identity: Bundle,
    options: TransportOptions,
    /// What the last dial used: a certificate that is being replaced is unreadable for a moment.
    tls: Option<ClientConfig>,
    /// Where the relay answered last.
    last: Option<SocketAddr>,
    /// What the last session learned of the way there.
    memory: PathMemory,
}

impl QuicWay {
    pub(super) fn new(relay: RelayConfig, socket: Socket, identity: Bundle, options: TransportOptions) -> Self {
        Self { relay, socket, identity, options, tls: None, last: None, memory: PathMemory::default() }
    }

    /// One dial: every address, until a handshake is complete or `patience` is over; and every address anew each time that
    /// `again` is notified.
    pub(super) async fn dial(&mut self, patience: Duration, again: &Notify) -> Result<Session, Failure> {
        let config = self.client_config()?;
        let addresses = resolve(&self.relay.address, self.last).await?;
        let name = self.relay.server_name();
        let started = Instant::now();
        let mut handshakes = FuturesUnordered::new();
        let (mut tries, mut next, mut last) = (0, started, None);
        loop {
            let patience = started + patience;
            tokio::select! {
                () = sleep_until(next.min(patience)) => {
                    if Instant::now() >= patience {
                        return Err(last.unwrap_or_else(|| Failure::timed_out(&addresses)));
                    }
                    let address = addresses[tries % addresses.len()];
                    let handshake = self.socket.endpoint.connect_with(config.clone(), address, name);
                    let handshake = handshake.map_err(|error| Failure::connect(&error))?;
                    handshakes.push(handshake.map(move |done| (address, done)));
                    tries += 1;
                    next = Instant::now() + if tries < addresses.len() { STAGGER } else { REPEAT };
                }
                () = again.notified() => (tries, next) = (0, Instant::now()),
                Some((address, done)) = handshakes.next() => match done {
                    Ok(connection) => {
                        self.last = Some(address);
                        return Ok(Session::new(connection, SessionLimits::of(&self.options)));
                    }
                    Err(error) => {
                        let failure = match Failure::of(&error, name) {
                            timed_out if timed_out.name == "timed_out" => Failure::timed_out(&addresses),
                            other => other,
                        };
                        if tries >= addresses.len() && (handshakes.is_empty() || !failure.passing) {
                            return Err(failure);
                        }
                        if handshakes.is_empty() {
                            // Another address may be another machine, and there is nothing else to wait for.
                            next = Instant::now();
                        }
                        last = Some(failure);
                    }
                },
            }
        }
    }

    /// The TLS settings from the files as they are now, so that a renewed certificate needs no restart.
    fn client_config(&mut self) -> Result<ClientConfig, Failure> {
        let fresh = adit_certs::agent_tunnel(&self.identity)
            .map_err(|error| Failure::identity(&error))
            .and_then(|tls| agent_config(tls, &self.options, &self.memory).map_err(|error| Failure::identity(&error)));
        match (fresh, &self.tls) {
            (Ok(config), _) => Ok(self.tls.insert(config).clone()),
            (Err(failure), Some(config)) => {
                tracing::warn!("dialling with the certificate that was read before: {failure}");
                Ok(config.clone())
            }
            (Err(failure), None) => Err(failure),
        }
    }
}
