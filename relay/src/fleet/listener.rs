//! Takes tunnels in: handshake, identity, registration, and the session until its end.
//!
//! Everything that a peer could delay happens in the task of its own connection, so one slow peer holds up nobody. Nothing
//! is sent before the handshake is complete: until then the peer's certificate is not verified.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_certs::{Bundle, CertsError, peer_agent, relay_tunnel, reset_key};
use adit_common::daemon::Shutdown;
use adit_common::id::AgentId;
use adit_common::manifest::{Manifest, Report};
use adit_common::tunnel::{ResetCode, Session, SessionLimits, TunnelError, bind_udp, relay_endpoint};
use rustls_pki_types::CertificateDer;
use tokio::sync::Semaphore;
use tokio::time::{MissedTickBehavior, interval, timeout};

use super::agent::Agent;
use super::registry::Registry;
use super::reports::{ReportError, Reports};
use crate::config::TunnelConfig;
use crate::liveness::{BEAT, Liveness, Pulse};
use crate::metrics::Metrics;

/// How often a session is looked at: a dead agent is given up within the idle time-out and two of these.
const LOOK: Duration = Duration::from_millis(250);

/// Why the tunnel's port cannot be opened.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    #[error("the tunnel's certificates cannot be used")]
    Certificates(#[from] CertsError),
    #[error("cannot bind udp {address}")]
    Bind { address: SocketAddr, source: io::Error },
    #[error("cannot open the tunnel's endpoint")]
    Endpoint(#[from] TunnelError),
}

/// Why a peer did not become an agent.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("the handshake failed")]
    Handshake(#[from] quinn::ConnectionError),
    #[error("the handshake took too long")]
    Slow,
    #[error("the peer showed no certificate")]
    Anonymous,
    #[error("the peer's certificate is no agent's")]
    Identity(#[from] CertsError),
}

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error("the session ended")]
    Session(#[source] TunnelError),
    #[error("the agent's reports cannot be followed")]
    Reports(#[from] ReportError),
    #[error("no manifest came in time")]
    NoManifest,
    #[error("the manifest is {0}'s, the certificate is not")]
    NotItself(AgentId),
    #[error("the agent was not heard of any more")]
    Silent,
    #[error("all requests were answered")]
    Finished,
}

/// The tunnel's port.
#[derive(Debug)]
pub(crate) struct Listener {
    endpoint: quinn::Endpoint,
    address: SocketAddr,
    shared: Arc<Shared>,
    handshakes: Arc<Semaphore>,
    pulse: Pulse,
}

#[derive(Debug)]
struct Shared {
    registry: Arc<Registry>,
    metrics: Arc<Metrics>,
    config: TunnelConfig,
}

impl Listener {
    /// Opens the port. `certificates` is the folder of `tunnel.pem`, `tunnel.key` and `ca.pem`.
    pub(crate) fn bind(
        config: &TunnelConfig,
        certificates: &Bundle,
        reset_key_file: &Path,
        registry: Arc<Registry>,
        metrics: Arc<Metrics>,
        liveness: &Liveness,
    ) -> Result<Self, ListenError> {
        let tls = relay_tunnel(certificates)?;
        let key = reset_key(reset_key_file)?;
        let failed = |source| ListenError::Bind { address: config.listen, source };
        let (socket, buffers) = bind_udp(config.listen, config.udp_buffer).map_err(failed)?;
        let address = socket.local_addr().map_err(failed)?;
        metrics.udp_send_buffer.set(buffers.send as u64);
        metrics.udp_receive_buffer.set(buffers.receive as u64);
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
        let endpoint = relay_endpoint(socket, tls, &key, &config.transport())?;
        let handshakes = Arc::new(Semaphore::new(config.max_handshakes));
        let shared = Arc::new(Shared { registry, metrics, config: config.clone() });
        Ok(Self { endpoint, address, shared, handshakes, pulse: liveness.pulse("tunnel listener") })
    }

    pub(crate) const fn address(&self) -> SocketAddr {
        self.address
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
                self.shared.metrics.tunnels_refused.one();
                incoming.refuse();
                continue;
            };
            // Half of the places taken looks like an attack from forged addresses: let newcomers show theirs first.
            if self.handshakes.available_permits() < self.shared.config.max_handshakes / 2
                && !incoming.remote_address_validated()
                && incoming.may_retry()
            {
                // It fails only when a retry is not possible, which was just asked.
                let _ = incoming.retry();
                continue;
            }
            let (shared, inner) = (self.shared.clone(), scope.clone());
            scope.spawn("session", async move {
                let peer = incoming.remote_address();
                match shared.admit(incoming).await {
                    Ok((id, session)) => {
                        drop(permit);
                        shared.serve(id, session, &inner).await;
                    }
                    Err(refusal) => {
                        shared.metrics.tunnels_failed.one();
                        tracing::info!(%peer, reason = %chain(&refusal), "refused a tunnel");
                    }
                }
            });
        }
    }
}

impl Shared {
    /// The handshake, awaited to its end, and who has come.
    async fn admit(&self, incoming: quinn::Incoming) -> Result<(AgentId, Session), Refusal> {
        let handshake = async { incoming.accept()?.await };
        let connection = timeout(self.config.handshake_timeout, handshake).await.map_err(|_| Refusal::Slow)??;
        let identity = connection.peer_identity().ok_or(Refusal::Anonymous)?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| Refusal::Anonymous)?;
        let id = peer_agent(&chain)?;
        Ok((id, Session::new(connection, SessionLimits::default())))
    }

    /// The session until its end.
    async fn serve(&self, id: AgentId, session: Session, scope: &Shutdown) {
        let peer = session.remote_address();
        let _held = self.metrics.sessions.hold();
        let end = tokio::select! {
            error = session.run() => End::Session(error),
            end = self.follow(id.clone(), &session, scope) => end,
        };
        let orderly = match &end {
            End::Finished => {
                session.close(ResetCode::NO_ERROR, "all requests were answered");
                true
            }
            End::Session(error) => error.is_orderly_close(),
            other => {
                session.close(ResetCode::GENERAL_PROTOCOL_ERROR, &other.to_string());
                false
            }
        };
        let reason = chain(&end);
        if orderly {
            tracing::info!(agent = %id, %peer, %reason, "agent left");
        } else {
            self.metrics.sessions_lost.one();
            tracing::warn!(agent = %id, %peer, %reason, "agent lost");
        }
    }

    /// Registers the agent and follows what it says of itself.
    async fn follow(&self, id: AgentId, session: &Session, scope: &Shutdown) -> End {
        let first = async {
            let mut reports = Reports::open(session).await?;
            loop {
                match reports.next().await? {
                    Some(Report::Manifest(manifest)) => return Ok(Some((reports, manifest))),
                    // How busy it is says nothing before what it is.
                    Some(Report::Load(_)) => {}
                    None => return Ok(None),
                }
            }
        };
        let (mut reports, manifest) = match timeout(self.config.handshake_timeout, first).await {
            Ok(Ok(Some(first))) => first,
            Ok(Ok(None)) | Err(_) => return End::NoManifest,
            Ok(Err(error)) => return End::Reports(error),
        };
        if manifest.agent != id {
            return End::NotItself(manifest.agent);
        }
        let agent = Arc::new(Agent::new(id, session.clone(), Instant::now()));
        let peer = session.remote_address();
        tracing::info!(agent = %agent.id, %peer, software = manifest.software, models = manifest.models.len(), "agent joined");
        self.metrics.sessions_total.one();
        let draining = manifest.draining;
        self.registry.register(agent.clone(), manifest);
        if draining {
            self.registry.retire(&agent);
        }
        // Whatever ends this future, be it an abort, takes the agent out of the registry.
        let _registered = Registered { registry: &self.registry, agent: &agent };
        self.watch(&agent, &mut reports, scope).await
    }

    async fn watch(&self, agent: &Arc<Agent>, reports: &mut Reports, scope: &Shutdown) -> End {
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut received, mut heard) = (0, Instant::now());
        let (mut told, mut leaving, mut reporting) = (false, false, true);
        loop {
            tokio::select! {
                report = reports.next(), if reporting => match report {
                    Ok(Some(Report::Load(load))) => agent.report(load),
                    Ok(Some(Report::Manifest(manifest))) if manifest.agent != agent.id => {
                        return End::NotItself(manifest.agent);
                    }
                    Ok(Some(Report::Manifest(manifest))) => self.take(agent, manifest),
                    // It may finish what it has, but nobody knows what it has become.
                    Ok(None) => {
                        reporting = false;
                        self.registry.retire(agent);
                    }
                    Err(error) => return End::Reports(error),
                },
                () = scope.draining(), if !told => {
                    told = true;
                    agent.session.goaway();
                }
                () = agent.session.peer_going_away(), if !leaving => {
                    leaving = true;
                    self.registry.retire(agent);
                }
                () = agent.finished() => return End::Finished,
                _ = look.tick() => {
                    // QUIC's own idle timer starts anew with the first packet that is sent into the void, so a request now
                    // and then would stretch it to twice its time.
                    let now = Instant::now();
                    let count = agent.session.stats().udp_rx.datagrams;
                    if count != received {
                        (received, heard) = (count, now);
                    } else if now.saturating_duration_since(heard) >= self.config.idle_timeout {
                        return End::Silent;
                    }
                }
            }
        }
    }

    fn take(&self, agent: &Arc<Agent>, manifest: Manifest) {
        if manifest.draining && !agent.is_retired() {
            tracing::info!(agent = %agent.id, in_flight = agent.in_flight(), "agent drains");
        }
        self.registry.update(agent, manifest);
    }
}

struct Registered<'a> {
    registry: &'a Registry,
    agent: &'a Arc<Agent>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        self.registry.remove(self.agent, Instant::now());
    }
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        text.push_str(": ");
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}
