//! Keeps one tunnel to one relay: dials, has the session served, and dials again.

use std::sync::Arc;
use std::time::Duration;

use adit_certs::Bundle;
use adit_common::daemon::Shutdown;
use adit_common::tunnel::{Session, Transport, TransportOptions, TunnelError};
use tokio::time::{Instant, sleep};

use super::backoff::Backoff;
use super::choice::Choice;
use super::failure::Failure;
use super::quic::{QuicWay, Socket};
use super::race::{probe, quic_alone, race, rather_tcp, tcp_alone};
use super::serve::Service;
use super::tcp::TcpWay;
use super::trial::{Trial, judge, try_tcp};
use crate::config::{RelayConfig, TransportChoice, TunnelConfig};
use crate::metrics::Metrics;

/// Between two looks at whether the relay still answers; longer where the way is.
const LOOK: Duration = Duration::from_millis(250);

/// So many looks in a row that found packets sent and none received mean a dead relay or way: what is sent then are QUIC's
/// probes, each of which a living relay answers within a round trip.
const SILENCE: u32 = 3;

/// Keeps one tunnel to one relay.
#[derive(Debug)]
pub struct Dialer {
    relay: RelayConfig,
    quic: QuicWay,
    tcp: TcpWay,
    choice: Choice,
    idle_timeout: Duration,
    service: Service,
    scope: Shutdown,
    metrics: Arc<Metrics>,
}

/// What follows a session.
enum Next {
    /// Another dial, after this long.
    Dial(Duration),
    /// A session that stands already, and what it has to show if it is on trial.
    Session(Session, Option<Trial>),
}

/// Why a session is held no longer, though it may go on.
enum End {
    InOrder,
    Lost,
    Silent,
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
            parity: config.parity,
            congestion: config.congestion,
            ..TransportOptions::default()
        };
        Self {
            quic: QuicWay::new(relay.clone(), socket, identity.clone(), options.clone()),
            tcp: TcpWay::new(relay.clone(), identity, options),
            relay,
            choice: Choice::default(),
            idle_timeout: config.idle_timeout,
            service,
            scope,
            metrics,
        }
    }

    /// Dials, serves and dials again until the agent drains; then until the last session has ended.
    #[tracing::instrument(name = "relay", skip_all, fields(relay = %self.relay.address))]
    pub async fn run(mut self) {
        let mut backoff = Backoff::new();
        let (mut complained, mut standing) = (None, None);
        loop {
            let scope = self.scope.clone();
            let dialled = match standing.take() {
                Some(standing) => Ok(standing),
                None => tokio::select! {
                    dialled = self.dial() => dialled.map(|session| (session, None)),
                    () = scope.draining() => return,
                },
            };
            let next = match dialled {
                Ok((session, trial)) => {
                    complained = None;
                    self.hold(session, trial, &mut backoff).await
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
                    Next::Dial(wait)
                }
            };
            match next {
                Next::Session(session, trial) => standing = Some((session, trial)),
                Next::Dial(wait) => tokio::select! {
                    () = sleep(wait) => {}
                    () = self.scope.draining() => return,
                },
            }
        }
    }

    /// One dial, over what the configuration allows and the last sessions suggest.
    async fn dial(&mut self) -> Result<Session, Failure> {
        let Self { quic, tcp, .. } = self;
        match self.relay.transport {
            TransportChoice::Quic => quic_alone(quic).await,
            TransportChoice::Tcp => tcp_alone(tcp).await,
            TransportChoice::Auto if self.choice.shuns_quic(now()) => rather_tcp(quic, tcp).await,
            TransportChoice::Auto => race(quic, tcp).await,
        }
    }

    /// Serves a session until it ends, its relay is leaving, or a better one stands; what follows.
    async fn hold(&mut self, session: Session, trial: Option<Trial>, backoff: &mut Backoff) -> Next {
        let transport = session.transport();
        self.metrics.dialled(&self.relay.address, "connected");
        tracing::info!(address = %session.remote_address(), %transport, rtt = ?session.rtt(), "the tunnel stands");
        let fallen_back = transport == Transport::Tcp && self.relay.transport == TransportChoice::Auto;
        if fallen_back {
            self.choice.over_tcp();
            if trial.is_some() {
                tracing::info!("UDP seems to be limited on the way: trying whether TCP carries more");
            } else {
                let why = match self.choice.shuns_quic(now()) {
                    true if self.choice.has_won() => {
                        "can be reached more quickly over TCP, UDP being limited on the way"
                    }
                    true => "fell silent over UDP, twice after a handshake",
                    false => "does not answer over UDP",
                };
                tracing::warn!("the relay {why}: the tunnel is over TCP, and QUIC is tried again from time to time");
            }
        }
        let may_choose = self.relay.transport == TransportChoice::Auto;
        let (quic, tcp, choice) = (&mut self.quic, &mut self.tcp, &mut self.choice);
        let held = session.clone();
        let better = async {
            match (transport, trial) {
                (Transport::Tcp, Some(trial)) => match judge(&held, trial, quic, choice).await {
                    Some(session) => (session, None),
                    None => (regain(quic, choice).await, None),
                },
                (Transport::Tcp, None) => (regain(quic, choice).await, None),
                (Transport::Quic, _) => {
                    let (session, trial) = try_tcp(&held, tcp, choice).await;
                    (session, Some(trial))
                }
            }
        };
        let began = now();
        let lived = || now().saturating_duration_since(began);
        let silence = silence(session.clone(), self.idle_timeout);
        let mut serving = self.scope.spawn("session", self.service.clone().serve(session.clone(), self.scope.clone()));
        let end = tokio::select! {
            ended = &mut serving => ended_by(ended.ok().flatten(), lived(), &self.relay, &self.metrics),
            () = session.peer_going_away() => {
                tracing::info!("the relay is leaving: dialling anew, and finishing here what it still asks");
                End::InOrder
            }
            // Should it come back, its newest tunnel is the one that it uses. QUIC's own probes get rarer and rarer, and would
            // find a restarted relay late.
            () = silence => {
                tracing::warn!("the relay has fallen silent: dialling anew beside the old tunnel");
                End::Silent
            }
            // The relay asks its newest tunnel, and closes this one when it has its last answer.
            (session, trial) = better, if may_choose => {
                tracing::info!(to = %session.transport(), "the tunnel moves, and what is under way is finished where it is");
                return Next::Session(session, trial);
            }
            // No new session, but this one is served until the relay closes it.
            () = self.scope.draining() => {
                let ended = serving.await;
                tracing::debug!(?ended, "the last session has ended");
                return Next::Dial(Duration::ZERO);
            }
        };
        if transport == Transport::Quic {
            self.choice.quic_ended(now(), lived(), matches!(end, End::Silent));
        }
        Next::Dial(backoff.ended(now(), lived(), matches!(end, End::InOrder), rand::random()))
    }
}

/// Says why a session ended.
fn ended_by(ended: Option<TunnelError>, lived: Duration, relay: &RelayConfig, metrics: &Metrics) -> End {
    match ended {
        Some(error) if error.is_orderly_close() => {
            tracing::info!(?lived, "the relay closed the tunnel in order");
            End::InOrder
        }
        // The relay judges the agent's certificate after the agent has seen QUIC's handshake succeed.
        Some(TunnelError::Closed(error)) => {
            let failure = Failure::of(&error, relay.server_name());
            metrics.dialled(&relay.address, failure.name);
            tracing::warn!(reason = failure.name, ?lived, "the tunnel is lost: {failure}");
            if matches!(error, quinn::ConnectionError::TimedOut) { End::Silent } else { End::Lost }
        }
        Some(TunnelError::Lost(loss)) => {
            metrics.dialled(&relay.address, "closed");
            tracing::warn!(?lived, "the tunnel is lost: {loss}");
            End::Lost
        }
        Some(error) => {
            tracing::warn!(%error, ?lived, "the tunnel is lost");
            End::Lost
        }
        None => End::Lost,
    }
}

/// Tries QUIC again and again while the tunnel is over TCP; resolves when it got through.
async fn regain(quic: &mut QuicWay, choice: &mut Choice) -> Session {
    loop {
        sleep(choice.pause(now(), rand::random())).await;
        match probe(quic).await {
            Ok(session) => return session,
            Err(failure) => tracing::debug!(reason = failure.name, "QUIC does not get through yet: {failure}"),
        }
    }
}

/// Resolves when the other end has fallen silent: when this one keeps sending and hears nothing. Over TCP the kernel sends
/// again without being asked, and behind a large body a ping takes its time: there it is half the idle time-out.
async fn silence(session: Session, idle_timeout: Duration) {
    let looks = |look: Duration| match session.transport() {
        Transport::Quic => SILENCE,
        Transport::Tcp => (idle_timeout.as_secs_f64() / 2.0 / look.as_secs_f64()).ceil() as u32,
    };
    let (mut silent, mut before) = (0, session.passed());
    loop {
        let look = LOOK.max(session.rtt().mul_f64(1.5));
        sleep(look).await;
        let (sent, received) = session.passed();
        if received != before.1 {
            silent = 0;
        } else if sent != before.0 || session.transport() == Transport::Tcp {
            silent += 1;
        }
        if silent >= looks(look) {
            return;
        }
        before = (sent, received);
    }
}

fn now() -> std::time::Instant {
    Instant::now().into_std()
}
