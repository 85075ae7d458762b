//! Servers behind the agent, which it carries whole requests to. Knows HTTP, but neither tunnel nor serving.
//!
//! [`Upstreams`] are all that the configuration names (`table`). Each has a `pool` of connections, and a `check` that looks after it: its
//! `health` says from when on relays are told of it, and until when. `carry` is THE walk of one request: room for it, its head as the
//! server is to see it (`headers`), a connection, the answer's head, timed. Bodies pass through as they come (`body`), and a WebSocket
//! becomes what the server understands (`socket`). A [`Fault`] says why there is no answer.

mod body;
mod carry;
mod check;
mod fault;
mod headers;
mod health;
mod pool;
mod socket;
mod table;

pub use carry::Upstream;
pub use fault::Fault;
pub use headers::Visitor;
pub use table::Upstreams;
