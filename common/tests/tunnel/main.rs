//! The tunnel over real QUIC and TLS on loopback.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, missing_docs, unreachable_pub)]

mod budget;
mod clockwork;
mod congestion;
mod ends;
mod exchanges;
mod foreign;
mod pair;
mod parity;
mod restart;
mod silence;
mod turns;
mod wire;
