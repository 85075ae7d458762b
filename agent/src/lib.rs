//! The agent: runs models behind a firewall and answers through the tunnels it dials.
//!
//! The rooms, from the top of the stairs: [`tunnel`] keeps a session to each relay and makes a request of each of its streams,
//! [`api`] makes an inference of a request, [`serving`] runs it; or [`upstream`] hands it on to a server behind the agent. Beside the stairs, [`hub`] brings models into the folder that is
//! served, and [`workbench`] opens and measures them where they are. [`Agent`] builds them bottom-up and drains them top-down;
//! [`config`], [`error`] and [`metrics`] stand on the ground and know no room.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod agent;
pub mod api;
pub mod config;
pub mod error;
pub mod hub;
pub mod metrics;
pub mod serving;
pub mod tunnel;
pub mod upstream;
pub mod workbench;

pub use agent::Agent;
