//! A whole house in one process: relay, agents and clients over real TLS and QUIC on loopback.
//!
//! A [`House`] is built from a [`Builder`] and one [`Plan`] an agent; it makes its own authority, certificates and key in a
//! folder that goes with it. [`Client`] asks it as any HTTP client would, generated clients of gRPC over a [`Channel`], and [`House::connector`] as `adit` does. A
//! [`Link`] stands between an agent and the relay where a test wants to slow the way or cut it.
//!
//! A [`Site`] is the same of processes: the programs themselves, which can be killed. A [`Load`] asks it steadily.

mod grpc;
mod house;
mod https;
mod link;
mod load;
mod process;

pub use grpc::Channel;
pub use house::{Builder, Delays, House, Plan};
pub use https::{Answer, Body, Client, LIMIT, Version, full, pieces};
pub use link::Link;
pub use load::{Caller, Fate, Load, Sample};
pub use process::{DRAIN, Executables, MODEL, Ports, Program, Site, until};
