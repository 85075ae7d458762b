//! A session over TLS on TCP, for where UDP is blocked: HTTP/2 with the roles reversed.
//!
//! `session` keeps HTTP/2 going over a `wire` that counts, with one `control` stream beside the requests for what HTTP/2 has no
//! words for; `exchange` is one request and its response, its body read by `incoming` and written by `outgoing`; `head` and `code`
//! translate. The relay is HTTP/2's client, on the socket that it accepted; the agent its server, on the one that it dialled.

mod code;
mod control;
mod exchange;
mod fate;
mod head;
mod incoming;
mod outgoing;
mod session;
mod wire;

pub(super) use exchange::{Asked, Asking, Begun};
pub use fate::Loss;
pub(super) use incoming::Incoming;
pub(super) use session::TcpSession;
pub use wire::{TCP_ALPN, prepare_tcp};
