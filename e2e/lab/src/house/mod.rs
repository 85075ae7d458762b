//! Namespaces, links, and what runs in them.
//!
//! A `lab` is one whole network for one measurement: `network` makes four namespaces with `addresses` of their own and no way to any
//! other network, `process` starts programs in them and knows what they cost, `front` is the TLS in front of peers that have
//! none, with `certificates` of the lab's own authority. A `place` is what a peer is told about all that.

mod addresses;
mod certificates;
mod front;
mod lab;
mod network;
mod place;
mod process;

pub(crate) use addresses::{HTTPS_PORT, RELAY_IN, opened, plain_port};
pub(crate) use lab::{Lab, Link, Measured, Plan, Running, Site};
pub(crate) use network::{Network, Room, refuse_without};
pub(crate) use place::{Launch, Peer, Place};
pub(crate) use process::{Cost, Role};
