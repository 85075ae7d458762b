//! The way between an agent and the relay, as slow as a test wants it: a proxy that holds each datagram for a set time, and
//! each piece of a TCP connection too.
//!
//! It forwards what it gets in order and loses nothing, so that a planted delay is the only thing that it adds; cut, it
//! loses everything, as a pulled cable would; and it can block UDP alone, as many a firewall does.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adit_common::daemon::Shutdown;
use anyhow::Result;
use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};
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
    udp_blocked: AtomicBool,
    /// Told when the cable is in again.
    mended: Notify,
    /// Whoever has dialled last.
    agent: Mutex<Option<SocketAddr>>,
}

impl Link {
    /// Opens a link to the relay's tunnel port, without a delay. Its tasks belong to `scope`.
    pub async fn open(relay: SocketAddr, scope: &Shutdown) -> Result<Self> {
        let (front, listener) = both().await?;
        let front = Arc::new(front);
        let back = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
        back.connect(relay).await?;
        let link = Self { address: front.local_addr()?, state: Arc::default() };
        let (up, rising) = mpsc::channel(UNDER_WAY);
        let (down, falling) = mpsc::channel(UNDER_WAY);
        scope.spawn("link, tcp", link.clone().listen(listener, relay, scope.clone()));
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
        self.state.mended.notify_waiters();
    }

    /// Lets no more UDP through, TCP as before.
    pub fn block_udp(&self) {
        self.state.udp_blocked.store(true, Ordering::Relaxed);
    }

    /// Lets UDP through again.
    pub fn open_udp(&self) {
        self.state.udp_blocked.store(false, Ordering::Relaxed);
    }

    fn is_udp_lost(&self) -> bool {
        self.is_cut() || self.state.udp_blocked.load(Ordering::Relaxed)
    }

    /// Carries TCP connections to the relay's port of the same number as its tunnels'.
    async fn listen(self, listener: TcpListener, relay: SocketAddr, scope: Shutdown) {
        while let Ok((near, _)) = listener.accept().await {
            let link = self.clone();
            scope.spawn("link, connection", async move {
                let Ok(far) = TcpStream::connect(relay).await else { return };
                // They fail on dead sockets only.
                let _ = (near.set_nodelay(true), far.set_nodelay(true));
                let ((from_agent, to_agent), (from_relay, to_relay)) = (near.into_split(), far.into_split());
                let up = link.clone().pump(from_agent, to_relay);
                tokio::join!(up, link.pump(from_relay, to_agent));
            });
        }
    }

    /// Carries one direction of a connection to its end. Cut, it holds what is under way: the other side would send it again.
    async fn pump(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let mut piece = vec![0; DATAGRAM];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            tokio::time::sleep(Duration::from_micros(self.state.delay.load(Ordering::Relaxed))).await;
            loop {
                let mended = self.state.mended.notified();
                if !self.is_cut() {
                    break;
                }
                mended.await;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
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
            if !self.is_udp_lost() {
                let _ = way.try_send((Instant::now() + delay, Bytes::copy_from_slice(&buffer[..length])));
            }
        }
    }

    async fn send(self, socket: Arc<UdpSocket>, mut way: mpsc::Receiver<(Instant, Bytes)>, to_agent: bool) {
        while let Some((due, datagram)) = way.recv().await {
            sleep_until(due).await;
            if self.is_udp_lost() {
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

/// A port that is free for both.
async fn both() -> Result<(UdpSocket, TcpListener)> {
    for _ in 0..16 {
        let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        if let Ok(listener) = TcpListener::bind(front.local_addr()?).await {
            return Ok((front, listener));
        }
    }
    anyhow::bail!("no port is free for UDP and TCP")
}
