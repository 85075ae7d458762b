//! Whether TCP carries more than QUIC where somebody limits UDP: found out by moving the tunnel and looking.
//!
//! It is moved as it is when UDP is blocked: the relay asks its newest session, and what is under way over the other is finished there.

use std::time::Duration;

use adit_common::tunnel::{Direction, Session};
use tokio::time::{Instant, sleep};

use super::choice::Choice;
use super::quic::QuicWay;
use super::race::{probe, tcp_alone};
use super::tcp::TcpWay;

/// Over which a rate is measured.
const SPAN: Duration = Duration::from_secs(2);

/// What a new connection needs to find its speed.
const SETTLING: Duration = Duration::from_secs(1);

/// How often TCP's rate is measured before it has lost.
const LOOKS: u32 = 3;

/// By how much TCP must be better: what a tunnel over QUIC is worth besides, when packets are lost or the agent's address changes.
const BETTER: f64 = 1.3;

/// Between two tries to go back.
const AGAIN: Duration = Duration::from_secs(1);

/// What TCP has to beat.
#[derive(Debug, Clone, Copy)]
pub(super) struct Trial {
    direction: Direction,
    /// Bytes a second that QUIC carried.
    rate: f64,
}

/// Waits until somebody limits what goes over this session, and dials over TCP.
pub(super) async fn try_tcp(session: &Session, tcp: &mut TcpWay, choice: &mut Choice) -> (Session, Trial) {
    loop {
        let direction = session.throttled().await;
        if !choice.may_try_tcp(Instant::now().into_std()) {
            continue;
        }
        let trial = Trial { direction, rate: rate(session, direction).await };
        match tcp_alone(tcp).await {
            Ok(tried) => return (tried, trial),
            Err(failure) => {
                tracing::debug!(
                    reason = failure.name,
                    "UDP seems to be limited, and TCP does not get through: {failure}"
                );
                choice.tcp_lost(Instant::now().into_std());
            }
        }
    }
}

/// Judges what is over TCP now. Resolves with a session over QUIC if that was no worse; with none, if TCP is to stay.
pub(super) async fn judge(session: &Session, trial: Trial, quic: &mut QuicWay, choice: &mut Choice) -> Option<Session> {
    sleep(SETTLING).await;
    let mut best = 0.0_f64;
    for _ in 0..LOOKS {
        best = best.max(rate(session, trial.direction).await);
        if best >= BETTER * trial.rate {
            tracing::warn!(
                quic = megabits(trial.rate),
                tcp = megabits(best),
                "UDP is limited on the way: the tunnel stays over TCP, which carries more (Mbit/s)"
            );
            choice.tcp_won(Instant::now().into_std());
            return None;
        }
    }
    tracing::info!(
        quic = megabits(trial.rate),
        tcp = megabits(best),
        "TCP carries no more than QUIC (Mbit/s): back to that"
    );
    choice.tcp_lost(Instant::now().into_std());
    loop {
        match probe(quic).await {
            Ok(session) => return Some(session),
            Err(failure) => tracing::debug!(reason = failure.name, "QUIC does not get through any more: {failure}"),
        }
        sleep(AGAIN).await;
    }
}

async fn rate(session: &Session, direction: Direction) -> f64 {
    let so_far = || match direction {
        Direction::Sending => session.bytes().0,
        Direction::Receiving => session.bytes().1,
    };
    let (before, began) = (so_far(), Instant::now());
    sleep(SPAN).await;
    so_far().saturating_sub(before) as f64 / began.elapsed().as_secs_f64()
}

fn megabits(rate: f64) -> String {
    format!("{:.1}", rate * 8e-6)
}
