//! The identities of the house: a private certificate authority and the TLS settings of the tunnel.
//!
//! An agent behind a firewall and its relay meet over mutual TLS, and both must belong to one private authority. This
//! crate makes that authority, issues certificates, keeps the files, and turns files into `rustls` settings.
//! The walk: [`Store`] (the folder) opens an [`Authority`], which signs a [`Request`]; the programs later read a
//! [`Bundle`] of the written files into a tunnel configuration ([`relay_tunnel`], [`agent_tunnel`]), and after a
//! handshake ask [`peer_agent`] who has come.
//!
//! ```text
//! D/authority/    root.pem root.key         10 years; the key is needed for a new issuing certificate only: keep it offline
//!                 issuing.pem issuing.key   5 years; signs everything below
//! D/relay/        ca.pem                    = root.pem: what a tunnel, or a client of the HTTPS front, trusts
//!                 tunnel.pem tunnel.key     server of the tunnel: the relay's names and `adit://relay`
//!                 https.pem https.key       public front of a machine without public DNS: the relay's names
//! D/agents/NAME/  ca.pem agent.pem agent.key  client of the tunnel: `adit://agent/NAME`
//! ```
//!
//! Certificate files are chains (leaf first, then the issuing certificate), keys are PKCS #8, all are PEM. Keys have
//! mode 0600 and their folders 0700; every file is replaced in one step, so a reader never sees half of it.
//! `relay/` goes to the relay's machine and `agents/NAME/` to the agent's; `authority/` goes nowhere.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod authority;
mod error;
mod files;
mod identity;
mod inspect;
mod request;
mod store;
mod tls;

pub use authority::{Authority, RelayName, Validity};
pub use error::CertsError;
pub use files::{RESET_KEY_BYTES, reset_key};
pub use identity::Identity;
pub use inspect::Summary;
pub use request::Request;
pub use store::{Bundle, Store};
pub use tls::{
    TUNNEL_ALPN, TUNNEL_TCP_ALPN, agent_tunnel, agent_tunnel_over_tcp, https_server, peer_agent, relay_tunnel,
    relay_tunnel_over_tcp,
};
