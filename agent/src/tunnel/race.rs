//! Over QUIC or over TCP: whichever gets through, QUIC first.
//!
//! QUIC gets a head start, and another short one when TCP has connected, for then the relay is known to be there. So TCP is used
//! only where UDP does not get through, and no later than a second after the dial began. What TLS finds wrong with either end
//! ends the dial: another transport would not mend it.

use std::pin::pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use adit_common::tunnel::Session;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::failure::Failure;
use super::quic::{PATIENCE, QuicWay};
use super::tcp::{GRACE, TcpWay, at_once};

/// QUIC's head start: more than its handshake takes from one continent to another, little for who waits for an agent.
const HEAD_START: Duration = Duration::from_millis(300);

/// Between two dials over TCP, while neither gets through.
const REPEAT: Duration = Duration::from_millis(500);

/// What QUIC's failure leaves TCP to come to an end, where it may yet get through.
const REST: Duration = Duration::from_secs(3);

/// Dials over both.
pub(super) async fn race(quic: &mut QuicWay, tcp: &mut TcpWay) -> Result<Session, Failure> {
    let (again, blocked) = (Notify::new(), Mutex::new(None));
    let mut by_quic = pin!(quic.dial(PATIENCE, &again));
    let mut by_tcp = pin!(async {
        sleep(HEAD_START).await;
        let go = || async {
            again.notify_one();
            sleep(GRACE).await;
        };
        loop {
            match tcp.dial(go).await {
                Ok(session) => return session,
                Err(failure) => *blocked.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure),
            }
            sleep(REPEAT).await;
        }
    });
    let failure = tokio::select! {
        biased;
        done = &mut by_quic => match done {
            Ok(session) => return Ok(session),
            Err(failure) if failure.is_of_trust() => return Err(failure),
            Err(failure) => failure,
        },
        session = &mut by_tcp => return Ok(session),
    };
    if let Ok(session) = timeout(REST, by_tcp).await {
        return Ok(session);
    }
    let blocked = blocked.lock().unwrap_or_else(PoisonError::into_inner).take();
    Err(failure.and_over_tcp(blocked))
}

/// Dials over TCP, and over QUIC only if that fails: QUIC was seen to fail later on.
pub(super) async fn rather_tcp(quic: &mut QuicWay, tcp: &mut TcpWay) -> Result<Session, Failure> {
    match tcp.dial(at_once).await {
        Ok(session) => Ok(session),
        Err(failure) if failure.is_of_trust() => Err(failure),
        Err(_) => race(quic, tcp).await,
    }
}

/// Tries QUIC once, while the tunnel is over TCP.
pub(super) async fn probe(quic: &mut QuicWay) -> Result<Session, Failure> {
    quic.dial(REST, &Notify::new()).await
}

/// Over QUIC alone.
pub(super) async fn quic_alone(quic: &mut QuicWay) -> Result<Session, Failure> {
    quic.dial(PATIENCE, &Notify::new()).await
}

/// Over TCP alone.
pub(super) async fn tcp_alone(tcp: &mut TcpWay) -> Result<Session, Failure> {
    tcp.dial(at_once).await
}
