//! The way between an agent and the relay, as slow as a test wants it: a UDP proxy that holds each datagram for a set time.
//!
//! It forwards what it gets in order and loses nothing, so that a planted delay is the only thing that it adds; cut, it
//! loses everything, as a pulled cable would.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_common::daemon::Shutdown;
use anyhow::Result;
use bytes::Bytes;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// The largest datagram that UDP carries.
const DATAGRAM: usize = 64 << 10;

/// Datagrams under way in one direction: 100 ms of 400 Mbit/s. What is over is lost, as in any router.
const UNDER_WAY: usize = 4096;

/// A link; clones are the same.
#[derive(Debug, Clone)]
pub struct Link {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// One way, in microseconds.
    delay: AtomicU64,
    cut: AtomicBool,
    /// Whoever has dialled last.
    agent: Mutex<Option<SocketAddr>>,
}

impl Link {
    /// Opens a link to the relay's tunnel port, without a delay. Its tasks belong to `scope`.
    pub async fn open(relay: SocketAddr, scope: &Shutdown) -> Result<Self> {
        let front = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        back.connect(relay).await?;
        let link = Self { address: front.local_addr()?, state: Arc::default() };
        let (up, rising) = mpsc::channel(UNDER_WAY);
        let (down, falling) = mpsc::channel(UNDER_WAY);
        scope.spawn("link in, up", link.clone().receive(front.clone(), up, true));
        scope.spawn("link in, down", link.clone().receive(back.clone(), down, false));
        scope.spawn("link out, up", link.clone().send(back, rising, false));
        scope.spawn("link out, down", link.clone().send(front, falling, true));
        Ok(link)
    }

    /// Where an agent dials.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Holds each datagram for this long, in each direction.
    pub fn delay(&self, one_way: Duration) {
        self.state.delay.store(u64::try_from(one_way.as_micros()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// Loses everything from now on.
    pub fn cut(&self) {
        self.state.cut.store(true, Ordering::Relaxed);
    }

    /// Carries again.
    pub fn mend(&self) {
        self.state.cut.store(false, Ordering::Relaxed);
    }

    fn is_cut(&self) -> bool {
        self.state.cut.load(Ordering::Relaxed)
    }

    async fn receive(self, socket: Arc<UdpSocket>, way: mpsc::Sender<(Instant, Bytes)>, from_agent: bool) {
        let mut buffer = vec![0; DATAGRAM];
        loop {
            // An error is the kernel's news that nobody listens there just now; QUIC finds that out itself.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            if from_agent {
                *self.state.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
            }
            let delay = Duration::from_micros(self.state.delay.load(Ordering::Relaxed));
            if !self.is_cut() {
                let _ = way.try_send((Instant::now() + delay, Bytes::copy_from_slice(&buffer[..length])));
            }
        }
    }

    async fn send(self, socket: Arc<UdpSocket>, mut way: mpsc::Receiver<(Instant, Bytes)>, to_agent: bool) {
        while let Some((due, datagram)) = way.recv().await {
            sleep_until(due).await;
            if self.is_cut() {
                continue;
            }
            let agent = *self.state.agent.lock().unwrap_or_else(PoisonError::into_inner);
            // Lost, if the other side is not there.
            let _ = match agent {
                Some(agent) if to_agent => socket.send_to(&datagram, agent).await,
                _ => socket.send(&datagram).await,
            };
        }
    }
}
