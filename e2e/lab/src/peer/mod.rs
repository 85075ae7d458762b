//! Ways of reaching a server behind a firewall, one file each: how its two programs are started, and nothing else.
//!
//! `catalogue` knows them all by name.

mod adit;
mod bore;
mod catalogue;
mod chisel;
mod direct;
mod rathole;
mod rusnel;
mod ssh;
mod wstunnel;

pub(crate) use catalogue::{NAMES, Wanted, find};
