//! What is done to a tunnel, and what is looked at.
//!
//! A scenario has parts, and each part a lab of its own, so that peers can take turns at it. `catalogue` has them all; `steady`
//! asks over a link that stays as it is, `outage` looks at how a tunnel comes back, `slow` has clients that
//! take their time, `bottleneck` is about who gets how much of a narrow link, `lan` about speed where nothing is in the way.

mod bottleneck;
mod catalogue;
mod lan;
mod outage;
mod part;
mod slow;
mod steady;

pub(crate) use catalogue::{NAMES, parts};
pub(crate) use part::{Cases, Part};
