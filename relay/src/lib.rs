//! The public relay: terminates HTTPS and sends requests down the agents' tunnels.
//!
//! The rooms, from the top of the stairs: `front` takes requests in and spells errors, `proxy` walks one request (who asks,
//! where to, may it be sent again), `fleet` knows the connected agents and picks one; below lies the tunnel of
//! `adit-common`. Beside the stairs stands `admin`, for operators. `config`, `error`, `metrics`, `liveness` and
//! `listening` are the ground that all stand on. [`Relay`] builds the rooms from the bottom up and drains them from the top down.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used))]

mod admin;
mod config;
mod error;
mod fleet;
mod front;
mod listening;
mod liveness;
mod metrics;
mod proxy;
mod relay;

pub use config::{AdminConfig, AuthConfig, Config, FrontConfig, LogConfig, ProxyConfig, TunnelConfig};
pub use proxy::keys::{Key, KeyFile, KeysError};
pub use relay::{Addresses, Relay, RelayError};
