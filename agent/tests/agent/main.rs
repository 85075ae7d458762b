//! A whole agent, asked over its local listener and over a real tunnel.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod annotate;
mod batching;
mod borrowed;
mod boxes;
mod cancellation;
mod deepstack;
mod detect;
mod house;
mod hub;
mod memory;
mod oip;
mod openapi;
mod photo;
mod predictions;
mod program;
mod pull;
mod quantise;
mod repository;
mod settings;
mod statistics;
mod tfserving;
mod training;
mod transport;
mod tunnel;
