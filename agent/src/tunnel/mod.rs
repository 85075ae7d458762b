//! The tunnels: dialled out, one to each relay, and served.
//!
//! The walk: a [`Dialer`] lives for each relay of the configuration. It dials over `quic` and `tcp`, in a `race` (`addresses`
//! says where, `choice` which to trust, a `trial` which carries more, `failure` why that did not work, `backoff` when to try again) and hands the session to
//! `serve`, where every request that the relay opens becomes a task that asks the router. One path is answered here, the
//! manifest: its answer is the endless body that `report` writes.

mod addresses;
mod backoff;
mod choice;
mod dial;
mod failure;
mod quic;
mod race;
mod report;
mod serve;
mod tcp;
mod trial;

pub use dial::Dialer;
pub use quic::Socket;
pub use report::Reports;
pub use serve::Service;
