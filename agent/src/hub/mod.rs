//! Models from a hub: what is published there becomes a folder that an agent serves.
//!
//! The walk is [`pull`]: the [`Hub`] describes a repository (commit, files, and of each file the hash that the hub itself
//! states), `settings` and the [`Catalogue`] say how its network wants pictures, `download` fetches the weights into a hidden
//! folder beside the models and goes on where it broke off, `checksum` holds them against the hash, and `publish` renames what
//! was tried into its place, so that a serving agent never sees half a version. [`Access`] is where and as whom.

mod access;
mod catalogue;
mod checksum;
mod client;
mod describe;
mod download;
mod failure;
mod publish;
mod pull;
mod settings;

pub use access::Access;
pub use catalogue::{Catalogue, Classes, Published};
pub use client::Hub;
pub use download::Progress;
pub use failure::PullError;
pub use pull::{Pulled, Source, Wanted, pull};
