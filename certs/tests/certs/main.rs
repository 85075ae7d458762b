//! The authority seen from outside: real handshakes between the ends of a tunnel, and the program on real folders.

#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod handshake;
mod program;
