//! A path of datagrams between an agent and a relay, which can be cut, slow, long, or policed.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adit_common::tunnel::{Session, SessionLimits, TransportOptions};
use quinn::Endpoint;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::pair::{Identity, dial, listen};

/// What a path is like, each way.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// How long a datagram takes.
    pub delay: Duration,
    /// Bytes a second, of which the rest waits.
    pub rate: Option<f64>,
    /// Bytes a second, of which the rest is lost.
    pub limit: Option<f64>,
    /// Of so many datagrams one is lost, whichever.
    pub loses: Option<u32>,
}

/// Bytes that a policer lets through at once.
const BURST: f64 = 64e3;

/// Datagrams under way in one direction.
const UNDER_WAY: usize = 1 << 14;

/// One path, both ways.
pub struct Wire {
    address: SocketAddr,
    /// The agent, once it has been heard of.
    agent: OnceLock<SocketAddr>,
    terms: Terms,
    is_cut: AtomicBool,
}

/// Which are lost: always the same ones.
struct Losses(u32);

impl Losses {
    fn one_of(&mut self, many: u32) -> bool {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        self.0 >> 8 < (1 << 24) / many
    }
}

/// When it arrives, from whom it came, and what it is.
type Datagram = (Instant, SocketAddr, Vec<u8>);

/// Two sessions that run over one, and what must live as long.
pub struct Wired {
    pub wire: Arc<Wire>,
    pub asks: Session,
    pub answers: Session,
    _endpoints: (Endpoint, Endpoint),
}

impl Wire {
    /// A path on these terms.
    pub async fn to(relay: SocketAddr, terms: Terms) -> Arc<Self> {
        let near = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
        let far = Arc::new(UdpSocket::bind(("127.0.0.1", 0)).await.unwrap());
        far.connect(relay).await.unwrap();
        let address = near.local_addr().unwrap();
        let wire = Arc::new(Self { address, agent: OnceLock::new(), terms, is_cut: AtomicBool::new(false) });
        for (from, to) in [(near.clone(), far.clone()), (far, near)] {
            let (put, take) = mpsc::channel(UNDER_WAY);
            tokio::spawn(wire.clone().carry(from, put));
            tokio::spawn(wire.clone().deliver(take, to));
        }
        wire
    }

    /// Swallows everything, or no longer.
    pub fn cut(&self, is_cut: bool) {
        self.is_cut.store(is_cut, Ordering::Relaxed);
    }

    async fn carry(self: Arc<Self>, from: Arc<UdpSocket>, way: mpsc::Sender<Datagram>) {
        let (mut datagram, mut free) = (vec![0; 1 << 16], Instant::now());
        let (mut tokens, mut filled) = (BURST, Instant::now());
        let mut losses = Losses(1);
        loop {
            // A socket may say that what it sent before was refused; nobody is to be told.
            let Ok((length, sender)) = from.recv_from(&mut datagram).await else { continue };
            if let Some(limit) = self.terms.limit {
                let passed = std::mem::replace(&mut filled, Instant::now()).elapsed();
                tokens = (tokens + passed.as_secs_f64() * limit).min(BURST);
                if tokens < length as f64 {
                    continue;
                }
                tokens -= length as f64;
            }
            if self.terms.loses.is_some_and(|of| losses.one_of(of)) {
                continue;
            }
            if let Some(rate) = self.terms.rate {
                free = free.max(Instant::now()) + Duration::from_secs_f64(length as f64 / rate);
                if free > Instant::now() + Duration::from_millis(2) {
                    sleep_until(free).await;
                }
            }
            let _ = way.try_send((Instant::now() + self.terms.delay, sender, datagram[..length].to_vec()));
        }
    }

    async fn deliver(self: Arc<Self>, mut way: mpsc::Receiver<Datagram>, to: Arc<UdpSocket>) {
        while let Some((due, sender, carried)) = way.recv().await {
            sleep_until(due).await;
            if self.is_cut.load(Ordering::Relaxed) {
                continue;
            }
            if to.peer_addr().is_ok() {
                let _ = self.agent.set(sender);
                let _ = to.send(&carried).await;
            } else if let Some(agent) = self.agent.get() {
                let _ = to.send_to(&carried, agent).await;
            }
        }
    }
}

impl Wired {
    pub async fn new(terms: Terms) -> Self {
        Self::with(terms, Default::default()).await
    }

    /// With these settings of who asks and of who answers.
    pub async fn with(terms: Terms, [asking, answering]: [TransportOptions; 2]) -> Self {
        let identity = Identity::new();
        let relay = listen(&identity, SocketAddr::from(([127, 0, 0, 1], 0)), &[7; 64], &asking);
        let wire = Wire::to(relay.local_addr().unwrap(), terms).await;
        let (accepted, (agent, dialled)) = tokio::join!(
            async { relay.accept().await.unwrap().await.unwrap() },
            dial(&identity, wire.address, &answering)
        );
        let asks = Session::new(accepted, SessionLimits::of(&asking));
        let answers = Session::new(dialled, SessionLimits::of(&answering));
        for session in [asks.clone(), answers.clone()] {
            tokio::spawn(async move { session.run().await });
        }
        Self { wire, asks, answers, _endpoints: (relay, agent) }
    }
}
