//! What both ends of an Adit tunnel must agree on, and nothing else.
//!
//! [`tunnel`] carries `http` requests from the relay to the agent over the connection that the agent dialled; the other
//! modules are what travels with a request: who ([`id`]), until when ([`deadline`]), under which trace ([`trace`]) and
//! where its time went ([`timing`]). [`border`] is what no head takes along, [`manifest`] is what an agent says of itself, [`oip`] the Open Inference Protocol as
//! agent and client both write it, [`socket`] how WebSockets travel, and [`daemon`] what a program needs to live under systemd.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

pub mod border;
pub mod daemon;
pub mod deadline;
pub mod id;
pub mod manifest;
pub mod oip;
pub mod socket;
pub mod timing;
pub mod trace;
pub mod tunnel;
