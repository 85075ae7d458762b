//! Whose bytes go next, where not all of them can: fair among clients, and within a client what is urgent and what is small first.
//!
//! quinn takes what is written until its window is full, and then whoever happens to be awake gets the next place: a client with fifty
//! uploads gets fifty times as much as one with one, and who comes last waits behind all that is kept already; h2 gives each stream
//! its turn, which comes to the same. So no more is handed to either than it can send in a moment. [`backlog`] knows how much it has not sent
//! yet, by what quinn's congestion control is told, or by what TLS took; beyond its first bytes a [`message`] waits in its connection's
//! [`lane`], which is a [`queue`], until [`turns`] gives it the next few.

mod backlog;
mod client;
mod lane;
mod message;
mod queue;
#[allow(clippy::module_inception, reason = "it is what the room is named after")]
mod turns;

pub(super) use backlog::Sending;
pub use client::Client;
pub(super) use lane::Lane;
pub(super) use message::{Message, Part};
pub(super) use queue::Rank;
pub(super) use turns::Turns;
