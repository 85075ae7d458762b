//! Receives tunnels: who has come, registration, and the session until its end, whatever it travels over.
//!
//! Everything that a peer could delay happens in the task of its own connection, so one slow peer holds up nobody. Nothing
//! is sent before the handshake is complete: until then the peer's certificate is not verified.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use adit_certs::{CertsError, peer_agent};
use adit_common::daemon::Shutdown;
use adit_common::id::AgentId;
use adit_common::manifest::{Manifest, Report};
use adit_common::tunnel::{RelayTransport, ResetCode, Role, Session, SessionLimits, TunnelError, prepare_tcp};
use rustls::ServerConfig;
use rustls_pki_types::CertificateDer;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, timeout};
use tokio_rustls::server::StartHandshake;

use super::agent::Agent;
use super::paths::Paths;
use super::registry::Registry;
use super::reports::{ReportError, Reports};
use crate::config::TunnelConfig;
use crate::metrics::Metrics;

/// How often a session is looked at: a dead agent is given up within the idle time-out and two of these.
const LOOK: Duration = Duration::from_millis(250);

/// Without a word for this long an agent is silent: several of its keep-alives.
const LONG: Duration = Duration::from_secs(4);

/// Why a peer did not become an agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refusal {
    #[error("the handshake failed")]
    Handshake(#[from] quinn::ConnectionError),
    #[error("the handshake over tcp failed")]
    Tls(#[from] std::io::Error),
    #[error("the session could not be begun")]
    Begin(#[from] TunnelError),
    #[error("the peer does not speak the tunnel's protocol")]
    Protocol,
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

/// What all tunnels of a relay have in common.
#[derive(Debug)]
pub(super) struct Reception {
    pub(super) registry: Arc<Registry>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) config: TunnelConfig,
    pub(super) transport: RelayTransport,
    pub(super) paths: Paths,
}

impl Reception {
    /// QUIC's handshake, awaited to its end, and who has come.
    pub(super) async fn admit(&self, incoming: quinn::Incoming) -> Result<(AgentId, Session), Refusal> {
        let memory = self.paths.of(incoming.remote_address().ip(), Instant::now());
        let handshake = async { incoming.accept_with(self.transport.along(&memory))?.await };
        let connection = timeout(self.config.handshake_timeout, handshake).await.map_err(|_| Refusal::Slow)??;
        let identity = connection.peer_identity().ok_or(Refusal::Anonymous)?;
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().map_err(|_| Refusal::Anonymous)?;
        let id = peer_agent(&chain)?;
        Ok((id, Session::new(connection, self.limits())))
    }

    fn limits(&self) -> SessionLimits {
        SessionLimits::of(&self.config.transport())
    }

    /// TLS's handshake on TCP, awaited to its end, and who has come.
    pub(super) async fn admit_over_tcp(
        &self,
        start: StartHandshake<TcpStream>,
        tls: Arc<ServerConfig>,
    ) -> Result<(AgentId, Session), Refusal> {
        let handshake = async {
            let stream = start.into_stream(tls).await?;
            let (socket, peer) = stream.get_ref();
            prepare_tcp(socket, self.config.idle_timeout);
            // A peer that named no protocol gets this far.
            if peer.alpn_protocol() != Some(adit_certs::TUNNEL_TCP_ALPN) {
                return Err(Refusal::Protocol);
            }
            let id = peer_agent(peer.peer_certificates().ok_or(Refusal::Anonymous)?)?;
            let (options, limits) = (self.config.transport(), self.limits());
            Ok((id, Session::over_tcp(stream.into(), Role::Relay, &options, limits).await?))
        };
        timeout(self.config.handshake_timeout, handshake).await.map_err(|_| Refusal::Slow)?
    }

    /// Receives one peer: `admitted` is its handshake, and `place` is held as long as that lasts.
    pub(super) async fn receive<P>(
        &self,
        peer: SocketAddr,
        admitted: impl Future<Output = Result<(AgentId, Session), Refusal>>,
        place: P,
        scope: &Shutdown,
    ) {
        match admitted.await {
            Ok((id, session)) => {
                drop(place);
                self.serve(id, session, scope).await;
            }
            Err(refusal) => {
                self.metrics.tunnels_failed.one();
                tracing::info!(%peer, reason = %chain(&refusal), "refused a tunnel");
            }
        }
    }

    /// The session until its end.
    async fn serve(&self, id: AgentId, session: Session, scope: &Shutdown) {
        let peer = session.remote_address();
        let _held = self.metrics.sessions.hold();
        let mut run = pin!(session.run());
        let end = tokio::select! {
            error = &mut run => End::Session(error),
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
        if !matches!(end, End::Session(_)) {
            // Over TCP it takes a moment until the peer has been told.
            run.await;
        }
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
        let (peer, transport) = (session.remote_address(), session.transport());
        tracing::info!(agent = %agent.id, %peer, %transport, software = manifest.software, models = manifest.models.len(), "agent joined");
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
                    let (_, count) = agent.session.passed();
                    if count != received {
                        (received, heard) = (count, now);
                    }
                    agent.set_silent(now.saturating_duration_since(heard) >= LONG);
                    if now.saturating_duration_since(heard) >= self.config.idle_timeout {
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
