//! What every service of gRPC needs: how a call is served and an error spelled (`call`), and the services that say whether an
//! agent is well (`health`) and what it offers (`reflection`). The dialects' own services are in their rooms.

mod call;
mod health;
mod reflection;

pub(super) use call::{deadline, flow, is_grpc, serve, started, status};
pub(super) use health::paths as health;
pub(super) use reflection::paths as reflection;
