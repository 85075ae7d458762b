//! A whole agent, asked over its local listener and over a real tunnel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod batching;
mod borrowed;
mod cancellation;
mod house;
mod hub;
mod memory;
mod oip;
mod photo;
mod program;
mod pull;
mod repository;
mod training;
mod tunnel;
