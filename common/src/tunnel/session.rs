//! One live tunnel: requests are opened at the relay's end and accepted at the agent's, over QUIC or over TCP.
//!
//! Whoever uses it need not know over which: requests, answers, cancelling and farewells are the same.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use quinn::Connection;
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use super::congestion::{self, PathReport};
use super::control::Control;
use super::credit::Room;
use super::error::{ResetCode, TunnelError};
use super::exchange::{Callee, Caller};
use super::farewell::Farewell;
use super::parity::Parity;
use super::tcp::TcpSession;
use super::throttle::{Direction, Throttle};
use super::transport::{Role, TransportOptions};
use super::turns::Lane;
use super::usage::Usage;

/// What one end takes from the other.
#[derive(Debug, Clone, Copy)]
pub struct SessionLimits {
    /// The size of a field section, in bytes as RFC 9114 counts them. 64 KiB is what browsers and nginx allow at most.
    pub max_fields: usize,
    /// Requests that this end opens at a time: as many as its window has room for.
    pub streams: u32,
    /// Whether losses are repaired by parity, where a path loses packets at random.
    pub parity: bool,
}

impl SessionLimits {
    /// Those of a session with these settings.
    pub const fn of(options: &TransportOptions) -> Self {
        Self { max_fields: 64 << 10, streams: options.streams, parity: options.parity }
    }
}

impl Default for SessionLimits {
    fn default() -> Self {
        Self::of(&TransportOptions::default())
    }
}

/// What a session travels over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Transport {
    /// QUIC, over UDP.
    Quic,
    /// HTTP/2 over TLS on TCP.
    Tcp,
}

impl Transport {
    /// All there are.
    pub const ALL: [Self; 2] = [Self::Quic, Self::Tcp];

    /// As logs, metrics and configurations have it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Quic => "quic",
            Self::Tcp => "tcp",
        }
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// One live tunnel; clones are the same one.
#[derive(Debug, Clone)]
pub struct Session {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    limits: SessionLimits,
    room: Room,
    farewell: Farewell,
    usage: Usage,
    throttle: Throttle,
}

#[derive(Debug)]
enum Wire {
    Quic(Connection, Arc<Lane>, Arc<Parity>),
    Tcp(Box<TcpSession>),
}

impl Session {
    /// A session over a connection whose handshake is complete. Nothing happens until [`Session::run`] is polled.
    pub fn new(connection: Connection, limits: SessionLimits) -> Self {
        let lane = Arc::new(Lane::new(connection.clone()));
        let parity = Arc::new(Parity::new(lane.clone(), limits.parity));
        Self::over(Wire::Quic(connection, lane, parity), limits)
    }

    /// A session over TLS on TCP, whose handshake is complete too. Nothing at all happens unless [`Session::run`] is polled: no
    /// byte moves without it. The agent's end resolves when the relay has begun to speak, and fails if it does not want to.
    pub async fn over_tcp(
        stream: TlsStream<TcpStream>,
        role: Role,
        options: &TransportOptions,
        limits: SessionLimits,
    ) -> Result<Self, TunnelError> {
        let session = match role {
            Role::Relay => TcpSession::relay(stream, options, limits.max_fields).await?,
            Role::Agent => TcpSession::agent(stream, options, limits.max_fields).await?,
        };
        Ok(Self::over(Wire::Tcp(Box::new(session)), limits))
    }

    fn over(wire: Wire, limits: SessionLimits) -> Self {
        let (room, farewell, usage) = (Room::new(limits.streams), Farewell::default(), Usage::default());
        Self { shared: Arc::new(Shared { wire, limits, room, farewell, usage, throttle: Throttle::default() }) }
    }

    /// What it travels over.
    pub fn transport(&self) -> Transport {
        match self.shared.wire {
            Wire::Quic(..) => Transport::Quic,
            Wire::Tcp(_) => Transport::Tcp,
        }
    }

    /// Drives the session until it is over, and says why it is. Its owner polls it beside the exchanges, and after
    /// [`Session::close`] too, to its end: so the peer is told.
    pub async fn run(&self) -> TunnelError {
        let Shared { wire, limits, farewell, usage, throttle, .. } = &*self.shared;
        match wire {
            Wire::Quic(connection, lane, parity) => {
                Control { connection, farewell, usage, lane, parity, throttle, limits }.run().await
            }
            Wire::Tcp(session) => session.run(farewell).await,
        }
    }

    /// Opens a request stream, now or never: when the peer's credit or the room in this end's window is used up another agent
    /// should be asked.
    pub fn open(&self) -> Result<Caller, TunnelError> {
        if self.shared.farewell.is_heard() {
            return Err(TunnelError::GoingAway);
        }
        let credit = self.shared.room.take().ok_or(TunnelError::NoCredit)?;
        match &self.shared.wire {
            Wire::Quic(connection, lane, parity) => match connection.open_bi().now_or_never() {
                Some(stream) => {
                    self.shared.usage.count();
                    Ok(Caller::over_quic(stream?, lane, parity, self.shared.limits.max_fields, credit))
                }
                None => Err(TunnelError::NoCredit),
            },
            Wire::Tcp(session) => Ok(Caller::over_tcp(session.open(credit)?)),
        }
    }

    /// The next request stream; an error at the session's end.
    pub async fn accept(&self) -> Result<Callee, TunnelError> {
        match &self.shared.wire {
            Wire::Quic(connection, lane, parity) => {
                let stream = connection.accept_bi().await?;
                self.shared.usage.count();
                Ok(Callee::over_quic(stream, lane, parity, self.shared.limits.max_fields))
            }
            Wire::Tcp(session) => Ok(Callee::over_tcp(session.accept().await?)),
        }
    }

    /// Tells the peer, once, that this end is about to leave.
    pub fn goaway(&self) {
        self.shared.farewell.say();
    }

    /// Resolves when the peer said that it is about to leave.
    pub async fn peer_going_away(&self) {
        self.shared.farewell.heard().await;
    }

    /// Resolves when what goes in this direction goes slower than it is asked for, and looks as if somebody limited it; over TCP
    /// never. For one waiter.
    pub async fn throttled(&self) -> Direction {
        self.shared.throttle.noticed().await
    }

    /// Bytes sent and received so far, with all that the transport adds.
    pub fn bytes(&self) -> (u64, u64) {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => {
                let stats = connection.stats();
                (stats.udp_tx.bytes, stats.udp_rx.bytes)
            }
            Wire::Tcp(session) => session.bytes(),
        }
    }

    /// Ends the session at once, with what is in flight.
    pub fn close(&self, code: ResetCode, reason: &str) {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => connection.close(code.to_wire(), reason.as_bytes()),
            Wire::Tcp(session) => session.close(code, reason),
        }
    }

    /// Resolves when the session is over, with why it is.
    pub async fn closed(&self) -> TunnelError {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => connection.closed().await.into(),
            Wire::Tcp(session) => session.closed().await,
        }
    }

    /// Whether the session is over.
    pub fn is_closed(&self) -> bool {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => connection.close_reason().is_some(),
            Wire::Tcp(session) => session.is_closed(),
        }
    }

    /// Where the peer is, as far as this end can see.
    pub fn remote_address(&self) -> SocketAddr {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => connection.remote_address(),
            Wire::Tcp(session) => session.remote_address(),
        }
    }

    /// The path's round-trip time, smoothed; over TCP zero until the first ping has come back.
    pub fn rtt(&self) -> Duration {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => connection.rtt(),
            Wire::Tcp(session) => session.rtt(),
        }
    }

    /// What has been sent and received, to see whether there is any: datagrams over QUIC, bytes over TCP.
    pub fn passed(&self) -> (u64, u64) {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => {
                let stats = connection.stats();
                (stats.udp_tx.datagrams, stats.udp_rx.datagrams)
            }
            Wire::Tcp(session) => session.bytes(),
        }
    }

    /// What QUIC counts: packets, losses, windows, blocked frames. Over TCP that is the kernel's, and here are only the
    /// round-trip time and the bytes; all else is zero.
    pub fn stats(&self) -> quinn::ConnectionStats {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => connection.stats(),
            Wire::Tcp(session) => {
                let mut stats = quinn::ConnectionStats::default();
                stats.path.rtt = session.rtt();
                (stats.udp_tx.bytes, stats.udp_rx.bytes) = session.bytes();
                stats
            }
        }
    }

    /// What our congestion control knows of the path; none where another is chosen, or the kernel's.
    pub fn path(&self) -> Option<PathReport> {
        congestion::report(self.connection()?)
    }

    /// Bytes of parity that were sent, and bytes that were lost and repaired here by the peer's; over TCP none.
    pub fn parity(&self) -> (u64, u64) {
        match &self.shared.wire {
            Wire::Quic(_, _, parity) => parity.counts(),
            Wire::Tcp(_) => (0, 0),
        }
    }

    /// The connection beneath, where it is QUIC's.
    pub fn connection(&self) -> Option<&Connection> {
        match &self.shared.wire {
            Wire::Quic(connection, ..) => Some(connection),
            Wire::Tcp(_) => None,
        }
    }
}
