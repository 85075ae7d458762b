//! A relay in this process, with real TLS, real QUIC and real certificates; the agents are a [`Session`] each, with a
//! service of the test's own.
//!
//! [`Session`]: adit_common::tunnel::Session

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods)]

mod agent;
mod answers;
mod fleet;
mod house;
mod limits;
mod program;
mod slow;
mod stops;
mod streams;
