//! A network in a time of its own, of quinn's own state machines: what the congestion control is held to.

mod flow;
mod link;
mod network;

pub use flow::{Flow, Work};
pub use link::{Loss, Path};
pub use network::{Network, poisson};
