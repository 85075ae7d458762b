//! The way between an agent and the relay, as slow as a test wants it: a proxy that holds each datagram for a set time, and
//! each piece of a TCP connection too.
//!
//! It forwards what it gets in order and loses nothing, so that a planted delay is the only thing that it adds; cut, it
//! loses everything, as a pulled cable would; and it can block UDP alone, as many a firewall does, or limit it, as some providers do.

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

/// Pieces of a TCP connection under way in one direction; the rest waits with its sender.
const PIECES: usize = 64;

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
    /// Bytes a second, each way; 0 for as many as come.
    udp_limit: AtomicU64,
    tcp_limit: AtomicU64,
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

    /// Loses what is beyond so many bytes of UDP a second in a direction, TCP as before.
    pub fn limit_udp(&self, rate: u64) {
        self.state.udp_limit.store(rate, Ordering::Relaxed);
    }

    /// Holds what is beyond so many bytes of a TCP connection a second in a direction.
    pub fn limit_tcp(&self, rate: u64) {
        self.state.tcp_limit.store(rate, Ordering::Relaxed);
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
    async fn pump(self, from: OwnedReadHalf, to: OwnedWriteHalf) {
        let (put, take) = mpsc::channel(PIECES);
        tokio::join!(self.take_in(from, put), self.give_out(take, to));
    }

    async fn take_in(&self, mut from: OwnedReadHalf, way: mpsc::Sender<(Instant, Bytes)>) {
        let mut piece = vec![0; DATAGRAM];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            let due = Instant::now() + Duration::from_micros(self.state.delay.load(Ordering::Relaxed));
            if way.send((due, Bytes::copy_from_slice(&piece[..length]))).await.is_err() {
                return;
            }
        }
    }

    async fn give_out(&self, mut way: mpsc::Receiver<(Instant, Bytes)>, mut to: OwnedWriteHalf) {
        while let Some((due, piece)) = way.recv().await {
            sleep_until(due).await;
            loop {
                let mended = self.state.mended.notified();
                if !self.is_cut() {
                    break;
                }
                mended.await;
            }
            let limit = self.state.tcp_limit.load(Ordering::Relaxed);
            if limit > 0 {
                tokio::time::sleep(Duration::from_secs_f64(piece.len() as f64 / limit as f64)).await;
            }
            if to.write_all(&piece).await.is_err() {
                return;
            }
        }
    }

    fn is_cut(&self) -> bool {
        self.state.cut.load(Ordering::Relaxed)
    }

    async fn receive(self, socket: Arc<UdpSocket>, way: mpsc::Sender<(Instant, Bytes)>, from_agent: bool) {
        let (mut buffer, mut policer) = (vec![0; DATAGRAM], Policer::default());
        loop {
            // An error is the kernel's news that nobody listens there just now; QUIC finds that out itself.
            let Ok((length, from)) = socket.recv_from(&mut buffer).await else { continue };
            if from_agent {
                *self.state.agent.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
            }
            let delay = Duration::from_micros(self.state.delay.load(Ordering::Relaxed));
            let passes = policer.passes(self.state.udp_limit.load(Ordering::Relaxed), length);
            if passes && !self.is_udp_lost() {
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

/// A bucket of tokens: what finds too few is lost.
#[derive(Debug, Default)]
struct Policer {
    /// Bytes that may pass, and since when more have come.
    tokens: f64,
    since: Option<Instant>,
}

impl Policer {
    /// Bytes that may come at once.
    const BURST: f64 = 64e3;

    fn passes(&mut self, rate: u64, length: usize) -> bool {
        if rate == 0 {
            return true;
        }
        let now = Instant::now();
        let passed = self.since.replace(now).map_or(1.0, |since| (now - since).as_secs_f64());
        self.tokens = (self.tokens + passed * rate as f64).min(Self::BURST);
        let passes = self.tokens >= length as f64;
        if passes {
            self.tokens -= length as f64;
        }
        passes
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
