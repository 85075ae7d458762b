//! The lab: a network in namespaces of one Linux machine, in which tunnels are measured side by side.
//!
//! ```text
//! client --(link a)-- relay --(link b)-- NAT, inbound dropped -- agent and server
//! ```
//!
//! `link` emulates a way through the world between two namespaces, `load` asks, `stand_in` answers, `flow` fills the link with
//! plain TCP; `command` is all of it as a command line.

#![cfg(target_os = "linux")]

mod command;
mod flow;
mod link;
mod load;
mod stand_in;

pub use command::{Cli, run};
