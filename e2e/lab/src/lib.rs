//! The lab: a network in namespaces of one Linux machine, in which tunnels are measured side by side.
//!
//! ```text
//! client --(link a)-- relay --(link b)-- NAT, inbound dropped -- agent and server
//! ```
//!
//! `link` emulates a way through the world between two namespaces; `command` is the command line.

#![cfg(target_os = "linux")]

mod command;
mod link;

pub use command::{Cli, run};
