//! What can be asked of an agent over HTTP, through a tunnel or on its local listener. Knows no tunnel.
//!
//! The walk: [`router`] sends a request to its dialect (`oip`, `compat`), which takes the body in (`upload`), makes an
//! inference of it, asks the serving room, and spells the answer or the error its own way. Every answer carries the agent's
//! timing. What is for a server behind the agent is handed on before that (`carried`). The [`Listener`] serves a router on a TCP port of this machine.

mod admin;
mod carried;
mod coding;
mod compat;
mod grpc;
mod legible;
mod listener;
mod oip;
mod openapi;
mod paths;
mod reply;
mod router;
mod tfserving;
mod upload;

pub use admin::admin;
pub use carried::Carriage;
pub use listener::Listener;
pub use router::{Api, Origin, endpoints, router};
