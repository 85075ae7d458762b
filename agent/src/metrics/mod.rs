//! Counters and histograms of the agent, and how busy it is. Imports no room.
//!
//! Rooms add to atomics; [`Metrics::render`] writes them as Prometheus text.

mod counters;
mod text;

pub use counters::{Counter, Hands, InFlight, Live, Meter, Metrics, Queued};
