//! For operators, on loopback and in plain HTTP: is it alive, is it ready, what does it count, who is connected.
//!
//! `http` listens and answers; `fleet` writes what is known of the agents, as JSON and as metrics.

mod fleet;
pub(crate) mod http;
