//! Counters and histograms of the agent, and how busy it is. Imports no room.
//!
//! Rooms add to atomics; [`Metrics::render`] writes them as Prometheus text. What is counted of one version of one model is its
//! [`Account`], which outlives reloads and is told once more under the names that Triton's dashboards know (`triton`).

mod account;
mod counters;
mod text;
mod triton;
mod upstream;

pub use account::{Account, Failure, Figures, Pending, Spent, Total};
pub use counters::{Counter, Hands, InFlight, Live, Meter, Metrics, Queued};
pub use upstream::{Held, UpstreamMeter};
