//! Who is reached where. The networks are private, and exist in the lab's namespaces only.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The client, on link a.
pub(super) const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 2);
/// The relay as clients see it, on link a.
pub(crate) const RELAY_OUT: Ipv4Addr = Ipv4Addr::new(10, 71, 1, 1);
/// The relay as agents see it, on link b.
pub(crate) const RELAY_IN: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 1);
/// The NAT's address on link b.
pub(super) const NAT_OUT: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 2);
/// Another one of it, for when it changes.
pub(super) const NAT_OUT_NEXT: Ipv4Addr = Ipv4Addr::new(10, 71, 2, 3);
/// The NAT on the agent's side.
pub(super) const NAT_IN: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 1);
/// The agent.
pub(super) const AGENT: Ipv4Addr = Ipv4Addr::new(10, 71, 3, 2);

/// Where clients ask, over TLS.
pub(crate) const HTTPS_PORT: u16 = 8443;
/// Where agents dial, over TCP or UDP.
pub(crate) const TUNNEL_PORT: u16 = 7000;
/// Where the stand-in listens, beside the agent.
pub(crate) const SERVER_PORT: u16 = 9000;

/// Where a peer without TLS of its own gives out an agent's server, on the relay's loopback.
pub(crate) fn plain_port(agent: usize) -> u16 {
    8000 + agent as u16
}

/// The server through the port that the NAT has open for it: the way without any tunnel.
pub(crate) fn opened() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(NAT_OUT), SERVER_PORT)
}
