//! The agents as the relay knows them.
//!
//! `listener` takes tunnels in over QUIC and `gate` over TCP; `reception` checks who has come and reads what they say of
//! themselves; `paths` remembers how they are reached; `registry` knows who is connected and publishes snapshots; `agent` is one of them, with its count of requests and its record; `balance` picks one for a
//! request by `latency` and load, and `health` keeps broken ones out for a while.

pub(crate) mod agent;
pub(crate) mod balance;
pub(crate) mod gate;
mod health;
mod latency;
pub(crate) mod listener;
mod paths;
mod reception;
pub(crate) mod registry;
mod reports;
