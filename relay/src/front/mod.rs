//! The ways in: what takes a client's requests and gives it answers.
//!
//! `tcp` accepts connections; `connection` serves each in its own task: `tls` for the handshake, `wire` for with it or without,
//! `patience` for clients that
//! take or give nothing, `body` for limits. Every request becomes a call of `service`, the one place where an error becomes an answer.

mod body;
mod connection;
mod patience;
pub(crate) mod service;
pub(crate) mod tcp;
pub(crate) mod tls;
mod wire;
