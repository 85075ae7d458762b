//! Dials one relay, keeps the session served, and dials again.
//!
//! The name is resolved at each dial, because a relay that moves keeps its name. All addresses are tried, a quarter of a
//! second apart, and each again every second while the first handshake is still open: a handshake that began while the relay
//! was down waits in QUIC's growing retransmission timers, and a fresh one does not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use adit_certs::Bundle;
use adit_common::daemon::Shutdown;
use adit_common::tunnel::{
    PathMemory, ResetCode, Session, SessionLimits, TransportOptions, TunnelError, agent_config, agent_endpoint,
    bind_udp,
};
use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use quinn::{ClientConfig, Connection, Endpoint};
use tokio::time::{Instant, sleep, sleep_until};

use super::backoff::Backoff;
use super::failure::Failure;
use super::serve::Service;
use crate::config::{RelayConfig, TunnelConfig};
use crate::error::AgentError;
use crate::metrics::Metrics;

/// Between the first tries of two addresses: RFC 8305 (happy eyeballs) recommends it.
const STAGGER: Duration = Duration::from_millis(250);

/// Between two handshakes with one address.
const REPEAT: Duration = Duration::from_secs(1);

/// After this long without any handshake a dial has failed.
const PATIENCE: Duration = Duration::from_secs(10);

/// Between two looks at whether the relay still answers; longer where the way is.
const LOOK: Duration = Duration::from_millis(250);

/// So many looks in a row that found packets sent and none received mean a dead relay or way: what is sent then are QUIC's
/// probes, each of which a living relay answers within a round trip.
const SILENCE: u32 = 3;

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
        metrics.udp_buffers(buffers.send, buffers.receive);
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

/// Keeps one tunnel to one relay.
#[derive(Debug)]
pub struct Dialer {
    relay: RelayConfig,
    socket: Socket,
    identity: Bundle,
    options: TransportOptions,
    service: Service,
    scope: Shutdown,
    metrics: Arc<Metrics>,
    /// What the last dial used: a certificate that is being replaced is unreadable for a moment.
    tls: Option<ClientConfig>,
    /// Where the relay answered last.
    last: Option<SocketAddr>,
    /// What the last session learned of the way there.
    memory: PathMemory,
}

impl Dialer {
    /// A dialer for one relay; nothing happens until [`Dialer::run`].
    pub fn new(
        relay: RelayConfig,
        socket: Socket,
        identity: Bundle,
        config: &TunnelConfig,
        service: Service,
        scope: Shutdown,
        metrics: Arc<Metrics>,
    ) -> Self {
        let options = TransportOptions {
            idle_timeout: config.idle_timeout,
            keep_alive: config.keep_alive,
            streams: config.streams,
            segmentation_offload: config.segmentation_offload,
            congestion: config.congestion,
            ..TransportOptions::default()
        };
        Self {
            relay,
            socket,
            identity,
            options,
            service,
            scope,
            metrics,
            tls: None,
            last: None,
            memory: PathMemory::default(),
        }
    }

    /// Dials, serves and dials again until the agent drains; then until the last session has ended.
    #[tracing::instrument(name = "relay", skip_all, fields(relay = %self.relay.address))]
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        let mut complained = None;
        loop {
            let scope = self.scope.clone();
            let dialled = tokio::select! {
                dialled = self.dial() => dialled,
                () = scope.draining() => return,
            };
            let wait = match dialled {
                Ok(connection) => {
                    complained = None;
                    self.hold(connection, &mut backoff).await
                }
                Err(failure) => {
                    self.metrics.dialled(&self.relay.address, failure.name);
                    let wait = backoff.failed(now(), rand::random());
                    // Four times a second the same sentence helps nobody.
                    if complained.replace(failure.name) == Some(failure.name) {
                        tracing::debug!(reason = failure.name, ?wait, "cannot reach the relay: {failure}");
                    } else {
                        tracing::warn!(reason = failure.name, "cannot reach the relay, trying on: {failure}");
                    }
                    wait
                }
            };
            tokio::select! {
                () = sleep(wait) => {}
                () = self.scope.draining() => return,
            }
        }
    }

    /// Serves a session until it ends or its relay is leaving; how long to wait before the next dial.
    async fn hold(&mut self, connection: Connection, backoff: &mut Backoff) -> Duration {
        self.metrics.dialled(&self.relay.address, "connected");
        tracing::info!(address = %connection.remote_address(), rtt = ?connection.rtt(), "the tunnel stands");
        let began = now();
        let silence = silence(connection.clone());
        let session = Session::new(connection, SessionLimits::default());
        let mut serving = self.scope.spawn("session", self.service.clone().serve(session.clone(), self.scope.clone()));
        let orderly = tokio::select! {
            ended = &mut serving => self.ended(ended.ok().flatten(), began),
            () = session.peer_going_away() => {
                tracing::info!("the relay is leaving: dialling anew, and finishing here what it still asks");
                true
            }
            // Should it come back, its newest tunnel is the one that it uses. QUIC's own probes get rarer and rarer, and would
            // find a restarted relay late.
            () = silence => {
                tracing::warn!("the relay has fallen silent: dialling anew beside the old tunnel");
                false
            }
            // No new session, but this one is served until the relay closes it.
            () = self.scope.draining() => {
                let ended = serving.await;
                tracing::debug!(?ended, "the last session has ended");
                return Duration::ZERO;
            }
        };
        let now = now();
        backoff.ended(now, now.saturating_duration_since(began), orderly, rand::random())
    }

    /// Says why a session ended; true if it was in order.
    fn ended(&self, ended: Option<TunnelError>, began: std::time::Instant) -> bool {
        let lived = now().saturating_duration_since(began);
        match ended {
            Some(error) if error.is_orderly_close() => {
                tracing::info!(?lived, "the relay closed the tunnel in order");
                true
            }
            // The relay judges the agent's certificate after the agent has seen the handshake succeed.
            Some(TunnelError::Closed(error)) => {
                let failure = Failure::of(&error, self.relay.server_name());
                self.metrics.dialled(&self.relay.address, failure.name);
                tracing::warn!(reason = failure.name, ?lived, "the tunnel is lost: {failure}");
                false
            }
            Some(error) => {
                tracing::warn!(%error, ?lived, "the tunnel is lost");
                false
            }
            None => false,
        }
    }

    /// One dial: every address, until a handshake is complete.
    async fn dial(&mut self) -> Result<Connection, Failure> {
        let config = self.client_config()?;
        let addresses = self.resolve().await?;
        let name = self.relay.server_name();
        let started = Instant::now();
        let mut handshakes = FuturesUnordered::new();
        let (mut tries, mut next, mut last) = (0, started, None);
        loop {
            let patience = started + PATIENCE;
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
                Some((address, done)) = handshakes.next() => match done {
                    Ok(connection) => {
                        self.last = Some(address);
                        return Ok(connection);
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

    /// All addresses of the relay: the one that answered last first, then IPv6 and IPv4 in turn.
    async fn resolve(&self) -> Result<Vec<SocketAddr>, Failure> {
        let address = &self.relay.address;
        let found = tokio::net::lookup_host(address).await.map_err(|error| Failure::unresolved(address, &error))?;
        let addresses = in_turn(found, self.last);
        if addresses.is_empty() { Err(Failure::unresolved(address, &"it has no address")) } else { Ok(addresses) }
    }
}

/// Resolves when the other end has fallen silent: when this one keeps sending and hears nothing.
async fn silence(connection: Connection) {
    let mut silent = 0;
    let mut before = connection.stats();
    while silent < SILENCE {
        sleep(LOOK.max(connection.rtt().mul_f64(1.5))).await;
        let stats = connection.stats();
        if stats.udp_rx.datagrams != before.udp_rx.datagrams {
            silent = 0;
        } else if stats.udp_tx.datagrams != before.udp_tx.datagrams {
            silent += 1;
        }
        before = stats;
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}

fn in_turn(found: impl Iterator<Item = SocketAddr>, last: Option<SocketAddr>) -> Vec<SocketAddr> {
    let (mut six, mut four) = (Vec::new(), Vec::new());
    for address in found {
        let family = if address.is_ipv6() { &mut six } else { &mut four };
        if !family.contains(&address) {
            family.push(address);
        }
    }
    let mut addresses = Vec::with_capacity(six.len() + four.len());
    let (mut six, mut four) = (six.into_iter(), four.into_iter());
    loop {
        let pair = [six.next(), four.next()];
        if pair == [None, None] {
            break;
        }
        addresses.extend(pair.into_iter().flatten());
    }
    if let Some(place) = last.and_then(|last| addresses.iter().position(|address| *address == last)) {
        addresses[..=place].rotate_right(1);
    }
    addresses
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(texts: &[&str]) -> Vec<SocketAddr> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn families_take_turns_and_the_last_good_address_leads() {
        let found = addresses(&["[::1]:1", "[::2]:1", "[::1]:1", "[::3]:1", "1.1.1.1:1"]);
        let ordered = in_turn(found.iter().copied(), None);
        assert_eq!(ordered, addresses(&["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"]));
        let last = Some("[::2]:1".parse().unwrap());
        assert_eq!(in_turn(found.iter().copied(), last), addresses(&["[::2]:1", "[::1]:1", "1.1.1.1:1", "[::3]:1"]));
        let gone = Some("[::9]:1".parse().unwrap());
        assert_eq!(in_turn(found.into_iter(), gone), ordered);
    }
}
