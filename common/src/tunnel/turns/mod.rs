//! Whose bytes go next, where not all of them can: fair among clients, and within a client what is urgent and what is small first.
//!
//! quinn takes what is written until its window is full, and then whoever happens to be awake gets the next place: a client with fifty
//! uploads gets fifty times as much as one with one, and who comes last waits behind all that is kept already. So no more is
//! handed to quinn than it can send in a moment. [`backlog`] knows how much it has not sent yet, by what its congestion control is told;
//! beyond the first bytes of a message its writer waits in its connection's [`lane`], which is a [`queue`], until [`turns`] gives it the next few.

mod backlog;
mod client;
mod lane;
mod queue;
#[allow(clippy::module_inception, reason = "it is what the room is named after")]
mod turns;

pub(super) use backlog::Sending;
pub use client::Client;
pub(super) use lane::{Lane, Ticket};
pub(super) use queue::Rank;
pub(super) use turns::Turn;
