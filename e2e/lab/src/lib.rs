//! The lab: a network in namespaces of one Linux machine, in which tunnels are measured side by side.
//!
//! ```text
//! client --(link a)-- relay --(link b)-- NAT, inbound dropped -- agent and server
//! ```
//!
//! `link` emulates a way through the world between two namespaces, `load` asks, `stand_in` answers, `flow` fills the link with
//! plain TCP. `house` builds the namespaces and keeps what runs in them; `peer` says how each tunnel is started; `scenario`
//! is what is done to them; `course` walks through scenarios and peers in turn and keeps what came of it as `record`s, of which
//! `table` makes Markdown. `command` is all of it as a command line.

#![cfg(target_os = "linux")]

mod command;
mod course;
mod flow;
mod house;
mod link;
mod load;
mod peer;
mod record;
mod scenario;
mod stand_in;
mod table;

pub use command::{Cli, Surroundings, run};
