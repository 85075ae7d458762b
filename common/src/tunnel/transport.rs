//! QUIC's settings with their reasons, and a UDP socket with buffers that were asked for and read back.

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::{digest, hmac};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::{Endpoint, EndpointConfig, IdleTimeout, TransportConfig, VarInt};
use socket2::{Domain, Protocol, Socket, Type};

use super::congestion::{CongestionControl, PathMemory};
use super::error::TunnelError;

/// The tunnel's protocol: HTTP/3 with the roles reversed, as the `ptth` drafts name it.
pub const ALPN: &[u8] = b"rh3";

/// The first round trip of a session has its keys computed within it, so it takes longer than what was measured of the last one.
const LEAST_INITIAL_RTT: Duration = Duration::from_millis(10);

/// Which end of the tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Accepts sessions, opens request streams.
    Relay,
    /// Dials sessions, answers request streams.
    Agent,
}

/// What an operator may want to change, with our defaults.
#[derive(Debug, Clone)]
pub struct TransportOptions {
    /// A peer that was not heard of for this long is dead. 10 s: an agent has to notice within that time.
    pub idle_timeout: Duration,
    /// The agent sends at least this often: below every NAT's timer for UDP, and so often that an idle agent finds out
    /// within a second that its relay was started anew, for the answer to a keep-alive is then a stateless reset.
    pub keep_alive: Duration,
    /// Requests at a time on one session: an agent grants so many, and a relay opens no more. Generous, for slow uploads hold a
    /// stream without any work being done; admission is by load, not by credit.
    pub streams: u32,
    /// Bytes of one request or answer that may be under way unread: 2 MiB carries 300 Mbit/s over 50 ms.
    pub stream_window: u32,
    /// Bytes kept for retransmission: twice the bandwidth-delay product of 1 Gbit/s over 50 ms, and a bound on memory.
    pub send_window: u32,
    /// The round-trip time to assume before the first measurement. quinn's 333 ms makes a lost first packet cost a second.
    pub initial_rtt: Duration,
    /// Hand the kernel several packets at a time; some virtual network cards lose them.
    pub segmentation_offload: bool,
    /// Repair losses by parity, where a path loses packets at random and both ends want it.
    pub parity: bool,
    /// What decides how much may be under way.
    pub congestion: CongestionControl,
}

impl Default for TransportOptions {
    fn default() -> Self {
        Self {
            idle_timeout: Duration::from_secs(10),
            keep_alive: Duration::from_secs(1),
            streams: 1024,
            stream_window: 2 << 20,
            send_window: 16 << 20,
            initial_rtt: Duration::from_millis(100),
            segmentation_offload: true,
            parity: true,
            congestion: CongestionControl::default(),
        }
    }
}

/// Streams beside the requests: control streams, whose few bytes must find room whatever the requests hold.
const BESIDE: u64 = 8;

impl TransportOptions {
    /// Bytes of all streams of a session that may be under way unread: as many as they may have each. A smaller window would be
    /// filled by readers that stop, and then stop all others.
    pub fn session_window(&self) -> u64 {
        (u64::from(self.streams) + BESIDE) * u64::from(self.stream_window)
    }
}

/// Bytes of datagrams that wait to be read.
const DATAGRAMS: usize = 256 << 10;

/// QUIC's settings for one end of a path, of which `memory` may know something from before.
pub fn transport(role: Role, options: &TransportOptions, memory: &PathMemory) -> TransportConfig {
    let mut config = TransportConfig::default();
    let known = memory.get().filter(|known| known.is_fresh(Instant::now()));
    config
        // The relay opens every request; an agent opens none.
        .max_concurrent_bidi_streams(VarInt::from_u32(if role == Role::Agent { options.streams } else { 0 }))
        // HTTP/3 needs three; foreign libraries add one of noise.
        .max_concurrent_uni_streams(VarInt::from_u32(BESIDE as u32))
        .stream_receive_window(VarInt::from_u32(options.stream_window))
        .receive_window(VarInt::from_u64(options.session_window()).unwrap_or(VarInt::MAX))
        .send_window(options.send_window.into())
        .max_idle_timeout(IdleTimeout::try_from(options.idle_timeout).ok())
        // One side is enough, and it is the agent's NAT that forgets.
        .keep_alive_interval((role == Role::Agent).then_some(options.keep_alive))
        .initial_rtt(known.map_or(options.initial_rtt, |known| known.floor.max(LEAST_INITIAL_RTT)))
        .congestion_controller_factory(options.congestion.factory(memory.clone()))
        .enable_segmentation_offload(options.segmentation_offload)
        // Parity, which is read at once.
        .datagram_receive_buffer_size(Some(DATAGRAMS));
    config
}

/// What the kernel gave a UDP socket, in bytes as it counts them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpBuffers {
    /// The sending buffer.
    pub send: usize,
    /// The receiving buffer.
    pub receive: usize,
    /// What was asked for of each.
    pub wanted: usize,
    /// Packets that one call can send, if the kernel cuts them apart itself (GSO); else 1.
    pub sends: usize,
    /// Packets that one call can receive, if the kernel puts them together itself (GRO); else 1.
    pub receives: usize,
}

impl UdpBuffers {
    /// Whether the kernel gave less than was asked for: bursts will be lost.
    pub const fn is_short(&self) -> bool {
        self.send < self.wanted || self.receive < self.wanted
    }
}

/// What to ask of the kernel: some 50 ms of 1 Gbit/s, which is what a busy core may look away for.
pub const UDP_BUFFER: usize = 8 << 20;

/// Binds a UDP socket and sizes its buffers. An IPv6 wildcard takes IPv4 as well.
pub fn bind_udp(address: SocketAddr, wanted: usize) -> io::Result<(UdpSocket, UdpBuffers)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        // A kernel without IPv4 refuses, and then there is nothing to share.
        let _ = socket.set_only_v6(false);
    }
    // More than net.core.{r,w}mem_max is silently cut, so what counts is what is read back. Linux doubles what it was asked
    // for and reports the double.
    let _ = socket.set_send_buffer_size(wanted / 2);
    let _ = socket.set_recv_buffer_size(wanted / 2);
    socket.bind(&address.into())?;
    // Asked as quinn will ask. What a card does with such packets shows only in use: quinn sends them singly once they fail.
    let offload = quinn_udp::UdpSocketState::new((&socket).into())?;
    let buffers = UdpBuffers {
        send: socket.send_buffer_size()?,
        receive: socket.recv_buffer_size()?,
        wanted,
        sends: offload.max_gso_segments(),
        receives: offload.gro_segments(),
    };
    Ok((socket.into(), buffers))
}

/// What a relay accepts tunnels with.
#[derive(Debug)]
pub struct RelayTransport {
    server: quinn::ServerConfig,
    options: TransportOptions,
}

impl RelayTransport {
    /// With these settings for all tunnels.
    pub fn new(tls: rustls::ServerConfig, options: TransportOptions) -> Result<Self, TunnelError> {
        let crypto = QuicServerConfig::try_from(tls).map_err(|error| TunnelError::Setup(error.to_string()))?;
        let mut server = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        // A memory of nobody's path: each session gets its own by `along`, or begins as if nothing were known.
        server.transport_config(Arc::new(transport(Role::Relay, &options, &PathMemory::none())));
        Ok(Self { server, options })
    }

    /// For a peer whose path may be known from before.
    pub fn along(&self, memory: &PathMemory) -> Arc<quinn::ServerConfig> {
        let mut server = self.server.clone();
        server.transport_config(Arc::new(transport(Role::Relay, &self.options, memory)));
        Arc::new(server)
    }
}

/// The relay's endpoint. With the same `reset_key` after a restart, it answers packets of sessions that it no longer knows
/// with a stateless reset, and their agents dial again within a round trip.
pub fn relay_endpoint(
    socket: UdpSocket,
    transport: &RelayTransport,
    reset_key: &[u8; 64],
) -> Result<Endpoint, TunnelError> {
    let mut config = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, reset_key)));
    // Connection ids are keyed too, and a packet whose id this endpoint could not have made is dropped unanswered: the key
    // must survive the restart along with the other.
    let ids = digest::digest(&digest::SHA256, reset_key);
    let ids = ids.as_ref().iter().take(8).fold(0, |key, byte| key << 8 | u64::from(*byte));
    config.cid_generator(move || Box::new(quinn_proto::HashedConnectionIdGenerator::from_key(ids)));
    // quinn's 20 ms would make 1,000 agents wait for 20 s.
    config.min_reset_interval(Duration::from_micros(100));
    Ok(Endpoint::new(config, Some(transport.server.clone()), socket, Arc::new(quinn::TokioRuntime))?)
}

/// An agent's endpoint; it dials and accepts nothing.
pub fn agent_endpoint(socket: UdpSocket) -> Result<Endpoint, TunnelError> {
    Ok(Endpoint::new(EndpointConfig::default(), None, socket, Arc::new(quinn::TokioRuntime))?)
}

/// What an agent dials with, along a path that it may know from before.
pub fn agent_config(
    tls: rustls::ClientConfig,
    options: &TransportOptions,
    memory: &PathMemory,
) -> Result<quinn::ClientConfig, TunnelError> {
    let crypto = QuicClientConfig::try_from(tls).map_err(|error| TunnelError::Setup(error.to_string()))?;
    let mut config = quinn::ClientConfig::new(Arc::new(crypto));
    config.transport_config(Arc::new(transport(Role::Agent, options, memory)));
    Ok(config)
}
