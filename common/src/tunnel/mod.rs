//! The tunnel: HTTP semantics with the roles reversed.
//!
//! The agent dials out, over QUIC or, where UDP is blocked, over TLS on TCP; once the handshake is complete, the relay is the
//! HTTP client and the agent the HTTP server. Each request has a stream of its own, in HTTP/3's format (RFC 9114 with QPACK's
//! static table) or in HTTP/2's, so any library can stand at either end. `docs/tunnel.md` has it byte by byte.
//!
//! The walk of a request: [`Session::open`] gives the relay a [`Caller`], whose `send` writes the head and streams the body;
//! the agent's [`Session::accept`] gives a [`Callee`], whose `serve` hands an `http::Request<TunnelBody>` to the agent's
//! service and streams its answer back. Dropping any of these cancels the exchange at the other end.

mod body;
mod congestion;
mod control;
mod credit;
mod error;
mod exchange;
mod farewell;
mod fields;
mod frame;
mod huffman;
mod literal;
mod opening;
mod parity;
mod pulse;
mod received;
mod session;
mod static_table;
mod stream;
mod tcp;
mod throttle;
mod transport;
mod turns;
mod urgency;
mod usage;
mod waiting;

pub use body::TunnelBody;
pub use congestion::{CongestionControl, KnownPath, Mode, PathMemory, PathReport, UnknownControl};
pub use error::{ResetCode, TunnelError};
pub use exchange::{Answer, CallError, Callee, Caller, Sent};
pub use session::{Session, SessionLimits, Transport};
pub use tcp::{Loss, TCP_ALPN, prepare_tcp};
pub use throttle::Direction;
pub use transport::{
    ALPN, RelayTransport, Role, TransportOptions, UDP_BUFFER, UdpBuffers, agent_config, agent_endpoint, bind_udp,
    relay_endpoint, transport,
};
pub use turns::Client;
