//! The tunnels: dialled out, one to each relay, and served.
//!
//! The walk: a [`Dialer`] lives for each relay of the configuration. It dials (`failure` says why that did not work, `backoff`
//! when to try again) and hands the session to `serve`, where every request that the relay opens becomes a task that asks the
//! router. One path is answered here, the manifest: its answer is the endless body that `report` writes.

mod backoff;
mod dial;
mod failure;
mod report;
mod serve;

pub use dial::{Dialer, Socket};
pub use report::Reports;
pub use serve::Service;
